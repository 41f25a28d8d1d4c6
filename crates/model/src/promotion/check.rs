//! The check: every rule is looked at, so that whoever is refused learns all that is missing at once.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};

use super::{ChannelRule, Channels, Granted, ReportRule, Stay, Unmet};
use crate::{
    digest::{ImageDigest, SuiteDigest},
    evidence::{self, Approval, Envelope, Intent, Report},
    fleet::EvidencePolicy,
    id::{ChannelName, ImageName, KeyName},
    trust::{self, CLOCK_SKEW, Refusal, Rules, TrustPolicy, TrustRule},
};

/// The signature of a promotion is not older than this: it is no approval to be kept for later.
pub const SIGNED_WITHIN: Duration = Duration::from_secs(600);

/// What is to be decided.
#[derive(Debug, Clone, Copy)]
pub struct Case<'a> {
    /// The image.
    pub image: ImageDigest,
    /// Its name, as its manifest says it.
    pub name: &'a ImageName,
    /// The suite that must have passed.
    pub suite: SuiteDigest,
    /// The channel that is to point to it.
    pub channel: &'a ChannelName,
    /// The reports on the image.
    pub reports: &'a [Envelope],
    /// The approvals of the image, whatever channel they are for.
    pub approvals: &'a [Envelope],
    /// When which channel of the name pointed to it.
    pub stays: &'a [Stay],
    /// The signature of whoever promotes, if there is one.
    pub promotion: Option<&'a Envelope>,
    /// Whom this host believes.
    pub policy: &'a TrustPolicy,
    /// The time.
    pub now: Timestamp,
}

/// Whether the channel may be moved to the image: all that is good, or every rule that does not hold.
pub fn check(channels: &Channels, case: &Case<'_>) -> Result<Granted, Vec<Unmet>> {
    let rule = channels.0.get(case.channel).cloned().unwrap_or_default();
    let mut unmet = Vec::new();
    let report = case.vouched(case.policy).map_err(|refusal| unmet.push(Unmet::Evidence(Box::new(refusal)))).ok();
    let report = match (report, &rule.reports) {
        (Some(_), Some(wanted)) => case.reports(wanted).map_err(|missing| unmet.push(missing)).ok(),
        (report, _) => report,
    };
    let soaked = case.soaked(&rule).map_err(|missing| unmet.push(missing)).ok().flatten();
    let approvals = case.approvals(&rule);
    if (approvals.len() as u32) < rule.approvals {
        let (channel, approvers) = (case.channel.clone(), rule.approvers.clone());
        let have = approvals.keys().cloned().collect();
        unmet.push(Unmet::Approvals { channel, have, need: rule.approvals, approvers });
    }
    let promoter = case.promoter(&rule).map_err(|missing| unmet.push(missing)).ok().flatten();
    match report {
        Some(report) if unmet.is_empty() => Ok(Granted {
            config: report.config.to_string(),
            suite: report.suite.to_string(),
            tested_at: report.finished_at,
            soaked: soaked.map(|soaked| soaked.as_secs()),
            approvals,
            promoter,
        }),
        _ => Err(unmet),
    }
}

impl Case<'_> {
    fn vouched(&self, policy: &TrustPolicy) -> Result<Report, Refusal> {
        trust::vouched(self.image, self.name, self.suite, self.reports, policy, self.now)
    }

    /// The reports again, as this channel wants them.
    fn reports(&self, wanted: &ReportRule) -> Result<Report, Unmet> {
        let every = "*".parse().expect("`*` fits every name");
        let ReportRule { keys, threshold, suites, max_age } = wanted.clone();
        let rule = TrustRule { images: vec![every], keys, threshold, suites, max_age };
        let max_age = max_age.unwrap_or(self.policy.evidence.max_age);
        let evidence = EvidencePolicy { max_age, ..self.policy.evidence };
        let policy = TrustPolicy { rules: Rules::Listed(vec![rule]), evidence, ..self.policy.clone() };
        self.vouched(&policy)
            .map_err(|refusal| Unmet::Reports { channel: self.channel.clone(), refusal: Box::new(refusal) })
    }

    /// How long it was in the channel before; none where that is not asked.
    fn soaked(&self, rule: &ChannelRule) -> Result<Option<Duration>, Unmet> {
        let Some(after) = &rule.after else { return Ok(None) };
        let stays: Vec<&Stay> = self.stays.iter().filter(|stay| stay.channel == *after).collect();
        if stays.is_empty() {
            return Err(Unmet::NeverThere { channel: self.channel.clone(), after: after.clone() });
        }
        let length = |stay: &&Stay| {
            let until = stay.until.unwrap_or(self.now).min(self.now);
            Duration::try_from(until.duration_since(stay.from)).unwrap_or_default()
        };
        let spent: Duration = stays.iter().map(length).sum();
        if spent >= rule.soak {
            return Ok(Some(spent));
        }
        let still = stays.iter().any(|stay| stay.until.is_none());
        let on = still.then(|| self.now.saturating_add(rule.soak - spent).unwrap_or(Timestamp::MAX));
        Err(Unmet::Soak { after: after.clone(), spent, need: rule.soak, on })
    }

    /// Who has approved, each key once, with the time of its latest approval.
    fn approvals(&self, rule: &ChannelRule) -> BTreeMap<KeyName, Timestamp> {
        let mut found = BTreeMap::new();
        for envelope in self.approvals.iter().filter(|_| rule.approvals > 0) {
            let Ok((approval, signers)) = evidence::open_approval(envelope, &self.policy.keys) else { continue };
            if !self.is_about(&approval, Intent::Approve) {
                continue;
            }
            for signer in signers.into_iter().filter(|signer| rule.approvers.contains(signer)) {
                let at: &mut Timestamp = found.entry(signer).or_insert(approval.at);
                *at = approval.at.max(*at);
            }
        }
        found
    }

    fn is_about(&self, approval: &Approval, intent: Intent) -> bool {
        let same = approval.image == self.image && approval.name == self.name.as_str();
        let future = approval.at.duration_since(self.now) > signed(CLOCK_SKEW);
        same && approval.channel == *self.channel && approval.intent == intent && !future
    }

    /// Who promotes; none where that is not asked.
    fn promoter(&self, rule: &ChannelRule) -> Result<Option<KeyName>, Unmet> {
        if rule.promoters.is_empty() {
            return Ok(None);
        }
        let refused = |signed: &str| {
            let (channel, promoters) = (self.channel.clone(), rule.promoters.clone());
            Unmet::Promoter { channel, promoters, signed: signed.to_owned() }
        };
        let Some(envelope) = self.promotion else { return Err(refused("this promotion is not signed")) };
        let opened = evidence::open_approval(envelope, &self.policy.keys);
        let (promotion, signers) = opened.map_err(|error| refused(&error.to_string()))?;
        if !self.is_about(&promotion, Intent::Promote) {
            return Err(refused("what is signed is another promotion"));
        }
        if self.now.duration_since(promotion.at) > signed(SIGNED_WITHIN) {
            return Err(refused("it was signed too long ago"));
        }
        let signer = signers.iter().find(|signer| rule.promoters.contains(signer));
        signer.cloned().map(Some).ok_or_else(|| {
            let names: Vec<String> = signers.iter().map(|signer| format!("`{signer}`")).collect();
            refused(&format!("{} has signed", names.join(", ")))
        })
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or_default()
}
