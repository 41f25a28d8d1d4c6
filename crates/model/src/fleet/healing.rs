//! `healing`: how much of a group is replaced by itself before a person has to look.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text::{Keys, Value};

/// The keys of `healing`.
pub(crate) const KEYS: Keys = Keys { of: "`healing`", valid: &["max_down", "within", "always"] };

const LONGEST: Duration = Duration::from_secs(3600);

/// When healing stops: so many servers down say more about the host than about the servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HealingPolicy {
    /// Percent of the group that may go down ...
    pub max_down: u32,
    /// ... within this time and be healed.
    #[serde(with = "crate::duration")]
    pub within: Duration,
    /// So many are healed always, however small the group.
    pub always: u32,
}

impl Default for HealingPolicy {
    fn default() -> Self {
        Self { max_down: 20, within: Duration::from_secs(600), always: 5 }
    }
}

impl HealingPolicy {
    /// How many servers of a group of this size are healed within the time.
    pub fn limit(&self, count: u32) -> u32 {
        let share = u64::from(count).saturating_mul(u64::from(self.max_down)).div_ceil(100);
        self.always.max(u32::try_from(share).unwrap_or(u32::MAX))
    }
}

/// Reads the policy of a group.
pub(super) fn read(value: &Value<'_>) -> Option<HealingPolicy> {
    let table = value.table(KEYS, "{ max_down = 20, within = \"10m\", always = 5 }")?;
    let default = HealingPolicy::default();
    let max_down = table.get("max_down").map_or(Some(default.max_down), |v| v.integer(0..=100, "20"));
    let times = Duration::from_secs(1)..=LONGEST;
    let within = table.get("within").map_or(Some(default.within), |v| v.duration(times, "\"10m\""));
    let always = table.get("always").map_or(Some(default.always), |v| v.integer(0..=10_000, "5"));
    Some(HealingPolicy { max_down: max_down?, within: within?, always: always? })
}
