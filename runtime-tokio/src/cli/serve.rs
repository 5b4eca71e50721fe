//! `longwire serve`

use super::Failure;
use super::limits::Limits;
use super::output::{Output, Style, notice};
use longwire::gateway::limits::{self, Bytes};
use longwire::gateway::{Gateway, GatewayConfig, Origin, TokenFile};
use longwire::hub::{Authorize, Hub, HubConfig, Open};
use longwire_core::log::{LogName, Policy};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// Serve a gateway
///
/// Prints where it listens as the first line on standard output. On Ctrl-C or SIGTERM it tells its clients to come back
/// later, and ends; a second Ctrl-C ends it at once. RUST_LOG says what it logs to standard error
/// (RUST_LOG=longwire=debug: every connection).
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Where to listen; port 0 takes any that is free
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    listen: String,

    /// Who may do what: a file of tokens, see below
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    token_file: Option<PathBuf>,

    /// Let everybody do everything, whoever can reach it and by whatever name
    #[arg(long)]
    insecure: bool,

    /// An origin whose pages may use this gateway, such as https://example.org; may be repeated
    ///
    /// The gateway's own origin begins with http://. Behind a proxy that speaks TLS, list the public one.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<Origin>,

    /// Compress nothing on WebSockets: saves processor time, costs bytes (permessage-deflate, from 512 bytes on)
    #[arg(long)]
    no_deflate: bool,

    /// A log beside the default one, at /v1/logs/NAME/..., with limits of its own, such as
    /// telemetry,history-bytes=16MiB; may be repeated
    ///
    /// Any of the limits below from --max-topic-table on, without their dashes; the others are the default log's. Each
    /// log has its limits for itself: together they may take the sum.
    #[arg(long, value_name = "NAME[,LIMIT=VALUE]...")]
    log: Vec<String>,

    /// Print every limit with its value and how many bytes all logs may take, and end
    #[arg(long)]
    print_config: bool,

    /// What readers may choose to happen when they are too far behind; the first is for those that do not choose
    #[arg(long, value_name = "POLICIES", value_delimiter = ',', default_values_t = Policy::OF_READERS, value_parser = a_policy)]
    policies: Vec<Policy>,

    #[command(flatten)]
    limits: Limits,
}

/// One that readers can have.
fn a_policy(text: &str) -> Result<Policy, &'static str> {
    let policy = text.parse().ok().filter(|policy| Policy::OF_READERS.contains(policy));
    policy.ok_or("some of drop_oldest, conflate, disconnect, with commas")
}

const EXAMPLES: &str = "\
Examples:
  longwire serve                                             for this machine only, open to all who are on it
  longwire serve --listen 0.0.0.0:8080 --token-file tokens.toml
  longwire serve --listen 127.0.0.1:0 --history-age 5m --max-connections 100000
  longwire serve --log telemetry,history-bytes=16MiB --log audit

