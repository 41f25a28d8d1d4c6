//! Every way to cheat, and what is said about it.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use kiln_model::{
    Digest, FrozenConfig, ImageDigest, SuiteDigest, VerifiedRelease,
    evidence::{self, Envelope, Report, SigningKey, TestOutcome, Verdict},
    fleet::{EvidencePolicy, OnExpiry},
    trust::{self, LaunchUse, Purpose, Refusal, Request, TrustPolicy, TrustedKey},
};

const DAY: i64 = 86_400;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn image() -> ImageDigest {
    ImageDigest(Digest::of(b"image"))
}

fn suite() -> SuiteDigest {
    SuiteDigest(Digest::of(b"suite"))
}

fn config() -> FrozenConfig {
    FrozenConfig::of_environment(BTreeMap::from([("COLOUR".to_owned(), "green".to_owned())]))
}

fn policy() -> TrustPolicy {
    TrustPolicy {
        keys: vec![TrustedKey { name: "this-host".parse().unwrap(), key: key(1).verifying_key() }],
        ..TrustPolicy::default()
    }
}

fn report(days_ago: i64, verdict: Verdict) -> Report {
    let test = TestOutcome { name: "page".to_owned(), verdict, took: Duration::from_millis(3), message: None };
    Report {
        name: "hello".to_owned(),
        image: image(),
        config: config().digest(),
        suite: suite(),
        verdict,
        finished_at: Timestamp::from_second(now().as_second() - days_ago * DAY).unwrap(),
        parameters: vec![],
        tests: vec![test],
        matrix: vec![],
        reads: Default::default(),
    }
}

fn passed(days_ago: i64) -> Report {
    report(days_ago, Verdict::Passed)
}

fn sealed(report: Report) -> Envelope {
    evidence::seal(&report, &key(1))
}

fn admit(launch_use: LaunchUse, evidence: &[Envelope], policy: &TrustPolicy) -> Result<VerifiedRelease, Refusal> {
    let config = config();
    let name = "hello".parse().unwrap();
    let request = Request { image: image(), name: &name, config: &config, suite: suite(), launch_use };
    trust::admit(&request, evidence, policy, now())
}

/// The refusal for a rollout with this evidence; its words must name a culprit and a way on.
fn refusal(evidence: &[Envelope]) -> Refusal {
    let refusal = admit(LaunchUse::Rollout, evidence, &policy()).expect_err("must be refused");
    assert!(refusal.to_string().len() > 60, "{refusal}");
    refusal
}

#[test]
fn a_passing_report_by_a_trusted_key_is_admitted() {
    let verified = admit(LaunchUse::Rollout, &[sealed(passed(1))], &policy()).unwrap();
    assert_eq!(verified.release().image, image());
    assert_eq!(verified.release().config, config().digest());
    assert_eq!(verified.suite(), Some(suite()));
    assert_eq!(verified.purpose(), Purpose::Serve);
    assert_eq!(verified.expires_at().unwrap().as_second(), now().as_second() + 29 * DAY);
    assert!(verified.warnings().is_empty());
}

#[test]
fn nothing_is_admitted_without_evidence() {
    assert!(matches!(refusal(&[]), Refusal::NoEvidence { .. }));
}

#[test]
fn a_foreign_key_is_refused() {
    let found = refusal(&[evidence::seal(&passed(1), &key(7))]);
    assert!(matches!(found, Refusal::ForeignKey { .. }), "{found}");
}

#[test]
fn a_tampered_report_is_refused() {
    let mut envelope = sealed(report(1, Verdict::Failed));
    envelope.payload = sealed(passed(1)).payload;
    assert!(matches!(refusal(&[envelope]), Refusal::Tampered { .. }));
}

#[test]
fn a_report_of_another_image_is_refused() {
    let found = refusal(&[sealed(Report { image: ImageDigest(Digest::of(b"other")), ..passed(1) })]);
    assert!(matches!(found, Refusal::WrongImage { .. }));
}

#[test]
fn a_report_with_another_configuration_is_refused() {
    let found = refusal(&[sealed(Report { config: FrozenConfig::default().digest(), ..passed(1) })]);
    assert!(matches!(found, Refusal::WrongConfiguration { .. }));
}

#[test]
fn a_report_of_other_tests_is_refused() {
    let found = refusal(&[sealed(Report { suite: SuiteDigest(Digest::of(b"easier")), ..passed(1) })]);
    assert!(matches!(found, Refusal::WrongSuite { .. }));
}

#[test]
fn a_failing_report_is_refused_and_names_the_tests() {
    let found = refusal(&[sealed(report(1, Verdict::Failed))]);
    assert!(matches!(found, Refusal::Failing { .. }));
    assert!(found.to_string().contains("page"));
}

#[test]
fn an_older_pass_does_not_hide_a_newer_failure_from_a_rollout() {
    let found = refusal(&[sealed(passed(2)), sealed(report(1, Verdict::Failed))]);
    assert!(matches!(found, Refusal::Failing { .. }));
}

