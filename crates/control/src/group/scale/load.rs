//! The load that follows from a reading and the one before it: counters grow, and only their growth says something.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kiln_model::{GroupName, ServerId, fleet::Measure, plan::Asked};
use tokio::time::Instant;

use super::{
    Follows,
    reader::{Other, Reading},
};
use crate::traffic::Carried;

const FIRST: &str = "it is read for the first time";

/// What was counted at the last reading.
#[derive(Default)]
pub(super) struct Counters {
    served: Option<(Instant, BTreeMap<ServerId, u64>)>,
    spent: Option<(Instant, BTreeMap<ServerId, Duration>)>,
}

/// What the group knows of its servers.
pub(super) struct Seen<'a> {
    pub group: &'a GroupName,
    pub follows: &'a Follows,
    pub all: BTreeSet<&'a ServerId>,
    pub ready: BTreeSet<&'a ServerId>,
    /// Processors that each may use.
    pub cores: f64,
}

impl Counters {
    /// The load of all servers, or why it is not known; and what the gateway was asked for, where that matters.
    pub fn load(&mut self, seen: &Seen<'_>, reading: Reading) -> (Result<f64, String>, Asked) {
        let Reading { at, early, gateway, other } = reading;
        let gateway = match gateway {
            Ok(gateway) => gateway,
            Err(why) => return (Err(why), Asked::Nothing),
        };
        let waiting = gateway.waiting.get(seen.group).copied().unwrap_or(0);
        let carried: Vec<_> = gateway.carried.into_iter().filter(|server| seen.all.contains(&server.server)).collect();
        let in_flight: u64 = carried.iter().map(|server| server.in_flight).sum();
        let answered = if early { None } else { self.answered(at, carried) };
        let asked = match answered {
            _ if !seen.follows.sleeps => Asked::Nothing,
            _ if waiting > 0 => Asked::Waiting(waiting),
            Some((1.., _)) => Asked::Something,
            _ if in_flight > 0 => Asked::Something,
            _ => Asked::Nothing,
        };
        let total = match (&seen.follows.of, other) {
            (Measure::Connections, _) => Ok((in_flight + waiting) as f64),
            (Measure::RequestsPerSecond, _) => {
                let rate = |(requests, passed): (u64, Duration)| requests as f64 / seconds(passed);
                answered.map(rate).ok_or_else(|| FIRST.to_owned())
            }
            (Measure::Cpu, Other::Spent(spent)) => spent.and_then(|spent| self.percent(seen, at, spent)),
            (Measure::Custom(_), Other::Told(told)) => told,
            (Measure::Cpu | Measure::Custom(_), _) => Err("it is read by the clock".to_owned()),
        };
        (total, asked)
    }

    /// How many requests were answered, in what time; none at the first reading.
    fn answered(&mut self, at: Instant, carried: Vec<Carried>) -> Option<(u64, Duration)> {
        let mut served: BTreeMap<ServerId, u64> = BTreeMap::new();
        for server in carried {
            *served.entry(server.server).or_default() += server.served;
        }
        let (before_at, before) = self.served.replace((at, served.clone()))?;
        let since = |(server, now): (&ServerId, &u64)| match before.get(server) {
            Some(then) if then <= now => now - then,
            // New, or the gateway began anew.
            _ => *now,
        };
        Some((served.iter().map(since).sum(), at.duration_since(before_at)))
    }

    /// Percent of what one server may use, of all servers together. A start is work that says nothing about the load: a server
    /// counts from the reading at which it is ready.
    fn percent(&mut self, seen: &Seen<'_>, at: Instant, spent: BTreeMap<ServerId, Duration>) -> Result<f64, String> {
        let now: BTreeMap<_, _> = spent.into_iter().filter(|(server, _)| seen.ready.contains(server)).collect();
        if now.is_empty() && !seen.ready.is_empty() {
            return Err("this host does not tell the processor time of its servers".to_owned());
        }
        let (before_at, before) = self.spent.replace((at, now.clone())).ok_or(FIRST)?;
        let known: Vec<_> = before.iter().filter(|(server, _)| seen.ready.contains(server)).collect();
        if let Some((missing, _)) = known.iter().find(|(server, _)| !now.contains_key(*server)) {
            return Err(format!("the processor time of {missing} cannot be read"));
        }
        if known.is_empty() {
            return Err("no server was ready at two readings".to_owned());
        }
        let used: Duration = known.iter().map(|(server, then)| now[*server].saturating_sub(**then)).sum();
        Ok(100.0 * used.as_secs_f64() / seconds(at.duration_since(before_at)) / seen.cores)
    }
}

fn seconds(passed: Duration) -> f64 {
    passed.as_secs_f64().max(0.001)
}
