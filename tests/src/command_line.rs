//! The command line of a program that measures.

use std::env::Args;
use std::iter::Skip;

/// The options `--so` and `--so N` that are left to be read.
pub struct CommandLine {
    program: &'static str,
    help: &'static str,
    rest: Skip<Args>,
}

impl CommandLine {
    /// Those of this program, which says this of itself.
    pub fn new(program: &'static str, help: &'static str) -> Self {
        Self { program, help, rest: std::env::args().skip(1) }
    }

    /// The next one. `--help` is answered, and what cargo says to a bench is passed over.
    pub fn option(&mut self) -> Option<String> {
        let option = self.rest.find(|option| option != "--bench")?;
        if option == "--help" {
            print!("{}", self.help);
            std::process::exit(0);
        }
        Some(option)
    }

    /// The number behind an option.
    pub fn number(&mut self, option: &str) -> usize {
        let number = self.rest.next().and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| self.quit(&format!("{option} wants a number")))
    }

    /// Ends the program, because there is no such option.
    pub fn unknown(&self, option: &str) -> ! {
        self.quit(&format!("{option} is no option: see --help"))
    }

    fn quit(&self, why: &str) -> ! {
        eprintln!("{}: {why}", self.program);
        std::process::exit(2);
    }
}
