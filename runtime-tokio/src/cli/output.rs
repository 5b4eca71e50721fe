//! Writing to standard output and standard error: colours only on a terminal, and nothing that commands one.

use std::borrow::Cow;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};

/// How something is shown on a terminal.
#[derive(Clone, Copy)]
pub(crate) enum Style {
    Plain,
    Dim,
    Topic,
    Notice,
    Error,
}

impl Style {
    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "\x1b[2m",
            Self::Topic => "\x1b[36m",
            Self::Notice => "\x1b[33m",
            Self::Error => "\x1b[31m",
        }
    }
}

/// Standard output. A reader that went away is an error of kind `BrokenPipe`, which ends the program quietly.
pub(crate) struct Output {
    out: BufWriter<Stdout>,
    colours: bool,
}

impl Output {
    pub(crate) fn new() -> Self {
        let out = io::stdout();
        Self { colours: out.is_terminal() && wants_colours(), out: BufWriter::new(out) }
    }

    /// Writes a text in a style. It is for people: what would command a terminal is replaced.
    pub(crate) fn put(&mut self, style: Style, text: &str) -> io::Result<()> {
        let text = printable(text);
        match style.code() {
            "" => self.out.write_all(text.as_bytes()),
            code if self.colours => write!(self.out, "{code}{text}\x1b[0m"),
            _ => self.out.write_all(text.as_bytes()),
        }
    }

    /// Writes bytes as they are: for programs.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)
    }

    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        self.out.write_all(b"\n")
    }

    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Tells people something, on standard error.
pub(crate) fn notice(text: &str) {
    complain_in(Style::Notice, &format!("longwire: {}", one_line(text)));
}

/// Says what went wrong, on standard error.
pub(crate) fn complain(text: &str) {
    complain_in(Style::Error, text);
}

fn complain_in(style: Style, text: &str) {
    let mut err = io::stderr().lock();
    // There is nowhere left to complain about standard error.
    let _ = match err.is_terminal() && wants_colours() {
        true => writeln!(err, "{}{text}\x1b[0m", style.code()),
        false => writeln!(err, "{text}"),
    };
}

/// <https://no-color.org>
fn wants_colours() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// The text in one line, without what commands a terminal.
pub(crate) fn one_line(text: &str) -> String {
    printable(&text.replace(['\r', '\n'], " ")).into_owned()
}

/// The text with every control character replaced, and what turns the direction of writing: it may come from anybody.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let commands = |c: char| {
        c.is_control()
            || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if text.contains(commands) { Cow::Owned(text.replace(commands, "\u{fffd}")) } else { Cow::Borrowed(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_commands_a_terminal() {
        assert_eq!(printable("a\u{1b}[2J\u{9b}31mé\u{202e}"), "a\u{fffd}[2J\u{fffd}31mé\u{fffd}");
        assert_eq!(one_line("a\r\nb\nc\u{7}"), "a  b c\u{fffd}");
        assert!(matches!(printable("plain"), Cow::Borrowed(_)));
    }
}
