//! An image that is revoked: refused at every launch, and left by what runs where the fleet says so.

use std::time::{Duration, Instant};

use crate::host::{Host, fleet, page};

/// Bakes, tests and brings up the project with this page. The image.
fn up(host: &Host, page: &str, policy: &str) -> (String, String) {
    host.project(page);
    host.write("shop/fleet.toml", &(fleet("shop", "") + policy));
    let up = host.good(&["up", "shop"]);
    let image = host.good(&["status"])["groups"][0]["image"].as_str().expect("a digest").to_owned();
    (format!("shop@{image}"), up["endpoints"][0].as_str().expect("an endpoint").to_owned())
}

/// The reason of a call that is refused.
fn refused(host: &Host, arguments: &[&str]) -> String {
    let said = host.kiln(arguments);
    assert_eq!(said.code, 3, "{arguments:?}: {:?} {}", said.lines, said.errors);
    said.lines.last().expect("a line")["error"]["message"].as_str().expect("a message").to_owned()
}

#[test]
fn root_a_revoked_image_is_left_by_what_runs_and_never_launched_again() {
    let host = Host::new();
    let (one, _) = up(&host, "page one\n", "on_revoked = \"replace\"\n");
    let (two, endpoint) = up(&host, "page two\n", "on_revoked = \"replace\"\n");
    assert!(page(&endpoint).ends_with("page two\n"));
    let unsaid = host.kiln(&["revoke", &two]);
    assert_eq!(unsaid.code, 2, "a reason must be given: {}", unsaid.errors);
    let revoked = host.good(&["revoke", &two, "--reason", "CVE-2026-1: the page lies"]);
    assert_eq!((revoked["already"].as_bool(), &revoked["channels"][0]), (Some(false), &"dev".into()), "{revoked}");
    assert_eq!(revoked["groups"][0]["servers"].as_array().map(Vec::len), Some(2), "{revoked}");
    assert!(revoked["groups"][0]["goes_to"].is_string(), "{revoked}");
    let begun = Instant::now();
    loop {
        let group = &host.good(&["status"])["groups"][0];
        let old =
            group["servers"].as_array().expect("a list").iter().filter(|s| two.ends_with(s["image"].as_str().unwrap()));
        if group["ready"] == 2 && old.count() == 0 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{group}");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(page(&endpoint).ends_with("page one\n"), "the group is back on the release before");
    for arguments in [&["apply", "shop"][..], &["test", &two], &["promote", &two]] {
        let why = refused(&host, arguments);
        assert!(why.contains("CVE-2026-1: the page lies"), "{arguments:?}: {why}");
    }
    let again = host.good(&["revoke", &two, "--reason", "once more"]);
    assert_eq!(again["already"], true);
    // The release before as well, without a daemon: the next one knows, and what runs stays, for there is nothing to go to.
    host.good(&["daemon", "--stop"]);
    host.good(&["revoke", &one, "--reason", "that one lies too"]);
    let log = host.good(&["audit"]);
    let reasons: Vec<_> =
        log["entries"].as_array().expect("a list").iter().filter(|e| e["action"] == "revoke").collect();
    assert_eq!(reasons.last().map(|entry| &entry["reason"]), Some(&"that one lies too".into()));
    refused(&host, &["apply", "shop"]);
    let group = &host.good(&["status"])["groups"][0];
    let named = &group["refused"].as_array().expect("a list").iter().find(|r| r["servers"] != serde_json::json!([]));
    assert_eq!(named.map(|named| &named["code"]), Some(&"revoked".into()), "{group}");
    assert!(page(&endpoint).ends_with("page one\n"), "it runs on");
}
