//! Volumes: data outlives servers, and never has two.

use std::{os::unix::fs::FileExt as _, path::PathBuf};

use kiln_model::{
    ByteSize, ImageManifest, VolumeId,
    manifest::WritableKind,
    volume::{Attachment, Filesystem, Hooks, Kept, Restore, ScaleFrom, SnapshotId, Source},
};
use kiln_runtime::{Observed, Request, RuntimeError, VolumeError};

use crate::bench::{self, Bench, IDLE, eventually, id, image, release, writable};

pub const SIZE: ByteSize = ByteSize::mib(64);

fn with_volume() -> ImageManifest {
    let name = "data".parse().unwrap();
    let kind = WritableKind::Volume { name, hooks: Hooks::default(), scale_from: ScaleFrom::Empty };
    let mut manifest = image(IDLE);
    manifest.writable = vec![writable("/var/data", kind)];
    manifest
}

fn volume(name: &str) -> VolumeId {
    name.parse().unwrap()
}

fn snapshot(name: &str) -> SnapshotId {
    name.parse().unwrap()
}

pub fn kept(name: &str, fence: u64) -> Source {
    Source::Kept(Kept { volume: volume(name), fence, size: SIZE, restore: None })
}

fn request(server: &str, source: Source) -> Request {
    let volumes = vec![Attachment { name: "data".parse().unwrap(), source }];
    Request { volumes, ..bench::request(server, with_volume()) }
}

pub fn launch(bench: &Bench, server: &str, source: Source) -> kiln_runtime::Result<Observed> {
    bench.runtime().launch(&release(), &request(server, source))
}

fn volume_error(error: RuntimeError) -> VolumeError {
    match error {
        RuntimeError::Volume(error) => error,
        other => panic!("{other:?}"),
    }
}

/// Loop devices over files of this directory.
fn devices(directory: &std::path::Path) -> Vec<String> {
    let all = std::fs::read_dir("/sys/block").unwrap().flatten();
    let files = all.filter_map(|entry| std::fs::read_to_string(entry.path().join("loop/backing_file")).ok());
    // A file of the pool is seen by its path there; the pool itself by its path on the host.
    let ours = directory.display().to_string();
    files.filter(|file| file.contains(&ours)).collect()
}

#[test]
fn root_data_outlives_servers_and_daemons_and_nothing_is_seen_on_the_host() {
    let mut bench = Bench::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    bench.runtime().volumes().create(&volume("db.data.0"), SIZE, Filesystem::Ext4).unwrap();
    launch(&bench, "one", kept("db.data.0", 1)).unwrap();
    assert_eq!(bench.shell("one", "stat -c '%U %a' /var/data; ls -A /var/data"), "web 750\n", "the user's, and empty");
    let written = bench.shell_as("one", "web", "echo kept > /var/data/file && sync && echo ok");
    assert_eq!(written.stdout, b"ok\n");
    let options = bench.shell("one", "grep ' /var/data ' /proc/mounts");
    assert!(options.contains("nosuid") && options.contains("nodev") && options.contains("ext4"), "{options}");
    assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts, "nothing is mounted on the host");

    // A daemon that comes later finds the pool in use and goes on with it.
    bench.reopen();
    assert_eq!(bench.shell("one", "cat /var/data/file"), "kept\n");
    bench.runtime().volumes().create(&volume("db.data.1"), SIZE, Filesystem::Ext4).unwrap();
    bench.runtime().destroy(&id("one"), 1).unwrap();

    launch(&bench, "two", kept("db.data.0", 2)).unwrap();
    assert_eq!(bench.shell("two", "cat /var/data/file; stat -c %U /var/data/file"), "kept\nweb\n");
    bench.runtime().destroy(&id("two"), 1).unwrap();
    bench.reopen();
    let seen = bench.runtime().volumes().list().unwrap();
    let seen: Vec<_> = seen.iter().map(|seen| (seen.volume.as_str(), seen.size, seen.fence)).collect();
    assert_eq!(seen, [("db.data.0", SIZE, 2), ("db.data.1", SIZE, 0)]);
    let directory = bench.directory().to_owned();
    assert!(!devices(&directory).is_empty(), "the pool is under a device while it is open");
    drop(bench);
    eventually(|| devices(&directory).is_empty());
}

