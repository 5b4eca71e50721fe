//! The gateway as a process that dies and comes back on its port, and who publishes to it.

use super::readers::TOPIC;
use longwire_tests::longwire;
use longwire_tests::process::Program;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// `longwire serve`. Killed when dropped.
pub(crate) struct Gateway {
    pub(crate) program: Program,
    pub(crate) address: SocketAddr,
    options: Vec<String>,
}

impl Gateway {
    /// Starts one on a free port, or on this one.
    pub(crate) fn start(address: Option<SocketAddr>, options: Vec<String>) -> Self {
        let listen = address.map_or("127.0.0.1:0".to_owned(), |address| address.to_string());
        let program = Program::start(longwire().args(["serve", "--listen", &listen]).args(&options));
        let address = program.wait_for("line with the URL", |line| line.rsplit_once("//")?.1.parse().ok());
        Self { program, address, options }
    }

    /// Another one in its place.
    pub(crate) fn restart(self) -> Self {
        let Self { program, address, options } = self;
        drop(program);
        Self::start(Some(address), options)
    }

    /// Processor time that it has used.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.program.pid())).expect("it runs");
        // After the name in parentheses: state, ... utime and stime as the 12th and 13th (proc_pid_stat(5)), in ticks,
        // of which Linux has 100 a second.
        let (_, rest) = stat.rsplit_once(") ").expect("Linux says it");
        let ticks: u64 = rest.split(' ').skip(11).take(2).map(|n| n.parse::<u64>().expect("a number")).sum();
        Duration::from_millis(ticks * 10)
    }
}

/// Publishes numbers, one after the other.
pub(crate) struct Numbers {
    last: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Numbers {
    /// Starts at 1, with so many a second.
    pub(crate) fn start(gateway: SocketAddr, rate: f64) -> Self {
        let (last, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let task = tokio::spawn({
            let (last, stop) = (Arc::clone(&last), Arc::clone(&stop));
            async move {
                let mut interval = tokio::time::interval(Duration::from_secs_f64(1.0 / rate));
                let mut number = 1;
                while !stop.load(Ordering::SeqCst) {
                    interval.tick().await;
                    while !publish(gateway, number).await {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    last.store(number, Ordering::SeqCst);
                    number += 1;
                }
            }
        });
        Self { last, stop, task }
    }

    /// Ends, and says the last number that was taken.
    pub(crate) async fn stop(self) -> u64 {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("it does not panic");
        self.last.load(Ordering::SeqCst)
    }
}

/// Whether it was taken, now or by an earlier attempt whose answer was lost: then it is in the state.
async fn publish(gateway: SocketAddr, number: u64) -> bool {
    let body = number.to_string();
    let post = format!(
        "POST /v1/topics/{TOPIC} HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let get = format!(
        "GET /v1/stream?topic={TOPIC}&since=latest HTTP/1.1\r\nHost: {gateway}\r\nConnection: close\r\n\r\n"
    );
    let state = ask(gateway, &get).await;
    match state {
        Ok(state) if state.contains(&format!("\"data\":{number}}}")) => true,
        Ok(state) if state.starts_with("HTTP/1.1 200 ") => {
            ask(gateway, &post).await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
        }
        _ => false,
    }
}

/// The answer to a request, as text.
async fn ask(gateway: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(gateway).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}
