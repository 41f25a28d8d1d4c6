//! Channels with rules: every one that does not hold is said, approvals travel with the image, and the history tells why.

use std::time::Duration;

use serde_json::Value;

use crate::{docker::DockerRegistry, host::Host};

const RULES: &str = r#"
[channel.staging]
keys = ["this-host", "ci"]

[channel.stable]
after = "staging"
soak = "2s"
approvals = 2
approvers = ["alice", "bob"]
promoters = ["release"]
"#;

/// The reason of a call that is refused.
fn refused(host: &Host, arguments: &[&str]) -> String {
    let said = host.kiln(arguments);
    assert_eq!(said.code, 3, "{arguments:?}: {:?} {}", said.lines, said.errors);
    said.lines.last().expect("a line")["error"]["message"].as_str().expect("a message").to_owned()
}

/// A person with a private key of their own, whom the host knows.
fn person(host: &Host, name: &str) -> String {
    let private = format!("{name}.pem");
    let pem = host.good(&["key", "make", &private])["pem"].as_str().expect("a key").to_owned();
    host.write(&format!("{name}.pub.pem"), &pem);
    private
}

fn known(host: &Host, of: &Host, name: &str) {
    let public = of.path(&format!("{name}.pub.pem"));
    host.good(&["key", "add", name, public.to_str().expect("UTF-8")]);
}

/// Brings the project up with this page, and returns its image.
fn up(host: &Host, page: &str) -> String {
    host.project(page);
    host.good(&["up", "shop"]);
    format!("shop@{}", host.good(&["status"])["groups"][0]["image"].as_str().expect("a digest"))
}

fn moves(host: &Host, channel: &str) -> Vec<Value> {
    host.good(&["history", "shop", "--channel", channel])["moves"].as_array().expect("a list").clone()
}

#[test]
fn root_a_channel_moves_when_its_rules_hold_and_the_history_says_why() {
    let (registry, here, there) = (DockerRegistry::start(), Host::new(), Host::new());
    let keys = ["alice", "bob", "release", "mallory"].map(|name| person(&here, name));
    ["alice", "bob", "release"].iter().for_each(|name| known(&here, &here, name));
    here.write("state/kiln.toml", RULES);
    let one = up(&here, "page one\n");
    let asked = ["promote", &one, "--to", "stable"];
    let why = refused(&here, &asked);
    for words in ["(1) it never was in `staging`", "(2) 0 of 2 approvals", "(3) `release` may promote"] {
        assert!(why.contains(words), "{words}: {why}");
    }
    let promoted = here.good(&["promote", &one, "--to", "staging", "--reason", "the first of all"]);
    assert_eq!((&promoted["moved"], &promoted["before"]), (&true.into(), &Value::Null), "{promoted}");
    for key in [&keys[0], &keys[0], &keys[3]] {
        here.good(&["approve", &one, "--channel", "stable", "--key", key]);
    }
    let signed = [&asked[..], &["--key", &keys[2], "--reason", "it is good"]].concat();
    let why = refused(&here, &signed);
    assert!(why.contains("(1) it was in `staging` for") && why.contains("wait until"), "{why}");
    assert!(why.contains("(2) 1 of 2 approvals are there (`alice`)") && !why.contains("(3)"), "{why}");
    here.good(&["approve", &one, "--channel", "stable", "--key", &keys[1], "--reason", "looked at it"]);
    std::thread::sleep(Duration::from_secs(2));
    let why = refused(&here, &[&asked[..], &["--key", &keys[0]]].concat());
    assert!(why.contains("`alice` has signed"), "{why}");
    let checked = here.good(&[&signed[..], &["--check"]].concat());
    assert_eq!((&checked["moved"], moves(&here, "stable").len()), (&false.into(), 0));
    here.good(&signed);
    let history = moves(&here, "stable");
    let last = history.last().expect("a move");
    assert_eq!(
        (&last["who"], &last["reason"], &last["how"]),
        (&"release".into(), &"it is good".into(), &"promote".into())
    );
    assert_eq!(last["evidence"]["approvals"].as_object().map(serde_json::Map::len), Some(2), "{last}");
    assert_eq!(moves(&here, "dev")[0]["how"], "test");
    assert_eq!(here.good(&signed)["moved"], false, "it is there already");
    // The next image: what differs stands in the plan, in the answer and in the history.
    let two = up(&here, "page two, which is longer\n");
    here.good(&["promote", &two, "--to", "staging", "--reason", "a longer page"]);
    let history = moves(&here, "staging");
    let last = history.last().expect("a move");
    assert_eq!(last["difference"]["files"][0]["name"], "/www/index.html", "{last}");
    here.write("fleet.toml", &crate::host::fleet(&one, ""));
    let plan = here.kiln(&["apply", "fleet.toml", "--plan"]);
    let difference = plan.lines.iter().find(|line| line["event"] == "difference").expect("what differs");
    assert_eq!(difference["difference"]["files"][0]["name"], "/www/index.html", "{difference}");
    assert!(two.ends_with(difference["difference"]["before"].as_str().expect("a digest")));
    // Approvals travel with the image: another host asks by its own rules, and nobody signs again.
    let at = format!("{}/shop:v1", registry.address);
    here.good(&["push", &one, &at]);
    there.believe("ci", &here);
    ["alice", "bob"].iter().for_each(|name| known(&there, &here, name));
    there.write(
        "state/kiln.toml",
        "[channel.stable]\napprovals = 2\napprovers = [\"alice\", \"bob\"]\nkeys = [\"ci\"]\n",
    );
    let why = there.kiln(&["pull", &at, "--channel", "stable"]);
    assert_eq!(why.code, 3, "a channel with rules is not moved by a pull: {:?}", why.lines);
    there.good(&["pull", &at, "--channel", "dev"]);
    there.good(&["gc"]);
    assert_eq!(there.good(&["promote", &one, "--to", "stable"])["moved"], true);
    there.good(&["key", "revoke", "bob"]);
    let why = refused(&there, &["promote", &one, "--to", "stable"]);
    assert!(why.contains("1 of 2 approvals are there (`alice`)"), "what a revoked key signed counts no more: {why}");
    there.write("state/kiln.toml", "[channel.stable]\nafter = \"staging\"\nsoaks = \"1d\"\n");
    let wrong = there.kiln(&["promote", &one, "--to", "stable"]);
    assert!(
        wrong.code != 0 && format!("{:?}", wrong.lines).contains("kiln.toml is wrong: line 3"),
        "{:?}",
        wrong.lines
    );
    // All of it is in the log, which holds.
    let entries = there.good(&["audit"]);
    let actions: Vec<_> = entries["entries"].as_array().expect("a list").iter().map(|e| e["action"].clone()).collect();
    for action in ["key-add", "pull", "gc", "promote", "key-revoke", "promote-refused"] {
        assert!(actions.contains(&action.into()), "{action}: {actions:?}");
    }
    let actions = here.good(&["audit", "-n", "200"])["entries"].to_string();
    for action in ["approve", "push", "promote", "promote-refused"] {
        assert!(actions.contains(&format!("\"action\":\"{action}\"")), "{action}");
    }
    here.good(&["audit", "verify"]);
    there.good(&["audit", "verify"]);
}
