//! `loss`: how much may go with a server that somebody has replaced or removed, without being told that it may.

use serde::{Deserialize, Serialize};

use crate::{
    size::ByteSize,
    text::{Keys, Value},
};

/// The keys of `loss`.
pub(crate) const KEYS: Keys = Keys { of: "`loss`", valid: &["logs", "data"] };

const MOST_LINES: i64 = 1_000_000_000;

/// What may be lost with each server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossPolicy {
    /// Log lines that the collector has not acknowledged.
    pub logs: u64,
    /// Bytes in writable paths that are no volumes.
    pub data: ByteSize,
}

impl Default for LossPolicy {
    fn default() -> Self {
        Self { logs: 0, data: ByteSize::mib(64) }
    }
}

/// Reads the policy of a group.
pub(super) fn read(value: &Value<'_>) -> Option<LossPolicy> {
    let table = value.table(KEYS, "{ logs = 0, data = \"64MiB\" }")?;
    let default = LossPolicy::default();
    let logs = table.get("logs").map_or(Some(default.logs), |v| v.integer(0..=MOST_LINES, "0"));
    let sizes = ByteSize::bytes(0)..=ByteSize::bytes(1 << 50);
    let data = table.get("data").map_or(Some(default.data), |v| v.size(sizes, "\"64MiB\""));
    Some(LossPolicy { logs: logs?, data: data? })
}
