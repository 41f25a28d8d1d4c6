//! The check itself.
//!
//! Order: a revoked image is refused whatever its reports say, and so is one for whose name the policy has no rule. Then
//! every envelope is opened and judged alone ([`judge`]); those about exactly this release and suite are the evidence. The
//! newest of them must have passed, and as many keys as the rule wants must have seen a pass that is not too old. Healing
//! is kinder in two ways, both said loudly in the warnings: expired reports still serve where the policy says
//! `on_expiry = "warn"`, and a newer failing run (a renewal that went wrong) does not stop the replacing of servers that
//! older evidence admits.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use super::{
    LaunchUse, Purpose, Refusal, TrustPolicy, TrustRule, VerifiedRelease,
    judge::{About, judge},
};
use crate::{
    config::FrozenConfig,
    digest::{ConfigDigest, ImageDigest, SuiteDigest},
    evidence::{Envelope, Opened, Report, Verdict},
    fleet::OnExpiry,
    id::{ImageName, KeyName},
    release::Release,
};

/// What is to be launched.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The image.
    pub image: ImageDigest,
    /// Its name, as its manifest says it.
    pub name: &'a ImageName,
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
    let config = request.config.digest();
    let about = About { image: request.image, name: request.name, suite: Some(request.suite), config: Some(config) };
    let rule = rule(&about, policy)?;
    let (counting, mut refusals) = judge(&about, &rule, evidence, policy, now);
    let case = Case { image: request.image, launch_use: request.launch_use, rule: &rule, policy, now };
    match case.decide(counting) {
        Ok(decided) => Ok(VerifiedRelease {
            release: Release { image: request.image, config },
            config: request.config.clone(),
            suite: Some(request.suite),
            purpose: Purpose::Serve,
            expires_at: Some(decided.expires_at),
            warnings: decided.warnings,
            report: Some(Box::new(decided.report)),
        }),
        Err(refusal) => {
            refusals.push(refusal);
            Err(nearest(refusals, request.image))
        }
    }
}

/// The newest report that says that an image passed a suite, with any configuration: what promoting it asks.
pub fn vouched(
    image: ImageDigest,
    name: &ImageName,
    suite: SuiteDigest,
    evidence: &[Envelope],
    policy: &TrustPolicy,
    now: Timestamp,
) -> Result<Report, Refusal> {
    let about = About { image, name, suite: Some(suite), config: None };
    let rule = rule(&about, policy)?;
    let (counting, mut refusals) = judge(&about, &rule, evidence, policy, now);
    let mut configs: BTreeMap<ConfigDigest, Vec<Opened>> = BTreeMap::new();
    counting.into_iter().for_each(|opened| configs.entry(opened.report.config).or_default().push(opened));
    let case = Case { image, launch_use: LaunchUse::Rollout, rule: &rule, policy, now };
    for counting in configs.into_values() {
        match case.decide(counting) {
            Ok(decided) => return Ok(decided.report),
            Err(refusal) => refusals.push(refusal),
        }
    }
    Err(nearest(refusals, image))
}

/// The suite that an image which came from elsewhere must have passed: that of the newest report that counts. None if no
/// report does.
pub fn suite_of(
    image: ImageDigest,
    name: &ImageName,
    evidence: &[Envelope],
    policy: &TrustPolicy,
    now: Timestamp,
) -> Option<SuiteDigest> {
    let about = About { image, name, suite: None, config: None };
    let rule = rule(&about, policy).ok()?;
    let (counting, _) = judge(&about, &rule, evidence, policy, now);
    counting.iter().map(|opened| opened.report.suite).find(|suite| rule.takes(suite))
}

/// The rule for the image, if it can be launched at all.
fn rule(about: &About<'_>, policy: &TrustPolicy) -> Result<TrustRule, Refusal> {
    let image = about.image;
    if let Some(revoked) = policy.revocation(image) {
        return Err(revoked);
    }
    let rule = policy.rules.rule(about.name).ok_or_else(|| Refusal::NoRule { image, name: about.name.clone() })?;
    match about.suite.filter(|suite| !rule.takes(suite)) {
        Some(suite) => Err(Refusal::SuiteNotAccepted { image, suite, accepted: rule.suites }),
        None => Ok(rule),
    }
}

