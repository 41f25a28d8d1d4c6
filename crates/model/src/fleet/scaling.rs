//! `count`: how many servers a group has, as a number or as limits between which it follows its load.

mod endpoint;
pub(crate) mod target;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Window, ZoneName, text::MAX_COUNT, window::time_zone};
use crate::text::{Keys, Table, Value};

pub use self::{
    endpoint::{Endpoint, InvalidEndpoint},
    target::{Measure, Metric, Target},
};

/// The keys of a `count` that is no number.
pub(crate) const KEYS: Keys =
    Keys { of: "`count`", valid: &["min", "max", "target", "scale_out", "scale_in", "schedule", "time_zone"] };
/// The keys of `scale_out` and `scale_in`.
pub(crate) const PACE: Keys = Keys { of: "`scale_out` or `scale_in`", valid: &["wait", "step"] };
/// The keys of an entry of `schedule`.
pub(crate) const SCHEDULE: Keys = Keys { of: "an entry of `schedule`", valid: &["during", "min"] };

const EXAMPLE: &str = "{ min = 2, max = 10, target = { requests_per_second = 200 } }";
const WAKING: &str =
    "publish one (`publish = [{ listen = 8080, port = 80, protocol = \"http\" }]`), or write `min = 1`";
const SCHEDULE_EXAMPLE: &str = "[{ during = \"mon-fri 08:00-18:00\", min = 6 }]";

/// A group whose number of servers follows its load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaling {
    /// Never fewer; 0 for a group that a request wakes.
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

impl Scaling {
    /// The fewest servers at this time.
    pub fn floor(&self, now: Timestamp) -> u32 {
        let now = self.time_zone.zone().to_datetime(now);
        let open = self.schedule.iter().filter(|floor| floor.during.holds(now)).map(|floor| floor.min);
        open.fold(self.min, u32::max).min(self.max)
    }
}

/// Reads a `count`: with how many servers a group begins (one at least where they follow the load, so that it is seen to work),
/// and how their number follows it, if it does.
pub(super) fn read(value: &Value<'_>) -> Option<(u32, Option<Scaling>)> {
    if !value.is_table() {
        return value.integer(0..=MAX_COUNT, "3").map(|count| (count, None));
    }
    let table = value.table(KEYS, EXAMPLE)?;
    let (min, max) = (number(&table, "min", 0), number(&table, "max", 1));
    let target = table.required("target", &format!("target = {}", target::EXAMPLE)).and_then(|v| target::read(&v));
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
    if let Some(place) = table.get("min").filter(|_| min == 0 && target.as_ref().is_some_and(|t| t.of == Measure::Cpu))
    {
        let there = table.get("target")?.place;
        return place.place.contradicts(
            there,
            "a group that follows its processor time cannot be without servers: one that is idle uses some",
            "the target is here",
            "write `min = 1`, or follow `requests_per_second` or `connections`",
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
    Some((min.max(1), Some(scaling)))
}

/// Refuses a group that nothing would ever wake: without a published port nobody asks the gateway for it.
pub(super) fn is_woken(value: &Value<'_>, scaling: Option<&Scaling>, published: bool) -> Option<()> {
    if published || scaling.is_none_or(|scaling| scaling.min > 0) {
        return Some(());
    }
    let place = value.map(EXAMPLE)?.get("min")?.place;
    place.report("a group that publishes no port cannot be without servers: no request would wake it", WAKING)
}

fn number(table: &Table<'_>, key: &'static str, least: i64) -> Option<u32> {
    table.required(key, &format!("{key} = 2")).and_then(|v| v.integer(least..=MAX_COUNT, "2"))
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
