//! Chance that a pure function may take: the same for the same words, and spread evenly.

use crate::digest::Digest;

/// A number from 0 to below 1.
pub(super) fn share(words: &[&str]) -> f64 {
    let digest = Digest::of(words.join("\0").as_bytes());
    let bits = digest.as_bytes()[..8].iter().fold(0u64, |bits, byte| bits << 8 | u64::from(*byte));
    (bits >> 11) as f64 / (1u64 << 53) as f64
}