/// The one that tells most about what to do.
fn nearest(refusals: Vec<Refusal>, image: ImageDigest) -> Refusal {
    refusals.into_iter().max_by_key(Refusal::nearness).unwrap_or(Refusal::NoEvidence { image })
}

/// What decides beside the reports.
struct Case<'a> {
    image: ImageDigest,
    launch_use: LaunchUse,
    rule: &'a TrustRule,
    policy: &'a TrustPolicy,
    now: Timestamp,
}

/// Why a release may be launched.
struct Decided {
    /// The newest that passed.
    report: Report,
    expires_at: Timestamp,
    warnings: Vec<String>,
}

/// The newest pass that a key saw: when the oldest of what it says was seen.
type Passes = BTreeMap<KeyName, Timestamp>;

impl Case<'_> {
    /// Decides by the reports that count, newest first.
    fn decide(&self, counting: Vec<Opened>) -> Result<Decided, Refusal> {
        let Some(newest) = counting.first() else { return Err(Refusal::NoEvidence { image: self.image }) };
        let newest = newest.report.clone();
        let mut passes = Passes::new();
        let passed: Vec<&Opened> = counting.iter().filter(|o| o.report.verdict == Verdict::Passed).collect();
        for opened in passed.iter().rev() {
            for signer in &opened.signers {
                let seen = passes.entry(signer.clone()).or_insert(Timestamp::MIN);
                *seen = opened.report.seen_at().max(*seen);
            }
        }
        let mut warnings = Vec::new();
        let report = match passed.first() {
            Some(pass) if newest.verdict == Verdict::Passed => pass.report.clone(),
            Some(pass) if self.launch_use == LaunchUse::Heal => {
                warnings.push(failed_renewal(&newest, &pass.report));
                pass.report.clone()
            }
            _ => {
                let (image, finished_at) = (self.image, newest.finished_at);
                return Err(Refusal::Failing { image, finished_at, failed: newest.names(Verdict::Failed) });
            }
        };
        let expires_at = self.within_age(&passes, &mut warnings)?;
        Ok(Decided { report, expires_at, warnings })
    }

    /// When too few of the passes will be young enough; refused if that is now, unless healing may go on.
    fn within_age(&self, passes: &Passes, warnings: &mut Vec<String>) -> Result<Timestamp, Refusal> {
        let (image, need) = (self.image, self.rule.threshold.max(1) as usize);
        let mut times: Vec<Timestamp> = passes.values().copied().collect();
        times.sort_by_key(|at| std::cmp::Reverse(*at));
        let Some(finished_at) = times.get(need - 1).copied() else {
            let (have, keys) = (passes.keys().cloned().collect(), self.rule.keys.clone());
            return Err(Refusal::Threshold { image, have, need: self.rule.threshold, keys });
        };
        let expires_at = finished_at.saturating_add(self.max_age()).unwrap_or(Timestamp::MAX);
        if expires_at <= self.now {
            if self.launch_use == LaunchUse::Rollout || self.policy.on_expiry() == OnExpiry::Stop {
                return Err(Refusal::Expired { image, finished_at, expired_at: expires_at });
            }
            warnings.push(format!(
                "the report of image {} is from {finished_at} and EXPIRED at {expires_at}; healing goes on because the fleet says on_expiry = \"warn\": run `kiln test`",
                image.short()
            ));
        }
        Ok(expires_at)
    }

    /// The fleet and the host each say how old a report may be.
    fn max_age(&self) -> Duration {
        let fleet = self.policy.evidence.max_age;
        self.rule.max_age.map_or(fleet, |host| host.min(fleet))
    }
}

fn failed_renewal(newest: &Report, pass: &Report) -> String {
    format!(
        "the newest run of the tests failed ({}, at {}); healing goes on with the run of {}, a new rollout would be refused",
        newest.names(Verdict::Failed).join(", "),
        newest.finished_at,
        pass.finished_at
    )
}
