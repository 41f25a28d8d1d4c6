//! Every rule of a channel, held and not held, and what is said about it.

use jiff::Timestamp;
use kiln_model::{
    ChannelName, ConfigDigest, Digest, ImageDigest, SuiteDigest,
    evidence::{self, Approval, Envelope, Intent, Report, SigningKey, Verdict},
    promotion::{Case, Channels, Granted, Stay, Unmet, check},
    trust::{TrustPolicy, TrustedKey},
};
use proptest::prelude::*;

const HOUR: i64 = 3600;

fn now() -> Timestamp {
    "2026-06-01T00:00:00Z".parse().unwrap()
}
fn ago(hours: i64) -> Timestamp {
    Timestamp::from_second(now().as_second() - hours * HOUR).unwrap()
}
fn image() -> ImageDigest {
    ImageDigest(Digest::of(b"image"))
}
fn suite() -> SuiteDigest {
    SuiteDigest(Digest::of(b"suite"))
}
fn stable() -> ChannelName {
    "stable".parse().unwrap()
}
fn key(name: &str) -> SigningKey {
    let mut seed = [0; 32];
    seed[..name.len()].copy_from_slice(name.as_bytes());
    SigningKey::from_bytes(&seed)
}

/// All of these are believed; `mallory` is not.
fn policy() -> TrustPolicy {
    let names = ["this-host", "ci", "nightly", "alice", "bob", "release"];
    let trusted = |name: &str| TrustedKey { name: name.parse().unwrap(), key: key(name).verifying_key() };
    TrustPolicy { keys: names.map(trusted).to_vec(), ..TrustPolicy::default() }
}

fn report(by: &str, hours_ago: i64) -> Envelope {
    let report = Report {
        name: "shop".to_owned(),
        image: image(),
        config: ConfigDigest(Digest::of(b"config")),
        suite: suite(),
        verdict: Verdict::Passed,
        finished_at: ago(hours_ago),
        parameters: vec![],
        tests: vec![],
        matrix: vec![],
        reads: Default::default(),
    };
    evidence::seal(&report, &key(by))
}

fn approval(by: &str, change: impl FnOnce(&mut Approval)) -> Envelope {
    let mut approval = Approval {
        name: "shop".to_owned(),
        image: image(),
        channel: stable(),
        intent: Intent::Approve,
        at: ago(1),
        reason: Some("looked at it".parse().unwrap()),
    };
    change(&mut approval);
    evidence::seal_approval(&approval, &key(by))
}

fn promotion(by: &str, hours_ago: i64) -> Envelope {
    approval(by, |approval| (approval.intent, approval.at) = (Intent::Promote, ago(hours_ago)))
}

fn stay(from: i64, until: Option<i64>) -> Stay {
    Stay { channel: "staging".parse().unwrap(), from: ago(from), until: until.map(ago) }
}

/// What comes of a rule with these signatures and stays.
fn asked(
    rule: &str,
    evidence: &[Envelope],
    stays: &[Stay],
    promotion: Option<&Envelope>,
) -> Result<Granted, Vec<Unmet>> {
    let text = if rule.is_empty() { "[channel.other]\n".to_owned() } else { format!("[channel.stable]\n{rule}\n") };
    let channels = Channels::parse(&text, "kiln.toml").unwrap_or_else(|found| panic!("{}", found.render(false, 100)));
    let (name, channel, policy) = ("shop".parse().unwrap(), stable(), policy());
    let (image, suite, now) = (image(), suite(), now());
    let (approvals, reports): (Vec<_>, Vec<_>) = evidence.iter().cloned().partition(evidence::is_approval);
    let (name, channel, policy) = (&name, &channel, &policy);
    let (reports, approvals) = (&reports[..], &approvals[..]);
    let case = Case { image, name, suite, channel, reports, approvals, stays, promotion, policy, now };
    check(&channels, &case)
}

fn codes(asked: Result<Granted, Vec<Unmet>>) -> Vec<&'static str> {
    let unmet = asked.expect_err("refused");
    assert!(unmet.iter().all(|unmet| unmet.to_string().len() > 30), "{unmet:?}");
    unmet.iter().map(Unmet::code).collect()
}

#[test]
fn unit_a_channel_without_rules_asks_for_a_good_report() {
    assert_eq!(asked("", &[report("ci", 1)], &[], None).unwrap().tested_at, ago(1));
    assert_eq!(codes(asked("", &[], &[], None)), ["no-evidence"]);
    assert_eq!(codes(asked("", &[report("mallory", 1)], &[], None)), ["foreign-key"]);
    let approved = [approval("alice", |_| ())];
    assert_eq!(codes(asked("", &approved, &[], None)), ["no-evidence"], "an approval is no report");
}