#[test]
fn root_a_volume_has_one_server_and_the_one_with_the_newest_right() {
    let bench = Bench::new();
    bench.runtime().volumes().create(&volume("db.data.0"), SIZE, Filesystem::Ext4).unwrap();
    launch(&bench, "one", kept("db.data.0", 1)).unwrap();
    bench.shell_as("one", "web", "echo one > /var/data/file");

    let older = volume_error(launch(&bench, "late", kept("db.data.0", 0)).unwrap_err());
    assert!(matches!(older, VolumeError::Fenced { asked: 0, known: 1, .. }), "{older}");
    let same = volume_error(launch(&bench, "twin", kept("db.data.0", 1)).unwrap_err());
    assert!(matches!(&same, VolumeError::Fenced { holder, .. } if *holder == id("one")), "{same}");
    assert_eq!(bench.shell("one", "cat /var/data/file"), "one\n", "it was not touched");
    let attached = volume_error(bench.runtime().volumes().remove(&volume("db.data.0")).unwrap_err());
    assert!(matches!(attached, VolumeError::Attached(_)), "{attached}");

    // The first one is not asked: it is ended, and then its successor has what it wrote.
    launch(&bench, "two", kept("db.data.0", 2)).unwrap();
    assert_eq!(bench.wait_for_end("one"), "PID 1 was killed");
    assert_eq!(bench.shell("two", "cat /var/data/file"), "one\n");
    let late = volume_error(launch(&bench, "three", kept("db.data.0", 1)).unwrap_err());
    assert!(matches!(late, VolumeError::Fenced { asked: 1, known: 2, .. }), "{late}");
    bench.runtime().destroy(&id("one"), 1).unwrap();
    assert_eq!(bench.shell("two", "cat /var/data/file"), "one\n", "its end takes nothing from its successor");

    // Also a server that nobody has a record of holds the lock.
    let pool = std::fs::File::options().read(true).write(true).open(in_pool(&bench, "db.data.0/image")).unwrap();
    assert!(!kiln_sys::loop_device::lock(&pool).unwrap());
}

/// A file of the pool, through the loop device's own mount: by the path of an open file of this process.
fn in_pool(bench: &Bench, name: &str) -> PathBuf {
    assert!(bench.runtime().volumes().list().is_ok());
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let found = fds.map(|fd| fd.path().join("volumes").join(name)).find(|path| {
        path.exists() && {
            // Tests of one process have their own pools.
            let state = std::fs::metadata(path).unwrap();
            let seen = bench.runtime().volumes().device();
            seen.is_none_or(|device| {
                let device = std::os::unix::fs::MetadataExt::rdev(&std::fs::metadata(device).unwrap());
                std::os::unix::fs::MetadataExt::dev(&state) == device
            })
        }
    });
    found.expect("the pool is open")
}

#[test]
fn root_a_staged_server_takes_over_when_the_old_one_has_ended_and_is_nothing_without_its_daemon() {
    let mut bench = Bench::new();
    bench.runtime().volumes().create(&volume("db.data.0"), SIZE, Filesystem::Ext4).unwrap();
    launch(&bench, "old", kept("db.data.0", 1)).unwrap();
    bench.shell_as("old", "web", "echo old > /var/data/file");
    let next = request("next", kept("db.data.0", 2));
    bench.runtime().stage(&release(), &next).unwrap();
    bench.runtime().stage(&release(), &next).unwrap();
    assert_eq!(bench.shell("old", "cat /var/data/file"), "old\n", "it goes on meanwhile");
    let seen = bench.runtime().observe().unwrap();
    let staged = seen.iter().filter(|seen| seen.phase == kiln_runtime::Phase::Staged).count();
    assert_eq!((seen.len(), staged), (2, 1), "one that has no volumes yet does not run");
    bench.reopen();
    assert_eq!(
        bench.left_on_host().iter().filter(|left| left.contains("next")).count(),
        0,
        "{:?}",
        bench.left_on_host()
    );
    bench.runtime().stage(&release(), &next).unwrap();
    bench.runtime().stop(&id("old"), 1, std::time::Duration::from_secs(10)).unwrap();
    bench.runtime().launch(&release(), &next).unwrap();
    assert_eq!(bench.shell("next", "cat /var/data/file"), "old\n");
    let other = request("other", kept("db.data.0", 3));
    bench.runtime().stage(&release(), &other).unwrap();
    bench.runtime().destroy(&id("other"), 1).unwrap();
    assert_eq!(bench.shell("next", "cat /var/data/file"), "old\n");
}

