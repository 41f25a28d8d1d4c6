//! What other programs make of a pushed image: Debian's skopeo, umoci and podman.

use std::{path::Path, process::Command};

use serde_json::Value;

use super::Sample;
use crate::{
    oci::tests::{same_tree, unpacked},
    registry::docker::{DockerRegistry, tool},
};

/// A registry with an image of Kiln's.
fn pushed() -> (Sample, DockerRegistry, String) {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let at = format!("{}/some/sample:v1", registry.address);
    sample.push(&sample.image, &at).expect("pushed");
    (sample, registry, format!("docker://{at}"))
}

#[test]
fn root_skopeo_inspects_and_copies_what_was_pushed() {
    let (sample, registry, at) = pushed();
    let seen: Value = serde_json::from_str(&tool("skopeo", &["inspect", "--tls-verify=false", &at])).expect("JSON");
    assert_eq!(seen["Digest"], sample.image.to_string());
    let layers = sample.bench.store.layers(&sample.image).expect("layers");
    assert_eq!(seen["Layers"].as_array().map(Vec::len), Some(layers.len()));
    let copy = format!("docker://{}/a/copy:v2", registry.address);
    let insecure =
        ["--quiet", "--preserve-digests", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    tool("skopeo", &[&["copy"], &insecure[..], &[&at, &copy]].concat());
    // The copy is the same image, for its layers were not packed anew; what is said of it stayed behind.
    let other = super::Elsewhere::new();
    let pulled = other.pull(copy.trim_start_matches("docker://")).expect("pulled");
    assert_eq!((pulled.image, pulled.reports), (sample.image, 0));
}

#[test]
fn root_umoci_unpacks_what_was_pushed() {
    let (sample, _registry, at) = pushed();
    let layout = sample.bench.dir.path().join("copied");
    let to = format!("oci:{}:v1", layout.display());
    tool("skopeo", &["copy", "--quiet", "--insecure-policy", "--src-tls-verify=false", &at, &to]);
    let tree = unpacked(&layout, "v1", &sample.bench.dir.path().join("unpacked"));
    same_tree(&sample.bench.store, &sample.image, &tree);
}

#[test]
fn root_podman_runs_what_was_pushed() {
    let (sample, _registry, at) = pushed();
    let storage = Podman(sample.bench.dir.path().join("podman"));
    let parent = storage.cgroup();
    let run = ["run", parent.as_str(), "--rm", "--tls-verify=false", "--network=none", "--runtime=runc"];
    // Without CAP_SYS_RESOURCE the limits that podman sets where nothing is said cannot be set.
    let limits = ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024", "--read-only"];
    let command = ["/bin/sh", "-c", "cat /etc/made /var/www/page.html"];
    let said = storage.call(&[&run[..], &limits, &[&at], &command].concat());
    assert_eq!(said, "made\nhello\n");
}

/// Podman with a storage of its own, which goes with the value.
struct Podman(std::path::PathBuf);

impl Podman {
    /// A control group of its own, which podman makes and leaves.
    fn cgroup(&self) -> String {
        format!("--cgroup-parent=/{}", self.cgroup_name())
    }
    fn cgroup_name(&self) -> String {
        format!("kiln-podman-{}", std::process::id())
    }
    fn command(&self) -> Command {
        let part = |name: &str| -> std::path::PathBuf { Path::new(&self.0).join(name) };
        let mut command = Command::new("podman");
        command.arg("--root").arg(part("storage")).arg("--runroot").arg(part("run"));
        command.args(["--storage-driver=vfs", "--events-backend=none", "--cgroup-manager=cgroupfs"]);
        command
    }
    fn call(&self, arguments: &[&str]) -> String {
        let done = self.command().args(arguments).output().expect("podman is there");
        let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert!(done.status.success(), "podman {arguments:?}: {out}{err}");
        out.into_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let ended = self.command().args(["rm", "--all", "--force", "--time=0"]).output();
        println!("{:?}", ended.map(|done| done.status));
        for controller in super::names(Path::new("/sys/fs/cgroup")) {
            let left = Path::new("/sys/fs/cgroup").join(controller).join(self.cgroup_name());
            // Where the controller is not there nothing was made.
            let removed = std::fs::remove_dir(left.join("conmon")).and_then(|()| std::fs::remove_dir(&left));
            println!("{}: {removed:?}", left.display());
        }
    }
}
