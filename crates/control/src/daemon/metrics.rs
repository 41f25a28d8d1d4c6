//! What happened since the daemon's start, counted, in the text format of Prometheus.
//!
//! Counts are made from the same events that readers of the history get; how many servers there are is taken from the status at
//! the time of the question. Histograms of releases are kept for the last [`RELEASES`] of them, so that the page does not grow
//! with every rollout.

mod histogram;

use std::{
    collections::{BTreeMap, VecDeque},
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use kiln_api::{
    Event,
    host::GatewayStatus,
    recovery::Drill,
    status::{LogsStatus, Status},
};
use kiln_gateway::latency::{LIMITS_US, Latency};

use self::histogram::Histogram;
use crate::traces::Counts;

/// Releases that have histograms of their own.
const RELEASES: usize = 64;
/// Servers of a group that failed and whose replacement is waited for.
const BROKEN: usize = 1024;

/// What happened, counted.
#[derive(Default)]
pub(crate) struct Metrics {
    counted: Mutex<Counted>,
    /// What became of the spans of traces.
    pub(super) spans: Arc<Counts>,
}

#[derive(Default)]
struct Counted {
    launched: BTreeMap<String, u64>,
    failed: BTreeMap<String, u64>,
    ready: VecDeque<((String, String), Histogram)>,
    suites: BTreeMap<&'static str, u64>,
    suite: Histogram,
    rollouts: BTreeMap<(String, String), u64>,
    rollout: BTreeMap<String, Histogram>,
    begun: BTreeMap<String, Timestamp>,
    broken: BTreeMap<String, VecDeque<Timestamp>>,
    drilled: BTreeMap<String, u64>,
    drills: BTreeMap<(String, String), u64>,
    recovered: BTreeMap<String, Histogram>,
    heal: BTreeMap<String, Histogram>,
    desired: BTreeMap<String, u32>,
    scaled: BTreeMap<(String, &'static str), u64>,
    warnings: u64,
}

impl Metrics {
    /// Counts an event.
    pub(crate) fn note(&self, event: &Event, at: Timestamp) {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Server { group, state, drill: true, .. } if state == "failed" => {
                *counted.drilled.entry(group.clone()).or_default() += 1;
            }
            // A spare that ended is nothing that failed.
            Event::Server { spare: true, .. } => {}
            Event::Server { group, state, release, ready, .. } => counted.server(group, state, release, *ready, at),
            Event::Drill { drill } => counted.drill(drill),
            Event::Rollout { group, state, desired, .. } => counted.rollout(group, state, *desired, at),
            Event::SuiteFinished { passed, took_ms, reused, .. } => counted.suite(*passed, *took_ms, *reused),
            Event::Warning { .. } => counted.warnings += 1,
            _ => {}
        }
    }
}

/// A release as it is shown everywhere: the first 12 digits.
pub(super) fn short(release: &str) -> String {
    release.strip_prefix("sha256:").unwrap_or(release).chars().take(12).collect()
}

fn since(begin: Timestamp, end: Timestamp) -> Duration {
    Duration::try_from(end.duration_since(begin)).unwrap_or_default()
}

impl Counted {
    fn server(&mut self, group: &str, state: &str, release: &str, ready: Option<Duration>, at: Timestamp) {
        match state {
            "starting" => *self.launched.entry(group.to_owned()).or_default() += 1,
            "ready" => {
                self.ready_of(group, release).add(ready.unwrap_or_default());
                let broken = self.broken.get_mut(group).and_then(VecDeque::pop_front);
                if let Some(broken) = broken {
                    self.heal.entry(group.to_owned()).or_default().add(since(broken, at));
                }
            }
            "failed" => {
                *self.failed.entry(group.to_owned()).or_default() += 1;
                // A server that fails while its release is rolled out is not healed but tried again or taken back.
                if !self.begun.contains_key(group) {
                    let broken = self.broken.entry(group.to_owned()).or_default();
                    broken.truncate(BROKEN - 1);
                    broken.push_back(at);
                }
            }
            _ => {}
        }
    }

    fn ready_of(&mut self, group: &str, release: &str) -> &mut Histogram {
        let key = (group.to_owned(), short(release));
        let found = self.ready.iter().position(|(known, _)| *known == key);
        let at = found.unwrap_or_else(|| {
            if self.ready.len() == RELEASES {
                self.ready.pop_front();
            }
            self.ready.push_back((key, Histogram::default()));
            self.ready.len() - 1
        });
        &mut self.ready[at].1
    }

    fn rollout(&mut self, group: &str, state: &str, desired: u32, at: Timestamp) {
        let before = self.desired.insert(group.to_owned(), desired);
        match before {
            Some(before) if before < desired => *self.scaled.entry((group.to_owned(), "out")).or_default() += 1,
            Some(before) if before > desired => *self.scaled.entry((group.to_owned(), "in")).or_default() += 1,
            _ => {}
        }
        if state == "running" {
            self.begun.entry(group.to_owned()).or_insert(at);
            self.broken.remove(group);
            return;
        }
        let over = state == "done" || state == "failed";
        if over && let Some(begun) = self.begun.remove(group) {
            *self.rollouts.entry((group.to_owned(), state.to_owned())).or_default() += 1;
            self.rollout.entry(group.to_owned()).or_default().add(since(begun, at));
        }
    }

    fn drill(&mut self, drill: &Drill) {
        if drill.state == "running" {
            return;
        }
        // A group's drills stand under its name.
        let target = drill.group.clone().unwrap_or_else(|| format!("({})", drill.what));
        *self.drills.entry((target.clone(), drill.state.clone())).or_default() += 1;
        if let Some(ready) = drill.ready {
            self.recovered.entry(target).or_default().add(ready);
        }
    }

    fn suite(&mut self, passed: bool, took_ms: u64, reused: bool) {
        let result = match (reused, passed) {
            (true, _) => "reused",
            (false, true) => "passed",
            (false, false) => "failed",
        };
        *self.suites.entry(result).or_default() += 1;
        if !reused {
            self.suite.add(Duration::from_millis(took_ms));
        }
    }
}

/// A page in the text format, version 0.0.4.
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}").expect("writing to a String never fails");
    }
    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let labels: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        writeln!(self.0, "{name}{labels} {value}").expect("writing to a String never fails");
    }
    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], histogram: &Histogram) {
        for (limit, count) in histogram.buckets() {
            let labels = [labels, &[("le", limit.as_str())]].concat();
            self.line(&format!("{name}_bucket"), &labels, count);
        }
        self.line(&format!("{name}_sum"), labels, histogram.sum());
        self.line(&format!("{name}_count"), labels, histogram.count());
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// The page.
pub(crate) fn page(
    metrics: &Metrics,
    status: &Status,
    gateway: Option<&GatewayStatus>,
    answers: &[((String, String), Latency)],
) -> String {
    let mut page = Page(String::new());
    let counted = metrics.counted.lock().unwrap_or_else(PoisonError::into_inner);
    now(&mut page, status, gateway);
    servers(&mut page, &counted);
    drills(&mut page, &counted);
    self::answers(&mut page, answers);
    page.family("kiln_suites_total", "counter", "Suites that ended, and reports that stood for one.");
    counted.suites.iter().for_each(|(result, count)| page.line("kiln_suites_total", &[("result", result)], count));
    page.family("kiln_suite_seconds", "histogram", "From the start of a suite to its signed report.");
    page.histogram("kiln_suite_seconds", &[], &counted.suite);
    rollouts(&mut page, &counted);
    logs(&mut page, status);
    spans(&mut page, &metrics.spans);
    page.family("kiln_warnings_total", "counter", "Warnings.");
    page.line("kiln_warnings_total", &[], counted.warnings);
    page.0
}

fn now(page: &mut Page, status: &Status, gateway: Option<&GatewayStatus>) {
    page.family("kiln_info", "gauge", "The daemon.");
    page.line("kiln_info", &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.family("kiln_gateway_up", "gauge", "Whether a gateway answers.");
    page.line("kiln_gateway_up", &[], u8::from(gateway.is_some()));
    page.family("kiln_servers_desired", "gauge", "Servers wanted.");
    for group in &status.groups {
        page.line("kiln_servers_desired", &[("group", &group.name)], group.desired);
    }
    page.family("kiln_servers", "gauge", "Servers, by state.");
    for group in &status.groups {
        let mut states = BTreeMap::<&str, u32>::new();
        group.servers.iter().for_each(|server| *states.entry(&server.state).or_default() += 1);
        for (state, count) in states {
            page.line("kiln_servers", &[("group", &group.name), ("state", state)], count);
        }
    }
    page.family("kiln_spares_desired", "gauge", "Spares wanted.");
    for (group, spares) in status.groups.iter().filter_map(|group| Some((group, group.spares.as_ref()?))) {
        page.line("kiln_spares_desired", &[("group", &group.name)], spares.wanted);
    }
    page.family("kiln_spares", "gauge", "Spares that are held.");
    for (group, spares) in status.groups.iter().filter_map(|group| Some((group, group.spares.as_ref()?))) {
        page.line("kiln_spares", &[("group", &group.name)], spares.held);
    }
    page.family("kiln_servers_touched", "gauge", "Servers in which somebody ran a command.");
    for group in &status.groups {
        let touched = group.servers.iter().filter(|server| server.touched).count();
        page.line("kiln_servers_touched", &[("group", &group.name)], touched);
    }
}

fn servers(page: &mut Page, counted: &Counted) {
    page.family("kiln_launches_total", "counter", "Servers launched.");
    counted.launched.iter().for_each(|(group, count)| page.line("kiln_launches_total", &[("group", group)], count));
    page.family("kiln_ready_seconds", "histogram", "From the launch of a server to its readiness.");
    for ((group, release), histogram) in &counted.ready {
        page.histogram("kiln_ready_seconds", &[("group", group), ("release", release)], histogram);
    }
    page.family("kiln_failures_total", "counter", "Servers that failed.");
    counted.failed.iter().for_each(|(group, count)| page.line("kiln_failures_total", &[("group", group)], count));
    page.family("kiln_heal_seconds", "histogram", "From the failure of a server to the readiness of the next one.");
    for (group, histogram) in &counted.heal {
        page.histogram("kiln_heal_seconds", &[("group", group)], histogram);
    }
}

fn drills(page: &mut Page, counted: &Counted) {
    page.family("kiln_drilled_servers_total", "counter", "Servers that recovery drills destroyed: no failures.");
    for (group, count) in &counted.drilled {
        page.line("kiln_drilled_servers_total", &[("group", group)], count);
    }
    page.family("kiln_drills_total", "counter", "Recovery drills that ended, of groups, (gateway) and (daemon).");
    for ((target, result), count) in &counted.drills {
        page.line("kiln_drills_total", &[("target", target), ("result", result)], count);
    }
    page.family("kiln_drill_ready_seconds", "histogram", "From the kill of a drill until all was back.");
    for (target, histogram) in &counted.recovered {
        page.histogram("kiln_drill_ready_seconds", &[("target", target)], histogram);
    }
}

fn answers(page: &mut Page, answers: &[((String, String), Latency)]) {
    const NAME: &str = "kiln_gateway_answer_seconds";
    page.family(NAME, "histogram", "From the choice of a server for an HTTP request to the head of its answer.");
    for ((group, release), latency) in answers {
        let labels = [("group", group.as_str()), ("release", release.as_str())];
        let mut below = 0;
        for (limit, count) in LIMITS_US.iter().zip(&latency.counts) {
            below += count;
            let limit = (*limit as f64 / 1e6).to_string();
            page.line(&format!("{NAME}_bucket"), &[&labels[..], &[("le", limit.as_str())]].concat(), below);
        }
        page.line(&format!("{NAME}_bucket"), &[&labels[..], &[("le", "+Inf")]].concat(), latency.count());
        page.line(&format!("{NAME}_sum"), &labels, latency.sum_us as f64 / 1e6);
        page.line(&format!("{NAME}_count"), &labels, latency.count());
    }
}

fn logs(page: &mut Page, status: &Status) {
    type Count = fn(&LogsStatus) -> u64;
    let families: [(&str, &str, &str, Count); 5] = [
        ("kiln_log_lines_sent_total", "counter", "Log lines sent, those sent again included.", |logs| logs.sent),
        ("kiln_log_lines_acknowledged_total", "counter", "Log lines that have arrived.", |logs| logs.acknowledged),
        ("kiln_log_lines_lost_total", "counter", "Log lines that are gone without having arrived.", |logs| logs.lost),
        ("kiln_log_lines_waiting", "gauge", "Log lines that wait or are under way.", |logs| logs.waiting),
        ("kiln_log_collector_up", "gauge", "Whether nothing is known against the collector.", |logs| {
            u64::from(logs.away.is_none())
        }),
    ];
    for (name, kind, help, count) in families {
        page.family(name, kind, help);
        for (group, logs) in status.groups.iter().filter_map(|group| Some((group, group.logs.as_ref()?))) {
            page.line(name, &[("group", &group.name)], count(logs));
        }
    }
}

fn spans(page: &mut Page, spans: &Counts) {
    page.family("kiln_spans_sent_total", "counter", "Spans of traces that their collector has taken.");
    page.line("kiln_spans_sent_total", &[], spans.sent());
    page.family("kiln_spans_dropped_total", "counter", "Spans of traces that are gone without having arrived.");
    page.line("kiln_spans_dropped_total", &[], spans.dropped());
}

fn rollouts(page: &mut Page, counted: &Counted) {
    page.family("kiln_rollouts_total", "counter", "Rollouts that ended.");
    for ((group, state), count) in &counted.rollouts {
        page.line("kiln_rollouts_total", &[("group", group), ("result", state)], count);
    }
    page.family("kiln_rollout_seconds", "histogram", "From the start of a rollout to its end.");
    for (group, histogram) in &counted.rollout {
        page.histogram("kiln_rollout_seconds", &[("group", group)], histogram);
    }
    page.family("kiln_scalings_total", "counter", "Changes of the number of servers wanted.");
    for ((group, direction), count) in &counted.scaled {
        page.line("kiln_scalings_total", &[("group", group), ("direction", direction)], count);
    }
}

#[cfg(test)]
mod tests;
