//! Change windows: when planned work may happen, and when not.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time, Weekday},
    tz::{TimeZone, TimeZoneDatabase},
};
use serde::{Deserialize, Serialize};

use crate::text::{Keys, Table, Value};

/// The keys of `windows`.
pub(crate) const KEYS: Keys = Keys { of: "`windows`", valid: &["open", "closed", "time_zone"] };

const EXAMPLE: &str = "\"mon-fri 22:00-05:00\"";
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];
const MINUTES: u16 = 24 * 60;

/// When planned work may happen: what Kiln does by itself although nothing is broken. Healing, and what a person asks for,
/// does not wait.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Windows {
    /// Only in one of these; at any time where there is none.
    pub open: Vec<Window>,
    /// In none of these.
    pub closed: Vec<Window>,
    /// The clock and the calendar that count, by their name in the time zone database.
    pub time_zone: ZoneName,
}

/// Days, and hours of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Window {
    days: Days,
    /// From this minute of the day to before the other, which is on the next day where it is not greater.
    hours: Option<(u16, u16)>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Days {
    Every,
    Week(Vec<Weekday>),
    Dates(Date, Date),
}

/// A name of the time zone database: `Europe/Berlin`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName(String);

/// A text that is no window.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is no window: {reason}")]
pub struct InvalidWindow {
    text: String,
    reason: &'static str,
}

/// A text that is no time zone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time zone that is known")]
pub struct InvalidZone(String);

impl Windows {
    /// Whether planned work may begin now.
    pub fn allow(&self, now: Timestamp) -> bool {
        let now = self.time_zone.zone().to_datetime(now);
        let within = |windows: &[Window]| windows.iter().any(|window| window.holds(now));
        (self.open.is_empty() || within(&self.open)) && !within(&self.closed)
    }
}

impl Window {
    pub(super) fn holds(&self, now: DateTime) -> bool {
        let minute = now.hour() as u16 * 60 + now.minute() as u16;
        let (from, to) = self.hours.unwrap_or((0, MINUTES));
        let today = self.days.hold(now.date()) && minute >= from && (minute < to || to <= from);
        // What began yesterday may go on past midnight.
        let yesterday = to <= from && minute < to && now.date().yesterday().is_ok_and(|day| self.days.hold(day));
        today || yesterday
    }
}

impl Days {
    fn hold(&self, date: Date) -> bool {
        match self {
            Self::Every => true,
            Self::Week(days) => days.contains(&date.weekday()),
            Self::Dates(first, last) => (*first..=*last).contains(&date),
        }
    }
}

impl ZoneName {
    pub(super) fn zone(&self) -> TimeZone {
        TimeZoneDatabase::bundled().get(&self.0).expect("a zone's name was looked up when it was read")
    }
}

impl Default for ZoneName {
    fn default() -> Self {
        Self("UTC".to_owned())
    }
}

/// Reads the `time_zone` of a table.
pub(super) fn time_zone(table: &Table<'_>) -> Option<ZoneName> {
    table.get("time_zone").map_or(Some(ZoneName::default()), |v| v.parsed("\"Europe/Berlin\""))
}

/// Reads the windows of a group.
pub(super) fn read(value: &Value<'_>) -> Option<Windows> {
    let table = value.table(KEYS, &format!("{{ open = [{EXAMPLE}] }}"))?;
    let windows = |key| {
        table.get(key).map_or(Some(Vec::new()), |value| {
            let items = value.list(&format!("[{EXAMPLE}]"))?;
            let read: Vec<_> = items.iter().map(|item| item.parsed::<Window>(EXAMPLE)).collect();
            read.into_iter().collect()
        })
    };
    let (open, closed) = (windows("open"), windows("closed"));
    let time_zone = time_zone(&table);
    Some(Windows { open: open?, closed: closed?, time_zone: time_zone? })
}

impl FromStr for Window {
    type Err = InvalidWindow;
    fn from_str(text: &str) -> Result<Self, InvalidWindow> {
        let bad = |reason| InvalidWindow { text: text.chars().take(80).collect(), reason };
        let (days, hours) = match text.trim().split_once(' ') {
            Some((days, hours)) => (Some(days), Some(hours.trim())),
            None if text.contains(':') => (None, Some(text.trim())),
            None => (Some(text.trim()), None),
        };
        let days = days.map_or(Some(Days::Every), days_of).ok_or_else(|| {
            bad("the days are `mon-fri`, `sat,sun`, a date `2026-12-24`, or from one to another `2026-12-24/2027-01-02`")
        })?;
        let hours = hours.map(hours_of).map(|hours| hours.ok_or_else(|| bad("the hours are like `22:00-05:00`")));
        Ok(Self { days, hours: hours.transpose()? })
    }
}

fn days_of(text: &str) -> Option<Days> {
    if text.starts_with(|first: char| first.is_ascii_digit()) {
        let (first, last) = text.split_once('/').unwrap_or((text, text));
        let (first, last): (Date, Date) = (first.parse().ok()?, last.parse().ok()?);
        return (first <= last).then_some(Days::Dates(first, last));
    }
    let mut days = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut at, last) = (day(first)?, day(last)?);
        days.push(DAYS[at].1);
        while at != last {
            at = (at + 1) % DAYS.len();
            days.push(DAYS[at].1);
        }
    }
    Some(Days::Week(days))
}

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|(name, _)| *name == text)
}

