//! Reports judged one by one: who signed them, whether these may, and what they are about.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use super::{Refusal, TrustPolicy, TrustRule};
use crate::{
    digest::{ConfigDigest, ImageDigest, SuiteDigest},
    evidence::{self, Envelope, OpenError, Opened},
    id::ImageName,
};

/// Clocks of two honest machines may differ by this much.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What reports must be about; where nothing is said, anything.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) image: ImageDigest,
    pub(super) name: &'a ImageName,
    pub(super) suite: Option<SuiteDigest>,
    pub(super) config: Option<ConfigDigest>,
}

/// The reports that count, newest first, and why the others do not.
pub(super) fn judge(
    about: &About<'_>,
    rule: &TrustRule,
    envelopes: &[Envelope],
    policy: &TrustPolicy,
    now: Timestamp,
) -> (Vec<Opened>, Vec<Refusal>) {
    let (mut counting, mut refusals) = (Vec::new(), Vec::new());
    for envelope in envelopes {
        let judged = signed(about, rule, envelope, policy).and_then(|opened| concerns(about, opened, now));
        match judged {
            Ok(opened) => counting.push(opened),
            Err(refusal) => refusals.push(refusal),
        }
    }
    counting.sort_by_key(|opened| std::cmp::Reverse(opened.report.finished_at));
    (counting, refusals)
}

/// Opens an envelope; of those who signed it only they are left who may.
fn signed(about: &About<'_>, rule: &TrustRule, envelope: &Envelope, policy: &TrustPolicy) -> Result<Opened, Refusal> {
    let image = about.image;
    let mut opened = evidence::open(envelope, &policy.keys).map_err(|error| {
        // Whether it is foreign or was trusted once is another thing to do.
        match evidence::open(envelope, &policy.revoked_keys) {
            Ok(revoked) => Refusal::RevokedKey { image, keys: revoked.signers.into_iter().collect() },
            Err(_) => refusal_of(image, error),
        }
    })?;
    let signers = std::mem::take(&mut opened.signers);
    let (may, may_not): (BTreeSet<_>, BTreeSet<_>) = signers.into_iter().partition(|signer| rule.may_sign(signer));
    opened.signers = may;
    match opened.signers.is_empty() {
        true => {
            let (name, allowed) = (about.name.clone(), rule.keys.clone());
            Err(Refusal::NotAllowed { image, name, keys: Vec::from_iter(may_not), allowed })
        }
        false => Ok(opened),
    }
}

fn concerns(about: &About<'_>, opened: Opened, now: Timestamp) -> Result<Opened, Refusal> {
    let (image, report) = (about.image, &opened.report);
    if report.image != image {
        return Err(Refusal::WrongImage { wanted: image, found: report.image });
    }
    if let Some(wanted) = about.config.filter(|wanted| *wanted != report.config) {
        return Err(Refusal::WrongConfiguration { image, wanted, found: report.config });
    }
    if let Some(wanted) = about.suite.filter(|wanted| *wanted != report.suite) {
        return Err(Refusal::WrongSuite { image, wanted, found: report.suite });
    }
    if report.finished_at.duration_since(now) > jiff::SignedDuration::try_from(CLOCK_SKEW).unwrap_or_default() {
        return Err(Refusal::FromTheFuture { image, finished_at: report.finished_at, now });
    }
    Ok(opened)
}

fn refusal_of(image: ImageDigest, error: OpenError) -> Refusal {
    match error {
        OpenError::ForeignKey { keyids } => Refusal::ForeignKey { image, keyids },
        OpenError::Tampered { key } => Refusal::Tampered { image, key },
        other => Refusal::Malformed { image, why: with_cause(&other) },
    }
}

fn with_cause(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    format!("{error}{cause}")
}
