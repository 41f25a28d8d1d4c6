//! How long servers take to answer: from the moment at which one was chosen to the head of its answer, counted in buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Upper limits of the buckets, microseconds; what took longer is in the last one.
pub const LIMITS_US: [u64; 14] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000, 30_000_000,
];

/// Counts that workers add to.
#[derive(Default)]
pub(crate) struct Latencies {
    counts: [AtomicU64; LIMITS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Latencies {
    pub(crate) fn add(&self, took: Duration) {
        let took = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = LIMITS_US.partition_point(|limit| *limit < took);
        self.counts[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(took, Relaxed);
    }

    pub(crate) fn now(&self) -> Latency {
        Latency {
            counts: self.counts.iter().map(|count| count.load(Relaxed)).collect(),
            sum_us: self.sum_us.load(Relaxed),
        }
    }
}

/// Answers of a server since the gateway's start, by how long they took.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// One for each of [`LIMITS_US`], and one for what took longer.
    pub counts: Vec<u64>,
    /// All of them together, microseconds.
    pub sum_us: u64,
}

impl Latency {
    /// How many answers there were.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// What came since an earlier look; all of it where the counts began anew.
    pub fn since(&self, earlier: &Self) -> Self {
        if earlier.count() > self.count() || earlier.counts.len() != self.counts.len() {
            return self.clone();
        }
        let counts = self.counts.iter().zip(&earlier.counts).map(|(now, then)| now.saturating_sub(*then));
        Self { counts: counts.collect(), sum_us: self.sum_us.saturating_sub(earlier.sum_us) }
    }

    /// Adds the counts of another.
    pub fn add(&mut self, other: &Self) {
        self.counts.resize(self.counts.len().max(other.counts.len()), 0);
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum_us += other.sum_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_latencies_are_counted_in_their_bucket_and_begin_anew_with_a_new_gateway() {
        let latencies = Latencies::default();
        [250, 251, 40_000_000].iter().for_each(|us| latencies.add(Duration::from_micros(*us)));
        let first = latencies.now();
        assert_eq!((first.counts[0], first.counts[1], first.counts[14]), (1, 1, 1));
        latencies.add(Duration::from_micros(1));
        let delta = latencies.now().since(&first);
        assert_eq!((delta.count(), delta.sum_us), (1, 1));
        assert_eq!(first.since(&latencies.now()), first, "fewer than before: another gateway");
        let mut sum = Latency::default();
        sum.add(&first);
        sum.add(&delta);
        assert_eq!(sum, latencies.now());
    }
}
