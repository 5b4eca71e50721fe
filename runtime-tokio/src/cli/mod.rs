//! The command line.

mod connect;
mod demo;
mod limits;
mod memory;
mod output;
mod publish;
mod serve;
mod sub;

use clap::{Args, Parser, Subcommand};
use longwire::client::{self, Endpoint};
use longwire::net;
use longwire::net::rustls::ClientConfig;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Real-time data over connections that stay open: one log, one cursor, one URL, four transports.
#[derive(Parser)]
#[command(version, propagate_version = true, disable_help_subcommand = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  longwire demo                           see it work: a gateway, this machine, and a simulated fleet
  longwire serve                          serve a gateway
  longwire sub 'fleet/**'                 watch what a gateway on this machine has under fleet/
  longwire pub fleet/7/cpu 0.25           publish one value
  longwire connect wss://example.org/ws   talk to any WebSocket server

Each command has its own --help, with examples.";

#[derive(Subcommand)]
enum Command {
    Demo(demo::Args),
    Serve(Box<serve::Args>),
    Sub(sub::Args),
    Pub(publish::Args),
    Connect(connect::Args),
}

impl Command {
    async fn run(self) -> Result<(), Failure> {
        match self {
            Self::Demo(args) => demo::run(args).await,
            Self::Serve(args) => serve::run(*args).await,
            Self::Sub(args) => sub::run(args).await,
            Self::Pub(args) => publish::run(args).await,
            Self::Connect(args) => connect::run(args).await,
        }
    }
}

/// The gateway that a command talks to.
#[derive(Args)]
struct Gateway {
    /// Base URL of the gateway: http, https, ws or wss; with /v1/logs/NAME behind it, one of its other logs
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080", env = "LONGWIRE_URL")]
    url: String,

    /// Credential, sent as `Authorization: Bearer TOKEN`
    #[arg(long, value_name = "TOKEN", env = "LONGWIRE_TOKEN", hide_env_values = true)]
    token: Option<String>,

    #[command(flatten)]
    trust: Trust,
}

/// Whom a command trusts to be who they say.
#[derive(Args)]
struct Trust {
    /// Trust the certificate authorities in this file (PEM), and no others
    #[arg(long, value_name = "FILE", env = "LONGWIRE_CA")]
    ca: Option<PathBuf>,
}

impl Trust {
    /// `None`: those whom Mozilla trusts. An empty variable is one that is not set.
    fn config(&self) -> Result<Option<Arc<ClientConfig>>, Failure> {
        let Some(file) = self.ca.as_ref().filter(|file| !file.as_os_str().is_empty()) else {
            return Ok(None);
        };
        let config = net::client_config_of(file);
        let config =
            config.map_err(|error| Failure::usage(format_args!("`--ca {}`: {error}", file.display())))?;
        Ok(Some(Arc::new(config)))
    }
}

impl Gateway {
    fn endpoint(&self) -> Result<Endpoint, Failure> {
        let mut endpoint = Endpoint::new(&self.url)?;
        if let Some(trusted) = self.trust.config()? {
            endpoint = endpoint.tls(trusted);
        }
        // An empty variable is one that is not set.
        match self.token.as_deref() {
            None | Some("") => Ok(endpoint),
            Some(token) => Ok(endpoint.token(token)?),
        }
    }
}

/// Why a command ends early: in one line, and with which exit code.
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    /// Exit code 2: what was asked for cannot be done, whoever is asked.
    fn usage(message: impl fmt::Display) -> Self {
        Self { code: 2, message: message.to_string() }
    }

    /// With the line of the input that it is about.
    fn at_line(self, line: u64) -> Self {
        Self { message: format!("line {line}: {}", self.message), ..self }
    }

    /// Exit code 1: it went wrong.
    fn runtime(message: impl fmt::Display) -> Self {
        Self { code: 1, message: message.to_string() }
    }
}

impl From<client::Error> for Failure {
    fn from(error: client::Error) -> Self {
        use client::Error as E;
        let hint = match &error {
            E::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                " (is the gateway running? `--url` says where it is looked for)"
            }
            E::Refused(refusal) if refusal.code == "unauthorized" => {
                " (give a credential: `--token`, or LONGWIRE_TOKEN in the environment)"
            }
            _ => "",
        };
        let message = format!("{error}{hint}");
        match error {
            E::Url(_) | E::Query | E::Token | E::Header(_) | E::Name(..) | E::NoPattern | E::Data(_) => {
                Self::usage(message)
            }
            _ => Self::runtime(message),
        }
    }
}

/// Nobody reads our output any more, which is not an error (`longwire sub ... | head -1`).
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self { code: 0, message: String::new() },
            _ => Self::runtime(format_args!("cannot write: {error}")),
        }
    }
}

/// Help is printed as it is; a mistake in the arguments is told in one line.
fn explain(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind;
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // Nobody is there to be told that this failed.
        let _ = error.print();
    } else {
        let text = error.to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
        eprintln!("{} (--help says more)", lines.join(" "));
    }
    ExitCode::from(if error.use_stderr() { 2 } else { 0 })
}

pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return explain(&error),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(cli.command.run());
    // A thread that waits for standard input cannot be called back: do not wait for it.
    runtime.shutdown_background();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, message }) => {
            if !message.is_empty() {
                output::complain(&format!("error: {}", output::one_line(&message)));
            }
            ExitCode::from(code)
        }
    }
}
