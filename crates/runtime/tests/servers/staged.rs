//! Servers that are made ahead: what is launched is what waited, unless something happened to it.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_model::{Digest, FrozenConfig, ImageDigest, ImageManifest, manifest::WritableKind, size::ByteSize, trust};
use kiln_runtime::{Observed, Phase, Request};

use crate::bench::{self, Bench, IDLE, id, image, release, writable};

fn request(name: &str) -> Request {
    let kind = WritableKind::Ephemeral { size: ByteSize::mib(4) };
    bench::request(name, ImageManifest { writable: vec![writable("/var/data", kind)], ..image(IDLE) })
}

fn stage(bench: &Bench, name: &str) -> Observed {
    bench.runtime().stage(&release(), &request(name)).unwrap();
    let seen = bench.runtime().observe().unwrap().into_iter().find(|seen| seen.record.server == id(name)).unwrap();
    assert_eq!(seen.phase, Phase::Staged);
    seen
}

fn inside(seen: &Observed, command: &[&str]) {
    let pid = seen.record.pid.to_string();
    let mut inside = Command::new("nsenter");
    inside.args(["--target", &pid, "--user", "--mount", "/bin/busybox"]).args(command);
    assert!(inside.status().unwrap().success());
}

fn exists(pid: u32) -> bool {
    std::path::Path::new("/proc").join(pid.to_string()).exists()
}

#[test]
fn root_what_was_staged_is_launched_as_it_is() {
    let bench = Bench::new();
    let staged = stage(&bench, "one");
    bench.runtime().stage(&release(), &request("one")).unwrap();
    assert_eq!(
        bench.runtime().observe().unwrap(),
        std::slice::from_ref(&staged),
        "once, however often it is asked for"
    );
    assert!(bench.runtime().services(&id("one")).is_err(), "nothing can be done in it");
    let launched = bench.runtime().launch(&release(), &request("one")).unwrap();
    assert_eq!((launched.record.pid, &launched.phase), (staged.record.pid, &Phase::Running));
    assert_eq!(bench.runtime().observe().unwrap().len(), 1);
    assert_eq!(bench.runtime().services(&id("one")).unwrap().len(), 1, "its services run");
}

#[test]
fn root_what_is_not_fresh_is_made_again() {
    let bench = Bench::new();
    let places = ["/run/odd", "/tmp/odd", "/var/data/odd"];
    for (number, place) in places.iter().enumerate() {
        let name = format!("written-{number}");
        let staged = stage(&bench, &name);
        inside(&staged, &["touch", place]);
        let launched = bench.runtime().launch(&release(), &request(&name)).unwrap();
        assert_ne!(launched.record.pid, staged.record.pid, "{place}");
        assert!(!exists(staged.record.pid), "{place}: it is gone");
        assert_eq!(bench.shell(&name, &format!("ls {place} 2>/dev/null")), "", "{place}");
    }

    let staged = stage(&bench, "other");
    let other = trust::admit_for_test(ImageDigest(Digest::of(b"busybox")), FrozenConfig::default());
    let launched = bench.runtime().launch(&other, &request("other")).unwrap();
    assert_ne!(launched.record.pid, staged.record.pid, "of another release");
    assert_eq!(launched.record.release, other.release().id(), "of the one asked for");
}

#[test]
fn root_a_staged_server_that_ends_is_seen_and_removed() {
    let bench = Bench::new();
    let (told, heard) = std::sync::mpsc::channel();
    let staged = stage(&bench, "one");
    bench.runtime().on_change(Arc::new(move |server| drop(told.send(server.clone()))));
    assert!(Command::new("kill").args(["-KILL", &staged.record.pid.to_string()]).status().unwrap().success());
    assert_eq!(heard.recv_timeout(Duration::from_secs(5)).unwrap(), id("one"), "without being asked");
    let seen = bench.runtime().observe().unwrap();
    assert!(matches!(&seen[..], [Observed { phase: Phase::Exited { killed: true, .. }, .. }]), "{seen:?}");
    bench.runtime().destroy(&id("one"), 1).unwrap();
    assert_eq!(bench.runtime().observe().unwrap(), []);

    let staged = stage(&bench, "two");
    let begun = Instant::now();
    bench.runtime().destroy(&id("two"), 1).unwrap();
    assert!(!exists(staged.record.pid) && begun.elapsed() < Duration::from_secs(5));
    assert_eq!(bench.runtime().observe().unwrap(), []);
}
