//! A base changes: what descends from it is baked and tested again, in order; what fails stops its own branch.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::host::{Host, fleet};

/// A recipe that starts from another image, adds a page and expects this of the page of its base.
fn recipe(host: &Host, name: &str, base: &str, expects: &str) {
    host.write(&format!("family/{name}/extra/index.html"), &format!("the page of {name}\n"));
    let text = format!(
        r#"name = "{name}"

[base]
image = "{base}"

[[step]]
copy = "extra/"
to = "/www/{name}/"

[service.web]
command = ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"]
ports = [{{ port = 8080, protocol = "http" }}]
readiness = {{ http = "/", within = "10s" }}
stop = {{ signal = "SIGTERM", grace = "2s" }}

[[test]]
name = "the page of the base is served"
http = "/"
body = {{ contains = "{expects}" }}
"#
    );
    host.write(&format!("family/{name}/image.toml"), &text);
}

/// Name and state of every image of a rebase, in the order in which they were looked at.
fn rebase(host: &Host, code: i32) -> (Vec<(String, String)>, Value) {
    let said = host.kiln(&["rebase", "shop", "family", "shop"]);
    assert_eq!(said.code, code, "{:?} {}", said.lines, said.errors);
    let last = said.lines.last().expect("a result").clone();
    let text = |outcome: &Value, key: &str| outcome[key].as_str().expect("a text").to_owned();
    let images = last["images"].as_array().expect("a list").iter();
    (images.map(|outcome| (text(outcome, "name"), text(outcome, "state"))).collect(), last)
}

fn states(pairs: [(&str, &str); 5]) -> Vec<(String, String)> {
    pairs.map(|(name, state)| (name.to_owned(), state.to_owned())).to_vec()
}

fn dev(host: &Host, name: &str) -> String {
    host.good(&["inspect", name])["image"].as_str().expect("a digest").to_owned()
}

#[test]
fn root_a_changed_base_reaches_what_descends_from_it_and_a_failure_stops_its_own_branch() {
    let host = Host::new();
    host.project("page one\n");
    recipe(&host, "a", "shop", "page");
    recipe(&host, "b", "shop", "page one");
    recipe(&host, "c", "b", "page");
    let shop = host.good(&["bake", "shop"])["image"].as_str().expect("a digest").to_owned();
    recipe(&host, "d", &format!("shop@{shop}"), "page one");
    let all = |a, b, c, d, shop| states([("shop", shop), ("a", a), ("b", b), ("d", d), ("c", c)]);
    assert_eq!(rebase(&host, 0).0, all("rebased", "rebased", "rebased", "pinned", "rebased"));
    assert_eq!(rebase(&host, 0).0, all("unchanged", "unchanged", "unchanged", "pinned", "unchanged"));
    host.write("fleet.toml", &fleet("a", ""));
    host.good(&["apply", "fleet.toml"]);
    let (old_a, old_c) = (dev(&host, "a"), dev(&host, "c"));

    host.project("page two\n");
    let (found, last) = rebase(&host, 1);
    assert_eq!(found, all("rebased", "failed", "skipped", "pinned", "rebased"));
    let reasons = last["images"].to_string();
    assert!(reasons.contains("1 of") && reasons.contains("its base `b` failed"), "{reasons}");
    assert!(dev(&host, "a") != old_a && dev(&host, "c") == old_c, "the branch that failed is where it was");
    assert_eq!(
        rebase(&host, 1).0,
        all("unchanged", "failed", "skipped", "pinned", "unchanged"),
        "and goes on from there"
    );

    // Which servers hold the old base is known until they are replaced.
    let lineage = host.good(&["lineage", "shop"]);
    let named = |image: &str| {
        let found = lineage["images"].as_array().expect("a list").iter().find(|kin| kin["image"] == image);
        found.cloned().unwrap_or_else(|| panic!("{image}: {lineage}"))
    };
    assert!(named(&dev(&host, "a"))["newer_base"].is_null(), "{lineage}");
    let old = host.good(&["lineage", &format!("a@{old_a}")])["images"].clone();
    let old = old.as_array().expect("a list").iter().find(|kin| kin["image"] == old_a).expect("the old one").clone();
    assert_eq!((&old["base"], &old["newer_base"]), (&shop.into(), &dev(&host, "shop").into()), "{old}");
    assert_eq!(old["servers"].as_array().map(Vec::len), Some(2), "{old}");
    let descendants = named(&dev(&host, "shop"))["descendants"].to_string();
    assert!(descendants.contains(&dev(&host, "a")) && !descendants.contains(&old_a), "{lineage}");
    host.good(&["apply", "fleet.toml"]);
    let now = host.good(&["lineage", "a"])["images"].to_string();
    assert!(now.contains("\"servers\":[\"web-"), "the new ones run the new base: {now}");
    let actions = host.good(&["audit"])["entries"].to_string();
    assert!(actions.contains("\"action\":\"rebase\""), "{actions}");
}

#[test]
fn root_a_rebase_that_was_killed_is_called_again_and_ends_where_it_would_have() {
    let host = Host::new();
    host.project("page one\n");
    recipe(&host, "a", "shop", "page");
    recipe(&host, "b", "a", "page");
    host.good(&["rebase", "shop", "family", "shop"]);
    for (page, after) in [("page two\n", 5), ("page three\n", 60), ("page four\n", 250), ("page five\n", 700)] {
        host.project(page);
        let mut child = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .arg("--state")
            .arg(host.state())
            .args(["rebase", "shop", "family", "shop", "--json"])
            .current_dir(host.path(""))
            .env("HOME", host.path(""))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the program starts");
        std::thread::sleep(Duration::from_millis(after));
        child.kill().expect("killed, or ended");
        child.wait().expect("it ended");
        let begun = Instant::now();
        let last = host.good(&["rebase", "shop", "family", "shop"]);
        assert_eq!(last["images"].as_array().map(Vec::len), Some(3), "{last}");
        let lineage = host.good(&["lineage", &format!("b@{}", dev(&host, "b"))])["images"].to_string();
        assert!(lineage.contains(&dev(&host, "shop")), "after {after} ms, {:?}: {lineage}", begun.elapsed());
        host.good(&["verify"]);
    }
}
