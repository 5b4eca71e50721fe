//! Memory that connections lend themselves for as long as they have something to read or to write.
//!
//! Two kinds of it, both initialised once and then used over and over without being cleared:
//! * a thread's buffers of [`TURN`] bytes, for what is read and written in a turn;
//! * the process's larger ones, for messages that do not fit into those. They are lent before all of the message has
//!   come, so there is a bound for what is lent ([`MAX_LENT`]); beyond it a buffer grows with what arrives.

use std::cell::RefCell;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bytes of a thread's buffers: a turn reads and writes as much at once at most. They stay in a core's second cache.
pub(super) const TURN: usize = 64 << 10;

/// Buffers that a thread keeps: one to read, one to write, and as many for a turn within a turn.
const PER_THREAD: usize = 4;

/// Bytes of larger buffers that are kept for the process, while nobody uses them.
const MAX_KEPT: usize = 4 << 20;

/// Bytes of larger buffers that are lent at most.
const MAX_LENT: usize = 4 << 20;

thread_local! {
    static OF_THREAD: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// The larger ones.
struct Large {
    idle: Vec<Vec<u8>>,
    kept: usize,
    lent: usize,
}

static LARGE: Mutex<Large> = Mutex::new(Large { idle: Vec::new(), kept: 0, lent: 0 });

fn large() -> MutexGuard<'static, Large> {
    LARGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A buffer of [`TURN`] bytes. What is in it is left over from others.
pub(super) fn take() -> Vec<u8> {
    // While the thread ends there are none.
    let kept = OF_THREAD.try_with(|kept| kept.borrow_mut().pop()).ok().flatten();
    kept.unwrap_or_else(|| vec![0; TURN])
}

/// Gives back a buffer of any size, that was not [lent](borrow): what is not worth keeping is freed.
pub(super) fn give(buffer: Vec<u8>) {
    if buffer.len() == TURN {
        let _ = OF_THREAD.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.len() < PER_THREAD {
                kept.push(buffer);
            }
        });
    } else if buffer.len() > TURN {
        let mut large = large();
        if large.kept.saturating_add(buffer.len()) <= MAX_KEPT {
            large.kept += buffer.len();
            large.idle.push(buffer);
        }
    }
}

/// The largest buffer that nobody uses, if it has at least `len` bytes and may be lent.
pub(super) fn borrow(len: usize) -> Option<Vec<u8>> {
    let mut large = large();
    let lent = large.lent;
    let fits = |buffer: &Vec<u8>| buffer.len() >= len && lent.saturating_add(buffer.len()) <= MAX_LENT;
    let (at, _) = large.idle.iter().enumerate().filter(|(_, b)| fits(b)).max_by_key(|(_, b)| b.len())?;
    let buffer = large.idle.swap_remove(at);
    large.kept -= buffer.len();
    large.lent += buffer.len();
    Some(buffer)
}

/// What was lent stays with whoever has it.
pub(super) fn keep(buffer: &[u8]) {
    let mut large = large();
    large.lent = large.lent.saturating_sub(buffer.len());
}

/// Gives back what was lent.
pub(super) fn give_back(buffer: Vec<u8>) {
    keep(&buffer);
    give(buffer);
}
