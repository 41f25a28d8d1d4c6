//! Whether a channel may be moved to an image: the rules of `kiln.toml`, and the check.
//!
//! A channel that the file does not name asks for what a launch asks for: a good report ([`crate::trust::vouched`]). One that it names
//! asks for more: reports by certain keys, time spent in another channel, approvals, and who moves it. [`check`] answers with all
//! that was found to be good, or with every rule that does not hold and what to do about it.

mod check;
pub(crate) mod file;
mod unmet;

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde::Serialize;

pub use check::{Case, SIGNED_WITHIN, check};
pub use unmet::Unmet;

use crate::{
    digest::SuiteDigest,
    id::{ChannelName, KeyName},
};

/// The rules of the channels that have some.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Channels(pub BTreeMap<ChannelName, ChannelRule>);

/// What is asked before a channel is moved, beside what every launch asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChannelRule {
    /// Whose signature a promotion must have; empty: nobody's, whoever reaches the daemon may promote.
    pub promoters: Vec<KeyName>,
    /// The channel in which an image must have been before.
    pub after: Option<ChannelName>,
    /// For how long in all.
    pub soak: Duration,
    /// So many approvals are needed.
    pub approvals: u32,
    /// Whose approvals count.
    pub approvers: Vec<KeyName>,
    /// Which reports are needed; none: those that every launch asks for.
    pub reports: Option<ReportRule>,
}

/// Which reports are needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReportRule {
    /// Whose reports count; empty: every trusted key's.
    pub keys: Vec<KeyName>,
    /// So many of them must have seen the tests pass.
    pub threshold: u32,
    /// The suites that count; empty: any.
    pub suites: Vec<SuiteDigest>,
    /// How old a report may be.
    pub max_age: Option<Duration>,
}

/// A time in which a channel pointed to the image in question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stay {
    /// The channel.
    pub channel: ChannelName,
    /// When it was moved there.
    pub from: Timestamp,
    /// When it was moved on; none while it still points there.
    pub until: Option<Timestamp>,
}

/// What was found to be good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Granted {
    /// The configuration that the newest good report is about.
    pub config: String,
    /// The suite that passed.
    pub suite: String,
    /// When that run ended.
    pub tested_at: Timestamp,
    /// Seconds spent in the channel before, where the rules ask for that.
    pub soaked: Option<u64>,
    /// Who approved, and when.
    pub approvals: BTreeMap<KeyName, Timestamp>,
    /// Whose signature the promotion has, where the rules ask for one.
    pub promoter: Option<KeyName>,
}
