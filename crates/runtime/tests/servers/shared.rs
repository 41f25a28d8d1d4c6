//! Shared directories: many servers see the same files, and none gets power over the host by them.

use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    path::{Path, PathBuf},
};

use kiln_model::{
    ImageManifest,
    manifest::WritableKind,
    shared::{Attachment, Place, SharedDirectory, Source},
};
use kiln_runtime::{Observed, Request, RuntimeError, SharedError};

use crate::bench::{self, Bench, IDLE, id, image, release, writable};

pub fn with_uploads() -> ImageManifest {
    let mut manifest = image(IDLE);
    manifest.writable = vec![writable("/var/data", WritableKind::Shared { name: "uploads".parse().unwrap() })];
    manifest
}

fn bound(path: &Path) -> SharedDirectory {
    let place = Place::Directory(path.to_str().unwrap().parse().unwrap());
    SharedDirectory { place, read_only: false, execute: false }
}

fn request(server: &str, shared: Vec<Attachment>) -> Request {
    Request { shared, ..bench::request(server, with_uploads()) }
}

pub fn launch(bench: &Bench, server: &str, source: Source) -> kiln_runtime::Result<Observed> {
    let request = request(server, vec![Attachment { name: "uploads".parse().unwrap(), source }]);
    bench.runtime().launch(&release(), &request)
}

fn give(bench: &Bench, server: &str, directory: &SharedDirectory) {
    launch(bench, server, Source::Bound(directory.clone())).unwrap();
}

/// A directory of the host that belongs to user 33, `web` inside.
fn uploads(bench: &Bench) -> PathBuf {
    let path = bench.directory().join("uploads");
    std::fs::create_dir(&path).unwrap();
    chown(&path, Some(33), Some(33)).unwrap();
    path
}

pub fn shared_error(error: RuntimeError) -> SharedError {
    match error {
        RuntimeError::Shared(error) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn root_servers_see_the_same_files_with_the_owners_of_the_host() {
    let mut bench = Bench::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let path = uploads(&bench);
    for server in ["one", "two"] {
        give(&bench, server, &bound(&path));
    }
    let wrote = bench.shell_as("one", "web", "echo hello > /var/data/page && mkdir /var/data/dir && echo ok");
    assert_eq!(wrote.stdout, b"ok\n", "{}", String::from_utf8_lossy(&wrote.stderr));
    assert_eq!(bench.shell("two", "cat /var/data/page; stat -c %U:%G /var/data/page"), "hello\nweb:web\n");
    let page = std::fs::metadata(path.join("page")).unwrap();
    assert_eq!((page.uid(), page.gid()), (33, 33), "as inside");
    std::fs::write(path.join("from-host"), "host\n").unwrap();
    assert_eq!(bench.shell("one", "cat /var/data/from-host; stat -c %u /var/data/from-host"), "host\n0\n");
    bench.shell("two", "touch /var/data/roots");
    assert_eq!(std::fs::metadata(path.join("roots")).unwrap().uid(), 0, "root is root there");

    let options = bench.shell("one", "grep ' /var/data ' /proc/mounts");
    assert!(["nosuid", "nodev", "noexec"].iter().all(|option| options.contains(option)), "{options}");
    let propagation = bench.shell("one", "grep ' /var/data ' /proc/self/mountinfo");
    assert!(!propagation.contains("shared:") && !propagation.contains("master:"), "{propagation}");
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts, "nothing is mounted on the host");

    // A successor, and a later daemon, find what was there; the end of all of it leaves it.
    bench.runtime().destroy(&id("one"), 1).unwrap();
    bench.reopen();
    give(&bench, "three", &bound(&path));
    assert_eq!(bench.shell("three", "cat /var/data/page"), "hello\n");
    bench.runtime().purge().unwrap();
    assert_eq!(std::fs::read_to_string(path.join("page")).unwrap(), "hello\n", "Kiln never removes one");
    bench.reopen();
}

/// As root inside, with every right that it has.
#[test]
fn root_a_shared_directory_gives_no_power_over_the_host() {
    let bench = Bench::new();
    let path = uploads(&bench);
    std::fs::write(bench.directory().join("secret"), "of the host\n").unwrap();
    give(&bench, "hostile", &bound(&path));
    bench.shell("hostile", "cp /bin/busybox /var/data/busybox; chmod 755 /var/data/busybox");
    let refused = [
        "chmod u+s /var/data/busybox",
        "chmod 2755 /var/data/busybox",
        "chmod g+s /var/data",
        "install -m 4755 /bin/busybox /var/data/other",
        "mknod -m 4755 /var/data/pipe p",
        "mknod /var/data/disk b 8 0",
        "mknod /var/data/mem c 1 1",
        "/var/data/busybox true",
        "ln /bin/busybox /var/data/linked",
        "mount --bind /var/data /mnt",
        "mount -o remount,suid,dev,exec /var/data",
    ];
    for attempt in refused {
        let output = bench.shell_as("hostile", "root", attempt);
        assert_ne!(output.exit, 0, "{attempt}: {}", String::from_utf8_lossy(&output.stdout));
    }
    for entry in std::fs::read_dir(&path).unwrap().flatten() {
        let metadata = entry.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o6000, 0, "{entry:?}");
        assert!(metadata.is_file() || metadata.is_dir() || metadata.mode() & 0o170_000 == 0o010_000, "{entry:?}");
    }
    // File capabilities would count on the host, too: nobody inside may give any. Servers without shared directories may.
    let capabilities = |server: &str| {
        let line = bench.shell(server, "grep CapBnd /proc/self/status");
        u64::from_str_radix(line.trim().rsplit('\t').next().unwrap(), 16).unwrap()
    };
    const SETFCAP: u64 = 1 << 31;
    assert_eq!(capabilities("hostile") & SETFCAP, 0);
    bench.launch("plain", image(IDLE));
    assert_eq!(capabilities("plain") & SETFCAP, SETFCAP);
    assert_eq!(
        bench.shell("plain", "touch /tmp/x && chmod 4755 /tmp/x && echo ok"),
        "ok\n",
        "its own mounts are nosuid"
    );

    // What leads outside by the host's names leads nowhere from inside, and Kiln goes on with a directory that holds such links.
    let outside = bench.directory().join("secret");
    symlink(&outside, path.join("absolute")).unwrap();
    symlink("../secret", path.join("relative")).unwrap();
    let seen =
        bench.shell("hostile", "cat /var/data/absolute /var/data/relative /var/data/../secret 2>/dev/null; true");
    assert_eq!(seen, "");
    give(&bench, "another", &bound(&path));
}