#[test]
fn root_a_volume_that_is_held_for_a_successor_stays_mounted_and_is_let_go_of_with_it() {
    let bench = Bench::new();
    let volumes = bench.runtime().volumes();
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let (size, word) = (filesystem.least().max(SIZE), filesystem.word());
        let name = format!("db.{word}.0");
        let named = |what: &str| format!("{word}-{what}");
        let with = |size, fence, restore| Source::Kept(Kept { volume: volume(&name), fence, size, restore });
        let kept = |fence| with(size, fence, None);
        let is_free = || {
            let image = std::fs::File::options().read(true).write(true).open(in_pool(&bench, &format!("{name}/image")));
            kiln_sys::loop_device::lock(&image.unwrap()).unwrap()
        };
        let stage = |server: &str, fence| {
            bench.runtime().stage(&release(), &request(&named(server), kept(fence))).unwrap();
        };
        let write = |server: &str| {
            let script = format!("echo {server} >> /var/data/file");
            assert_eq!(
                bench.shell_as(&named(server), "web", &format!("{script} && echo ok")).stdout,
                b"ok\n",
                "{word}"
            );
        };
        let lines = |server: &str| bench.shell(&named(server), "cat /var/data/file");
        volumes.create(&volume(&name), size, filesystem).unwrap();
        launch(&bench, &named("old"), kept(1)).unwrap();
        write("old");
        stage("next", 1);
        write("old");
        // Killed, with what it wrote nowhere but in memory: the file system does not notice.
        bench.runtime().kill(&id(&named("old")), 1).unwrap();
        bench.wait_for_end(&named("old"));
        bench.runtime().destroy(&id(&named("old")), 1).unwrap();
        assert!(!is_free(), "{word}: it is mounted still");
        volumes.snapshot(&snapshot(&format!("{name}@between"))).unwrap();
        launch(&bench, &named("next"), kept(2)).unwrap();
        assert_eq!(lines("next"), "old\nold\n", "{word}");
        let copy = format!("db.{word}.1");
        volumes.clone_of(&snapshot(&format!("{name}@between")), &volume(&copy)).unwrap();
        launch(&bench, &named("clone"), Source::Kept(Kept { volume: volume(&copy), fence: 1, size, restore: None }))
            .unwrap();
        assert_eq!(lines("clone"), "old\nold\n", "{word}: a snapshot of what is held is whole");

        // Whoever had it is ended first, also if nobody stopped it.
        stage("third", 2);
        write("next");
        launch(&bench, &named("third"), kept(3)).unwrap();
        assert_eq!(bench.wait_for_end(&named("next")), "PID 1 was killed");
        let late = volume_error(launch(&bench, &named("late"), kept(2)).unwrap_err());
        assert!(matches!(late, VolumeError::Fenced { asked: 2, known: 3, .. }), "{late}");

        // One that is not staged does not wait for one that is; that one gets nothing any more.
        stage("forgotten", 3);
        bench.runtime().stop(&id(&named("third")), 1, std::time::Duration::from_secs(10)).unwrap();
        launch(&bench, &named("fourth"), kept(4)).unwrap();
        assert_eq!(lines("fourth"), "old\nold\nnext\n", "{word}");
        bench.runtime().destroy(&id(&named("forgotten")), 1).unwrap();

        // What is to be done to the file system first is done, though it was held.
        let larger = ByteSize::bytes(size.as_bytes() * 2);
        let blocks =
            |server: &str| bench.shell(&named(server), "stat -f -c %b /var/data").trim().parse::<u64>().unwrap();
        let before = blocks("fourth");
        stage("larger", 4);
        launch(&bench, &named("larger"), with(larger, 5, None)).unwrap();
        assert!(blocks("larger") > before * 3 / 2, "{word}: {before}, {}", blocks("larger"));
        stage("restored", 5);
        write("larger");
        let restore = Restore { snapshot: "between".parse().unwrap(), before: "before".parse().unwrap(), number: 1 };
        launch(&bench, &named("restored"), with(larger, 6, Some(restore))).unwrap();
        assert_eq!(lines("restored"), "old\nold\n", "{word}");

        // A staged server that is not wanted any more lets go.
        stage("unwanted", 6);
        bench.runtime().stop(&id(&named("restored")), 1, std::time::Duration::from_secs(10)).unwrap();
        assert!(!is_free(), "{word}");
        bench.runtime().destroy(&id(&named("unwanted")), 1).unwrap();
        eventually(is_free);
    }
}

