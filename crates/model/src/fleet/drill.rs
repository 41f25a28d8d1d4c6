//! `drill`: what a recovery drill destroys, how often, and what the fleet expects of it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    loss::about,
    size::ByteSize,
    text::{Keys, Value},
};

/// The keys of `drill`.
pub(crate) const KEYS: Keys = Keys {
    of: "`drill`",
    valid: &["every", "servers", "share", "gateway", "daemon", "ready_within", "failed", "lost"],
};

const EXAMPLE: &str = "{ every = \"1d\", servers = 1, ready_within = \"200ms\", failed = 0 }";
const MOST_FAILED: i64 = 1_000_000_000;

/// Servers that are destroyed on purpose, to see how the group recovers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrillPolicy {
    /// So often, in a change window; only by hand if none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration::option")]
    pub every: Option<Duration>,
    /// How many servers at once.
    pub toll: Toll,
    /// So often the gateway's process, which every group needs; only by hand if none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration::option")]
    pub gateway: Option<Duration>,
    /// So often the daemon's process, where something starts it again; only by hand if none.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration::option")]
    pub daemon: Option<Duration>,
    /// What is expected.
    pub objectives: Objectives,
}

/// How many servers of a group a drill destroys at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Toll {
    /// So many.
    Servers(u32),
    /// Percent of the group, at least one server.
    Share(u32),
}

/// What a fleet expects of a group that servers are taken from. What is not named is only measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Objectives {
    /// The last replacement is ready so long after the kill.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "crate::duration::option")]
    pub ready_within: Option<Duration>,
    /// At most so many requests fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<u64>,
    /// At most so many bytes outside volumes go with all servers of the drill together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost: Option<ByteSize>,
}

/// What was measured.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// From the kill to the moment the last replacement was ready; none if it never was.
    pub ready: Option<Duration>,
    /// Requests that failed; none where nobody could count them.
    pub failed: Option<u64>,
    /// Bytes outside volumes that went; none where nobody could look.
    pub lost: Option<u64>,
}

/// An objective that was not met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Ready later than wanted.
    Late {
        /// When.
        ready: Duration,
        /// When it was wanted.
        within: Duration,
    },
    /// Never ready while somebody waited.
    NotReady,
    /// More requests failed than may.
    Failed {
        /// How many.
        failed: u64,
        /// How many may.
        most: u64,
    },
    /// Nobody could count the requests.
    NotCounted,
    /// More bytes went than may.
    Lost {
        /// How many.
        lost: u64,
        /// How many may.
        most: ByteSize,
    },
    /// Nobody could look what went.
    NotSeen,
}

impl Default for Toll {
    fn default() -> Self {
        Self::Servers(1)
    }
}

impl Toll {
    /// How many servers of a group of this size.
    pub fn of(self, count: u32) -> u32 {
        match self {
            Self::Servers(servers) => servers,
            Self::Share(percent) => {
                let share = u64::from(count).saturating_mul(u64::from(percent)).div_ceil(100);
                u32::try_from(share).unwrap_or(u32::MAX).max(1)
            }
        }
    }
}

impl Objectives {
    /// Those that were not met. A group that did not recover has met none, whatever was named.
    pub fn missed(&self, figures: &Figures) -> Vec<Missed> {
        let ready = match (figures.ready, self.ready_within) {
            (None, _) => Some(Missed::NotReady),
            (Some(ready), Some(within)) if ready > within => Some(Missed::Late { ready, within }),
            _ => None,
        };
        let failed = self.failed.and_then(|most| match figures.failed {
            None => Some(Missed::NotCounted),
            Some(failed) => (failed > most).then_some(Missed::Failed { failed, most }),
        });
        let lost = self.lost.and_then(|most| match figures.lost {
            None => Some(Missed::NotSeen),
            Some(lost) => (lost > most.as_bytes()).then_some(Missed::Lost { lost, most }),
        });
        [ready, failed, lost].into_iter().flatten().collect()
    }
}

