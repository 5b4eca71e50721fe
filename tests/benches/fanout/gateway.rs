//! The gateway that is measured: `longwire serve` with or without TLS, what it costs, and what it says of itself.

use longwire::net::rustls::pki_types::ServerName;
use longwire::net::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use longwire_tests::longwire;
use longwire_tests::process::Program;
use rcgen::{CertificateParams, KeyPair};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;

pub(crate) struct Gateway {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
    /// Whom its clients trust.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

/// A blocking connection.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Gateway {
    pub(crate) fn start(shards: usize, tls: bool, log: &[&str]) -> Self {
        let shards = shards.to_string();
        let mut command = longwire();
        // Nobody answers a Ping but the prober, and the gateway's memory is asked for while all are open.
        command.args(["serve", "--listen", "127.0.0.1:0", "--shards", &shards, "--heartbeat", "1h"]);
        command.args(["--max-rate", "1000000000", "--max-topic-rate", "1000000000"]);
        command.args(["--max-handshakes", "20000", "--max-connections", "20000"]).args(log);
        let certificate = tls.then(Certificate::new);
        if let Some(Certificate { certificate, key, .. }) = &certificate {
            command.arg("--tls-cert").arg(certificate).arg("--tls-key").arg(key);
        }
        let program = Program::start(&mut command);
        let address = program.wait_for("line with the URL", |line| line.rsplit_once('/')?.1.parse().ok());
        Self { program, address, tls: certificate.map(|certificate| Arc::clone(&certificate.client)) }
    }

    /// Connects; a narrow one has little room for what it does not read.
    pub(crate) fn connect(&self, narrow: bool) -> io::Result<Stream> {
        let tcp = match narrow {
            true => {
                use rustix::net::{AddressFamily, SocketType, connect, socket, sockopt};
                let socket = socket(AddressFamily::INET, SocketType::STREAM, None)?;
                sockopt::set_socket_recv_buffer_size(&socket, 4 << 10)?;
                connect(&socket, &self.address)?;
                TcpStream::from(socket)
            }
            false => TcpStream::connect(self.address)?,
        };
        tcp.set_nodelay(true)?;
        let Some(config) = &self.tls else { return Ok(Stream::Plain(tcp)) };
        let name = ServerName::from(self.address.ip());
        let client = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(StreamOwned::new(client, tcp))))
    }

    /// The sum of one of its metrics over the logs, now.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let mut stream = self.connect(false).expect("it accepts");
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let name = format!("longwire_{name}");
        let values = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let series = series.split_once('{').map_or(series, |(series, _)| series);
            (series == name).then(|| value.parse::<u64>().ok()).flatten()
        });
        values.reduce(|sum, value| sum + value).expect("the gateway has this metric")
    }

    /// Seconds of CPU time that it has used.
    pub(crate) fn cpu(&self) -> f64 {
        cpu_of(&format!("/proc/{}/stat", self.program.pid()))
    }
}

/// Seconds of CPU time that this program has used.
pub(crate) fn own_cpu() -> f64 {
    cpu_of("/proc/self/stat")
}

fn cpu_of(path: &str) -> f64 {
    let stat = std::fs::read_to_string(path).expect("Linux says it");
    let (_, fields) = stat.rsplit_once(") ").expect("the name is in parentheses");
    let ticks: Vec<u64> = fields.split(' ').skip(11).take(2).map(|n| n.parse().expect("a number")).collect();
    ticks.iter().sum::<u64>() as f64 / rustix::param::clock_ticks_per_second() as f64
}

impl Stream {
    pub(crate) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => &tls.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.read(space),
            Self::Tls(tls) => tls.read(space),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
        }
    }
}

/// A certificate of its own, in files for as long as the gateway starts.
struct Certificate {
    certificate: PathBuf,
    key: PathBuf,
    client: Arc<ClientConfig>,
}

impl Certificate {
    fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate");
        let mut roots = RootCertStore::empty();
        roots.add(certificate.der().clone()).expect("it is one");
        let file = |kind| std::env::temp_dir().join(format!("longwire-fanout-{}-{kind}", std::process::id()));
        let files = Self {
            certificate: file("certificate.pem"),
            key: file("key.pem"),
            client: Arc::new(longwire::net::client_config(roots)),
        };
        std::fs::write(&files.certificate, certificate.pem()).expect("a file");
        std::fs::write(&files.key, key.serialize_pem()).expect("a file");
        files
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = (std::fs::remove_file(&self.certificate), std::fs::remove_file(&self.key));
    }
}
