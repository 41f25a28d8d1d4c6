//! What a host's trust policy lets in, and every way around it that does not work.

use std::time::Duration;

use jiff::Timestamp;
use kiln_model::{
    Digest, FrozenConfig, ImageDigest, ImageName, KeyName, SuiteDigest, VerifiedRelease,
    evidence::{self, Envelope, Report, SigningKey, TestOutcome, Verdict},
    trust::{self, LaunchUse, Refusal, Request, Rules, THIS_HOST, TrustPolicy, TrustedKey},
};

const DAY: i64 = 86_400;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn named(name: &str, seed: u8) -> TrustedKey {
    TrustedKey { name: name.parse().unwrap(), key: key(seed).verifying_key() }
}

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}

fn image() -> ImageDigest {
    ImageDigest(Digest::of(b"image"))
}

fn suite(name: &str) -> SuiteDigest {
    SuiteDigest(Digest::of(name.as_bytes()))
}

fn report(days_ago: i64, verdict: Verdict) -> Report {
    let test = TestOutcome { name: "page".to_owned(), verdict, took: Duration::from_millis(3), message: None };
    Report {
        name: "shop".to_owned(),
        image: image(),
        config: FrozenConfig::default().digest(),
        suite: suite("suite"),
        verdict,
        finished_at: Timestamp::from_second(now().as_second() - days_ago * DAY).unwrap(),
        parameters: vec![],
        tests: vec![test],
        matrix: vec![],
        reads: Default::default(),
    }
}

fn by(seed: u8, days_ago: i64) -> Envelope {
    evidence::seal(&report(days_ago, Verdict::Passed), &key(seed))
}

/// One statement that several keys signed.
fn together(seeds: &[u8]) -> Envelope {
    let mut all: Vec<_> = seeds.iter().map(|seed| by(*seed, 1)).collect();
    let mut first = all.remove(0);
    first.signatures.extend(all.into_iter().flat_map(|envelope| envelope.signatures));
    first
}

/// `this-host` is 1, `ci` 2, `release` 3, `ops` 4.
fn policy(rules: &str) -> TrustPolicy {
    TrustPolicy {
        keys: vec![named(THIS_HOST, 1), named("ci", 2), named("release", 3), named("ops", 4)],
        rules: Rules::parse(rules, "trust.toml").unwrap_or_else(|found| panic!("{}", found.render(false, 100))),
        ..TrustPolicy::default()
    }
}

fn admit_as(
    name: &str,
    launch_use: LaunchUse,
    evidence: &[Envelope],
    policy: &TrustPolicy,
) -> Result<VerifiedRelease, Refusal> {
    let (name, config): (ImageName, _) = (name.parse().unwrap(), FrozenConfig::default());
    let request = Request { image: image(), name: &name, config: &config, suite: suite("suite"), launch_use };
    trust::admit(&request, evidence, policy, now())
}

fn admit(evidence: &[Envelope], policy: &TrustPolicy) -> Result<VerifiedRelease, Refusal> {
    admit_as("shop", LaunchUse::Rollout, evidence, policy)
}

fn code(evidence: &[Envelope], policy: &TrustPolicy) -> &'static str {
    admit(evidence, policy).map_or_else(|refusal| refusal.code(), |_| "admitted")
}

#[test]
fn only_the_keys_of_the_rule_may_sign() {
    let policy = policy("[[rule]]\nimages = [\"shop\"]\nkeys = [\"ci\"]\n");
    assert_eq!(code(&[by(2, 1)], &policy), "admitted");
    let refusal = admit(&[by(4, 1)], &policy).expect_err("ops may not");
    assert_eq!(refusal.code(), "not-allowed");
    assert!(refusal.to_string().contains("`ops`, which may not sign for images called `shop`; `ci` may"), "{refusal}");
    assert_eq!(code(&[by(1, 1)], &policy), "not-allowed", "this host is a key like any other");
    assert_eq!(code(&[by(9, 1)], &policy), "foreign-key");
    // A good one beside bad ones is found.
    assert_eq!(code(&[by(9, 1), by(4, 1), by(2, 1)], &policy), "admitted");
    // A failing run by somebody who may not sign says nothing.
    let failed = evidence::seal(&report(0, Verdict::Failed), &key(4));
    assert_eq!(code(&[failed, by(2, 1)], &policy), "admitted");
}

