//! Where a group goes whose release may not run any more.

use crate::digest::ReleaseId;

/// A release that a group was on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Past {
    /// The release.
    pub release: ReleaseId,
    /// When the whole group arrived on it: the greatest is the latest. None if it never did.
    pub settled: Option<i64>,
    /// Whether its evidence admits it to a rollout now.
    pub admitted: bool,
}

/// The latest of the releases that the whole group was on, other than this one, that may be launched now.
pub fn way_back(from: ReleaseId, past: &[Past]) -> Option<ReleaseId> {
    let good = past.iter().filter(|past| past.release != from && past.admitted);
    good.filter_map(|past| Some((past.settled?, past.release))).max().map(|(_, release)| release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_the_way_back_is_the_latest_release_with_good_evidence() {
        let id = |n: u8| ReleaseId(crate::Digest::of(&[n]));
        let past = |n: u8, settled: Option<i64>, admitted: bool| Past { release: id(n), settled, admitted };
        let all = [
            past(1, Some(1), true),
            past(2, Some(2), true),
            past(3, Some(3), false),
            past(4, Some(4), true),
            past(5, None, true),
        ];
        assert_eq!(way_back(id(4), &all), Some(id(2)));
        assert_eq!(way_back(id(3), &all), Some(id(4)));
        assert_eq!(way_back(id(4), &all[2..]), None);
    }
}
