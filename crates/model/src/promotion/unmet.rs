//! The rules that do not hold, each with what to do about it.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    digest::SuiteDigest,
    id::{ChannelName, KeyName},
    trust::Refusal,
};

/// A rule that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unmet {
    /// It could not be launched here either.
    #[error("{0}")]
    Evidence(Box<Refusal>),
    /// The channel wants other reports than a launch does.
    #[error("its reports do not suffice for `{channel}`: {}", why(.refusal))]
    Reports {
        /// The channel.
        channel: ChannelName,
        /// What is missing.
        refusal: Box<Refusal>,
    },
    /// It was not in the channel before.
    #[error(
        "it never was in `{after}`, from where images come to `{channel}`: run `kiln promote IMAGE --to {after}` first"
    )]
    NeverThere {
        /// The channel.
        channel: ChannelName,
        /// The one before.
        after: ChannelName,
    },
    /// It was not there for long enough.
    #[error("it was in `{after}` for {} and must be there for {}: {}", shown(.spent), shown(.need), then(.after, .on))]
    Soak {
        /// The one before.
        after: ChannelName,
        /// How long it was there.
        spent: Duration,
        /// How long it must be.
        need: Duration,
        /// When that will be so; none where the channel has moved on.
        on: Option<Timestamp>,
    },
    /// Too few have approved.
    #[error(
        "{} of {need} approvals are there ({}); {} may approve: `kiln approve IMAGE --channel {channel} --key FILE`",
        .have.len(), named(.have), named(.approvers)
    )]
    Approvals {
        /// The channel.
        channel: ChannelName,
        /// Who has.
        have: Vec<KeyName>,
        /// How many must.
        need: u32,
        /// Who may.
        approvers: Vec<KeyName>,
    },
    /// Nobody who may promote has signed.
    #[error("{} may promote to `{channel}`, and {signed}: `kiln promote IMAGE --to {channel} --key FILE`", named(.promoters))]
    Promoter {
        /// The channel.
        channel: ChannelName,
        /// Who may.
        promoters: Vec<KeyName>,
        /// What was found instead.
        signed: String,
    },
}

impl Unmet {
    /// A stable word for scripts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Evidence(refusal) => refusal.code(),
            Self::Reports { .. } => "reports",
            Self::NeverThere { .. } => "never-there",
            Self::Soak { .. } => "soak",
            Self::Approvals { .. } => "approvals",
            Self::Promoter { .. } => "promoter",
        }
    }
}

/// A refusal by the channel's rule: it is `kiln.toml` that says so, not the host's trust policy.
fn why(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NotAllowed { keys, allowed, .. } => {
            let (keys, allowed) = (named(keys), named(allowed));
            format!("they are by {keys}, and those of {allowed} count: have it tested there, and pull its reports")
        }
        Refusal::SuiteNotAccepted { suite, accepted, .. } => {
            let accepted: Vec<_> = accepted.iter().map(SuiteDigest::short).collect();
            format!("they are of suite {}, and {} count", suite.short(), accepted.join(", "))
        }
        other => other.to_string(),
    }
}

/// What to do where the time does not suffice.
fn then(after: &ChannelName, on: &Option<Timestamp>) -> String {
    match on {
        Some(at) => format!("wait until {at:.0}"),
        None => format!("promote it to `{after}` again"),
    }
}

fn shown(duration: &Duration) -> String {
    crate::duration::format(Duration::from_secs(duration.as_secs()))
}

fn named(keys: &[KeyName]) -> String {
    let names: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}