fn hours_of(text: &str) -> Option<(u16, u16)> {
    let (from, to) = text.split_once('-')?;
    let (from, to) = (minute_of(from)?, minute_of(to)?);
    (from < MINUTES && from != to).then_some((from, to))
}

fn minute_of(text: &str) -> Option<u16> {
    if text == "24:00" {
        return Some(MINUTES);
    }
    let time: Time = (text.len() == 5).then(|| text.parse().ok()).flatten()?;
    Some(time.hour() as u16 * 60 + time.minute() as u16)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = match &self.days {
            Days::Every => String::new(),
            Days::Dates(first, last) if first == last => first.to_string(),
            Days::Dates(first, last) => format!("{first}/{last}"),
            Days::Week(days) => {
                let names = days.iter().filter_map(|day| DAYS.iter().find(|(_, d)| d == day)).map(|(name, _)| *name);
                names.collect::<Vec<_>>().join(",")
            }
        };
        let minute = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let hours = self.hours.map(|(from, to)| format!("{}-{}", minute(from), minute(to)));
        let parts = [Some(days).filter(|days| !days.is_empty()), hours];
        f.write_str(&parts.into_iter().flatten().collect::<Vec<_>>().join(" "))
    }
}

impl TryFrom<String> for Window {
    type Error = InvalidWindow;
    fn try_from(text: String) -> Result<Self, InvalidWindow> {
        text.parse()
    }
}
impl From<Window> for String {
    fn from(window: Window) -> String {
        window.to_string()
    }
}
impl FromStr for ZoneName {
    type Err = InvalidZone;
    fn from_str(text: &str) -> Result<Self, InvalidZone> {
        let known = TimeZoneDatabase::bundled().get(text).is_ok();
        known.then(|| Self(text.to_owned())).ok_or_else(|| InvalidZone(text.chars().take(80).collect()))
    }
}
impl TryFrom<String> for ZoneName {
    type Error = InvalidZone;
    fn try_from(text: String) -> Result<Self, InvalidZone> {
        text.parse()
    }
}
impl From<ZoneName> for String {
    fn from(zone: ZoneName) -> String {
        zone.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn windows(open: &[&str], closed: &[&str], zone: &str) -> Windows {
        let read = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Windows { open: read(open), closed: read(closed), time_zone: zone.parse().unwrap() }
    }

    fn allowed(windows: &Windows, at: &str) -> bool {
        windows.allow(at.parse().unwrap())
    }

    #[test]
    fn unit_windows_open_on_their_days_and_hours_and_past_midnight() {
        let nights = windows(&["mon-fri 22:00-05:00"], &[], "UTC");
        // 27 November 2026 is a Friday.
        for (at, open) in [
            ("2026-11-27T21:59:59Z", false),
            ("2026-11-27T22:00:00Z", true),
            ("2026-11-28T04:59:00Z", true),
            ("2026-11-28T05:00:00Z", false),
            ("2026-11-28T22:00:00Z", false),
            ("2026-11-30T04:00:00Z", false),
        ] {
            assert_eq!(allowed(&nights, at), open, "{at}");
        }
        assert!(allowed(&Windows::default(), "2026-11-27T12:00:00Z"), "any time where nothing is said");
    }

    #[test]
    fn unit_closed_windows_win_and_the_zone_decides_which_day_it_is() {
        let frozen = windows(&[], &["2026-12-24/2027-01-02", "fri 16:00-24:00"], "Europe/Berlin");
        for (at, open) in [
            ("2026-12-23T22:59:00Z", true),
            ("2026-12-23T23:00:00Z", false),
            ("2027-01-02T22:59:00Z", false),
            ("2027-01-02T23:00:00Z", true),
            ("2026-11-27T15:00:00Z", false),
            ("2026-11-27T14:59:00Z", true),
            ("2026-07-03T14:00:00Z", false),
        ] {
            assert_eq!(allowed(&frozen, at), open, "{at}");
        }
    }

    #[test]
    fn unit_what_is_no_window_is_refused_and_what_is_one_is_written_as_it_was_read() {
        for bad in ["", "moon", "mon-", "25:00-26:00", "10:00", "10:00-10:00", "2027-01-02/2026-12-24", "mon 5-6"] {
            assert!(bad.parse::<Window>().is_err(), "{bad}");
        }
        for good in
            ["mon,tue 10:00-12:30", "22:00-05:00", "2026-12-24", "2026-12-24/2027-01-02 00:00-24:00", "sat,sun,mon"]
        {
            assert_eq!(good.parse::<Window>().unwrap().to_string(), good);
        }
        assert_eq!("sat-mon".parse::<Window>().unwrap().to_string(), "sat,sun,mon");
        assert!("Mars/Olympus".parse::<ZoneName>().is_err());
    }
}
