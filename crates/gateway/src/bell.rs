//! How the daemon hears at once that a request waits for a group that has no server.
//!
//! Every request that begins to wait on a route that holds it changes a number. Whoever asks with the number of the last answer is
//! answered as soon as there is another one. Which groups are waited for is looked up then: the number only wakes.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

/// The number, shared by all routes.
#[derive(Clone)]
pub struct Bell(Arc<watch::Sender<u64>>);

impl Default for Bell {
    /// Begins with a number that no other process gives.
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(u64::from(std::process::id()) << 32)))
    }
}

impl Bell {
    /// Somebody begins to wait.
    pub fn ring(&self) {
        self.0.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// The number, as soon as it is another than `after`; the same one after `limit`.
    pub async fn heard(&self, after: u64, limit: Duration) -> u64 {
        let mut listener = self.0.subscribe();
        let other = tokio::time::timeout(limit, listener.wait_for(|number| *number != after)).await;
        other.map_or(after, |number| number.map_or(after, |number| *number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_listener_hears_each_ring_once_and_one_that_came_before_it() {
        let bell = Bell::default();
        let long = Duration::from_secs(5);
        let first = bell.heard(0, long).await;
        assert_eq!(bell.heard(first, Duration::from_millis(10)).await, first, "nobody waits");
        bell.ring();
        let second = bell.heard(first, long).await;
        assert_ne!(second, first);
        let (third, ()) = tokio::join!(bell.heard(second, long), async {
            tokio::task::yield_now().await;
            bell.ring();
        });
        assert_ne!(third, second);
    }
}