#[test]
fn unit_a_channel_may_want_other_reports() {
    let two = "keys = [\"ci\", \"nightly\"]\nthreshold = 2";
    assert!(asked(two, &[report("ci", 1), report("nightly", 2)], &[], None).is_ok());
    let unmet = asked(two, &[report("ci", 1), report("this-host", 1)], &[], None).unwrap_err();
    assert!(unmet[0].to_string().contains("by 1 of 2 keys (`ci`)"), "{unmet:?}");
    let unmet = asked("keys = [\"nightly\"]", &[report("ci", 1)], &[], None).unwrap_err();
    assert!(unmet[0].to_string().contains("they are by `ci`, and those of `nightly` count"), "{unmet:?}");
    assert_eq!(codes(asked("max_age = \"1h\"", &[report("ci", 2)], &[], None)), ["reports"]);
    assert!(asked("max_age = \"3h\"", &[report("ci", 2)], &[], None).is_ok());
    let other = SuiteDigest(Digest::of(b"another"));
    assert_eq!(codes(asked(&format!("suites = [\"{other}\"]"), &[report("ci", 1)], &[], None)), ["reports"]);
    assert!(asked(&format!("suites = [\"{other}\", \"{}\"]", suite()), &[report("ci", 1)], &[], None).is_ok());
}

#[test]
fn unit_time_in_the_channel_before_counts_in_all_and_only_there() {
    let (rule, good) = ("after = \"staging\"\nsoak = \"24h\"", [report("ci", 1)]);
    assert_eq!(codes(asked(rule, &good, &[], None)), ["never-there"]);
    let elsewhere = Stay { channel: "dev".parse().unwrap(), ..stay(100, None) };
    assert_eq!(codes(asked(rule, &good, &[elsewhere], None)), ["never-there"]);
    let unmet = asked(rule, &good, &[stay(20, None)], None).unwrap_err();
    assert!(unmet[0].to_string().contains("wait until 2026-06-01T04:00:00Z"), "{unmet:?}");
    let unmet = asked(rule, &good, &[stay(20, Some(10))], None).unwrap_err();
    assert!(unmet[0].to_string().contains("for 10h and must be there for"), "{unmet:?}");
    assert!(unmet[0].to_string().contains("promote it to `staging` again"), "{unmet:?}");
    assert_eq!(asked(rule, &good, &[stay(24, None)], None).unwrap().soaked, Some(24 * 3600));
    assert!(asked(rule, &good, &[stay(60, Some(45)), stay(10, Some(1))], None).is_ok(), "both count");
    assert_eq!(codes(asked(rule, &good, &[stay(-5, None)], None)), ["soak"], "a clock that was set back");
}

#[test]
fn unit_approvals_count_once_for_each_listed_key_of_this_image_and_channel() {
    let rule = "approvals = 2\napprovers = [\"alice\", \"bob\"]";
    let with = |approvals: &[Envelope]| asked(rule, &[&[report("ci", 1)], approvals].concat(), &[], None);
    let granted = with(&[approval("alice", |_| ()), approval("bob", |_| ())]).unwrap();
    assert_eq!(granted.approvals.len(), 2);
    let alice = || approval("alice", |_| ());
    for (second, what) in [
        (approval("alice", |approval| approval.at = ago(2)), "the same key again"),
        (approval("mallory", |_| ()), "a key that nobody believes"),
        (approval("ci", |_| ()), "a key that is not listed"),
        (approval("bob", |approval| approval.channel = "staging".parse().unwrap()), "another channel"),
        (approval("bob", |approval| approval.image = ImageDigest(Digest::of(b"another"))), "another image"),
        (approval("bob", |approval| approval.name = "till".to_owned()), "another name"),
        (approval("bob", |approval| approval.at = ago(-1)), "from the future"),
        (promotion("bob", 0), "a promotion is no approval"),
        (
            Envelope { payload: approval("bob", |approval| approval.at = ago(3)).payload, ..approval("bob", |_| ()) },
            "a signature put elsewhere",
        ),
    ] {
        let unmet = with(&[alice(), second]).expect_err(what);
        assert!(unmet[0].to_string().starts_with("1 of 2 approvals are there (`alice`)"), "{what}: {unmet:?}");
    }
}

#[test]
fn unit_only_a_fresh_signature_of_a_listed_key_promotes() {
    let (rule, good) = ("promoters = [\"release\"]", [report("ci", 1)]);
    let by = |promotion: Envelope| asked(rule, &good, &[], Some(&promotion));
    assert_eq!(by(promotion("release", 0)).unwrap().promoter, Some("release".parse().unwrap()));
    assert_eq!(codes(asked(rule, &good, &[], None)), ["promoter"]);
    for (promotion, words) in [
        (promotion("release", 1), "signed too long ago"),
        (promotion("alice", 0), "`alice` has signed"),
        (promotion("mallory", 0), "not trusted here"),
        (approval("release", |approval| approval.at = now()), "another promotion"),
    ] {
        let unmet = by(promotion).unwrap_err();
        assert!(unmet[0].to_string().contains(words), "{words}: {unmet:?}");
    }
}