#[test]
fn a_newer_pass_outweighs_an_older_failure() {
    let evidence = [sealed(report(2, Verdict::Failed)), sealed(passed(1))];
    assert!(admit(LaunchUse::Rollout, &evidence, &policy()).is_ok());
}

#[test]
fn healing_goes_on_after_a_failed_renewal_and_says_so() {
    let evidence = [sealed(passed(2)), sealed(report(1, Verdict::Failed))];
    let verified = admit(LaunchUse::Heal, &evidence, &policy()).unwrap();
    assert!(verified.warnings()[0].contains("failed (page"), "{:?}", verified.warnings());
}

#[test]
fn an_expired_report_refuses_a_rollout_with_both_dates() {
    let found = refusal(&[sealed(passed(31))]);
    assert!(matches!(found, Refusal::Expired { .. }));
    assert!(found.to_string().contains("2026-05-01T00:00:00Z"), "{found}");
    assert!(found.to_string().contains("2026-05-31T00:00:00Z"), "{found}");
}

#[test]
fn an_expired_report_heals_with_a_loud_warning_unless_the_fleet_says_stop() {
    let evidence = [sealed(passed(31))];
    let verified = admit(LaunchUse::Heal, &evidence, &policy()).unwrap();
    assert!(verified.warnings()[0].contains("EXPIRED"), "{:?}", verified.warnings());
    let stop = EvidencePolicy { on_expiry: OnExpiry::Stop, ..EvidencePolicy::default() };
    let refused = admit(LaunchUse::Heal, &evidence, &TrustPolicy { evidence: stop, ..policy() });
    assert!(matches!(refused, Err(Refusal::Expired { .. })));
}

#[test]
fn a_report_expires_at_the_end_of_its_age_not_after() {
    assert!(matches!(refusal(&[sealed(passed(30))]), Refusal::Expired { .. }));
    assert!(admit(LaunchUse::Rollout, &[sealed(passed(29))], &policy()).is_ok());
}

#[test]
fn a_report_from_the_future_does_not_live_longer() {
    assert!(matches!(refusal(&[sealed(passed(-1))]), Refusal::FromTheFuture { .. }));
}

#[test]
fn a_revoked_image_is_refused_also_for_healing() {
    let policy = TrustPolicy { revoked: [(image(), "a hole".to_owned())].into(), ..policy() };
    for launch_use in [LaunchUse::Rollout, LaunchUse::Heal] {
        let refused = admit(launch_use, &[sealed(passed(1))], &policy);
        assert!(matches!(&refused, Err(Refusal::Revoked { reason, .. }) if reason == "a hole"), "{refused:?}");
    }
}

#[test]
fn something_that_is_no_report_is_refused_as_malformed() {
    let envelope = Envelope { payload: "%%%".to_owned(), ..sealed(passed(1)) };
    assert!(matches!(refusal(&[envelope]), Refusal::Malformed { .. }));
}

#[test]
fn without_trusted_keys_nothing_is_believed() {
    let refused = admit(LaunchUse::Rollout, &[sealed(passed(1))], &TrustPolicy::default());
    assert!(matches!(refused, Err(Refusal::ForeignKey { .. })));
}

#[test]
fn of_several_reasons_the_nearest_to_admission_is_told() {
    let evidence = [
        evidence::seal(&passed(1), &key(7)),
        sealed(Report { image: ImageDigest(Digest::of(b"other")), ..passed(1) }),
        sealed(passed(40)),
    ];
    assert!(matches!(refusal(&evidence), Refusal::Expired { .. }));
}

#[test]
fn bad_reports_beside_a_good_one_do_no_harm() {
    let evidence = [evidence::seal(&report(0, Verdict::Failed), &key(7)), sealed(passed(1))];
    assert!(admit(LaunchUse::Rollout, &evidence, &policy()).is_ok());
}

#[test]
fn a_test_server_needs_no_evidence_and_says_what_it_is() {
    let verified = trust::admit_for_test(image(), config());
    assert_eq!(verified.purpose(), Purpose::Test);
    assert_eq!(verified.suite(), None);
}

#[test]
fn a_report_is_as_old_as_the_oldest_run_of_its_matrix_and_fails_with_it() {
    let run = |days_ago: i64, verdict| {
        let report = report(days_ago, verdict);
        let (name, finished_at) = ("minimal".parse().unwrap(), report.finished_at);
        evidence::MatrixReport { name, config: report.config, finished_at, tests: report.tests }
    };
    let young = Report { matrix: vec![run(5, Verdict::Passed)], ..passed(1) };
    assert!(admit(LaunchUse::Rollout, &[sealed(young)], &policy()).is_ok());
    let old = Report { matrix: vec![run(40, Verdict::Passed)], ..passed(1) };
    assert!(matches!(refusal(&[sealed(old)]), Refusal::Expired { .. }));
    let failed = Report { matrix: vec![run(1, Verdict::Failed)], ..passed(1) };
    let lie = evidence::open(&sealed(failed.clone()), &policy().keys);
    assert!(lie.is_err(), "it cannot have passed");
    let refused = refusal(&[sealed(Report { verdict: Verdict::Failed, ..failed })]);
    assert!(refused.to_string().contains("minimal: page"), "{refused}");
}