#[test]
fn root_a_snapshot_is_whole_a_clone_can_be_written_and_a_volume_is_put_back() {
    let bench = Bench::new();
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let size = filesystem.least().max(SIZE);
        let word = filesystem.word();
        let (name, copy) = (format!("db.{word}.0"), format!("db.{word}.1"));
        let server = format!("{word}-one");
        let volumes = bench.runtime().volumes();
        volumes.create(&volume(&name), size, filesystem).unwrap();
        launch(&bench, &server, kept(&name, 1)).unwrap();
        // Numbers, each on the disk before the next: whatever moment a snapshot is of, they are without a gap.
        let script = "i=0; while :; do i=$((i+1)); echo $i >> /var/data/log; sync /var/data/log; done";
        bench.shell_as(&server, "web", &format!("({script}) > /dev/null 2>&1 & sleep 0.2"));
        for number in 0..5 {
            volumes.snapshot(&snapshot(&format!("{name}@s{number}"))).unwrap();
        }
        volumes.snapshot(&snapshot(&format!("{name}@s0"))).unwrap();
        volumes.clone_of(&snapshot(&format!("{name}@s4")), &volume(&copy)).unwrap();
        let clone = format!("{word}-clone");
        launch(&bench, &clone, kept(&copy, 1)).unwrap();
        let check =
            "awk '$1 != NR { print \"gap at \" NR; exit 1 } END { if (NR < 5) print \"only \" NR }' /var/data/log";
        assert_eq!(bench.shell(&clone, check), "", "{word}");
        let lines: u32 = bench.shell(&clone, "wc -l < /var/data/log").trim().parse().unwrap();
        bench.shell_as(&clone, "web", "echo mine > /var/data/own");
        assert_eq!(bench.shell(&server, "ls /var/data/own 2>/dev/null"), "", "a clone is its own");

        bench.runtime().destroy(&id(&server), 1).unwrap();
        let restore = Restore { snapshot: "s4".parse().unwrap(), before: "before".parse().unwrap(), number: 1 };
        let back = |fence, number| {
            let restore = Some(Restore { number, ..restore.clone() });
            Source::Kept(Kept { volume: volume(&name), fence, size, restore })
        };
        launch(&bench, &format!("{word}-two"), back(2, 1)).unwrap();
        let again: u32 = bench.shell(&format!("{word}-two"), "wc -l < /var/data/log").trim().parse().unwrap();
        assert_eq!(again, lines, "{word}: as it was");
        bench.shell_as(&format!("{word}-two"), "web", "echo later > /var/data/later");
        bench.runtime().destroy(&id(&format!("{word}-two")), 1).unwrap();
        launch(&bench, &format!("{word}-three"), back(3, 1)).unwrap();
        assert_eq!(
            bench.shell(&format!("{word}-three"), "cat /var/data/later"),
            "later\n",
            "{word}: once for a number"
        );
        assert!(volumes.list().unwrap().iter().any(|seen| seen.snapshots.contains(&"before".parse().unwrap())));
        let missing = volume_error(
            launch(&bench, "x", {
                let restore = Restore { snapshot: "never".parse().unwrap(), ..restore.clone() };
                Source::Kept(Kept { volume: volume(&copy), fence: 2, size, restore: Some(restore) })
            })
            .unwrap_err(),
        );
        assert!(matches!(missing, VolumeError::NoSnapshot(_)), "{missing}");
    }
}