impl fmt::Display for Missed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: &Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);
        match self {
            Self::Late { ready, within } => {
                write!(f, "ready after {}, {} are wanted", ms(ready), crate::duration::format(*within))
            }
            Self::NotReady => write!(f, "it did not recover while the drill waited"),
            Self::Failed { failed, most } => write!(f, "{failed} requests failed, at most {most} may"),
            Self::NotCounted => write!(f, "nobody could count the requests that failed"),
            Self::Lost { lost, most } => write!(f, "{} were lost, at most {most} may", about(*lost)),
            Self::NotSeen => write!(f, "nobody could see what was lost"),
        }
    }
}

/// Reads the drill of a group.
pub(super) fn read(value: &Value<'_>) -> Option<DrillPolicy> {
    let table = value.table(KEYS, EXAMPLE)?;
    let often = |key| {
        let times = Duration::from_secs(60)..=Duration::from_secs(3660 * 86_400);
        table.get(key).map_or(Some(None), |v| v.duration(times, "\"1d\"").map(Some))
    };
    let (every, gateway, daemon) = (often("every"), often("gateway"), often("daemon"));
    let servers = table.get("servers").map_or(Some(None), |v| v.integer(1..=10_000, "1").map(Some));
    let share = table.get("share").map_or(Some(None), |v| v.integer(1..=100, "10").map(Some));
    let times = Duration::from_millis(1)..=Duration::from_secs(3600);
    let ready_within = table.get("ready_within").map_or(Some(None), |v| v.duration(times, "\"200ms\"").map(Some));
    let failed = table.get("failed").map_or(Some(None), |v| v.integer(0..=MOST_FAILED, "0").map(Some));
    let sizes = ByteSize::bytes(0)..=ByteSize::bytes(1 << 50);
    let lost = table.get("lost").map_or(Some(None), |v| v.size(sizes, "\"1MiB\"").map(Some));
    if let (Some(servers), Some(share)) = (table.get("servers"), table.get("share")) {
        return share.place.contradicts(
            servers.place,
            "a drill takes `servers` or a `share`, and here are both",
            "so many servers",
            "keep one of them",
        );
    }
    let toll = match (servers?, share?) {
        (Some(servers), _) => Toll::Servers(servers),
        (None, Some(share)) => Toll::Share(share),
        (None, None) => Toll::default(),
    };
    let objectives = Objectives { ready_within: ready_within?, failed: failed?, lost: lost? };
    Some(DrillPolicy { every: every?, toll, gateway: gateway?, daemon: daemon?, objectives })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    #[test]
    fn unit_a_share_is_at_least_one_server() {
        let of = |toll: Toll, counts: [u32; 4]| counts.map(|count| toll.of(count));
        assert_eq!(of(Toll::Share(10), [1, 10, 11, 1000]), [1, 1, 2, 100]);
        assert_eq!(of(Toll::Servers(2), [1, 2, 3, 10_000]), [2; 4]);
        assert_eq!(Toll::default().of(7), 1);
    }

    #[test]
    fn unit_objectives_are_met_or_named_and_what_is_not_known_is_not_met() {
        let objectives =
            Objectives { ready_within: Some(MS(200)), failed: Some(0), lost: Some(ByteSize::bytes(1 << 20)) };
        let good = Figures { ready: Some(MS(200)), failed: Some(0), lost: Some(1 << 20) };
        assert_eq!(objectives.missed(&good), []);
        let bad = Figures { ready: Some(MS(201)), failed: Some(3), lost: Some((1 << 20) + 1) };
        let said: Vec<String> = objectives.missed(&bad).iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "ready after 201.0 ms, 200ms are wanted",
                "3 requests failed, at most 0 may",
                "1.0 MiB were lost, at most 1MiB may"
            ]
        );
        let unknown = Figures::default();
        assert_eq!(objectives.missed(&unknown), [Missed::NotReady, Missed::NotCounted, Missed::NotSeen]);
        assert_eq!(Objectives::default().missed(&unknown), [Missed::NotReady], "to recover is always wanted");
        assert_eq!(Objectives::default().missed(&bad), []);
    }
}
