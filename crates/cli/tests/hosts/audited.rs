//! What is done to keys, and images that come and go, stand in the audit log of the host where it was done.

use serde_json::Value;

use crate::{docker::DockerRegistry, host::Host};

/// Actions with their inputs, oldest first.
fn entries(host: &Host) -> Vec<(String, Value)> {
    let log = host.good(&["audit"]);
    let entry = |entry: &Value| {
        let inputs = entry["inputs"]
            .as_str()
            .map_or(entry["inputs"].clone(), |text| serde_json::from_str(text).expect("inputs are JSON"));
        assert_ne!(entry["reason"], "", "{entry}");
        (entry["number"].as_i64(), entry["action"].as_str().expect("a word").to_owned(), inputs)
    };
    let mut entries: Vec<_> = log["entries"].as_array().expect("a list").iter().map(entry).collect();
    entries.sort_by_key(|(number, ..)| *number);
    entries.into_iter().map(|(_, action, inputs)| (action, inputs)).collect()
}

/// The newest entry, which is of this action.
fn newest(host: &Host, action: &str) -> Value {
    let (found, inputs) = entries(host).pop().expect("an entry");
    assert_eq!(found, action, "{inputs}");
    inputs
}

#[test]
fn root_keys_that_come_change_and_go_are_in_the_audit_log() {
    let (host, other) = (Host::new(), Host::new());
    host.believe("ci", &other);
    let added = newest(&host, "key-add");
    assert_eq!((&added["name"], added["key"].as_str().map(str::len)), (&"ci".into(), Some(64)), "{added}");
    let rotated = host.good(&["key", "rotate"]);
    let entry = newest(&host, "key-rotate");
    assert_eq!(entry["key"], rotated["new"], "{rotated}");
    assert_ne!(entry["key"], rotated["old"]);
    host.good(&["key", "revoke", "ci"]);
    let revoked = newest(&host, "key-revoke");
    assert_eq!((&revoked["name"], &revoked["key"]), (&added["name"], &added["key"]));
    // What only looks, and what is refused, changes nothing and is no entry.
    let count = entries(&host).len();
    host.good(&["key", "list"]);
    host.good(&["key", "export"]);
    for refused in [&["key", "revoke", "nobody"][..], &["key", "add", "ci", "ci.pem"]] {
        assert_ne!(host.kiln(refused).code, 0, "{refused:?}");
    }
    assert_eq!(entries(&host).len(), count);
    host.good(&["audit", "verify"]);
    assert_eq!(host.good(&["audit", "replay"])["same"], 0, "nothing was decided there");
    assert!(!other.state().join("kiln.db").exists(), "nothing was done there, and nothing is in its log");
}

#[test]
fn root_images_that_come_and_go_are_in_the_audit_log_of_both_hosts() {
    let (registry, here, there, third) = (DockerRegistry::start(), Host::new(), Host::new(), Host::new());
    here.project("page\n");
    let digest = here.good(&["bake", "shop"])["image"].as_str().expect("a digest").to_owned();
    let (image, at) = (format!("shop@{digest}"), format!("{}/shop:1", registry.address));
    let file = here.path("shop.kiln").display().to_string();
    here.good(&["save", &image, &file]);
    let saved = newest(&here, "save");
    assert_eq!((&saved["image"], &saved["file"]), (&digest.as_str().into(), &file.as_str().into()), "{saved}");
    here.good(&["push", &image, &at]);
    let pushed = newest(&here, "push");
    assert_eq!((&pushed["image"], &pushed["to"]), (&digest.as_str().into(), &at.as_str().into()), "{pushed}");
    for (host, action, from) in [(&there, "load", &file), (&third, "pull", &at)] {
        host.good(&[action, from]);
        let came = newest(host, action);
        assert_eq!((&came["image"], &came["name"]), (&digest.as_str().into(), &"shop".into()), "{came}");
        assert!(came["from"].as_str().is_some_and(|said| said.contains(from.as_str())), "{came}");
        host.good(&["audit", "verify"]);
    }
    // What did not come is no entry.
    let count = entries(&there).len();
    std::fs::write(&file, "no image").expect("written");
    assert_ne!(there.kiln(&["load", &file]).code, 0);
    assert_ne!(there.kiln(&["save", "nothing@dev", "nothing.kiln"]).code, 0);
    assert_eq!(entries(&there).len(), count);
}
