//! Envelopes: what is sealed opens again, and nothing else does.

use std::time::Duration;

use kiln_model::{
    ConfigDigest, Digest, ImageDigest, SuiteDigest,
    evidence::{
        self, Envelope, MAX_ENVELOPE_BYTES, MAX_SIGNATURES, OpenError, Report, SigningKey, TestOutcome, Verdict,
    },
    trust::TrustedKey,
};
use proptest::prelude::*;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn trusted(seed: u8) -> TrustedKey {
    TrustedKey { name: format!("key-{seed}").parse().unwrap(), key: key(seed).verifying_key() }
}

fn report() -> Report {
    let test = |name: &str, verdict, message: Option<&str>| TestOutcome {
        name: name.to_owned(),
        verdict,
        took: Duration::from_millis(12),
        message: message.map(str::to_owned),
    };
    Report {
        name: "hello".to_owned(),
        image: ImageDigest(Digest::of(b"image")),
        config: ConfigDigest(Digest::of(b"config")),
        suite: SuiteDigest(Digest::of(b"suite")),
        verdict: Verdict::Failed,
        finished_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        parameters: vec!["isolated network".to_owned()],
        tests: vec![
            test("kiln/read-only-root", Verdict::Passed, None),
            test("page", Verdict::Failed, Some("status 500 instead of 200")),
        ],
        matrix: vec![],
        reads: Default::default(),
    }
}

#[test]
fn a_sealed_report_opens_to_itself() {
    let envelope = evidence::seal(&report(), &key(1));
    assert_eq!(evidence::open(&envelope, &[trusted(2), trusted(1)]).unwrap().report, report());
    assert_eq!(evidence::parse(&evidence::render(&envelope)).unwrap(), envelope);
}

