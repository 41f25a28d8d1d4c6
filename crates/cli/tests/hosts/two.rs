//! Baked and tested on one host, launched on another without testing again; and every way to cheat.

use std::time::{Duration, Instant};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kiln_model::{
    ImageDigest,
    evidence::{self, Envelope, Report, SigningKey},
};
use serde_json::Value;

use crate::{
    docker::DockerRegistry,
    host::{Host, fleet, page},
};

/// Where suites were run, or their reports used again.
fn suites(lines: &[Value]) -> Vec<bool> {
    let finished = lines.iter().filter(|line| line["event"] == "suite_finished");
    finished.map(|line| line["reused"].as_bool().expect("a flag")).collect()
}

/// The image of the project, baked and tested.
fn made(host: &Host, page: &str) -> ImageDigest {
    host.project(page);
    let baked = host.good(&["bake", "shop"]);
    host.good(&["test", "shop"]);
    baked["image"].as_str().expect("a digest").parse().expect("a digest")
}

/// The newest report on an image here.
fn report(host: &Host, image: &ImageDigest) -> (Envelope, Report) {
    let envelope = host.store().reports(image).expect("read").pop().expect("there is one");
    let report = evidence::peek(&envelope).expect("a report");
    (envelope, report)
}

/// Applies a fleet of this image; the refusal, if it is one.
fn apply(host: &Host, image: &ImageDigest, environment: &str) -> Result<String, String> {
    host.write("fleet.toml", &fleet(&format!("shop@{image}"), environment));
    let said = host.kiln(&["apply", "fleet.toml"]);
    let last = said.lines.last().cloned().unwrap_or_default();
    match said.code {
        0 => {
            assert!(suites(&said.lines).iter().all(|reused| *reused), "nothing was tested here: {:?}", said.lines);
            Ok(last["endpoints"][0].as_str().unwrap_or_default().to_owned())
        }
        3 => Err(last["error"]["message"].as_str().unwrap_or_default().to_owned()),
        other => panic!("exit code {other}: {:?} {}", said.lines, said.errors),
    }
}

