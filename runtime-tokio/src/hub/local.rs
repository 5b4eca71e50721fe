//! What one thread does for a hub: a shard of each log, side by side.

use super::Shared;
use super::shard::{Scratch, Shard};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io, thread};
use tokio::runtime::{Builder, LocalOptions};

/// How often the logs drop what is too old.
const SWEEP: Duration = Duration::from_secs(1);

/// The part of a [hub](super::Hub::local) that serves its connections, for the thread that [runs](Self::run) it.
///
/// When it is dropped, or the future that runs it, its connections are closed and the hub takes no others; what is
/// published then is stored, and delivered to nobody.
pub struct LocalShard {
    id: usize,
    logs: Vec<Arc<Shared>>,
}

impl LocalShard {
    pub(super) fn new(id: usize, logs: Vec<Arc<Shared>>) -> Self {
        Self { id, logs }
    }

    /// Serves the hub's connections until the hub is [closed](super::Hub::close), and the last of them has gone: about
    /// a second later at most.
    ///
    /// It needs a runtime of tokio with its sockets and its clock. It shares the thread with whatever else runs there:
    /// it gives way after a few dozen deliveries, and a task that blocks the thread holds up the connections. In a task
    /// of its own it does not hold up who publishes: spawn it with [`spawn_local`](tokio::task::spawn_local), within a
    /// [`LocalRuntime`](tokio::runtime::LocalRuntime) best, where waking it takes no system call.
    pub async fn run(self) {
        let scratch = Scratch::new();
        let shard = |log| Shard::new(self.id, Arc::clone(log), Rc::clone(&scratch)).run();
        let all = self.logs.iter().map(shard).collect::<FuturesUnordered<_>>();
        // The first thread does it for all.
        let swept = if self.id == 0 { self.logs.clone() } else { Vec::new() };
        tokio::select! {
            () = all.collect::<()>() => {}
            () = sweep(swept) => {}
        }
    }
}

impl fmt::Debug for LocalShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalShard").field(&self.id).finish()
    }
}

impl Drop for LocalShard {
    /// However it ends, nobody is left waiting for it.
    fn drop(&mut self) {
        for log in &self.logs {
            if let Some(handle) = log.shards.get(self.id) {
                handle.close();
            }
            log.relieved();
        }
    }
}

/// Starts a thread that runs it.
pub(super) fn spawn(shard: LocalShard) -> io::Result<thread::JoinHandle<()>> {
    let name = format!("longwire-shard-{}", shard.id);
    // What cannot be sent is made on the thread; whether it could be made is asked here.
    let (made, is_made) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(name).spawn(move || {
        let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
            Ok(runtime) => runtime,
            Err(error) => return drop(made.send(error)),
        };
        drop(made);
        // As a task of the runtime: what wakes it on its own thread then takes no system call.
        let run = runtime.spawn_local(shard.run());
        // A shard that panicked has said so on its way down.
        let _ = runtime.block_on(run);
    })?;
    is_made.recv().map_or(Ok(thread), Err)
}

/// Drops what is too old from the logs, also while nobody publishes or reads.
async fn sweep(logs: Vec<Arc<Shared>>) {
    if logs.is_empty() {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(SWEEP).await;
        // In turn: one of which there is always more to drop does not keep the others from it.
        while logs.iter().filter(|shared| shared.log.sweep()).count() > 0 {
            tokio::task::yield_now().await;
        }
    }
}