#[test]
fn root_a_volume_is_grown_while_it_is_used_and_never_made_smaller() {
    let bench = Bench::new();
    for filesystem in [Filesystem::Ext4, Filesystem::Xfs] {
        let size = filesystem.least().max(SIZE);
        let (name, server) = (format!("db.{}.0", filesystem.word()), format!("{}-grown", filesystem.word()));
        let volumes = bench.runtime().volumes();
        volumes.create(&volume(&name), size, filesystem).unwrap();
        launch(&bench, &server, kept(&name, 1)).unwrap();
        let blocks =
            || bench.shell(&server, "df -m /var/data | awk 'NR == 2 { print $2 }'").trim().parse::<u64>().unwrap();
        let before = blocks();
        let grown = [0; 2].map(|_| volumes.grow(&volume(&name), ByteSize::mib(1024)));
        if let [Err(RuntimeError::Volume(VolumeError::Later(_))), Err(_)] = &grown {
            assert_eq!(filesystem, Filesystem::Ext4);
            bench.runtime().destroy(&id(&server), 1).unwrap();
            launch(&bench, &server, kept(&name, 2)).unwrap();
        } else {
            grown.into_iter().for_each(|grown| grown.unwrap());
        }
        assert!(blocks() > 900 && blocks() > before, "{before} -> {}", blocks());
        let smaller = volume_error(volumes.grow(&volume(&name), size).unwrap_err());
        assert!(matches!(smaller, VolumeError::Smaller { .. }), "{smaller}");
        bench.runtime().destroy(&id(&server), 1).unwrap();
        // Also while nobody has it.
        volumes.grow(&volume(&name), ByteSize::mib(2048)).unwrap();
        launch(&bench, &server, kept(&name, 3)).unwrap();
        assert!(blocks() > 1900, "{}", blocks());
    }
}

#[test]
fn root_a_volume_goes_out_and_comes_in_as_a_stream_and_a_changed_one_does_not() {
    let bench = Bench::new();
    let volumes = bench.runtime().volumes();
    volumes.create(&volume("db.data.0"), SIZE, Filesystem::Ext4).unwrap();
    launch(&bench, "one", kept("db.data.0", 1)).unwrap();
    bench.shell_as(
        "one",
        "web",
        "head -c 3000000 /dev/urandom > /var/data/random; md5sum < /var/data/random > /var/data/sum",
    );
    volumes.snapshot(&snapshot("db.data.0@out")).unwrap();
    let file = bench.directory().join("out.kiln");
    volumes.export(&snapshot("db.data.0@out"), &file).unwrap();
    let length = std::fs::metadata(&file).unwrap().len();
    assert!((3_000_000..6_000_000).contains(&length), "{length}: what was never written takes no room");
    assert!(volumes.export(&snapshot("db.data.0@out"), &file).is_err(), "nothing is written over");
    volumes.import(&file, &volume("copy")).unwrap();
    let taken = volume_error(volumes.import(&file, &volume("copy")).unwrap_err());
    assert!(matches!(taken, VolumeError::Exists(_)), "{taken}");
    launch(&bench, "two", kept("copy", 1)).unwrap();
    assert_eq!(bench.shell("two", "cd /var/data; md5sum < random | cmp - sum && echo same"), "same\n");

    let bytes = std::fs::read(&file).unwrap();
    let bad = bench.directory().join("bad.kiln");
    for (what, change) in [("cut", bytes.len() / 2), ("changed", bytes.len() / 3), ("empty", 0), ("no volume", 1)] {
        let mut text = bytes.clone();
        match what {
            "changed" => text[change] ^= 1,
            "no volume" => text = b"something else".to_vec(),
            _ => text.truncate(change),
        }
        std::fs::write(&bad, &text).unwrap();
        let refused = volumes.import(&bad, &volume("bad")).unwrap_err();
        assert!(matches!(refused, RuntimeError::Volume(VolumeError::Stream { .. })), "{what}: {refused:?}");
        assert!(volumes.list().unwrap().iter().all(|seen| seen.volume != volume("bad")), "{what}: nothing is left");
    }
}

