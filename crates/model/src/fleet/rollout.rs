//! `rollout`: how a group moves from one release to another.

use std::time::Duration;

use super::{RolloutPolicy, Strategy};
use crate::text::{Keys, Place, Table, Value};

/// The keys of `rollout`.
pub(crate) const KEYS: Keys = Keys {
    of: "`rollout`",
    valid: &[
        "strategy",
        "max_surge",
        "max_unavailable",
        "min_healthy_time",
        "progress_deadline",
        "auto_revert",
        "drain",
    ],
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Rolling,
    BlueGreen,
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(86_400);

/// Reads the policy of a group of so many servers, if the number is known, with the place that says so.
pub(super) fn read(value: &Value<'_>, count: Option<(u32, Place<'_>)>) -> Option<RolloutPolicy> {
    let table = value.table(KEYS, "{ max_surge = 1 }")?;
    let default = RolloutPolicy::default();
    let strategy = strategy(&table, count);
    let healthy = table.get("min_healthy_time");
    let deadline = table.get("progress_deadline");
    let time = |value: &Option<Value<'_>>, fallback, least, most, example| {
        value.as_ref().map_or(Some(fallback), |v| v.duration(least..=most, example))
    };
    let min_healthy_time = time(&healthy, default.min_healthy_time, Duration::ZERO, HOUR, "\"5s\"");
    let least = Duration::from_secs(1);
    let progress_deadline = time(&deadline, default.progress_deadline, least, DAY, "\"2m\"");
    let drain = time(&table.get("drain"), default.drain, Duration::ZERO, HOUR, "\"30s\"");
    let auto_revert = table.get("auto_revert").map_or(Some(default.auto_revert), |v| v.boolean());
    if let (Some(time), Some(limit)) = (min_healthy_time, progress_deadline) {
        time_must_fit(&table, time, limit);
    }
    Some(RolloutPolicy {
        strategy: strategy?,
        min_healthy_time: min_healthy_time?,
        progress_deadline: progress_deadline?,
        auto_revert: auto_revert?,
        drain: drain?,
    })
}

fn time_must_fit(table: &Table<'_>, healthy: Duration, deadline: Duration) {
    if healthy < deadline {
        return;
    }
    let message = "`min_healthy_time` is not shorter than `progress_deadline`: every rollout would fail";
    let help = "shorten the one or lengthen the other (`progress_deadline` is `2m` where nothing is said)";
    match (table.get("min_healthy_time"), table.get("progress_deadline")) {
        (Some(here), Some(there)) => here.place.contradicts::<()>(there.place, message, "the deadline is here", help),
        (Some(only), None) | (None, Some(only)) => only.place.report::<()>(message, help),
        (None, None) => None,
    };
}

fn strategy(table: &Table<'_>, count: Option<(u32, Place<'_>)>) -> Option<Strategy> {
    let ways = [("rolling", Way::Rolling), ("blue-green", Way::BlueGreen)];
    let chosen = table.get("strategy");
    let way = chosen.as_ref().map_or(Some(Way::Rolling), |v| v.word(&ways))?;
    if way == Way::BlueGreen {
        let place = chosen.map(|v| v.place)?;
        only_when_rolling(table, place);
        return Some(Strategy::BlueGreen);
    }
    let max_surge = table.get("max_surge").map_or(Some(1), |v| v.integer(0..=10_000, "1"));
    let max_unavailable = table.get("max_unavailable").map_or(Some(0), |v| v.integer(0..=10_000, "0"));
    let (max_surge, max_unavailable) = (max_surge?, max_unavailable?);
    room_to_move(table, max_surge, max_unavailable);
    not_more_than_all(table, max_unavailable, count);
    Some(Strategy::Rolling { max_surge, max_unavailable })
}

fn only_when_rolling(table: &Table<'_>, strategy: Place<'_>) {
    for key in ["max_surge", "max_unavailable"] {
        if let Some(value) = table.get(key) {
            value.place.contradicts::<()>(
                strategy,
                format!("`{key}` belongs to `rolling`: `blue-green` launches a whole second set"),
                "the strategy is here",
                format!("remove `{key}`, or write `strategy = \"rolling\"`"),
            );
        }
    }
}

fn room_to_move(table: &Table<'_>, max_surge: u32, max_unavailable: u32) {
    let Some(surge) = table.get("max_surge").filter(|_| max_surge == 0 && max_unavailable == 0) else { return };
    let message = "with `max_surge = 0` and `max_unavailable = 0` no server could ever be replaced";
    let help = "write `max_surge = 1` (one more for a while) or `max_unavailable = 1` (one fewer for a while)";
    match table.get("max_unavailable") {
        Some(other) => other.place.contradicts::<()>(surge.place, message, "no more servers are allowed", help),
        None => surge.place.report::<()>(format!("{message} (`max_unavailable` is 0 where nothing is said)"), help),
    };
}

fn not_more_than_all(table: &Table<'_>, max_unavailable: u32, count: Option<(u32, Place<'_>)>) {
    let (Some(value), Some((count, there))) = (table.get("max_unavailable"), count) else { return };
    if count > 0 && max_unavailable > count {
        value.place.contradicts::<()>(
            there,
            format!("`max_unavailable` is {max_unavailable}, and the group has {count} servers"),
            "the group's size is here",
            format!("write at most {count}"),
        );
    }
}
