//! How long a gateway may be silent.

use super::Error;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// The patience with a gateway that says nothing. It wears off only while somebody listens, whether in one future or in
/// many that are dropped: an application that stays away cannot know what it would have heard.
#[derive(Debug)]
pub(super) struct Silence {
    limit: Duration,
    left: Duration,
}

impl Silence {
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, left: limit }
    }

    /// Listens: waits for `work`, which is ready when something was heard.
    pub(super) async fn bound<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Error> {
        let limit = self.limit;
        let listening = Listening { silence: self, since: Instant::now() };
        let heard = timeout(listening.silence.left, work).await.map_err(|_| Error::Silence(limit))?;
        drop(listening);
        self.left = limit;
        Ok(heard)
    }
}

struct Listening<'s> {
    silence: &'s mut Silence,
    since: Instant,
}

impl Drop for Listening<'_> {
    fn drop(&mut self) {
        self.silence.left = self.silence.left.saturating_sub(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;

    #[tokio::test(start_paused = true)]
    async fn patience_wears_off_while_somebody_listens() {
        let mut silence = Silence::new(Duration::from_secs(30));
        // Half a second at a time, and something else for a minute in between.
        for _ in 0..59 {
            let _ = timeout(Duration::from_millis(500), silence.bound(pending::<()>())).await.unwrap_err();
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        let start = Instant::now();
        assert!(matches!(silence.bound(pending::<()>()).await, Err(Error::Silence(_))));
        assert_eq!(start.elapsed().as_millis().next_multiple_of(10), 500);
        // Whatever is heard renews it, also when it is there already.
        assert_eq!(silence.bound(async { 1 }).await.unwrap(), 1);
        let _ = timeout(Duration::from_secs(29), silence.bound(pending::<()>())).await.unwrap_err();
        silence.bound(tokio::time::sleep(Duration::from_millis(900))).await.unwrap();
        let _ = timeout(Duration::from_secs(29), silence.bound(pending::<()>())).await.unwrap_err();
    }
}
