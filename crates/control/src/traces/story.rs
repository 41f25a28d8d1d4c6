//! What happens to one group, as traces: one for each rollout or other change, and one for each time that the group heals.
//!
//! ```text
//! rollout                     from the change to a group at rest
//!   launch                    from the decision to readiness (hand-over, take: of what was staged)
//!     queue                   written down, and its turn waited for
//!     start                   the engine's work
//!       berth … record-again  its steps
//!     readiness               until all services answer
//!   route, drain, stop, …     what else is decided, each from the decision to its end
//! ```
//!
//! A trace is over when the group is at rest. One whose place another takes is over with the last step that was under way, so
//! that every step lies inside its parent. Steps are sent as they end: what is held is what is under way.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kiln_engine::Times;
use kiln_model::ServerId;

use super::{
    Sink,
    span::{Anchor, Moment, Span, SpanId, TraceId, Value, ids_of, nanoseconds, random_ids},
};

/// Traces that are over but for steps under way.
const FORMER: usize = 8;
/// A group that never comes to rest begins another trace after this time.
const LONGEST: Duration = Duration::from_secs(24 * 3600);
/// Changes of state that a trace tells.
const MOMENTS: usize = 32;
/// What is said of a step, in characters.
const SAID: usize = 500;

type Attributes = Vec<(&'static str, Value)>;

/// A change of what is wanted.
pub(crate) struct Change {
    /// Its number.
    pub revision: u64,
    /// When it began.
    pub started_at: Timestamp,
    /// What is known of it.
    pub attributes: Attributes,
}

/// Why a trace begins.
pub(crate) enum Cause {
    /// Something else is wanted: `rollout`, `scale-out`, …
    Change(&'static str, Change),
    /// Something that is wanted is missing.
    Heal(String),
}

/// The traces of one group.
pub(crate) struct Story {
    sink: Option<Sink>,
    group: String,
    current: Option<Root>,
    former: Vec<Root>,
    /// The last change that a trace was begun for.
    told: Option<u64>,
}

/// A trace that is not over.
struct Root {
    trace: TraceId,
    id: SpanId,
    name: &'static str,
    revision: Option<u64>,
    start: u64,
    anchor: Anchor,
    begun: Instant,
    attributes: Attributes,
    moments: Vec<Moment>,
    error: Option<String>,
    steps: BTreeMap<i64, Step>,
    launches: BTreeMap<ServerId, Launch>,
}

/// Something under way.
struct Step {
    name: &'static str,
    begun: Instant,
    attributes: Attributes,
}

/// A launch under way.
struct Launch {
    id: SpanId,
    step: Step,
    /// When the engine was done.
    started: Option<Instant>,
}

impl Story {
    /// Of a group. `told` is the change that is over already.
    pub fn new(sink: Option<Sink>, group: String, told: Option<u64>) -> Self {
        Self { sink, group, current: None, former: Vec::new(), told }
    }

    /// Whether somebody wants traces.
    pub fn is_told(&self) -> bool {
        self.sink.is_some()
    }

    /// Whether a trace is under way.
    pub fn is_open(&self) -> bool {
        self.current.is_some()
    }

    /// Whether the trace under way is this change's.
    pub fn tells(&self, revision: u64) -> bool {
        self.current.as_ref().is_some_and(|root| root.revision == Some(revision))
    }

    /// Whether a trace of this change was begun.
    pub fn has_told(&self, revision: u64) -> bool {
        self.told == Some(revision)
    }

    /// Begins a trace. The one before goes on until what is under way of it ends.
    pub fn begin(&mut self, cause: Cause, now: Timestamp) {
        self.end("superseded");
        let begun = Instant::now();
        let (name, change, reason) = match cause {
            Cause::Change(name, change) => (name, Some(change), None),
            Cause::Heal(reason) => ("heal", None, Some(reason)),
        };
        let known = change.as_ref().filter(|change| !self.has_told(change.revision));
        // What an earlier daemon began has these ids as well.
        let text = |change: &Change| format!("{} {} {}", self.group, change.revision, change.started_at);
        let (trace, id) = known.map_or_else(random_ids, |change| ids_of(&text(change)));
        let start = known.map_or(nanoseconds(now), |change| nanoseconds(change.started_at.min(now)));
        self.told = change.as_ref().map(|change| change.revision).or(self.told);
        let mut attributes = vec![("kiln.group", self.group.clone().into())];
        let revision = change.as_ref().map(|change| change.revision);
        attributes.extend(revision.map(|revision| ("kiln.revision", Value::Number(revision as i64))));
        attributes.extend(reason.map(|reason| ("kiln.reason", cut(&reason).into())));
        attributes.extend(change.into_iter().flat_map(|change| change.attributes));
        self.current = Some(Root {
            trace,
            id,
            name,
            revision,
            start,
            anchor: Anchor::new(now, begun),
            begun,
            attributes,
            moments: Vec::new(),
            error: None,
            steps: BTreeMap::new(),
            launches: BTreeMap::new(),
        });
    }

    /// The change stands otherwise than before.
    pub fn stands(&mut self, state: &'static str, reason: &str, failed: bool) {
        let Some(root) = &mut self.current else { return };
        if root.moments.last().is_some_and(|last| last.name == state) || root.moments.len() >= MOMENTS {
            return;
        }
        let at = root.anchor.at(Instant::now());
        root.moments.push(Moment { name: state, at, reason: cut(reason) });
        root.error = failed.then(|| cut(reason));
    }

    /// Something is begun.
    pub fn step(&mut self, number: i64, action: &'static str, server: &ServerId, attributes: Attributes) {
        let Some(root) = &mut self.current else { return };
        let mut step = Step { name: action, begun: Instant::now(), attributes };
        step.attributes.push(("kiln.server", server.as_str().into()));
        if matches!(action, "launch" | "hand-over" | "take") {
            root.launches.insert(server.clone(), Launch { id: SpanId::random(), step, started: None });
        } else {
            root.steps.insert(number, step);
        }
    }

    /// Something that was begun is over.
    pub fn closed(&mut self, number: i64, outcome: &str) {
        let Some(sink) = &self.sink else { return };
        for root in self.current.iter_mut().chain(&mut self.former) {
            let Some(mut step) = root.steps.remove(&number) else { continue };
            step.attributes.push(("kiln.outcome", cut(outcome).into()));
            sink.give(root.span(SpanId::random(), root.id, step, Instant::now(), None));
        }
        self.leave_former();
    }

    /// Something that took from then until now, as it was measured.
    pub fn took(&mut self, name: &'static str, begun: Instant, attributes: Attributes) {
        let Some((sink, root)) = self.sink.as_ref().zip(self.current.as_ref()) else { return };
        let begun = begun.max(root.begun);
        let step = Step { name, begun, attributes };
        sink.give(root.span(SpanId::random(), root.id, step, Instant::now(), None));
    }

    /// The engine has launched a server: its turn came then, and these steps were taken.
    pub fn launched(&mut self, server: &ServerId, turn: Instant, times: &Times) {
        let Some(sink) = &self.sink else { return };
        for root in self.current.iter_mut().chain(&mut self.former) {
            let Some(launch) = root.launches.get_mut(server) else { continue };
            let now = Instant::now();
            launch.started = Some(now);
            let (begun, id) = (launch.step.begun, launch.id);
            let (turn, start) = (turn.clamp(begun, now), SpanId::random());
            let part = |name, begun| Step { name, begun, attributes: Vec::new() };
            sink.give(root.span(SpanId::random(), id, part("queue", begun), turn, None));
            sink.give(root.span(start, id, part("start", turn), now, None));
            let mut before = turn;
            for (name, at) in times.taken() {
                let at = at.clamp(before, now);
                sink.give(root.span(SpanId::random(), start, part(name, before), at, None));
                before = at;
            }
        }
    }

    /// A server is ready: its launch is over.
    pub fn ready(&mut self, server: &ServerId) {
        self.launch_is_over(server, None);
    }

    /// A server failed; if it was being launched, that is over.
    pub fn failed(&mut self, server: &ServerId, reason: &str) {
        self.launch_is_over(server, Some(cut(reason)));
    }

    fn launch_is_over(&mut self, server: &ServerId, error: Option<String>) {
        let Some(sink) = &self.sink else { return };
        for root in self.current.iter_mut().chain(&mut self.former) {
            let Some(Launch { id, step, started }) = root.launches.remove(server) else { continue };
            let now = Instant::now();
            if let Some(begun) = started {
                let readiness = Step { name: "readiness", begun, attributes: Vec::new() };
                sink.give(root.span(SpanId::random(), id, readiness, now, error.clone()));
            }
            sink.give(root.span(id, root.id, step, now, error.clone()));
        }
        self.leave_former();
    }

    /// Ends a trace that has gone on for very long: another begins with the next step.
    pub fn cut_long(&mut self) {
        if self.current.as_ref().is_some_and(|root| root.begun.elapsed() > LONGEST) {
            self.end("goes on");
        }
    }

    /// The group is at rest, or something else is wanted of it.
    pub fn end(&mut self, outcome: &'static str) {
        let Some(mut root) = self.current.take() else { return };
        root.attributes.push(("kiln.outcome", outcome.into()));
        self.former.push(root);
        self.leave_former();
    }

    /// Sends what is over of the traces whose last step has ended, and the oldest if there are too many.
    fn leave_former(&mut self) {
        let Some(sink) = &self.sink else { return };
        let mut surplus = self.former.len().saturating_sub(FORMER);
        self.former.retain_mut(|root| {
            let over = root.steps.is_empty() && root.launches.is_empty() || surplus > 0;
            if over {
                surplus = surplus.saturating_sub(1);
                sink.give(root.whole());
            }
            !over
        });
    }
}

impl Root {
    fn span(&self, id: SpanId, parent: SpanId, step: Step, end: Instant, error: Option<String>) -> Span {
        let (start, end) = (self.anchor.at(step.begun), self.anchor.at(end));
        Span {
            trace: self.trace,
            id,
            parent: Some(parent),
            name: step.name,
            start,
            end: end.max(start),
            attributes: step.attributes,
            moments: Vec::new(),
            error,
        }
    }

    fn whole(&mut self) -> Span {
        Span {
            trace: self.trace,
            id: self.id,
            parent: None,
            name: self.name,
            start: self.start,
            end: self.anchor.at(Instant::now()).max(self.start),
            attributes: std::mem::take(&mut self.attributes),
            moments: std::mem::take(&mut self.moments),
            error: self.error.take(),
        }
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SAID).collect()
}
