//! Files that are read again when they change.

use crate::hub::Hub;
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Weak;
use std::time::{Duration, SystemTime};
use tokio::time::MissedTickBehavior;

/// Largest file that is read.
const MAX_FILE: u64 = 16 << 20;
/// A file that was written more recently than this may be written again without its time showing it.
const SETTLED: Duration = Duration::from_secs(2);

/// Looks once in that time for as long as the hub is there, where nobody waits for files to be read, and puts what was
/// found into force. A dropped future stops looking.
pub(super) async fn watch<W, T>(
    mut watcher: W,
    every: Duration,
    hub: Weak<Hub>,
    look: fn(&mut W) -> T,
    take: impl Fn(&W, T, &Hub),
) where
    W: Send + 'static,
    T: Send + 'static,
{
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let looked = tokio::task::spawn_blocking(move || {
            let found = look(&mut watcher);
            (watcher, found)
        });
        let Ok((back, found)) = looked.await else { return };
        watcher = back;
        let Some(hub) = hub.upgrade() else { return };
        take(&watcher, found, &hub);
    }
}

/// What tells a file from another that is in its place later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    len: u64,
    modified: SystemTime,
    #[cfg(unix)]
    file: (u64, u64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> io::Result<Self> {
        Ok(Self {
            len: metadata.len(),
            modified: metadata.modified()?,
            #[cfg(unix)]
            file: {
                use std::os::unix::fs::MetadataExt as _;
                (metadata.dev(), metadata.ino())
            },
        })
    }

    /// Whether another change would show.
    pub(super) fn is_settled(&self) -> bool {
        self.modified.elapsed().is_ok_and(|age| age >= SETTLED)
    }
}

pub(super) fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let len = fs::File::open(path)?.take(MAX_FILE + 1).read_to_string(&mut text)?;
    if len as u64 > MAX_FILE {
        return Err(io::Error::other("larger than 16 MiB"));
    }
    Ok(text)
}
