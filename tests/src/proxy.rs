//! Proxies between a client and a gateway (`tests/proxies`), each in five ways.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::Program;
use crate::{PATIENCE, workspace};

/// A program that people put in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// nginx.
    Nginx,
    /// HAProxy.
    Haproxy,
}

impl Kind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Nginx, Self::Haproxy];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Nginx => "nginx.conf",
            Self::Haproxy => "haproxy.cfg",
        }
    }

    fn command(self, config: &std::path::Path) -> Command {
        let mut command = match self {
            Self::Nginx => Command::new("nginx"),
            Self::Haproxy => Command::new("haproxy"),
        };
        match self {
            Self::Nginx => command.arg("-c").arg(config),
            Self::Haproxy => command.arg("-db").arg("-f").arg(config),
        };
        // Where Debian puts them, and where not everybody looks.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/usr/local/sbin"));
        command
    }
}

/// What it does to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Passes everything on.
    Pass,
    /// Refuses Upgrade.
    Refuse,
    /// Refuses Upgrade, and passes an answer on when it is whole.
    Buffer,
    /// Cuts what is idle for 5 s.
    Idle,
    /// Refuses Upgrade, and cuts what is idle for 5 s.
    IdleRefuse,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Pass, Self::Refuse, Self::Buffer, Self::Idle, Self::IdleRefuse];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pass => "passes everything on",
            Self::Refuse => "refuses Upgrade",
            Self::Buffer => "refuses Upgrade, buffers",
            Self::Idle => "cuts after 5 s of silence",
            Self::IdleRefuse => "refuses Upgrade, cuts after 5 s of silence",
        }
    }

    fn mark(self) -> &'static str {
        match self {
            Self::Pass => "@PASS@",
            Self::Refuse => "@REFUSE@",
            Self::Buffer => "@BUFFER@",
            Self::Idle => "@IDLE@",
            Self::IdleRefuse => "@IDLE_REFUSE@",
        }
    }
}

/// A running proxy. Killed when dropped.
pub struct Proxy {
    kind: Kind,
    program: Option<Program>,
    ports: Vec<(Way, u16)>,
    folder: PathBuf,
}

impl Proxy {
    /// Starts one in front of `gateway`.
    pub fn start(kind: Kind, gateway: SocketAddr) -> Self {
        // All at once, so that they differ; free again when the proxy starts.
        let free = Way::ALL.map(|way| (way, TcpListener::bind("127.0.0.1:0").expect("a free port")));
        let ports = free
            .iter()
            .map(|(way, free)| (*way, free.local_addr().expect("bound").port()))
            .collect::<Vec<_>>();
        drop(free);
        let (_, first) = ports.first().expect("five of them");
        let folder = workspace().join(format!("tests/out/proxies/{first}"));
        std::fs::create_dir_all(&folder).expect("a folder in tests/out");
        let template = workspace().join("tests/proxies").join(kind.config());
        let mut config = std::fs::read_to_string(template).expect("the configuration");
        for (way, port) in &ports {
            config = config.replace(way.mark(), &port.to_string());
        }
        config = config.replace("@UPSTREAM@", &gateway.to_string());
        config = config.replace("@DIR@", folder.to_str().expect("a path of text"));
        let file = folder.join(kind.config());
        std::fs::write(&file, config).expect("the configuration is written");
        let mut proxy = Self { kind, program: None, ports, folder };
        proxy.start_again();
        proxy
    }

    /// Kills it: what goes through it is cut, and who comes finds nobody.
    pub fn kill(&mut self) {
        self.program = None;
    }

    /// Starts it where it was.
    pub fn start_again(&mut self) {
        let file = self.folder.join(self.kind.config());
        let program = Program::start(&mut self.kind.command(&file));
        for way in Way::ALL {
            self.wait_until_it_listens(way, &program);
        }
        self.program = Some(program);
    }

    fn wait_until_it_listens(&self, way: Way, program: &Program) {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", self.port(way))).is_err() {
            assert!(Instant::now() < deadline, "the proxy does not listen:\n{}", program.said());
            // The interval of a look.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn port(&self, way: Way) -> u16 {
        let (_, port) = self.ports.iter().find(|(other, _)| *other == way).expect("all of them are there");
        *port
    }

    /// The gateway's URL through it.
    pub fn url(&self, way: Way) -> String {
        format!("http://127.0.0.1:{}", self.port(way))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
        // What is left of it is small.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
