//! A hundred thousand replacements in one run, over a fake engine: nothing grows. Run by `cargo xtask bench soak`, which reads what this prints.

mod world;

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kiln_control::Wanted;
use kiln_model::{
    Fleet, FrozenConfig, Group, GroupName,
    fleet::{EvidencePolicy, HealingPolicy, Strategy},
};
use kiln_testkit::Manners;
use world::{World, group, image};

const GROUPS: u32 = 50;
/// Servers of each group.
const EACH: u32 = 20;
const REPLACEMENTS: u32 = 100_000;
/// Measured from here on: caches, pools and what is kept (200,000 entries of the audit log and a tenth more) are full by then.
const WARM: u32 = 60_000;
/// Failures are kept for less time than this, which passes from one to the next.
const BETWEEN: Duration = Duration::from_secs(1200);

fn wanted() -> Wanted {
    let name = |number: u32| -> GroupName { format!("g{number:02}").parse().unwrap() };
    let mut each: Group = group(EACH);
    each.publish.clear();
    each.rollout.strategy = Strategy::Rolling { max_surge: EACH, max_unavailable: 0 };
    each.healing = HealingPolicy { always: EACH / 2, ..HealingPolicy::default() };
    let groups: BTreeMap<GroupName, Group> = (0..GROUPS).map(|number| (name(number), each.clone())).collect();
    let images = groups.keys().map(|name| (name.clone(), image(1))).collect();
    let configs = groups.keys().map(|name| (name.clone(), FrozenConfig::default())).collect();
    let fleet = Fleet { groups, evidence: EvidencePolicy::default(), config: BTreeMap::new() };
    Wanted { fleet, images, configs, origins: BTreeMap::new() }
}

/// Descriptors; private memory in MiB; the state file and its log in MiB.
struct Sizes {
    descriptors: usize,
    memory: f64,
    file: f64,
}

impl Sizes {
    fn now(directory: &Path) -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let rss = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let kib: f64 = rss.trim().trim_end_matches(" kB").parse().unwrap();
        let size = |name: &str| fs::metadata(directory.join(name)).map_or(0, |file| file.len());
        Self {
            descriptors: fs::read_dir("/proc/self/fd").unwrap().count(),
            memory: kib / 1024.0,
            file: (size("kiln.db") + size("kiln.db-wal")) as f64 / f64::from(1 << 20),
        }
    }
}

/// What the state file keeps.
fn kept(directory: &Path) -> String {
    let file = rusqlite::Connection::open(directory.join("kiln.db")).unwrap();
    let number = |sql: &str| file.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
    let (entries, journal) = (number("SELECT count(*) FROM audit_log"), number("SELECT count(*) FROM intentions"));
    let (pages, free) = (number("PRAGMA page_count"), number("PRAGMA freelist_count"));
    let log = fs::metadata(directory.join("kiln.db-wal")).map_or(0, |file| file.len() >> 10);
    format!("{entries} entries, {journal} intentions, {free} of {pages} pages free, log {log} KiB")
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn perf_soak() {
    let world = World::new(Manners::default());
    let control = world.open().await;
    control.apply(wanted()).await.unwrap();
    assert!(control.settle(&[]).await.unwrap().iter().all(|group| group.outcome.is_ok()));
    let (begun, mut killed, mut warm) = (Instant::now(), 0, None);
    let (start, mut rounds) = (Timestamp::now(), 0);
    while killed < REPLACEMENTS {
        *world.clock.lock().unwrap() = Some(start + BETWEEN * rounds);
        rounds += 1;
        // Half of every group, again and again.
        let mut left = BTreeMap::<GroupName, u32>::new();
        for seen in world.engine.running() {
            let of = left.entry(seen.group.clone().unwrap()).or_default();
            if *of < EACH / 2 {
                *of += 1;
                killed += 1;
                world.engine.kill(&seen.server);
            }
        }
        let whole = async || {
            // Who was killed is not seen to be at once.
            if world.engine.running().len() < (GROUPS * EACH) as usize {
                return false;
            }
            let status = control.status().await.unwrap();
            status.groups.iter().all(|group| group.ready == EACH && group.servers.len() == EACH as usize)
        };
        let waiting = Instant::now();
        while !whole().await {
            assert!(waiting.elapsed() < Duration::from_secs(60), "after {killed}: {:#?}", control.status().await);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        world.engine.forget_deeds();
        if warm.is_none() && killed >= WARM {
            warm = Some(Sizes::now(world.directory.path()));
        }
        if killed % 10_000 < GROUPS * EACH / 2 {
            let Sizes { descriptors, memory, file } = Sizes::now(world.directory.path());
            println!(
                "{killed} after {:.0?}: {descriptors} descriptors, {memory:.1} MiB, {file:.1} MiB of state ({})",
                begun.elapsed(),
                kept(world.directory.path())
            );
        }
    }
    let (warm, end) = (warm.unwrap(), Sizes::now(world.directory.path()));
    println!(
        "PERF replaced {killed} warm {WARM} seconds {:.1} descriptors_warm {} descriptors_end {} memory_warm {:.2} memory_end {:.2} \
         file_warm {:.2} file_end {:.2}",
        begun.elapsed().as_secs_f64(),
        warm.descriptors,
        end.descriptors,
        warm.memory,
        end.memory,
        warm.file,
        end.file
    );
    control.close().await;
}
