//! `target`: what each server of a group is to carry, and where that is seen.
//!
//! The gateway counts requests and connections, the kernel counts processor time, and an endpoint of the application tells
//! whatever else there is. A share of processor time is written as a percentage, since `cpu = 0.6` elsewhere in a fleet means
//! six tenths of a processor.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::endpoint::Endpoint;
use crate::{
    exposition::Selector,
    text::{Keys, Value},
};

/// The keys of `target`.
pub(crate) const TARGET: Keys =
    Keys { of: "`target`", valid: &["requests_per_second", "connections", "cpu", "custom"] };
/// The keys of `custom`.
pub(crate) const CUSTOM: Keys = Keys { of: "`custom`", valid: &["url", "metric", "per_server"] };

pub(super) const EXAMPLE: &str = "{ requests_per_second = 200 }";
const CUSTOM_EXAMPLE: &str = "{ url = \"http://127.0.0.1:9090/metrics\", metric = \"jobs_waiting\", per_server = 100 }";
const PERCENT_EXAMPLE: &str = "\"60%\"";
/// A server without a limit is measured against one processor, and may use more.
const MOST_PERCENT: u64 = 1000;

/// The load that one server is to carry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Target {
    /// What is counted.
    pub of: Measure,
    /// Thousandths of it.
    pub each_milli: u64,
}

/// What the load of a group is counted in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Requests that the gateway sends to a server each second.
    RequestsPerSecond,
    /// Requests under way, or connections, where a server is published as TCP.
    Connections,
    /// Processor time of its servers, in percent of what one of them may use: its limit, or one processor where it has none.
    Cpu,
    /// What an endpoint says.
    Custom(Metric),
}

/// A number that somebody else tells, of the whole group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Metric {
    /// Who is asked.
    pub url: Endpoint,
    /// Which of the samples in Prometheus' text format; none where the answer is a bare number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Selector>,
}

impl Target {
    /// What each server is to carry.
    pub fn each(&self) -> f64 {
        self.each_milli as f64 / 1000.0
    }

    /// What is counted, in words.
    pub fn unit(&self) -> String {
        match &self.of {
            Measure::RequestsPerSecond => "requests/s".to_owned(),
            Measure::Connections => "requests under way".to_owned(),
            Measure::Cpu => "% of a server's processor time".to_owned(),
            Measure::Custom(Metric { metric: Some(selector), .. }) => selector.to_string(),
            Measure::Custom(Metric { url, .. }) => format!("of {url}"),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.each(), self.unit())
    }
}

pub(super) fn read(value: &Value<'_>) -> Option<Target> {
    let table = value.table(TARGET, EXAMPLE)?;
    let counted = |key, of, example| table.get(key).map(|value| number(&value, of, example));
    let read = [
        counted("requests_per_second", Measure::RequestsPerSecond, "200"),
        counted("connections", Measure::Connections, "50"),
        table.get("cpu").map(|value| percent(&value)),
        table.get("custom").map(|value| custom(&value)),
    ];
    let mut named = read.into_iter().flatten();
    match (named.next(), named.next()) {
        (Some(only), None) => only,
        (None, _) => value.place.report("`target` names nothing to follow", format!("for example: {EXAMPLE}")),
        (Some(_), Some(_)) => value.place.report("`target` names more than one thing to follow", "keep one of them"),
    }
}

fn number(value: &Value<'_>, of: Measure, example: &str) -> Option<Target> {
    let each = value.number(0.001..=1e9, example)?;
    Some(Target { of, each_milli: (each * 1000.0).round() as u64 })
}

fn percent(value: &Value<'_>) -> Option<Target> {
    let text = value.checked(PERCENT_EXAMPLE, |text| match percent_of(text) {
        Some(_) => Ok(()),
        None => Err(format!("a share is a whole number from 1 to {MOST_PERCENT} and `%`")),
    })?;
    Some(Target { of: Measure::Cpu, each_milli: percent_of(&text)? * 1000 })
}

fn percent_of(text: &str) -> Option<u64> {
    let digits = text.strip_suffix('%').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok().filter(|percent| (1..=MOST_PERCENT).contains(percent))
}

fn custom(value: &Value<'_>) -> Option<Target> {
    let table = value.table(CUSTOM, CUSTOM_EXAMPLE)?;
    let url = table.required("url", "url = \"http://127.0.0.1:9090/metrics\"");
    let url = url.and_then(|value| value.parsed::<Endpoint>("\"http://127.0.0.1:9090/metrics\""));
    let metric = table.get("metric").map_or(Some(None), |v| v.parsed::<Selector>("\"jobs_waiting\"").map(Some));
    let each = table.required("per_server", "per_server = 100").and_then(|v| v.number(0.001..=1e9, "100"));
    let of = Measure::Custom(Metric { url: url?, metric: metric? });
    Some(Target { of, each_milli: (each? * 1000.0).round() as u64 })
}
