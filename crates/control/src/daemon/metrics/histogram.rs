//! Durations, counted in buckets.

use std::time::Duration;

/// Upper limits of the buckets, milliseconds: from a warm launch to a rollout of a large fleet.
const LIMITS_MS: [u64; 16] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000, 120_000, 600_000];

/// Durations, counted.
#[derive(Debug, Clone, Default)]
pub(super) struct Histogram {
    counts: [u64; LIMITS_MS.len()],
    count: u64,
    sum: Duration,
}

impl Histogram {
    pub(super) fn add(&mut self, duration: Duration) {
        let bucket = LIMITS_MS.iter().position(|limit| duration <= Duration::from_millis(*limit));
        if let Some(bucket) = bucket {
            self.counts[bucket] += 1;
        }
        self.count += 1;
        self.sum += duration;
    }

    /// Each limit in seconds, and how many were at most so long; the last has none.
    pub(super) fn buckets(&self) -> Vec<(String, u64)> {
        let mut below = 0;
        let limited = LIMITS_MS.iter().zip(self.counts).map(|(limit, count)| {
            below += count;
            ((*limit as f64 / 1e3).to_string(), below)
        });
        let mut buckets: Vec<_> = limited.collect();
        buckets.push(("+Inf".to_owned(), self.count));
        buckets
    }

    pub(super) fn sum(&self) -> f64 {
        self.sum.as_secs_f64()
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }
}