#[test]
fn root_a_damaged_file_system_is_named_and_not_given() {
    let bench = Bench::new();
    let volumes = bench.runtime().volumes();
    volumes.create(&volume("db.data.0"), SIZE, Filesystem::Ext4).unwrap();
    volumes.snapshot(&snapshot("db.data.0@good")).unwrap();
    let image = std::fs::File::options().read(true).write(true).open(in_pool(&bench, "db.data.0/image")).unwrap();
    // Its state says that it was not detached in order, and there is no group of blocks any more.
    image.write_all_at(&[0; 2], 1024 + 0x3A).unwrap();
    image.write_all_at(&vec![0xA5; 1 << 20], 4096).unwrap();
    drop(image);
    let damaged = volume_error(launch(&bench, "one", kept("db.data.0", 1)).unwrap_err());
    assert!(matches!(damaged, VolumeError::Damaged { .. }), "{damaged:?}");
    assert!(damaged.to_string().contains("kiln volume restore"), "{damaged}");
    let restore = Restore { snapshot: "good".parse().unwrap(), before: "bad".parse().unwrap(), number: 1 };
    let kept = Kept { volume: volume("db.data.0"), fence: 2, size: SIZE, restore: Some(restore) };
    launch(&bench, "one", Source::Kept(kept)).unwrap();
    assert_eq!(bench.shell("one", "ls -A /var/data"), "");
    let unknown = volume_error(launch(&bench, "two", self::kept("db.data.9", 1)).unwrap_err());
    assert!(matches!(unknown, VolumeError::Unknown(_)), "a volume that is gone is not made anew: {unknown}");
}

#[test]
fn root_what_was_not_detached_in_order_is_checked_first() {
    let bench = Bench::new();
    let volumes = bench.runtime().volumes();
    volumes.create(&volume("db.data.0"), SIZE, Filesystem::Ext4).unwrap();
    launch(&bench, "one", kept("db.data.0", 1)).unwrap();
    bench.shell_as("one", "web", "echo kept > /var/data/file; sync");
    // What a host that lost its power would find: the image as it is now, with a journal that is not empty.
    let image = in_pool(&bench, "db.data.0/image");
    let crashed = image.with_file_name("crashed");
    let from = std::fs::File::open(&image).unwrap();
    let to = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&crashed).unwrap();
    kiln_sys::reflink::share(&from, &to).unwrap();
    bench.runtime().destroy(&id("one"), 1).unwrap();
    std::fs::rename(&crashed, &image).unwrap();
    launch(&bench, "two", kept("db.data.0", 2)).unwrap();
    assert_eq!(bench.shell("two", "cat /var/data/file"), "kept\n");
}

#[test]
fn root_a_server_under_test_has_a_volume_of_which_nothing_is_left() {
    let bench = Bench::new();
    let volumes = bench.runtime().volumes();
    volumes.create(&volume("db.data.0"), SIZE, Filesystem::Ext4).unwrap();
    launch(&bench, "one", kept("db.data.0", 1)).unwrap();
    bench.shell_as("one", "web", "echo kept > /var/data/file");
    volumes.snapshot(&snapshot("db.data.0@s")).unwrap();
    let throwaway = |from| Source::Throwaway { from, size: SIZE, filesystem: Filesystem::Ext4 };
    launch(&bench, "empty", throwaway(None)).unwrap();
    launch(&bench, "drill", throwaway(Some(snapshot("db.data.0@s")))).unwrap();
    assert_eq!(bench.shell("empty", "ls -A /var/data"), "");
    assert_eq!(bench.shell("drill", "cat /var/data/file; echo changed > /var/data/file"), "kept\n");
    assert_eq!(bench.shell("one", "cat /var/data/file"), "kept\n");
    for name in ["empty", "drill"] {
        bench.runtime().destroy(&id(name), 1).unwrap();
    }
    assert_eq!(volumes.list().unwrap().len(), 1);
}