#[test]
fn root_a_shared_directory_can_be_read_only_and_can_be_executed() {
    let bench = Bench::new();
    let path = uploads(&bench);
    std::fs::copy("/bin/busybox", path.join("busybox")).unwrap();
    give(&bench, "reader", &SharedDirectory { read_only: true, execute: true, ..bound(&path) });
    let wrote = bench.shell("reader", "echo x > /var/data/x");
    assert!(wrote.contains("Read-only file system"), "{wrote}");
    assert_eq!(bench.shell("reader", "/var/data/busybox echo ran"), "ran\n");
    assert!(!path.join("x").exists());
}

#[test]
fn root_a_test_server_has_an_empty_one_of_its_own() {
    let bench = Bench::new();
    for server in ["one", "two"] {
        launch(&bench, server, Source::Throwaway).unwrap();
    }
    assert_eq!(bench.shell("one", "ls -A /var/data"), "", "not what the image has there");
    let wrote = bench.shell_as("one", "web", "echo x > /var/data/x && stat -c %U /var/data/x");
    assert_eq!(wrote.stdout, b"web\n");
    assert_eq!(bench.shell("two", "ls -A /var/data"), "", "not shared with anybody");
}

#[test]
fn root_what_cannot_be_shared_is_said() {
    let bench = Bench::new();
    let path = uploads(&bench);
    let refused = |path: &Path| {
        let error = shared_error(launch(&bench, "one", Source::Bound(bound(path))).unwrap_err());
        assert!(bench.runtime().observe().unwrap().is_empty(), "nothing is left of it");
        error
    };
    let missing = refused(&bench.directory().join("missing"));
    assert!(matches!(missing, SharedError::NotThere(_)) && missing.to_string().contains("mkdir"), "{missing}");
    std::fs::write(bench.directory().join("file"), "").unwrap();
    assert!(matches!(refused(&bench.directory().join("file")), SharedError::NotADirectory(_)));

    // A link at the end, and one on the way.
    symlink(&path, bench.directory().join("link")).unwrap();
    symlink(bench.directory(), bench.directory().join("way")).unwrap();
    for link in ["link", "way/uploads"] {
        let error = refused(&bench.directory().join(link));
        let leads = error.to_string().contains(path.to_str().unwrap());
        assert!(matches!(error, SharedError::SymbolicLink { .. }) && leads, "{error}");
    }
    symlink("/nowhere", bench.directory().join("broken")).unwrap();
    assert!(refused(&bench.directory().join("broken")).to_string().contains("leads nowhere"));

    // Kiln's own directories, what is above and below.
    let (state, run) = (bench.options.state_dir.clone(), bench.options.run_dir.clone());
    std::fs::create_dir(state.join("below")).unwrap();
    for own in [state.clone(), state.join("below"), run, bench.directory().to_owned()] {
        let error = refused(&own);
        assert!(matches!(error, SharedError::Own { .. }), "{error}");
    }
    let error = bench.runtime().launch(&release(), &request("one", Vec::new())).unwrap_err();
    assert!(matches!(error, RuntimeError::Manifest { .. }), "{error}");
}