#[test]
fn the_first_rule_that_fits_the_name_decides() {
    let policy = policy(
        "[[rule]]\nimages = [\"shop-*\", \"till\"]\nkeys = [\"release\"]\n[[rule]]\nimages = [\"shop*\"]\nkeys = [\"ci\"]\n",
    );
    for (name, seed, expected) in [
        ("shop", 2, "admitted"),
        ("shop", 3, "not-allowed"),
        ("shop-db", 3, "admitted"),
        ("shop-db", 2, "not-allowed"),
        ("till", 3, "admitted"),
        ("tills", 3, "no-rule"),
    ] {
        let found = admit_as(name, LaunchUse::Rollout, &[by(seed, 1)], &policy);
        assert_eq!(found.map_or_else(|refusal| refusal.code(), |_| "admitted"), expected, "{name} {seed}");
    }
}

#[test]
fn as_many_keys_as_the_rule_wants_must_have_seen_a_pass() {
    let two = policy("[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\", \"release\", \"ops\"]\nthreshold = 2\n");
    let refusal = admit(&[by(2, 1)], &two).expect_err("one is too few");
    assert_eq!(refusal.code(), "threshold");
    assert!(refusal.to_string().contains("1 of 2 keys (`ci`); `ci`, `release`, `ops` may sign"), "{refusal}");
    assert_eq!(code(&[by(2, 1), by(3, 2)], &two), "admitted");
    assert_eq!(code(&[together(&[2, 4])], &two), "admitted", "two signatures on one statement");
    // None of these is a second key.
    assert_eq!(code(&[by(2, 1), by(2, 2)], &two), "threshold", "the same key twice");
    assert_eq!(code(&[together(&[2, 2])], &two), "threshold", "one signature twice");
    assert_eq!(code(&[by(2, 1), by(1, 1)], &two), "threshold", "a key that may not");
    assert_eq!(code(&[by(2, 1), by(9, 1)], &two), "threshold", "a foreign key");
    let other = Report { suite: suite("easier"), ..report(1, Verdict::Passed) };
    assert_eq!(code(&[by(2, 1), evidence::seal(&other, &key(3))], &two), "threshold", "another suite");
    let failed = evidence::seal(&report(3, Verdict::Failed), &key(3));
    assert_eq!(code(&[by(2, 1), failed], &two), "threshold", "a key that saw it fail");
    let failed = evidence::seal(&report(0, Verdict::Failed), &key(3));
    assert_eq!(code(&[by(2, 1), by(4, 1), failed], &two), "failing", "the newest run failed");
    // One key under two names is one key.
    let twice = TrustPolicy { keys: vec![named("ci", 2), named("release", 2)], ..two.clone() };
    assert_eq!(code(&[by(2, 1), together(&[2, 2])], &twice), "threshold");
    // Two keys of one name are one name.
    let renewed = TrustPolicy { keys: vec![named("ci", 2), named("ci", 3)], ..two };
    assert_eq!(code(&[by(2, 1), by(3, 1)], &renewed), "threshold");
}

#[test]
fn evidence_expires_when_too_few_are_left() {
    let rules = "[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\", \"release\"]\nthreshold = 2\nmax_age = \"7d\"\n";
    let policy = policy(rules);
    let verified = admit(&[by(2, 1), by(3, 5)], &policy).unwrap();
    assert_eq!(verified.expires_at().unwrap().as_second(), now().as_second() + 2 * DAY);
    assert_eq!(verified.report().unwrap().finished_at.as_second(), now().as_second() - DAY);
    assert_eq!(code(&[by(2, 1), by(3, 8)], &policy), "expired");
    let healed = admit_as("shop", LaunchUse::Heal, &[by(2, 1), by(3, 8)], &policy).unwrap();
    assert!(healed.warnings()[0].contains("EXPIRED"), "{:?}", healed.warnings());
    // The host may want younger evidence than the fleet, never the other way round.
    let patient = self::policy("[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\"]\nmax_age = \"60d\"\n");
    assert_eq!(code(&[by(2, 31)], &patient), "expired");
}