/// Beside the limits that were set, in one run: what a clone, a new volume in a server, and random writes on one take.
/// Run by `cargo xtask bench volume`, which reads what this prints.
#[test]
#[ignore = "a benchmark"]
fn perf_volumes_beside_reflinks_and_the_pool() {
    let bench = Bench::with(|options| options.berths = 4);
    let volumes = bench.runtime().volumes();
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let timed = |work: &dyn Fn()| {
        let begun = std::time::Instant::now();
        work();
        begun.elapsed().as_secs_f64() * 1e3
    };
    let large = volume("large");
    volumes.create(&large, ByteSize::bytes(10 << 30), Filesystem::Ext4).unwrap();
    launch(&bench, "writer", kept("large", 1)).unwrap();
    bench.shell_as("writer", "web", "head -c 200000000 /dev/urandom > /var/data/some; sync");
    bench.runtime().destroy(&id("writer"), 1).unwrap();
    volumes.snapshot(&snapshot("large@s")).unwrap();
    // As other programs see it.
    let source = in_pool(&bench, "large/snapshots/s").display().to_string();
    let source = PathBuf::from(source.replace("/proc/self/", &format!("/proc/{}/", std::process::id())));
    let (mut clones, mut copies, mut plain, mut made) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..21 {
        clones.push(timed(&|| volumes.clone_of(&snapshot("large@s"), &volume(&format!("clone{round}"))).unwrap()));
        let to = source.with_file_name(format!("copy{round}"));
        copies.push(timed(&|| {
            let copied = std::process::Command::new("cp").arg("--reflink=always").args([&source, &to]).status();
            assert!(copied.unwrap().success());
        }));
        eventually(|| bench.runtime().berths_ready() == 4);
        plain.push(timed(&|| drop(bench.launch("plain", image(IDLE)))));
        bench.runtime().destroy(&id("plain"), 1).unwrap();
        eventually(|| bench.runtime().berths_ready() == 4);
        let name = format!("new{round}");
        let source = Source::Kept(Kept { volume: volume(&name), fence: 1, size: ByteSize::mib(1024), restore: None });
        made.push(timed(&|| {
            volumes.create(&volume(&name), ByteSize::mib(1024), Filesystem::Ext4).unwrap();
            launch(&bench, "with", source.clone()).unwrap();
        }));
        bench.runtime().destroy(&id("with"), 1).unwrap();
    }
    println!("PERF clone_10gib_ms {:.3} cp_reflink_ms {:.3}", median(clones), median(copies));
    println!("PERF create_and_attach_1gib_in_a_launch_ms {:.3} plain_launch_ms {:.3}", median(made), median(plain));
    let seen = launch(&bench, "fio", kept("new0", 2)).unwrap();
    let inside = PathBuf::from(format!("/proc/{}/root/var/data", seen.record.pid));
    let pool = source.parent().unwrap().to_owned();
    let fio = |directory: &std::path::Path| {
        // As the owner: in a server's mounts the host's root is nobody.
        let owner = std::fs::metadata(directory).unwrap();
        let (uid, gid) = (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
        let mut command = std::process::Command::new("fio");
        std::os::unix::process::CommandExt::uid(&mut command, uid);
        std::os::unix::process::CommandExt::gid(&mut command, gid);
        let output = command
            .args(["--name=w", "--rw=randwrite", "--bs=4k", "--size=256m", "--direct=1", "--ioengine=libaio"])
            .args(["--iodepth=16", "--runtime=5", "--time_based", "--output-format=terse"])
            .arg("--directory=/proc/self/fd/0/.")
            .stdin(std::process::Stdio::from(std::fs::File::open(directory).unwrap()))
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // terse version 3: field 49 is the writes per second.
        let line = text.lines().find(|line| line.starts_with("3;"));
        line.unwrap_or_else(|| panic!("{text} {}", String::from_utf8_lossy(&output.stderr)))
            .split(';')
            .nth(48)
            .unwrap()
            .parse::<f64>()
            .unwrap()
    };
    let (mut on_volume, mut on_pool) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        on_volume.push(fio(&inside));
        on_pool.push(fio(&pool));
    }
    println!("PERF randwrite_iops_volume {:.0} pool {:.0}", median(on_volume), median(on_pool));
}
