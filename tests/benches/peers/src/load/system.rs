//! What the system says of processes: CPU time, and what TCP sent.

use super::Result;
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::fs::{read_dir, read_to_string};
use std::time::{Duration, Instant};

/// The counters at one moment.
pub(super) struct Usage {
    at: Instant,
    /// CPU time of all threads of the server, from the scheduler: exact, but not split.
    server: Duration,
    /// Its clock ticks in user space and in the kernel.
    user: u64,
    kernel: u64,
    load: Duration,
    /// Segments with data that TCP has sent on this machine, not counting those sent again.
    segments: u64,
}

impl Usage {
    pub(super) fn now(pids: &[u32]) -> Result<Self> {
        let mut usage = Self {
            at: Instant::now(),
            server: Duration::ZERO,
            user: 0,
            kernel: 0,
            load: own_cpu(),
            segments: segments()?,
        };
        for pid in pids {
            for thread in read_dir(format!("/proc/{pid}/task"))? {
                let text = read_to_string(thread?.path().join("schedstat"))?;
                usage.server += Duration::from_nanos(number(text.split(' ').next())?);
            }
            let text = read_to_string(format!("/proc/{pid}/stat"))?;
            // The name of the program, which may contain anything, ends with the last parenthesis.
            let fields: Vec<_> = text.rsplit(')').next().unwrap_or("").split_whitespace().collect();
            usage.user += number(fields.get(11).copied())?;
            usage.kernel += number(fields.get(12).copied())?;
        }
        Ok(usage)
    }

    /// What was used until `end`, for so many messages. `own` is what of the segments was not the server's.
    pub(super) fn until(&self, end: &Self, messages: u64, own: u64) -> Result<Value> {
        if messages == 0 {
            return Err("not one message in the time that counts".into());
        }
        let wall = end.at - self.at;
        let cpu = end.server - self.server;
        let ticks = (end.user - self.user, end.kernel - self.kernel);
        let user = ticks.0 as f64 / (ticks.0 + ticks.1).max(1) as f64;
        let each = |time: Duration| time.as_secs_f64() * 1e6 / messages as f64;
        Ok(json!({
            "messages": messages,
            "per_second": messages as f64 / wall.as_secs_f64(),
            "cpu_us": each(cpu),
            "user_us": each(cpu) * user,
            "server_share": cpu.as_secs_f64() / wall.as_secs_f64(),
            "load_share": (end.load - self.load).as_secs_f64() / wall.as_secs_f64(),
            "sends": (end.segments - self.segments).saturating_sub(own) as f64 / messages as f64,
        }))
    }
}

fn own_cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// `TCPOrigDataSent` of this network namespace.
fn segments() -> Result<u64> {
    let text = read_to_string("/proc/net/netstat")?;
    let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let value = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "TCPOrigDataSent");
    number(value.map(|(_, value)| value))
}

fn number(text: Option<&str>) -> Result<u64> {
    Ok(text.unwrap_or("").trim().parse().map_err(|_| "a number was expected in /proc")?)
}
