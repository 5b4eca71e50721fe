//! The program `longwire`: see `longwire --help`.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
