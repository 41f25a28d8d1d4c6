//! A server of Ubuntu's own packages: configured in the sandbox, booted, tested. It needs Ubuntu's archive, which not every machine
//! reaches: where it does not answer the test says so and ends.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use crate::host::Host;

const RELEASE: &str = "http://archive.ubuntu.com/ubuntu/dists/noble/InRelease";

const RECIPE: &str = r#"name = "ubu"

[base]
ubuntu = "noble"
components = ["main"]
packages = ["netbase"]

[service.main]
command = ["/usr/bin/sleep", "infinity"]

[[test]]
package = "netbase"

[[test]]
name = "every package is configured"
command = ["/bin/sh", "-c", "dpkg --audit && ! dpkg-query -W -f '${Status}\n' | grep -v '^install ok installed$'"]
"#;

fn is_reachable() -> bool {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--fail", "--max-time", "20", "--output", "/dev/null", RELEASE]);
    curl.status().is_ok_and(|status| status.success())
}

#[test]
fn root_a_server_of_ubuntus_own_packages_is_baked_and_booted() {
    if !is_reachable() {
        println!("SKIPPED: {RELEASE} does not answer here");
        return;
    }
    let host = Host::new();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("ubuntu-cache");
    fs::create_dir_all(&cache).expect("a directory");
    fs::create_dir_all(host.state()).expect("a directory");
    symlink(&cache, host.state().join("cache")).expect("a link");
    host.write("ubu/image.toml", RECIPE);
    let image = format!("ubu@{}", host.good(&["bake", "ubu"])["image"].as_str().expect("a digest"));
    host.good(&["test", &image]);
    let sbom = host.text(&["sbom", &image]);
    assert!(sbom.contains("pkg:deb/ubuntu/netbase@") && sbom.contains("distro=ubuntu-24.04"), "{}", &sbom[..2000]);
    assert!(!sbom.contains("pkg:deb/debian/"));
    let lock = fs::read_to_string(host.path("ubu/kiln.lock")).expect("a lock");
    for pocket in ["noble-updates", "noble-security"] {
        assert!(lock.contains(pocket), "{pocket} is locked as well");
    }
}
