//! A step of a trace.
//!
//! Times are taken from the clock that only goes forward, and told in the time of day that it was when the trace began: a
//! clock that is put back or forward meanwhile disorders no trace.

use std::time::Instant;

use jiff::Timestamp;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};

/// 16 bytes that all spans of a trace have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceId(pub [u8; 16]);

/// 8 bytes that name a span in its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SpanId(pub [u8; 8]);

impl SpanId {
    pub(super) fn random() -> Self {
        Self(rand::rng().random())
    }
}

/// Ids of a trace and its root.
pub(super) fn random_ids() -> (TraceId, SpanId) {
    (TraceId(rand::rng().random()), SpanId::random())
}

/// Ids that every daemon makes from the same text, so that what one began the next goes on with.
pub(super) fn ids_of(text: &str) -> (TraceId, SpanId) {
    let hash = Sha256::digest(text.as_bytes());
    let (mut trace, mut span) = ([0; 16], [0; 8]);
    trace.copy_from_slice(&hash[..16]);
    span.copy_from_slice(&hash[16..24]);
    (TraceId(trace), SpanId(span))
}

/// What an attribute says.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Number(number)
    }
}
impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Something that happened at one time of a span.
#[derive(Debug, Clone, PartialEq)]
pub struct Moment {
    /// What.
    pub name: &'static str,
    /// When, nanoseconds since 1970.
    pub at: u64,
    /// What is known of it.
    pub reason: String,
}

/// A step that is over.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its id.
    pub id: SpanId,
    /// The step that it is a part of; none for a whole trace.
    pub parent: Option<SpanId>,
    /// What kind of step.
    pub name: &'static str,
    /// When it began, nanoseconds since 1970.
    pub start: u64,
    /// When it was over.
    pub end: u64,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
    /// What happened meanwhile.
    pub moments: Vec<Moment>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// The same time on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Anchor {
    day: Timestamp,
    steady: Instant,
}

impl Anchor {
    pub fn new(day: Timestamp, steady: Instant) -> Self {
        Self { day, steady }
    }

    /// The time of day of an instant, nanoseconds since 1970.
    pub fn at(&self, instant: Instant) -> u64 {
        let day = nanoseconds(self.day);
        match instant.checked_duration_since(self.steady) {
            Some(after) => day.saturating_add(after.as_nanos() as u64),
            None => day.saturating_sub(self.steady.duration_since(instant).as_nanos() as u64),
        }
    }
}

pub(super) fn nanoseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_nanosecond()).unwrap_or_default()
}