#[test]
fn unit_all_that_is_missing_is_said_at_once() {
    let rule = "promoters = [\"release\"]\nafter = \"staging\"\nsoak = \"1d\"\napprovals = 1\napprovers = [\"bob\"]\nmax_age = \"1h\"";
    assert_eq!(codes(asked(rule, &[report("ci", 5)], &[], None)), ["reports", "never-there", "approvals", "promoter"]);
}

#[test]
fn unit_a_revoked_image_is_promoted_nowhere() {
    let channels = Channels::default();
    let policy = TrustPolicy { revoked: [(image(), "a hole".to_owned())].into(), ..policy() };
    let (name, channel, reports) = ("shop".parse().unwrap(), stable(), [report("ci", 1)]);
    let case = Case {
        image: image(),
        name: &name,
        suite: suite(),
        channel: &channel,
        reports: &reports,
        approvals: &[],
        stays: &[],
        promotion: None,
        policy: &policy,
        now: now(),
    };
    assert_eq!(check(&channels, &case).unwrap_err()[0].code(), "revoked");
}

#[test]
fn unit_what_is_wrong_with_the_rules_of_channels() {
    let shown = |piece: &str| {
        let found = Channels::parse(piece, "kiln.toml").err().unwrap_or_else(|| panic!("this is accepted:\n{piece}"));
        found.render(false, 100)
    };
    let pieces = [
        "",
        "channel = 1\n",
        "[channel]\n",
        "[channels.stable]\nafter = \"dev\"\n",
        "[channel.Stable]\nbefore = \"dev\"\n",
        "[channel.stable]\nsoak = \"1d\"\n",
        "[channel.stable]\nafter = \"dev\"\nsoak = \"a while\"\n",
        "[channel.stable]\napprovals = 2\n",
        "[channel.stable]\napprovers = [\"alice\"]\n",
        "[channel.stable]\napprovals = 2\napprovers = [\"alice\"]\n",
        "[channel.stable]\napprovals = 0\napprovers = [\"alice\", \"alice\"]\n",
        "[channel.stable]\nthreshold = 2\n",
        "[channel.stable]\nkeys = [\"ci\"]\nthreshold = 2\nsuites = []\nmax_age = \"1s\"\n",
        "[channel.stable]\nafter = \"staging\"\n\n[channel.staging]\nafter = \"stable\"\n",
        "[channel.stable]\nafter = \"stable\"\npromoters = []\n",
    ];
    insta::assert_snapshot!(pieces.map(shown).join("--------\n"));
}

#[test]
fn unit_an_approval_is_an_in_toto_statement_that_is_pinned() {
    use base64::Engine as _;
    let payload = base64::engine::general_purpose::STANDARD.decode(approval("alice", |_| ()).payload).unwrap();
    insta::assert_snapshot!(String::from_utf8(payload).unwrap());
    let policy = policy();
    let (opened, signers) = evidence::open_approval(&approval("alice", |_| ()), &policy.keys).unwrap();
    assert_eq!((opened.image, signers.len()), (image(), 1));
    assert!(evidence::open_approval(&report("ci", 1), &policy.keys).is_err(), "a report is no approval");
    assert!(evidence::open(&approval("alice", |_| ()), &policy.keys).is_err(), "an approval is no report");
    assert!(evidence::is_approval(&approval("mallory", |_| ())) && !evidence::is_approval(&report("ci", 1)));
}

proptest! {
    #[test]
    fn unit_any_rules_are_read_without_panic(text in "(\\[channel\\.[a-z]{1,3}\\]\n|after = |soak = |approvals = |approvers = |keys = |threshold = |[\\[\\]\"a-z0-9,= \n-]){0,40}") {
        drop(Channels::parse(&text, "kiln.toml"));
    }
    #[test]
    fn unit_soak_never_counts_more_than_has_passed(stays in proptest::collection::vec((-50i64..100, proptest::option::of(-50i64..100)), 0..5)) {
        let all: Vec<_> = stays.iter().map(|(from, until)| stay(*from, *until)).collect();
        let longest: i64 = stays.iter().map(|(from, _)| (*from).max(0)).sum();
        if let Ok(granted) = asked("after = \"staging\"\nsoak = \"24h\"", &[report("ci", 1)], &all, None) {
            prop_assert!(granted.soaked.unwrap() as i64 <= longest * HOUR);
        }
    }
}