#[test]
fn root_what_one_host_tested_is_launched_on_another_without_testing_again() {
    let (registry, here, there) = (DockerRegistry::start(), Host::new(), Host::new());
    let image = made(&here, "page one\n");
    let at = format!("{}/shop:v1", registry.address);
    let pushed = here.good(&["push", &format!("shop@{image}"), &at]);
    assert_eq!((pushed["reports"].as_u64(), pushed["there"].as_u64()), (Some(1), Some(0)), "{pushed}");
    let pulled = there.good(&["pull", &at, "--channel", "dev"]);
    assert_eq!(
        (pulled["image"].as_str(), pulled["reports"].as_u64()),
        (Some(&*image.to_string()), Some(1)),
        "{pulled}"
    );
    // Nobody said yet that the other host is believed.
    let refused = apply(&there, &image, "").expect_err("a foreign key");
    assert!(refused.contains("no report by a key that is trusted here"), "{refused}");
    there.believe("ci", &here);
    there.trust("[[rule]]\nimages = [\"shop\"]\nkeys = [\"ci\"]\n");
    let endpoint = apply(&there, &image, "").unwrap_or_else(|refused| panic!("{refused}"));
    assert!(page(&endpoint).ends_with("page one\n"), "{}", page(&endpoint));
    let status = there.good(&["status"]);
    assert_eq!(
        (status["groups"][0]["ready"].as_u64(), &status["groups"][0]["refused"]),
        (Some(2), &Value::Array(vec![]))
    );
    // Another configuration was never tested.
    let refused = apply(&there, &image, "COLOUR = \"blue\"").expect_err("another configuration");
    assert!(refused.contains("was tested with configuration"), "{refused}");
    // A new version the same way: only what changed goes over.
    let next = made(&here, "page two\n");
    let pushed = here.good(&["push", &format!("shop@{next}"), &at]);
    assert!(pushed["bytes"].as_u64().is_some_and(|bytes| bytes < 100_000), "{pushed}");
    let pulled = there.good(&["pull", &at]);
    assert_eq!(pulled["new_layers"].as_u64(), Some(1), "{pulled}");
    let endpoint = apply(&there, &next, "").unwrap_or_else(|refused| panic!("{refused}"));
    assert!(page(&endpoint).ends_with("page two\n"));
    // The key of the other host is revoked: nothing of it is launched any more, and what runs is named.
    there.good(&["key", "revoke", "ci"]);
    let refused = apply(&there, &image, "").expect_err("a revoked key");
    assert!(refused.contains("by key `ci`, which was revoked"), "{refused}");
    let begun = Instant::now();
    let refused = loop {
        let status = there.good(&["status"]);
        if let Some(refused) = status["groups"][0]["refused"].get(0) {
            break refused.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(5), "{status}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(refused["code"], "revoked-key");
    assert_eq!(refused["servers"].as_array().map(Vec::len), Some(2), "{refused}");
    assert!(page(&endpoint).ends_with("page two\n"), "it runs on");
}

#[test]
fn root_no_way_to_cheat_leads_to_a_launch() {
    let (registry, here, there, mallory) = (DockerRegistry::start(), Host::new(), Host::new(), Host::new());
    here.project("page one\n");
    let bare: ImageDigest =
        here.good(&["bake", "shop"])["image"].as_str().expect("a digest").parse().expect("a digest");
    let bare_at = format!("{}/bare", registry.address);
    here.good(&["push", &format!("shop@{bare}"), &bare_at]);
    let other = made(&here, "page two\n");
    let (envelope, honest) = {
        here.project("page one\n");
        here.good(&["test", "shop"]);
        report(&here, &bare)
    };
    there.believe("ci", &here);
    let rule = "[[rule]]\nimages = [\"shop\"]\nkeys = [\"ci\"]\n";
    there.trust(rule);
    let refused_of = |image: &ImageDigest, words: &str, what: &str| {
        let refused = apply(&there, image, "").expect_err(what);
        assert!(refused.contains(words), "{what}: {refused}");
        let status = there.good(&["status"]);
        assert!(status["groups"].as_array().is_some_and(Vec::is_empty), "{what}: {status}");
    };
    let refused = |words: &str, what: &str| refused_of(&bare, words, what);
    // Mallory can write to the registry, and files what she likes under the image.
    mallory.good(&["pull", &bare_at]);
    let file = |envelope: &Envelope, what: &str| {
        let store = mallory.store();
        store.add_statement(&bare, envelope).expect("filed");
        mallory.good(&["push", &format!("shop@{bare}"), &bare_at]);
        let pulled = there.good(&["pull", &bare_at]);
        assert!(pulled["reports"].as_u64().is_some_and(|count| count > 0), "{what}: {pulled}");
    };
    there.good(&["pull", &bare_at]);
    refused("was never tested", "no report at all");
    let foreign = SigningKey::from_bytes(&[66; 32]);
    file(&evidence::seal(&honest, &foreign), "a foreign key");
    refused("no report by a key that is trusted here", "a foreign key");
    mallory.good(&["test", &format!("shop@{bare}")]);
    file(&report(&mallory, &bare).0, "a test on her own host");
    refused("no report by a key that is trusted here", "a test on her own host");
    let elsewhere = report(&here, &other).0;
    file(&elsewhere, "a report of another image");
    refused("no report by a key that is trusted here", "a report of another image");
    let old = Report { finished_at: "2020-01-01T00:00:00Z".parse().expect("a time"), ..honest.clone() };
    file(&evidence::seal(&old, &here.signing_key()), "an old report");
    refused("expired at 2020-01-31", "an old report");
    let easier = kiln_model::SuiteDigest(kiln_model::Digest::of(b"easier"));
    let another = Report {
        config: kiln_model::ConfigDigest(kiln_model::Digest::of(b"x")),
        suite: easier,
        // An older one, so that its suite is not the one that is wanted.
        finished_at: honest.finished_at - Duration::from_secs(3600),
        ..honest.clone()
    };
    file(&evidence::seal(&another, &here.signing_key()), "a report about another configuration");
    let refusal = apply(&there, &bare, "").expect_err("another configuration");
    assert!(refusal.contains("was tested with configuration") || refusal.contains("passed suite"), "{refusal}");
    let payload = BASE64_STANDARD.decode(&envelope.payload).expect("base64");
    let changed = String::from_utf8(payload).expect("UTF-8").replace("\"finishedAt\":\"20", "\"finishedAt\":\"21");
    file(&Envelope { payload: BASE64_STANDARD.encode(changed), ..envelope.clone() }, "a tampered report");
    refused("was changed after it was signed with key `ci`", "a tampered report");
    // An honest report, and a policy that wants more than it.
    let other_at = format!("{}/other", registry.address);
    here.good(&["push", &format!("shop@{other}"), &other_at]);
    there.good(&["pull", &other_at]);
    let refused = |words: &str, what: &str| refused_of(&other, words, what);
    there.trust(&format!("{rule}suites = [\"{}\"]\n", kiln_model::SuiteDigest(kiln_model::Digest::of(b"harder"))));
    refused("trust.toml wants one of", "a suite that is not the required one");
    there.trust("[[rule]]\nimages = [\"shop\"]\nkeys = [\"ci\", \"release\"]\nthreshold = 2\n");
    refused("was seen to pass by 1 of 2 keys (`ci`)", "too few keys");
    there.trust("[[rule]]\nimages = [\"till\"]\nkeys = [\"ci\"]\n");
    refused("trust.toml has no rule for that name", "a name without a rule");
    there.trust("[[rule]]\nimages = [\"shop\"]\nkeys = [\"this-host\"]\n");
    refused("which may not sign for images called `shop`", "a key that may not sign for the name");
    there.trust("[[rule]]\nimages = [\"shop\"]\n");
    let said = there.kiln(&["apply", "fleet.toml"]);
    assert_ne!(said.code, 0, "a wrong policy lets nothing in");
    assert!(format!("{:?}", said.lines).contains("trust.toml is wrong"), "{:?}", said.lines);
    // With the first policy the honest report is enough, whatever is filed beside it.
    there.trust(rule);
    file(&envelope, "the honest report");
    let endpoint = apply(&there, &bare, "").unwrap_or_else(|refused| panic!("{refused}"));
    assert!(page(&endpoint).ends_with("page one\n"));
}

#[test]
fn root_keys_differences_and_reasons_are_shown() {
    let (here, there) = (Host::new(), Host::new());
    here.project("page one\n");
    let bake = || here.good(&["bake", "shop"])["image"].as_str().expect("a digest").to_owned();
    let one = bake();
    here.project("page two, which is longer\n");
    let recipe = std::fs::read_to_string(here.path("shop/image.toml")).expect("a recipe");
    here.write("shop/image.toml", &recipe.replace("within = \"10s\"", "within = \"5s\""));
    let two = bake();
    let diff = here.good(&["diff", &format!("shop@{one}"), &format!("shop@{two}")]);
    let names = |part: &str| -> Vec<String> {
        let changes = diff[part].as_array().expect("a list").iter();
        changes.map(|change| change["name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(
        (names("files"), names("manifest")),
        (vec!["/www/index.html".to_owned()], vec!["web".to_owned()]),
        "{diff}"
    );
    let why = here.good(&["why", &format!("shop@{two}"), "/www/index.html"]);
    assert_eq!(why["steps"].as_array().map(Vec::len), Some(1), "{why}");
    assert_eq!(here.kiln(&["why", &format!("shop@{two}"), "/nothing"]).code, 2);
    here.believe("ci", &there);
    here.good(&["key", "rotate"]);
    here.trust("[[rule]]\nimages = [\"shop\"]\nkeys = [\"ci\"]\n");
    let listed = here.good(&["key", "list"]);
    let keys = listed["keys"].as_array().expect("a list").iter();
    let keys: Vec<_> =
        keys.map(|key| (key["name"].as_str(), key["state"].as_str(), key["images"].to_string())).collect();
    let row = |name, state, images: &str| (Some(name), Some(state), images.to_owned());
    let own = "this-host";
    assert_eq!(keys, [row(own, "signing", "[]"), row(own, "retired", "[]"), row("ci", "trusted", "[\"shop\"]")]);
    here.trust("[[rule]]\nimages = [\"shop\"]\n");
    let wrong = here.kiln(&["key", "list"]);
    assert_eq!((wrong.code, wrong.lines[0]["error"]["diagnostics"][0]["line"].as_u64()), (2, Some(1)));
}

#[test]
fn root_an_image_goes_to_a_host_without_registry_in_a_file_and_its_owner_may_vouch_for_it() {
    let (here, there) = (Host::new(), Host::new());
    let image = made(&here, "page one\n");
    let file = there.path("shop.tar");
    let file = file.to_str().expect("UTF-8");
    here.good(&["save", &format!("shop@{image}"), file]);
    let loaded = there.good(&["load", file, "--channel", "dev"]);
    assert_eq!(
        (loaded["image"].as_str(), loaded["reports"].as_u64()),
        (Some(&*image.to_string()), Some(1)),
        "{loaded}"
    );
    // Nobody there believes the other host, and `apply` does not test what came from elsewhere.
    let refused = apply(&there, &image, "").expect_err("a foreign key");
    assert!(refused.contains("or run `kiln test` here"), "{refused}");
    // Whoever runs the host may do so.
    there.good(&["test", &format!("shop@{image}")]);
    let endpoint = apply(&there, &image, "").unwrap_or_else(|refused| panic!("{refused}"));
    assert!(page(&endpoint).ends_with("page one\n"));
    // With the other host believed, its report alone is enough as well; and a key that was rotated still is.
    here.good(&["key", "rotate"]);
    let again = Host::new();
    again.believe("new", &here);
    again.good(&["load", file]);
    let refused = apply(&again, &image, "").expect_err("only the new key is believed");
    assert!(refused.contains("no report by a key that is trusted here"), "{refused}");
    here.good(&["up", "shop"]);
    let status = here.good(&["status"]);
    assert_eq!(status["groups"][0]["ready"].as_u64(), Some(2), "its own old key is still believed: {status}");
}
