//! What differs between two images of the real Debian archive: the versions of their packages.

use std::{fs, os::unix::fs::symlink, path::Path};

use crate::host::Host;

/// Bakes Debian of a suite, with a package more.
fn bake(host: &Host, suite: &str, package: &str) -> String {
    let text = format!(
        "name = \"deb\"\n\n[base]\ndebian = \"{suite}\"\npackages = [\"{package}\"]\n\n\
         [service.main]\ncommand = [\"/bin/sleep\", \"infinity\"]\n\n[[test]]\npackage = \"{package}\"\n"
    );
    host.write(&format!("{suite}/image.toml"), &text);
    format!("deb@{}", host.good(&["bake", suite])["image"].as_str().expect("a digest"))
}

#[test]
fn root_versions_of_packages_differ_between_debian_images() {
    let host = Host::new();
    // What was downloaded by an earlier run is not downloaded again.
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debian-cache-of-two");
    fs::create_dir_all(&cache).expect("a directory");
    fs::create_dir_all(host.state()).expect("a directory");
    symlink(&cache, host.state().join("cache")).expect("a link");
    let (old, new) = (bake(&host, "bookworm", "netbase"), bake(&host, "trixie", "media-types"));
    let diff = host.good(&["diff", &old, &new]);
    let packages = diff["packages"].as_array().expect("a list");
    let change = |name: &str| {
        let found = packages.iter().find(|change| change["name"].as_str().is_some_and(|n| n.starts_with(name)));
        found.cloned().unwrap_or_else(|| panic!("{name}: {packages:?}"))
    };
    let bash = change("bash:");
    assert!(bash["before"].as_str().is_some_and(|version| version.starts_with("5.2.15")), "{bash}");
    assert!(bash["after"].as_str().is_some_and(|version| version.starts_with("5.2.37")), "{bash}");
    assert!(change("netbase:")["after"].is_null() && change("media-types:")["before"].is_null());
    // The same stands in a plan.
    host.good(&["test", &old]);
    host.good(&["test", &new]);
    let fleet = |image: &str| host.write("fleet.toml", &format!("[group.main]\nimage = \"{image}\"\n"));
    fleet(&old);
    host.good(&["apply", "fleet.toml"]);
    fleet(&new);
    let plan = host.kiln(&["apply", "fleet.toml", "--plan"]);
    let told = plan.lines.iter().find(|line| line["event"] == "difference").expect("what differs");
    assert_eq!(told["difference"]["packages"], diff["packages"]);
    assert!(told["difference"]["files_left_out"].as_u64() > Some(100), "all files are no part of a plan");
    let shown = host.text(&["apply", "fleet.toml", "--plan"]);
    assert!(shown.contains("~ package bash:amd64 5.2.15"), "{shown}");
}