#[test]
fn a_revoked_keys_reports_count_no_more_for_healing_either() {
    let mut policy = policy("[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\", \"release\"]\n");
    let ci = policy.keys.remove(1);
    policy.revoked_keys.push(ci);
    for launch_use in [LaunchUse::Rollout, LaunchUse::Heal] {
        let refusal = admit_as("shop", launch_use, &[by(2, 1)], &policy).expect_err("revoked");
        assert_eq!(refusal.code(), "revoked-key");
        assert!(refusal.to_string().contains("by key `ci`, which was revoked"), "{refusal}");
    }
    assert_eq!(code(&[by(2, 1), by(3, 2)], &policy), "admitted");
    assert_eq!(code(&[together(&[2, 3])], &policy), "admitted", "the other signature is still good");
}

#[test]
fn a_suite_that_the_policy_does_not_want_does_not_count() {
    let rule = |suite: SuiteDigest| format!("[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\"]\nsuites = [\"{suite}\"]\n");
    assert_eq!(code(&[by(2, 1)], &policy(&rule(suite("suite")))), "admitted");
    let strict = policy(&rule(suite("harder")));
    let refusal = admit(&[by(2, 1)], &strict).expect_err("an easier suite");
    assert_eq!(refusal.code(), "suite-not-accepted");
    assert!(refusal.to_string().contains(&suite("harder").short()), "{refusal}");
}

#[test]
fn the_suite_of_an_image_from_elsewhere_is_that_of_the_newest_report_that_counts() {
    let name: ImageName = "shop".parse().unwrap();
    let of = |rules: &str, envelopes: &[Envelope]| trust::suite_of(image(), &name, envelopes, &policy(rules), now());
    let ci = "[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\"]\n";
    let newer = Report { suite: suite("newer"), ..report(1, Verdict::Passed) };
    let foreign = Report { suite: suite("foreign"), ..report(0, Verdict::Passed) };
    let other_image = Report { image: ImageDigest(Digest::of(b"x")), ..foreign.clone() };
    let evidence = [
        by(2, 3),
        evidence::seal(&newer, &key(2)),
        evidence::seal(&foreign, &key(9)),
        evidence::seal(&foreign, &key(3)),
        evidence::seal(&other_image, &key(2)),
    ];
    assert_eq!(of(ci, &evidence), Some(suite("newer")));
    assert_eq!(of(ci, &evidence[2..]), None);
    let pinned = format!("{ci}suites = [\"{}\"]\n", suite("suite"));
    assert_eq!(of(&pinned, &evidence), Some(suite("suite")), "of those that the policy takes");
    assert_eq!(of("[[rule]]\nimages = [\"till\"]\nkeys = [\"ci\"]\n", &evidence), None);
}

#[test]
fn an_image_is_vouched_for_when_one_configuration_passed() {
    let name: ImageName = "shop".parse().unwrap();
    let policy = policy("[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\", \"release\"]\nthreshold = 2\n");
    let other = Report { config: kiln_model::ConfigDigest(Digest::of(b"other")), ..report(1, Verdict::Passed) };
    let vouched = |evidence: &[Envelope]| {
        trust::vouched(image(), &name, suite("suite"), evidence, &policy, now()).map_err(|refusal| refusal.code())
    };
    assert_eq!(vouched(&[by(2, 1), by(3, 1)]).map(drop), Ok(()));
    // One key for each of two configurations is not two for one.
    assert_eq!(vouched(&[by(2, 1), evidence::seal(&other, &key(3))]), Err("threshold"));
    assert_eq!(vouched(&[]), Err("no-evidence"));
}

#[test]
fn whether_a_report_of_this_host_would_count_is_known_beforehand() {
    let (shop, own): (ImageName, KeyName) = ("shop".parse().unwrap(), THIS_HOST.parse().unwrap());
    assert!(TrustPolicy::default().counts(&shop, &own));
    assert!(!policy("[[rule]]\nimages = [\"*\"]\nkeys = [\"ci\"]\n").counts(&shop, &own));
    assert!(policy("[[rule]]\nimages = [\"sh*\"]\nkeys = [\"ci\", \"this-host\"]\n").counts(&shop, &own));
    assert!(!policy("[[rule]]\nimages = [\"till\"]\nkeys = [\"this-host\"]\n").counts(&shop, &own));
}
