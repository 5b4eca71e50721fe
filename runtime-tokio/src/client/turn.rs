//! What a client waits for.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// What came first.
pub(super) enum Turn<T> {
    /// A command: something was written into the channel, or its other end is gone.
    Command,
    /// The work is done.
    Done(T),
    /// The time has come.
    Due,
}

/// Waits for a command, for `work`, and for a moment: in this order, if several are there.
pub(super) async fn turn<C, T>(
    commands: &mut watch::Receiver<C>,
    due: Option<Instant>,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> Turn<T> {
    tokio::select! {
        biased;
        _ = commands.changed() => return Turn::Command,
        done = work.as_mut() => return Turn::Done(done),
        () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
    }
    // An application that stayed away comes back late, and what has come meanwhile is only known when the runtime had its turn.
    tokio::task::yield_now().await;
    poll_fn(|cx| {
        Poll::Ready(match work.as_mut().poll(cx) {
            Poll::Ready(done) => Turn::Done(done),
            Poll::Pending => Turn::Due,
        })
    })
    .await
}
