//! Memory that is given back to the system when many connections have gone.
//!
//! The hub frees what a connection had, but glibc keeps what lies below something that is still used: after ten thousand
//! connections nearly all of it. That is a matter of the program, which chooses its allocator, and not of the library.

use longwire::hub::Hub;
use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often the connections are counted.
const LOOK: Duration = Duration::from_secs(1);
/// So few connections are no matter of memory.
const FEW: u64 = 256;

/// Gives memory back whenever three of four connections have gone, until the hub has.
pub(crate) async fn give_back(hub: Weak<Hub>) {
    let mut ebb = Ebb::default();
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(hub) = hub.upgrade() else { return };
        let connections = hub.logs().map(|log| {
            let counters = log.counters();
            counters.websockets.load(Ordering::Relaxed) + counters.sse.load(Ordering::Relaxed)
        });
        if ebb.is_low(connections.sum()) {
            // Milliseconds, in which whoever allocates waits on any thread: a thread of its own would help nobody.
            trim();
        }
    }
}

/// Notices when most have gone, and when those that were left have.
#[derive(Default)]
struct Ebb {
    peak: u64,
}

impl Ebb {
    fn is_low(&mut self, connections: u64) -> bool {
        let low = self.peak >= FEW && (connections <= self.peak / 4);
        self.peak = if low { connections } else { self.peak.max(connections) };
        low
    }
}

fn trim() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) may be called at any time from any thread, and takes only what is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ebb_is_noticed_once_and_again_when_the_rest_goes() {
        let mut ebb = Ebb::default();
        let low: Vec<bool> = [0, 100, 10, 4000, 1001, 1000, 999, 250, 200, 0, 0, 300, 0]
            .into_iter()
            .map(|connections| ebb.is_low(connections))
            .collect();
        let at: Vec<usize> = low.iter().enumerate().filter(|(_, low)| **low).map(|(at, _)| at).collect();
        assert_eq!(at, [5, 7, 12]);
    }

    #[test]
    fn what_is_freed_can_be_given_back_while_others_allocate() {
        let others = std::thread::spawn(|| (0..1000).map(|n| vec![1u8; n]).map(|v| v.len()).sum::<usize>());
        drop((0..1000).map(|n| vec![0u8; n]).collect::<Vec<_>>());
        trim();
        assert_eq!(others.join().unwrap(), 499_500);
    }
}
