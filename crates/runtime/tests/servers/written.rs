//! What a server wrote where nothing outlives it, with a service that does not want to be looked at.

use std::time::{Duration, Instant};

use kiln_model::loss::{Bounds, Place, PlaceKind, Written};
use kiln_runtime::RuntimeError;

use crate::bench::{Bench, IDLE, eventually, id, image, tmpfs, writable};

const BOUNDS: Bounds = Bounds { entries: 100_000, time: Duration::from_secs(10), largest: 2 };

fn place(path: &str, kind: PlaceKind) -> Place {
    Place { path: path.to_owned(), kind }
}

fn bench() -> Bench {
    serving(IDLE)
}

fn serving(script: &str) -> Bench {
    let bench = Bench::new();
    let ephemeral = kiln_model::manifest::WritableKind::Ephemeral { size: kiln_model::ByteSize::mib(8) };
    let mut manifest = image(script);
    manifest.writable = vec![writable("/mnt", tmpfs(64 << 20)), writable("/var/data", ephemeral)];
    bench.launch("writer", manifest);
    bench
}

fn look(bench: &Bench, path: &str, kind: PlaceKind, bounds: Bounds) -> Written {
    let mut seen = bench.runtime().written(&id("writer"), &[place(path, kind)], bounds).unwrap();
    assert_eq!(seen.len(), 1, "{seen:?}");
    seen.remove(0)
}

#[test]
fn root_what_a_server_wrote_is_found_and_what_it_has_from_its_image_is_not() {
    let bench = bench();
    assert_eq!(look(&bench, "/mnt", PlaceKind::Tmpfs, BOUNDS).files, 0);
    let untouched = look(&bench, "/var/data", PlaceKind::Ephemeral, BOUNDS);
    assert_eq!((untouched.files, untouched.bytes, untouched.whole), (0, 0, true), "{untouched:?}");
    assert!(untouched.held > 0, "the copy of the image takes room");
    let script = "cd /var/data && mkdir -p deep/er && echo more > deep/er/file && head -c 100000 /dev/zero > big && \
                  echo 12345 > /mnt/one && touch -d '2020-01-01 00:00:00' /mnt/one";
    assert_eq!(bench.shell_as("writer", "web", script).exit, 0);
    let seen = look(&bench, "/var/data", PlaceKind::Ephemeral, BOUNDS);
    assert_eq!((seen.files, seen.bytes, seen.whole), (2, 100_005, true), "{seen:?}");
    let named: Vec<_> = seen.largest.iter().map(|file| (file.path.as_str(), file.bytes)).collect();
    assert_eq!(named, [("/var/data/big", 100_000), ("/var/data/deep/er/file", 5)]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let age = now - seen.newest_ms.unwrap();
    assert!((0..20_000).contains(&age), "{age}");
    let old = look(&bench, "/mnt", PlaceKind::Tmpfs, BOUNDS);
    assert_eq!((old.files, old.bytes, old.oldest_ms), (1, 6, Some(1_577_836_800_000)), "{old:?}");
    assert_eq!(bench.shell("writer", "echo changed >> /var/data/seed"), "");
    assert_eq!(
        look(&bench, "/var/data", PlaceKind::Ephemeral, BOUNDS).files,
        3,
        "a file of the image that was changed"
    );
}

#[test]
fn root_a_tree_that_is_a_trap_is_looked_at_and_left() {
    let open = "head -c 3000000 /dev/zero > /mnt/gone; exec 3< /mnt/gone; rm /mnt/gone; touch /run/begun";
    let bench = serving(&format!("{open}; {IDLE}"));
    eventually(|| bench.runtime().stat(&id("writer"), "/run/begun").unwrap().is_some());
    let script = "cd /mnt && mkfifo pipe && ln -s / all && ln -s /bin/busybox link && ln -s . self && \
                  truncate -s 1099511627776 hole && echo x > one && ln one two && ln one three && \
                  mkdir closed && echo secret > closed/file && chmod 0 closed && \
                  echo name > \"$(printf 'a\\033[31m\\nb')\" && \
                  (d=.; for i in $(seq 80); do d=$d/d; done; mkdir -p $d && echo deep > $d/file)";
    let output = bench.shell_as("writer", "web", script);
    assert_eq!(output.exit, 0, "{}", String::from_utf8_lossy(&output.stderr));
    let begun = Instant::now();
    let seen = look(&bench, "/mnt", PlaceKind::Tmpfs, Bounds { largest: 10, ..BOUNDS });
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing is waited for");
    // hole, one (with its other names), closed/file, the one with a bad name; what is too deep is not seen.
    assert_eq!((seen.files, seen.bytes, seen.whole), (4, 2 + 7 + 5, false), "{seen:#?}");
    assert!(seen.held >= 3_000_000, "what is deleted and still open is held: {seen:?}");
    assert_eq!(seen.counted(), seen.held);
    assert!(seen.largest.iter().all(|file| !file.path.contains(char::is_control)), "{seen:?}");
    assert!(seen.largest.iter().any(|file| file.path.contains("a\u{fffd}[31m")), "{seen:?}");
}

#[test]
fn root_looking_ends_at_its_bounds_however_much_there_is() {
    let bench = bench();
    let script = "cd /mnt && for i in $(seq 3000); do : > f$i; done; mkdir d && echo x > d/file; head -c 1000000 /dev/zero > big";
    bench.shell("writer", script);
    let few = look(&bench, "/mnt", PlaceKind::Tmpfs, Bounds { entries: 1000, ..BOUNDS });
    assert!(few.files <= 1000 && !few.whole, "{few:?}");
    assert!(few.counted() >= 1_000_000, "what was not seen counts: {few:?}");
    let no_time = look(&bench, "/mnt", PlaceKind::Tmpfs, Bounds { time: Duration::ZERO, ..BOUNDS });
    assert!(no_time.files == 0 && !no_time.whole && no_time.counted() >= 1_000_000, "{no_time:?}");
    let all = look(&bench, "/mnt", PlaceKind::Tmpfs, BOUNDS);
    assert_eq!((all.files, all.bytes, all.whole), (3002, 1_000_002, true));
}

#[test]
fn root_what_is_no_memory_of_the_server_and_a_server_that_ended_have_nothing() {
    let bench = bench();
    let places =
        [place("/etc", PlaceKind::Tmpfs), place("/no/such/place", PlaceKind::Tmpfs), place("/tmp", PlaceKind::Scratch)];
    let seen = bench.runtime().written(&id("writer"), &places, BOUNDS).unwrap();
    assert_eq!(seen.len(), 1, "only what is a memory file system there: {seen:?}");
    assert_eq!(bench.runtime().connections(&id("writer")).unwrap(), 0);
    bench.runtime().stop(&id("writer"), 1, Duration::from_secs(10)).unwrap();
    let ended = bench.runtime().written(&id("writer"), &places, BOUNDS);
    assert!(matches!(ended, Err(RuntimeError::NotRunning(_))), "{ended:?}");
}