A token file:
  [[token]]
  secret = \"5f1d7e84a6c34e0b\"          # presented as `Authorization: Bearer ...`
  subject = \"dashboard\"                # for the logs
  subscribe = [\"fleet/**\"]             # patterns; none if absent
  publish = [\"fleet/7/*\"]
  logs = [\"default\", \"telemetry\"]    # or \"*\"; the default log if absent
  expires = 2027-01-01T00:00:00Z       # never if absent";

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let hub = args.limits.hub();
    let logs = args.limits.logs(&args.log).map_err(Failure::usage)?;
    let hub = HubConfig { deflate: !args.no_deflate, logs, policies: args.policies, ..hub };
    let gateway = GatewayConfig { allow_origins: args.allow_origin, ..args.limits.gateway() };
    if args.print_config {
        return Ok(print_config(&gateway, &hub)?);
    }
    let access = match args.token_file {
        Some(path) => Access::Tokens(TokenFile::read(path).map_err(Failure::usage)?),
        None if args.insecure => Access::Everybody,
        None => Access::ThisMachine,
    };
    let server = Server::start(&args.listen, access, gateway, hub).await?;
    server.announce()?;
    server.run().await;
    Ok(())
}

/// The limits as options that would set them, and as comments what they come to.
fn print_config(gateway: &GatewayConfig, hub: &HubConfig) -> io::Result<()> {
    let mut out = Output::new();
    let mut line = |style, text: String| {
        out.put(style, &text)?;
        out.end_line()
    };
    for limit in limits::of(gateway, hub) {
        line(Style::Plain, format!("--{} {}", limit.flag, limit.default))?;
    }
    for (name, log) in &hub.logs {
        let own = limits::of_log(log).into_iter().map(|limit| format!(",{}={}", limit.flag, limit.default));
        line(Style::Plain, format!("--log {name}{}", own.collect::<String>()))?;
    }
    let named = hub.logs.iter().map(|(name, log)| (name.as_str(), log));
    let logs = [(LogName::DEFAULT.as_str(), &hub.log)].into_iter().chain(named);
    let mut sum = 0_usize;
    for (name, log) in logs {
        sum = sum.saturating_add(log.max_bytes());
        line(Style::Dim, format!("# events of log {name}: at most {}", Bytes(log.max_bytes())))?;
    }
    line(Style::Dim, format!("# events of all logs: at most {}", Bytes(sum)))?;
    out.flush()
}

/// Who is let in.
pub(crate) enum Access {
    /// Whoever is on this machine.
    ThisMachine,
    /// Whoever can reach it.
    Everybody,
    /// Whoever has a token.
    Tokens(TokenFile),
}

/// A gateway that listens, and is not stopped yet.
pub(crate) struct Server {
    gateway: Gateway,
    address: SocketAddr,
    signals: Signals,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts to listen. Whatever is wrong is said in one line.
    pub(crate) async fn start(
        listen: &str,
        access: Access,
        mut config: GatewayConfig,
        hub: HubConfig,
    ) -> Result<Self, Failure> {
        let wrong = |error: io::Error| Failure::usage(format_args!("cannot listen on {listen}: {error}"));
        let no_address = |error: io::Error| {
            Failure::usage(format_args!(
                "cannot listen on {listen}, for it is no HOST:PORT such as 127.0.0.1:8080 ({error})"
            ))
        };
        let addresses: Vec<_> = tokio::net::lookup_host(listen).await.map_err(no_address)?.collect();
        if matches!(access, Access::ThisMachine)
            && !addresses.iter().all(|address| address.ip().is_loopback())
        {
            return Err(Failure::usage(format_args!(
                "{listen} can be reached from other machines: say who may come in with `serve --token-file FILE`, or let \
                 everybody in with --insecure"
            )));
        }
        config.local_names_only = matches!(access, Access::ThisMachine);
        // Before anything that a signal should end in good order.
        let signals =
            Signals::listen().map_err(|error| Failure::runtime(format_args!("no signals: {error}")))?;
        let listener = TcpListener::bind(&*addresses).await.map_err(|error| match error.kind() {
            io::ErrorKind::AddrInUse => Failure::usage(format_args!(
                "cannot listen on {listen}: the address is in use (--listen 127.0.0.1:0 takes any free port)"
            )),
            _ => wrong(error),
        })?;
        // A second call sets a new length; where it does not, the old one is good enough.
        let _ = socket2::SockRef::from(&listener).listen(BACKLOG);
        let address = listener.local_addr().map_err(wrong)?;
        log_to_stderr();
        make_room_for(config.max_connections);
        let authorize: Arc<dyn Authorize> = match access {
            Access::ThisMachine | Access::Everybody => Arc::new(Open),
            Access::Tokens(tokens) => Arc::new(tokens),
        };
        let hub = Hub::start(hub, authorize)
            .map_err(|error| Failure::runtime(format_args!("cannot start: {error}")))?;
        let gateway = Gateway::new(hub, config);
        let serving = tokio::spawn({
            let gateway = gateway.clone();
            async move { gateway.serve(listener).await }
        });
        Ok(Self { gateway, address, signals, serving })
    }

    /// Where it listens, as the first line on standard output: for people, and for programs that wait for it.
    pub(crate) fn announce(&self) -> io::Result<()> {
        let mut out = Output::new();
        out.put(Style::Plain, &format!("listening on http://{}", self.address))?;
        out.end_line()?;
        out.flush()
    }

    /// Where a client on this machine finds it.
    pub(crate) fn url(&self) -> String {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        format!("http://{}", SocketAddr::new(ip, self.address.port()))
    }

    /// Serves until a signal comes, then ends in good order.
    pub(crate) async fn run(mut self) {
        self.signals.next().await;
        tokio::select! {
            () = self.gateway.drain() => {}
            () = self.signals.next() => std::process::exit(130),
        }
        // It has ended, since the gateway drains.
        let _ = self.serving.await;
    }
}

/// What ends the program.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg(unix)]
    fn listen() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    #[cfg(unix)]
    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }

    #[cfg(not(unix))]
    fn listen() -> io::Result<Self> {
        Ok(Self {})
    }

    #[cfg(not(unix))]
    async fn next(&mut self) {
        // Without a signal handler there is nothing to wait for.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // Somebody may have set another one up already.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).try_init();
}

/// Connections that the kernel holds until they are accepted (Linux: at most net.core.somaxconn). When thousands come back
/// in a second, those that find no place wait for their kernel to try again, which takes a second and more.
const BACKLOG: i32 = 4096;

/// Files that are open beside the connections: listeners, the runtimes, the shards.
const OTHER_FILES: u64 = 64;

/// Each connection is an open file, and systems allow few by default.
fn make_room_for(max_connections: u32) {
    // Where there is no such limit there is nothing to raise.
    let Ok(limit) = rlimit::increase_nofile_limit(u64::MAX) else { return };
    if limit < u64::from(max_connections) + OTHER_FILES {
        notice(&format!(
            "this process may open {limit} files only, which is not enough for --max-connections \
             {max_connections}: raise the hard limit (ulimit -Hn), or lower --max-connections"
        ));
    }
}
