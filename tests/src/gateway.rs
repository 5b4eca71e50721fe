//! A gateway of its own for each test.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use rustls::ClientConfig;
use serde_json::Value;

use crate::http::{self, Response};
use crate::longwire;
use crate::process::Program;
use crate::tls::{self, Authority, Credentials};

/// `longwire serve` on a free port of loopback. Killed when dropped.
pub struct Gateway {
    /// The process.
    pub program: Program,
    /// Where it listens.
    pub address: SocketAddr,
    /// How to talk to it, if it speaks TLS.
    tls: Option<Arc<ClientConfig>>,
}

impl Gateway {
    /// Starts one with its defaults.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts one with these options of `longwire serve`.
    pub fn start_with(options: &[&str]) -> Self {
        Self::listening(Ipv4Addr::LOCALHOST, options)
    }

    /// Starts one on another address of this machine.
    pub fn listening(address: Ipv4Addr, options: &[&str]) -> Self {
        let listen = format!("{address}:0");
        Self::of(Program::start(longwire().args(["serve", "--listen", &listen]).args(options)))
    }

    /// Starts one that speaks TLS, with a good certificate of this authority for [`tls::NAME`].
    pub fn secure(authority: &Authority, options: &[&str]) -> Self {
        Self::secure_with(&authority.gateway(), Some(authority), options)
    }

    /// Starts one with this certificate. Requests here trust `authority`; without one there can be none.
    pub fn secure_with(files: &Credentials, authority: Option<&Authority>, options: &[&str]) -> Self {
        let gateway = Self::start_with(&[&files.options(), options].concat());
        Self { tls: authority.map(Authority::client), ..gateway }
    }

    /// Starts `longwire demo` with these options.
    pub fn demo(options: &[&str]) -> Self {
        Self::of(Program::start(longwire().args(["demo", "--listen", "127.0.0.1:0"]).args(options)))
    }

    fn of(program: Program) -> Self {
        let address = program.wait_for("line with the URL", |line| {
            let (_, rest) = line.split_once("http://").or_else(|| line.split_once("https://"))?;
            rest.split(|c: char| !(c.is_ascii_digit() || c == '.' || c == ':')).next()?.parse().ok()
        });
        Self { program, address, tls: None }
    }

    /// Its base URL, without a slash at the end.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// One request on a connection of its own.
    pub fn request(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        match &self.tls {
            Some(tls) => tls::request(tls, self.address, method, target, headers, body),
            None => http::request(self.address, method, target, headers, body),
        }
    }

    /// `GET` without more.
    pub fn get(&self, target: &str) -> Response {
        self.request("GET", target, &[], b"")
    }

    /// The value of a metric now, by its name without `longwire_` and `_total`: with its labels, or without, as a sum.
    pub fn metric(&self, name: &str) -> f64 {
        let response = self.get("/metrics");
        let text = String::from_utf8_lossy(&response.body);
        let value = |line: &str| {
            let (metric, value) = line.rsplit_once(' ')?;
            let metric = metric.strip_prefix("longwire_")?;
            let base = metric.split('{').next()?;
            let found = metric == name || base == name || base.strip_suffix("_total") == Some(name);
            found.then(|| value.parse::<f64>().expect("a number"))
        };
        let sum = text.lines().filter_map(value).reduce(|sum, value| sum + value);
        sum.unwrap_or_else(|| panic!("no metric {name} in:\n{text}"))
    }

    /// Publishes by POST and returns the event's cursor.
    pub fn publish(&self, topic: &str, data: &Value) -> String {
        let target = format!("/v1/topics/{topic}");
        let json = [("Content-Type", "application/json")];
        let response = self.request("POST", &target, &json, data.to_string().as_bytes());
        assert_eq!(response.status, 200, "{response:?}");
        response.json()["at"].as_str().expect("the answer has `at`").to_owned()
    }
}

/// A gateway with a file of tokens, which is removed with it.
pub struct Guarded {
    /// The gateway.
    pub gateway: Gateway,
    file: PathBuf,
}

impl Guarded {
    /// Starts one; `name` is the test's own.
    pub fn start(name: &str, tokens: &str) -> Self {
        Self::start_with(name, tokens, &[])
    }

    /// The same with further options.
    pub fn start_with(name: &str, tokens: &str, options: &[&str]) -> Self {
        let file = std::env::temp_dir().join(format!("longwire-{}-{name}.toml", std::process::id()));
        std::fs::write(&file, tokens).expect("a file");
        let path = file.to_str().expect("UTF-8");
        let gateway = Gateway::start_with(&[&["--token-file", path], options].concat());
        Self { gateway, file }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The time in so many seconds, as a file of tokens has it (RFC 3339).
pub fn in_seconds(seconds: u32) -> String {
    let mut date = Command::new("date");
    date.args(["-u", "-d", &format!("+{seconds} seconds"), "+%Y-%m-%dT%H:%M:%SZ"]);
    let output = date.output().expect("date").stdout;
    String::from_utf8(output).expect("ASCII").trim().to_owned()
}
