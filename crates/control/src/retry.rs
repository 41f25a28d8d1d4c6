//! Trying again until something holds or its time is over.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use kiln_model::duration;
use tokio::time::{sleep, timeout};

/// Longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// What was seen may change: try again.
    Again(String),
    /// It cannot hold any more: give up at once.
    Final(String),
}

impl From<String> for Miss {
    fn from(message: String) -> Self {
        Self::Again(message)
    }
}

/// How trying ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// None when it held; else what the last attempt saw.
    pub failure: Option<String>,
    /// Time from the first attempt to the end.
    pub took: Duration,
}

/// Tries until an attempt holds or `within` is over. Pauses are 1, 2, 4 … 50 ms. An attempt is told how much time is left, and
/// is cut off when it is over.
pub async fn until<F>(within: Duration, mut attempt: impl FnMut(Duration) -> F) -> Tried
where
    F: Future<Output = Result<(), Miss>>,
{
    let start = Instant::now();
    let mut pause = Duration::from_millis(1);
    let mut seen = None;
    loop {
        let left = within.saturating_sub(start.elapsed());
        match timeout(left, attempt(left)).await {
            Ok(Ok(())) => return Tried { failure: None, took: start.elapsed() },
            Ok(Err(Miss::Final(message))) => return Tried { failure: Some(message), took: start.elapsed() },
            Ok(Err(Miss::Again(message))) => seen = Some(message),
            Err(_) => seen = Some(hung(seen)),
        }
        if start.elapsed() + pause >= within {
            let message = format!("{} (tried for {})", seen.unwrap_or_default(), duration::format(within));
            return Tried { failure: Some(message), took: start.elapsed() };
        }
        sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

fn hung(before: Option<String>) -> String {
    match before {
        Some(message) => format!("{message}; the last attempt did not end"),
        None => "it did not end".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, future::pending};

    use super::*;

    #[tokio::test]
    async fn unit_ends_at_the_first_attempt_that_holds() {
        let count = Cell::new(0);
        let tried = until(Duration::from_secs(5), |_| {
            count.set(count.get() + 1);
            let holds = count.get() == 4;
            async move { if holds { Ok(()) } else { Err(Miss::Again("not yet".to_owned())) } }
        })
        .await;
        assert_eq!((tried.failure, count.get()), (None, 4));
        assert!(tried.took < Duration::from_millis(500), "{:?}", tried.took);
    }

    #[tokio::test]
    async fn unit_a_hanging_attempt_ends_at_the_limit_and_says_so() {
        let tried = until(Duration::from_millis(50), |_| pending()).await;
        assert_eq!(tried.failure.as_deref(), Some("it did not end (tried for 50ms)"));
        assert!(tried.took < Duration::from_millis(500));
    }

    #[tokio::test]
    async fn unit_the_last_thing_seen_is_kept() {
        let again = |_| async { Err(Miss::Again("status 500".to_owned())) };
        let tried = until(Duration::from_millis(20), again).await;
        assert_eq!(tried.failure.as_deref(), Some("status 500 (tried for 20ms)"));
    }

    #[tokio::test]
    async fn unit_what_cannot_change_is_not_tried_again() {
        let given_up = |_| async { Err(Miss::Final("killed".to_owned())) };
        let tried = until(Duration::from_secs(60), given_up).await;
        assert_eq!(tried.failure.as_deref(), Some("killed"));
        assert!(tried.took < Duration::from_secs(1));
    }
}