/// The example of the DSSE protocol page.
#[test]
fn the_pre_authentication_encoding_is_the_specifications() {
    let pae = evidence::pae("http://example.com/HelloWorld", b"hello world");
    assert_eq!(pae, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
}

/// What was written and signed once must stay readable and must be written the same for ever.
#[test]
fn the_bytes_of_an_envelope_are_pinned() {
    let envelope = evidence::render(&evidence::seal(&report(), &key(1)));
    let digest = Digest::of(&envelope).to_string();
    assert_eq!(String::from_utf8(envelope).unwrap(), include_str!("vectors/envelope.json").trim());
    assert_eq!(digest, include_str!("vectors/envelope.sha256").trim());
}

#[test]
fn the_payload_is_an_in_toto_test_result() {
    use base64::Engine as _;
    let envelope = evidence::seal(&report(), &key(1));
    let payload = base64::engine::general_purpose::STANDARD.decode(&envelope.payload).unwrap();
    let statement: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    assert_eq!(statement["_type"], evidence::STATEMENT);
    assert_eq!(statement["predicateType"], evidence::TEST_RESULT);
    assert_eq!(statement["subject"][0]["digest"]["sha256"], Digest::of(b"image").hex());
    assert_eq!(statement["predicate"]["result"], "FAILED");
    assert_eq!(statement["predicate"]["passedTests"][0], "kiln/read-only-root");
    assert_eq!(statement["predicate"]["failedTests"][0], "page");
}

#[test]
fn a_url_safe_payload_opens_too() {
    let mut envelope = evidence::seal(&report(), &key(1));
    envelope.payload = envelope.payload.replace('+', "-").replace('/', "_");
    envelope.signatures[0].sig = envelope.signatures[0].sig.replace('+', "-").replace('/', "_");
    assert!(evidence::open(&envelope, &[trusted(1)]).is_ok());
}

#[test]
fn a_foreign_key_is_not_believed_and_the_key_id_does_not_help() {
    let mut envelope = evidence::seal(&report(), &key(9));
    assert!(matches!(evidence::open(&envelope, &[trusted(1)]), Err(OpenError::ForeignKey { .. })));
    envelope.signatures[0].keyid = evidence::key_id(&key(1).verifying_key());
    assert!(matches!(evidence::open(&envelope, &[trusted(1)]), Err(OpenError::Tampered { .. })));
    assert!(matches!(evidence::open(&envelope, &[]), Err(OpenError::ForeignKey { .. })));
}

#[test]
fn a_good_signature_opens_whatever_key_id_it_carries_and_whatever_stands_beside_it() {
    let mut envelope = evidence::seal(&report(), &key(1));
    envelope.signatures[0].keyid = String::new();
    envelope.signatures.insert(0, evidence::seal(&report(), &key(9)).signatures[0].clone());
    assert!(evidence::open(&envelope, &[trusted(1)]).is_ok());
}

#[test]
fn sizes_are_bounded_before_anything_is_decoded() {
    assert!(matches!(evidence::parse(&vec![b' '; MAX_ENVELOPE_BYTES + 1]), Err(OpenError::TooLarge { .. })));
    let mut envelope = evidence::seal(&report(), &key(1));
    let signature = envelope.signatures[0].clone();
    envelope.signatures = vec![signature; MAX_SIGNATURES + 1];
    assert!(matches!(evidence::open(&envelope, &[trusted(1)]), Err(OpenError::TooManySignatures { count: 17 })));
    envelope.signatures.clear();
    assert!(matches!(evidence::open(&envelope, &[trusted(1)]), Err(OpenError::Unsigned)));
    envelope.payload = "A".repeat(MAX_ENVELOPE_BYTES + 1);
    assert!(matches!(evidence::open(&envelope, &[trusted(1)]), Err(OpenError::TooLarge { .. })));
}

#[test]
fn another_payload_type_is_refused_even_if_signed() {
    let envelope = sign_bytes("application/json", b"{}");
    assert!(matches!(evidence::open(&envelope, &[trusted(1)]), Err(OpenError::PayloadType { .. })));
}

#[test]
fn a_matrix_is_in_the_statement_with_its_configurations_and_tests() {
    use base64::Engine as _;
    let run = evidence::MatrixReport {
        name: "all-flags".parse().unwrap(),
        config: ConfigDigest(Digest::of(b"flags")),
        finished_at: "2026-01-01T00:00:00Z".parse().unwrap(),
        tests: report().tests,
    };
    let whole = Report { matrix: vec![run], reads: ["motto".parse().unwrap()].into(), ..report() };
    let envelope = evidence::seal(&whole, &key(1));
    assert_eq!(evidence::open(&envelope, &[trusted(1)]).unwrap().report, whole);
    let payload = base64::engine::general_purpose::STANDARD.decode(&envelope.payload).unwrap();
    let text = String::from_utf8(payload).unwrap();
    for (from, to) in
        [(r#""page","all-flags: page""#, r#""page""#), (r#"{"name":"matrix/all-flags""#, r#"{"name":"matrix/none""#)]
    {
        assert!(text.contains(from), "{from}: {text}");
        let changed = sign_bytes(evidence::PAYLOAD_TYPE, text.replace(from, to).as_bytes());
        assert!(matches!(evidence::open(&changed, &[trusted(1)]), Err(OpenError::Statement(_))), "{from}");
    }
}

#[test]
fn a_signed_statement_that_contradicts_itself_is_refused() {
    use base64::Engine as _;
    let envelope = evidence::seal(&report(), &key(1));
    let payload = base64::engine::general_purpose::STANDARD.decode(&envelope.payload).unwrap();
    let text = String::from_utf8(payload).unwrap();
    for (from, to) in [
        (r#""result":"FAILED""#, r#""result":"PASSED""#),
        (r#""failedTests":["page"]"#, r#""failedTests":[]"#),
        (r#""name":"suite""#, r#""name":"configuration""#),
        (evidence::TEST_RESULT, "https://slsa.dev/provenance/v1"),
        ("sha256", "sha512"),
    ] {
        assert!(text.contains(from), "{from}");
        let changed = sign_bytes(evidence::PAYLOAD_TYPE, text.replace(from, to).as_bytes());
        assert!(matches!(evidence::open(&changed, &[trusted(1)]), Err(OpenError::Statement(_))), "{from} → {to}");
    }
}

fn sign_bytes(payload_type: &str, payload: &[u8]) -> Envelope {
    use base64::Engine as _;
    use ed25519_dalek::Signer as _;
    let base64 = base64::engine::general_purpose::STANDARD;
    let sig = base64.encode(key(1).sign(&evidence::pae(payload_type, payload)).to_bytes());
    Envelope {
        payload_type: payload_type.to_owned(),
        payload: base64.encode(payload),
        signatures: vec![evidence::Signature { keyid: String::new(), sig }],
    }
}

proptest! {
    /// Any change to any byte of the payload, of its type or of the signature is seen.
    #[test]
    fn any_changed_byte_is_seen(at in 0usize..4096, flip in 1u8..=255) {
        let good = evidence::render(&evidence::seal(&report(), &key(1)));
        let mut bad = good.clone();
        let at = at % bad.len();
        bad[at] ^= flip;
        let opened = evidence::parse(&bad).ok().and_then(|envelope| evidence::open(&envelope, &[trusted(1)]).ok());
        // A change in the key id, or in unsigned JSON, may leave the content as it was; it never changes it.
        if let Some(opened) = opened {
            prop_assert_eq!(opened.report, report());
        }
    }

    #[test]
    fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(envelope) = evidence::parse(&bytes) {
            prop_assert!(evidence::open(&envelope, &[trusted(1)]).is_err());
        }
    }
}
