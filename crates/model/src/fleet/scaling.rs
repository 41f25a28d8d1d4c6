//! `count`: how many servers a group has, as a number or as limits between which it follows its load.

use std::{fmt, time::Duration};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Window, ZoneName, text::MAX_COUNT, window::time_zone};
use crate::text::{Keys, Table, Value};

/// The keys of a `count` that is no number.
pub(crate) const KEYS: Keys =
    Keys { of: "`count`", valid: &["min", "max", "target", "scale_out", "scale_in", "schedule", "time_zone"] };
/// The keys of `target`.
pub(crate) const TARGET: Keys = Keys { of: "`target`", valid: &["requests_per_second", "connections"] };
/// The keys of `scale_out` and `scale_in`.
pub(crate) const PACE: Keys = Keys { of: "`scale_out` or `scale_in`", valid: &["wait", "step"] };
/// The keys of an entry of `schedule`.
pub(crate) const SCHEDULE: Keys = Keys { of: "an entry of `schedule`", valid: &["during", "min"] };

const EXAMPLE: &str = "{ min = 2, max = 10, target = { requests_per_second = 200 } }";
const TARGET_EXAMPLE: &str = "{ requests_per_second = 200 }";
const SCHEDULE_EXAMPLE: &str = "[{ during = \"mon-fri 08:00-18:00\", min = 6 }]";

/// A group whose number of servers follows its load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Never fewer.
    pub min: u32,
    /// Never more.
    pub max: u32,
    /// What each server is to carry.
    pub target: Target,
    /// How fast it grows.
    pub scale_out: Pace,
    /// How fast it shrinks.
    pub scale_in: Pace,
    /// Never fewer at certain times.
    pub schedule: Vec<Floor>,
    /// The clock and the calendar of the schedule.
    pub time_zone: ZoneName,
}

/// The load that one server is to carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What is counted.
    pub of: Measure,
    /// Thousandths of it.
    pub each_milli: u64,
}

/// What the load of a group is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Requests that the gateway sends to a server each second.
    RequestsPerSecond,
    /// Requests under way, or connections, where a server is published as TCP.
    Connections,
}

/// How fast a group changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// For growing, so long after the last change; for shrinking, so long with less load all the time.
    #[serde(with = "crate::duration")]
    pub wait: Duration,
    /// At most so many servers at once.
    pub step: u32,
}

/// Never fewer servers while a window is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Floor {
    /// When.
    pub during: Window,
    /// Never fewer.
    pub min: u32,
}

impl Target {
    /// What each server is to carry.
    pub fn each(self) -> f64 {
        self.each_milli as f64 / 1000.0
    }
    /// What is counted, in words.
    pub fn unit(self) -> &'static str {
        match self.of {
            Measure::RequestsPerSecond => "requests/s",
            Measure::Connections => "requests under way",
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.each(), self.unit())
    }
}

impl Scaling {
    /// The fewest servers at this time.
    pub fn floor(&self, now: Timestamp) -> u32 {
        let now = self.time_zone.zone().to_datetime(now);
        let open = self.schedule.iter().filter(|floor| floor.during.holds(now)).map(|floor| floor.min);
        open.fold(self.min, u32::max).min(self.max)
    }
}

/// Reads a `count`: with how many servers a group begins, and how their number follows its load, if it does.
pub(super) fn read(value: &Value<'_>) -> Option<(u32, Option<Scaling>)> {
    if !value.is_table() {
        return value.integer(0..=MAX_COUNT, "3").map(|count| (count, None));
    }
    let table = value.table(KEYS, EXAMPLE)?;
    let (min, max) = (number(&table, "min"), number(&table, "max"));
    let target = table.required("target", &format!("target = {TARGET_EXAMPLE}")).and_then(|v| target(&v));
    let scale_out = pace(&table, "scale_out", Pace { wait: Duration::from_secs(10), step: u32::MAX });
    let scale_in = pace(&table, "scale_in", Pace { wait: Duration::from_secs(300), step: u32::MAX });
    let time_zone = time_zone(&table);
    let (min, max) = (min?, max?);
    if let Some(place) = table.get("min").filter(|_| min > max) {
        let there = table.get("max")?.place;
        return place.place.contradicts(
            there,
            format!("`min` is {min}, which is more than `max`"),
            "the most is here",
            "write the smaller number as `min`",
        );
    }
    let schedule = table.get("schedule").map_or(Some(Vec::new()), |v| schedule(&v, max));
    let scaling = Scaling {
        min,
        max,
        target: target?,
        scale_out: scale_out?,
        scale_in: scale_in?,
        schedule: schedule?,
        time_zone: time_zone?,
    };
    Some((min, Some(scaling)))
}

fn number(table: &Table<'_>, key: &'static str) -> Option<u32> {
    table.required(key, &format!("{key} = 2")).and_then(|v| v.integer(1..=MAX_COUNT, "2"))
}

fn target(value: &Value<'_>) -> Option<Target> {
    let table = value.table(TARGET, TARGET_EXAMPLE)?;
    let number = |key, of, example| {
        let read = table.get(key)?.number(0.001..=1e9, example);
        Some(read.map(|each| Target { of, each_milli: (each * 1000.0).round() as u64 }))
    };
    let read = [
        number("requests_per_second", Measure::RequestsPerSecond, "200"),
        number("connections", Measure::Connections, "50"),
    ];
    let mut named = read.into_iter().flatten();
    match (named.next(), named.next()) {
        (Some(only), None) => only,
        (None, _) => value.place.report("`target` names nothing to follow", format!("for example: {TARGET_EXAMPLE}")),
        (Some(_), Some(_)) => value.place.report("`target` names more than one thing to follow", "keep one of them"),
    }
}

fn pace(table: &Table<'_>, key: &'static str, default: Pace) -> Option<Pace> {
    let Some(value) = table.get(key) else { return Some(default) };
    let table = value.table(PACE, "{ wait = \"30s\", step = 4 }")?;
    let times = Duration::from_secs(1)..=Duration::from_secs(86_400);
    let wait = table.get("wait").map_or(Some(default.wait), |v| v.duration(times, "\"30s\""));
    let step = table.get("step").map_or(Some(default.step), |v| v.integer(1..=MAX_COUNT, "4"));
    Some(Pace { wait: wait?, step: step? })
}

fn schedule(value: &Value<'_>, max: u32) -> Option<Vec<Floor>> {
    let items = value.list(SCHEDULE_EXAMPLE)?;
    let floor = |item: &Value<'_>| {
        let table = item.table(SCHEDULE, SCHEDULE_EXAMPLE)?;
        let during = table.required("during", "during = \"mon-fri 08:00-18:00\"").and_then(|v| v.parsed("\"mon-fri\""));
        let min = table.required("min", "min = 6").and_then(|v| v.integer(1..=i64::from(max), "6"));
        Some(Floor { during: during?, min: min? })
    };
    let read: Vec<_> = items.iter().map(floor).collect();
    read.into_iter().collect()
}
