//! The check itself.
//!
//! Order: a revoked image is refused whatever its reports say. Then every envelope is opened and judged alone; those
//! about exactly this release and suite are the evidence, and the newest of them decides. Healing is kinder in two
//! ways, both said loudly in the warnings: an expired report still serves where the policy says `on_expiry = "warn"`,
//! and a newer failing run (a renewal that went wrong) does not stop the replacing of servers that older evidence
//! admits.

use std::time::Duration;

use jiff::Timestamp;

use super::{LaunchUse, Purpose, Refusal, TrustPolicy, VerifiedRelease};
use crate::{
    config::FrozenConfig,
    digest::{ConfigDigest, ImageDigest, SuiteDigest},
    evidence::{self, Envelope, OpenError, Report, Verdict},
    fleet::OnExpiry,
    release::Release,
};

/// Clocks of two honest machines may differ by this much.
pub const CLOCK_SKEW: Duration = Duration::from_secs(300);

/// What is to be launched.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The image.
    pub image: ImageDigest,
    /// The frozen configuration.
    pub config: &'a FrozenConfig,
    /// The suite that must have passed.
    pub suite: SuiteDigest,
    /// What for.
    pub launch_use: LaunchUse,
}

/// Admits a release to serve, or says why not. `evidence` is every report filed under the image.
pub fn admit(
    request: &Request<'_>,
    evidence: &[Envelope],
    policy: &TrustPolicy,
    now: Timestamp,
) -> Result<VerifiedRelease, Refusal> {
    let image = request.image;
    if policy.revoked.contains(&image) {
        return Err(Refusal::Revoked { image });
    }
    let config = request.config.digest();
    let (reports, mut refusals) = matching(request, config, evidence, policy, now);
    let chosen = choose(reports, request.launch_use).map_err(|refusal| refusals.push(refusal)).ok().flatten();
    match chosen.map(|(report, warnings)| within_age(request, report, warnings, policy, now)) {
        Some(Ok(verified)) => return Ok(verified),
        Some(Err(refusal)) => refusals.push(refusal),
        None => {}
    }
    Err(refusals.into_iter().max_by_key(Refusal::nearness).unwrap_or(Refusal::NoEvidence { image }))
}

/// The reports about exactly this release and suite, newest first, and why the others are not.
fn matching(
    request: &Request<'_>,
    config: ConfigDigest,
    evidence: &[Envelope],
    policy: &TrustPolicy,
    now: Timestamp,
) -> (Vec<Report>, Vec<Refusal>) {
    let (mut reports, mut refusals) = (Vec::new(), Vec::new());
    for envelope in evidence {
        let judged = evidence::open(envelope, &policy.keys)
            .map_err(|error| refusal_of(request.image, error))
            .and_then(|report| concerns(request, config, report, now));
        match judged {
            Ok(report) => reports.push(report),
            Err(refusal) => refusals.push(refusal),
        }
    }
    reports.sort_by_key(|report| std::cmp::Reverse(report.finished_at));
    (reports, refusals)
}

fn concerns(request: &Request<'_>, config: ConfigDigest, report: Report, now: Timestamp) -> Result<Report, Refusal> {
    let image = request.image;
    if report.image != image {
        return Err(Refusal::WrongImage { wanted: image, found: report.image });
    }
    if report.config != config {
        return Err(Refusal::WrongConfiguration { image, wanted: config, found: report.config });
    }
    if report.suite != request.suite {
        return Err(Refusal::WrongSuite { image, wanted: request.suite, found: report.suite });
    }
    if report.finished_at.duration_since(now) > jiff::SignedDuration::try_from(CLOCK_SKEW).unwrap_or_default() {
        return Err(Refusal::FromTheFuture { image, finished_at: report.finished_at, now });
    }
    Ok(report)
}

/// The report that decides, with what must be said about it.
fn choose(reports: Vec<Report>, launch_use: LaunchUse) -> Result<Option<(Report, Vec<String>)>, Refusal> {
    let Some(newest) = reports.first().cloned() else { return Ok(None) };
    if newest.verdict == Verdict::Passed {
        return Ok(Some((newest, Vec::new())));
    }
    let failed = newest.names(Verdict::Failed);
    let passed = reports.into_iter().find(|report| report.verdict == Verdict::Passed);
    match passed {
        Some(report) if launch_use == LaunchUse::Heal => {
            let warning = format!(
                "the newest run of the tests failed ({}, at {}); healing goes on with the run of {}, a new rollout would be refused",
                failed.join(", "),
                newest.finished_at,
                report.finished_at
            );
            Ok(Some((report, vec![warning])))
        }
        _ => Err(Refusal::Failing { image: newest.image, finished_at: newest.finished_at, failed }),
    }
}

fn within_age(
    request: &Request<'_>,
    report: Report,
    mut warnings: Vec<String>,
    policy: &TrustPolicy,
    now: Timestamp,
) -> Result<VerifiedRelease, Refusal> {
    let finished_at = report.seen_at();
    let expires_at = finished_at.saturating_add(policy.max_age()).unwrap_or(Timestamp::MAX);
    if expires_at <= now {
        if request.launch_use == LaunchUse::Rollout || policy.on_expiry() == OnExpiry::Stop {
            return Err(Refusal::Expired { image: request.image, finished_at, expired_at: expires_at });
        }
        warnings.push(format!(
            "the report of image {} is from {finished_at} and EXPIRED at {expires_at}; healing goes on because the fleet says on_expiry = \"warn\": run `kiln test`",
            request.image.short()
        ));
    }
    Ok(VerifiedRelease {
        release: Release { image: request.image, config: report.config },
        config: request.config.clone(),
        suite: Some(report.suite),
        purpose: Purpose::Serve,
        expires_at: Some(expires_at),
        warnings,
    })
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
