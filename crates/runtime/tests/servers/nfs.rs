//! Shared directories on a real NFS server, in the guest: its script (`xtask/src/test/guest/nfs.sh`) starts the server and these tests.

use std::{
    os::unix::fs::MetadataExt as _,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use kiln_model::shared::{Nfs, NfsVersion, Place, SharedDirectory, Source};
use kiln_runtime::{RuntimeError, SharedError};

use crate::{
    bench::{Bench, id},
    shared::{launch, shared_error},
};

const UPLOADS: &str = "/srv/nfs/uploads";
const TIMEOUT: Duration = Duration::from_secs(6);

fn nfs(export: &str, version: NfsVersion) -> SharedDirectory {
    let export = format!("127.0.0.1:{export}").parse().unwrap();
    SharedDirectory { place: Place::Nfs(Nfs { export, version, timeout: TIMEOUT }), read_only: false, execute: false }
}

fn refused(bench: &Bench, directory: SharedDirectory) -> SharedError {
    shared_error(launch(bench, "refused", Source::Bound(directory)).unwrap_err())
}

/// While it lives, the NFS server is away.
struct Away;

impl Away {
    fn begin() -> Self {
        Self::call("stop");
        Self
    }
    fn call(verb: &str) {
        let done = Command::new("/bin/sh").args(["/guest/nfs.sh", verb]).status().unwrap();
        assert!(done.success(), "{verb}");
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        Self::call("start");
    }
}

/// Mounts of NFS that any process of this machine has.
fn mounted() -> Vec<String> {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let tables = processes.filter_map(|entry| std::fs::read_to_string(entry.path().join("mounts")).ok());
    let lines = tables.flat_map(|table| table.lines().map(str::to_owned).collect::<Vec<_>>());
    lines.filter(|line| line.contains(" nfs ") || line.contains(" nfs4 ")).collect()
}

#[test]
#[ignore = "needs an NFS server: run in the guest"]
fn root_nfs_servers_see_the_same_files_by_both_versions() {
    for (version, kind, file) in [(NfsVersion::V4_2, "vers=4.2", "four"), (NfsVersion::V3, "vers=3", "three")] {
        let bench = Bench::new();
        let host = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for server in ["one", "two"] {
            launch(&bench, server, Source::Bound(nfs(UPLOADS, version))).unwrap();
        }
        let wrote = bench.shell_as("one", "web", &format!("echo hello > /var/data/{file} && echo ok"));
        assert_eq!(wrote.stdout, b"ok\n", "{}", String::from_utf8_lossy(&wrote.stderr));
        assert_eq!(bench.shell("two", &format!("cat /var/data/{file}")), "hello\n");
        let on_server = std::fs::metadata(Path::new(UPLOADS).join(file)).unwrap();
        assert_eq!((on_server.uid(), on_server.gid()), (900, 900), "the export says whose it is");
        let options = bench.shell("one", "grep ' /var/data ' /proc/mounts");
        for option in [kind, "nosuid", "nodev", "noexec", "softerr"] {
            assert!(options.contains(option), "{option}: {options}");
        }
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), host, "nothing is mounted on the host");
        let marked = bench.shell_as("one", "root", "mknod -m 4755 /var/data/pipe p; mknod /var/data/disk b 8 0");
        assert_ne!(marked.exit, 0);

        let reader = SharedDirectory { read_only: true, ..nfs(UPLOADS, version) };
        launch(&bench, "reader", Source::Bound(reader)).unwrap();
        let wrote = bench.shell("reader", "cat /var/data/* > /dev/null; echo x > /var/data/x");
        assert!(wrote.contains("Read-only file system"), "{wrote}");
        drop(bench);
        crate::bench::eventually(|| mounted().is_empty());
    }
}

#[test]
#[ignore = "needs an NFS server: run in the guest"]
fn root_nfs_what_is_wrong_is_said() {
    let bench = Bench::new();
    let missing = refused(&bench, nfs("/srv/nfs/missing", NfsVersion::V4_2));
    assert!(matches!(missing, SharedError::Refused { .. }), "{missing}");
    let theirs = refused(&bench, nfs("/srv/nfs/plain", NfsVersion::V4_2));
    assert!(matches!(theirs, SharedError::NotTheirs { writes: true, .. }), "{theirs}");
    assert!(theirs.to_string().contains("all_squash,anonuid"), "{theirs}");
    let readable = SharedDirectory { read_only: true, ..nfs("/srv/nfs/plain", NfsVersion::V4_2) };
    launch(&bench, "reader", Source::Bound(readable)).unwrap();
}

/// Nothing listens at its port, or nothing answers there: the kernel waits in both cases.
#[test]
#[ignore = "needs an NFS server: run in the guest"]
fn root_nfs_a_server_that_is_away_makes_nothing_hang_and_is_found_again() {
    let mut bench = Bench::new();
    launch(&bench, "one", Source::Bound(nfs(UPLOADS, NfsVersion::V4_2))).unwrap();
    assert_eq!(bench.shell("one", "echo before > /var/data/before; sync; cat /var/data/before"), "before\n");

    let away = Away::begin();
    let begun = Instant::now();
    let silent = refused(&bench, nfs(UPLOADS, NfsVersion::V4_2));
    assert!(matches!(silent, SharedError::Silent { .. } | SharedError::Refused { .. }), "{silent}");
    assert!(begun.elapsed() < TIMEOUT + Duration::from_secs(10), "{:?}", begun.elapsed());
    let begun = Instant::now();
    let wrote = bench.shell("one", "echo x > /var/data/new; echo ended");
    assert!(wrote.contains("ended\n") && wrote.contains("Connection timed out"), "{wrote}");
    assert!(begun.elapsed() < TIMEOUT * 3, "what is inside fails in its time: {:?} {wrote}", begun.elapsed());

    // A daemon that comes now adopts the server, and removing it does not wait for ever.
    bench.reopen();
    let begun = Instant::now();
    bench.runtime().destroy(&id("one"), 1).unwrap();
    assert!(begun.elapsed() < TIMEOUT * 4, "{:?}", begun.elapsed());

    drop(away);
    let begun = Instant::now();
    loop {
        match launch(&bench, "two", Source::Bound(nfs(UPLOADS, NfsVersion::V4_2))) {
            Ok(_) => break,
            Err(RuntimeError::Shared(_)) if begun.elapsed() < Duration::from_secs(100) => {}
            Err(error) => panic!("{error:?}"),
        }
    }
    assert_eq!(bench.shell("two", "cat /var/data/before"), "before\n");
    drop(bench);
    crate::bench::eventually(|| mounted().is_empty());
}
