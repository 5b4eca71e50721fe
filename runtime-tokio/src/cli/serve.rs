//! `longwire serve`

use super::Failure;
use super::limits::Limits;
use super::memory;
use super::output::{Output, Style, notice};
use longwire::gateway::limits::{self, Bytes};
use longwire::gateway::{CertificateFiles, CertificateWatcher, CredentialFiles, Credentials, Gateway};
use longwire::gateway::{GatewayConfig, JwtConfig, Origin, Watcher};
use longwire::hub::{Authorize, Hub, HubConfig, Open};
use longwire::net::rustls::ServerConfig;
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

    /// Speak TLS: the certificate, and behind it those that it is signed with (PEM)
    ///
    /// This file and the key are read again when they change.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,

    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Who may do what: a file of tokens, see below
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    token_file: Option<PathBuf>,

    /// Take JSON Web Tokens (HS256, RS256, ES256) that a key of this JWK Set has signed
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    jwt_keys: Option<PathBuf>,

    /// Who has to have issued them (`iss`)
    #[arg(long, value_name = "TEXT", requires = "jwt_keys")]
    jwt_issuer: Option<String>,

    /// For whom they have to be (`aud`); without it, tokens for somebody are refused
    #[arg(long, value_name = "TEXT", requires = "jwt_keys")]
    jwt_audience: Option<String>,

    /// Who is shut out: subjects and ids of tokens (`jti`), one on each line
    ///
    /// This file, the file of tokens and the keys are read again when they change: who is listed, or lost a token, is
    /// cut off within a second.
    #[arg(long, value_name = "FILE", conflicts_with = "insecure")]
    revoked: Option<PathBuf>,

    /// Let everybody do everything, whoever can reach it and by whatever name
    #[arg(long)]
    insecure: bool,

    /// An origin whose pages may use this gateway, such as https://example.org; may be repeated
    ///
    /// The gateway's own origin begins with http://, or https:// with --tls-cert. Behind a proxy that speaks TLS for it,
    /// list the public one.
    #[arg(long, value_name = "ORIGIN")]
    allow_origin: Vec<Origin>,

    /// Let pages of those origins send the browser's own credentials along, for a proxy that looks at them
    #[arg(long, requires = "allow_origin")]
    allow_credentials: bool,

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
  longwire serve --listen 0.0.0.0:443 --tls-cert chain.pem --tls-key key.pem --token-file tokens.toml
  longwire serve --listen 127.0.0.1:0 --history-age 5m --max-connections 100000
  longwire serve --log telemetry,history-bytes=16MiB --log audit

A token file:
  [[token]]
  secret = \"5f1d7e84a6c34e0b\"          # presented as `Authorization: Bearer ...`
  subject = \"dashboard\"                # for the logs
  subscribe = [\"fleet/**\"]             # patterns; none if absent
  publish = [\"fleet/7/*\"]
  logs = [\"default\", \"telemetry\"]    # or \"*\"; the default log if absent
  expires = 2027-01-01T00:00:00Z       # never if absent

The claims of a JSON Web Token (RFC 7519), of which `sub` and `exp` are needed:
  {\"sub\": \"device-7\", \"exp\": 1798761600, \"jti\": \"b2f1\",
   \"longwire\": {\"subscribe\": [\"fleet/7/**\"], \"publish\": [\"fleet/7/*\"]}}";

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let hub = args.limits.hub();
    let logs = args.limits.logs(&args.log).map_err(Failure::usage)?;
    let hub = HubConfig { deflate: !args.no_deflate, logs, policies: args.policies, ..hub };
    let gateway = GatewayConfig {
        allow_origins: args.allow_origin,
        allow_credentials: args.allow_credentials,
        ..args.limits.gateway()
    };
    let files = args.tls_cert.zip(args.tls_key);
    let files = files.map(|(certificate, key)| CertificateFiles { certificate, key });
    if args.print_config {
        return Ok(print_config(files.as_ref(), &gateway, &hub)?);
    }
    let tls = files.map(CertificateFiles::load).transpose().map_err(Failure::usage)?;
    let Args { token_file, jwt_keys, jwt_issuer: issuer, jwt_audience: audience, .. } = args;
    let access = match (token_file, jwt_keys) {
        (None, None) if args.revoked.is_some() => {
            return Err(Failure::usage(
                "--revoked needs --token-file or --jwt-keys: without them nobody is known",
            ));
        }
        (None, None) if args.insecure => Access::Everybody,
        (None, None) => Access::ThisMachine,
        (tokens, keys) => {
            let jwt = keys.map(|keys| (keys, JwtConfig { issuer, audience }));
            let files = CredentialFiles { tokens, jwt, revoked: args.revoked };
            let (credentials, watcher) = files.load().map_err(Failure::usage)?;
            Access::Credentials(credentials, Box::new(watcher))
        }
    };
    let server = Server::start(&args.listen, tls, access, gateway, hub).await?;
    server.announce()?;
    server.run().await;
    Ok(())
}

/// The limits as options that would set them, and as comments what they come to.
fn print_config(tls: Option<&CertificateFiles>, gateway: &GatewayConfig, hub: &HubConfig) -> io::Result<()> {
    let mut out = Output::new();
    let mut line = |style, text: String| {
        out.put(style, &text)?;
        out.end_line()
    };
    if let Some(CertificateFiles { certificate, key }) = tls {
        line(Style::Plain, format!("--tls-cert {}", certificate.display()))?;
        line(Style::Plain, format!("--tls-key {}", key.display()))?;
    }
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
    /// Whoever has a credential.
    Credentials(Arc<Credentials>, Box<Watcher>),
}

/// TLS of the gateway's own, and who sees to it that its certificate is the newest.
pub(crate) type Tls = (Arc<ServerConfig>, CertificateWatcher);

/// A gateway that listens, and is not stopped yet.
pub(crate) struct Server {
    gateway: Gateway,
    address: SocketAddr,
    scheme: &'static str,
    signals: Signals,
    serving: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts to listen. Whatever is wrong is said in one line.
    pub(crate) async fn start(
        listen: &str,
        tls: Option<Tls>,
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
        let (authorize, watcher): (Arc<dyn Authorize>, _) = match access {
            Access::ThisMachine | Access::Everybody => (Arc::new(Open), None),
            Access::Credentials(credentials, watcher) => (credentials, Some(watcher)),
        };
        let hub = Hub::start(hub, authorize)
            .map_err(|error| Failure::runtime(format_args!("cannot start: {error}")))?;
        if let Some(watcher) = watcher {
            tokio::spawn(watcher.run(Arc::downgrade(&hub)));
        }
        tokio::spawn(memory::give_back(Arc::downgrade(&hub)));
        let gateway = Gateway::new(hub, config);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let serving = tokio::spawn({
            let gateway = gateway.clone();
            async move {
                let Some((config, watcher)) = tls else { return gateway.serve(listener).await };
                tokio::spawn(watcher.run(Arc::downgrade(gateway.hub())));
                gateway.serve_tls(listener, config).await;
            }
        });
        Ok(Self { gateway, address, scheme, signals, serving })
    }

    /// Where it listens, as the first line on standard output: for people, and for programs that wait for it.
    pub(crate) fn announce(&self) -> io::Result<()> {
        let mut out = Output::new();
        out.put(Style::Plain, &format!("listening on {}://{}", self.scheme, self.address))?;
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
        format!("{}://{}", self.scheme, SocketAddr::new(ip, self.address.port()))
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

/// Connections that the kernel holds until they are accepted (Linux: at most net.core.somaxconn). When thousands come
/// back in a second, those that find no place wait for their kernel to try again, which takes a second and more.
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
