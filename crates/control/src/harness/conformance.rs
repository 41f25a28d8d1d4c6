//! The tests that every image must pass, whatever its recipe says.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kiln_api::error::chain;
use kiln_engine::{Engine, Observed, StopOutcome};
use kiln_model::{
    ImageManifest,
    evidence::{TestOutcome, Verdict},
};

use super::{
    HarnessError, ImageTree, Subject,
    expect::{self, Expect},
    inside::Look,
    outcome,
    server::Boot,
    tree::{TreeError, TreeFacts},
};

pub(super) const READ_ONLY_ROOT: &str = "kiln/read-only-root";
pub(super) const SERVICES_READY: &str = "kiln/services-ready";
const CLEAN_STOP: &str = "kiln/clean-stop";
const NO_MACHINE_ID: &str = "kiln/no-machine-id";
const NO_SSH_HOST_KEYS: &str = "kiln/no-ssh-host-keys";
const NO_WORLD_WRITABLE: &str = "kiln/no-world-writable-directories";
const NO_PACKAGE_CACHES: &str = "kiln/no-package-caches";
const SECOND_BOOT: &str = "kiln/second-boot";
/// So many of the tests that only one boot has are named.
const NAMED: usize = 3;

/// All of them, in the order of a report.
pub(super) const NAMES: [&str; 8] = [
    READ_ONLY_ROOT,
    SERVICES_READY,
    CLEAN_STOP,
    NO_MACHINE_ID,
    NO_SSH_HOST_KEYS,
    NO_WORLD_WRITABLE,
    NO_PACKAGE_CACHES,
    SECOND_BOOT,
];

/// A server is given so much more than the longest grace of its services.
const STOP_MARGIN: Duration = Duration::from_secs(2);
/// Writing where it is forbidden fails at once.
const WRITE_LIMIT: Duration = Duration::from_secs(5);

/// Tests of the image's files, which are the same in every server.
pub(super) async fn tree(tree: Arc<dyn ImageTree>, subject: &Subject) -> Result<Vec<TestOutcome>, HarnessError> {
    let image = subject.image;
    let start = Instant::now();
    let facts = tokio::task::spawn_blocking(move || tree.facts(&image)).await;
    let facts = facts.unwrap_or_else(|panic| Err(TreeError::Ended(panic.to_string())));
    let facts = facts.map_err(|source| HarnessError::Tree { name: subject.name.clone(), image, source })?;
    Ok(judge(&facts, start.elapsed()))
}

fn judge(facts: &TreeFacts, took: Duration) -> Vec<TestOutcome> {
    let none = |name, what: &str, seen: &[String]| {
        let message = format!("expected {what}, saw {}", expect::listed(seen));
        outcome(name, took, (!seen.is_empty()).then_some(message))
    };
    vec![
        none(NO_MACHINE_ID, "no machine id in the image", &facts.machine_ids),
        none(NO_SSH_HOST_KEYS, "no ssh host keys in the image", &facts.ssh_host_keys),
        none(
            NO_WORLD_WRITABLE,
            "no directories that everybody may write to without the sticky bit",
            &facts.world_writable,
        ),
        none(NO_PACKAGE_CACHES, "no leftovers of package tools", &facts.package_caches),
    ]
}

/// The root refuses writes also to root: every mount that can be written is a declared or a volatile one, and a shell running
/// as root cannot write to the usual places.
pub(super) async fn read_only_root(
    engine: &dyn Engine,
    (server, expect): (&Observed, Expect<'_>),
    manifest: &ImageManifest,
) -> TestOutcome {
    let start = Instant::now();
    let seen = async {
        let look = Look::new(engine, &server.server, expect)?;
        let mounts = look.read("/proc/1/mountinfo", 4 << 20).await?;
        let writable = writable_mounts(&String::from_utf8_lossy(&mounts), manifest);
        if !writable.is_empty() {
            return Err(format!("expected only declared paths to be writable, saw {}", expect::listed(&writable)));
        }
        write(&look, manifest).await
    };
    let limited = tokio::time::timeout(WRITE_LIMIT, seen).await;
    let seen = limited.unwrap_or_else(|_| Err("looking inside the server did not end".to_owned()));
    outcome(READ_ONLY_ROOT, start.elapsed(), seen.err())
}

/// Paths that are volatile or the kernel's in every server.
const VOLATILE: [&str; 6] = ["/dev", "/proc", "/sys", "/run", "/tmp", "/var/tmp"];

fn allowed(path: &str, manifest: &ImageManifest) -> bool {
    let below = |top: &str| path == top || path.strip_prefix(top).is_some_and(|rest| rest.starts_with('/'));
    VOLATILE.iter().any(|top| below(top)) || manifest.writable.iter().any(|writable| below(&writable.path))
}

/// Mount points that can be written and should not be, from the text of mountinfo (proc_pid_mountinfo(5)): the fifth field
/// is the mount point, the sixth its options.
fn writable_mounts(mountinfo: &str, manifest: &ImageManifest) -> Vec<String> {
    let mounts = mountinfo.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(4);
        let (path, options) = (fields.next()?, fields.next()?);
        let read_only = options.split(',').any(|option| option == "ro");
        (!read_only && !allowed(path, manifest)).then(|| path.to_owned())
    });
    mounts.collect()
}

/// Tries to write as root. An image without a shell has nobody to try it with; the mounts have been looked at.
async fn write(look: &Look<'_>, manifest: &ImageManifest) -> Result<(), String> {
    let places = ["/", "/etc", "/usr", "/usr/bin", "/var", "/root", "/var/lib"];
    let places = places.into_iter().filter(|place| !allowed(place, manifest)).collect::<Vec<_>>().join(" ");
    let script =
        format!("for d in {places}; do [ -d $d ] && (: > $d/.kiln-write-test) 2>/dev/null && echo $d; done; exit 0");
    let command = ["/bin/sh".to_owned(), "-c".to_owned(), script];
    let Ok(ran) = look.exec(&command, WRITE_LIMIT).await else { return Ok(()) };
    let written: Vec<String> = String::from_utf8_lossy(&ran.stdout).lines().map(str::to_owned).collect();
    if written.is_empty() { Ok(()) } else { Err(format!("root could write to {}", expect::listed(&written))) }
}

/// Stops a server and says whether every service ended within its grace.
pub(super) async fn clean_stop(engine: &dyn Engine, server: &Observed, manifest: &ImageManifest) -> TestOutcome {
    let start = Instant::now();
    let grace = manifest.services.values().map(|service| service.stop.grace).max().unwrap_or_default();
    let stopped = engine.stop(&server.server, server.generation, grace + STOP_MARGIN).await;
    let grace = kiln_model::duration::format(grace);
    let message = match stopped {
        Ok(StopOutcome::Clean) => None,
        Ok(StopOutcome::Killed) => {
            Some(format!("a service did not end within its grace (at most {grace}) and was killed"))
        }
        Ok(StopOutcome::AlreadyGone) => Some("the server had ended before it was asked to stop".to_owned()),
        Err(error) => Some(chain(&error)),
    };
    outcome(CLEAN_STOP, start.elapsed(), message)
}

/// A second boot gives the same answers: the same tests, and every one ended as it did on the first.
pub(super) fn second_boot(first: &Boot, second: &Boot) -> TestOutcome {
    let took = second.tests.iter().map(|test| test.took).max().unwrap_or_default();
    let (of_first, of_second) = (by_name(first), by_name(second));
    let alone = [("first", &of_first, &of_second), ("second", &of_second, &of_first)];
    let alone = alone.into_iter().filter_map(|(which, of, other)| {
        let tests: Vec<_> =
            of.iter().filter(|(name, _)| !other.contains_key(name)).map(|(_, test)| shown(test)).collect();
        let named = tests[..tests.len().min(NAMED)].join(", ");
        let more = if tests.len() > NAMED { format!(" and {} more", tests.len() - NAMED) } else { String::new() };
        (!tests.is_empty()).then(|| format!("only the {which} boot has {named}{more}"))
    });
    let pairs = of_first.iter().filter_map(|(name, a)| Some((a, of_second.get(name)?)));
    let differing = pairs.filter(|(a, b)| a.verdict != b.verdict).map(|(a, b)| {
        let words = match b.verdict {
            Verdict::Passed => "passed",
            Verdict::Skipped => "was left out",
            Verdict::Failed => {
                let why = b.message.as_deref().unwrap_or("");
                return format!("{} failed only on the second boot: {why}", a.name);
            }
        };
        format!("{} {words} only on the second boot", a.name)
    });
    let differing: Vec<String> = alone.chain(differing).collect();
    outcome(SECOND_BOOT, took, (!differing.is_empty()).then(|| differing.join("; ")))
}

/// The tests of a boot by their names, and of those with one name by their order.
fn by_name(boot: &Boot) -> BTreeMap<(&str, usize), &TestOutcome> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let numbered = boot.tests.iter().map(|test| {
        let number = seen.entry(&test.name).or_default();
        *number += 1;
        ((test.name.as_str(), *number), test)
    });
    numbered.collect()
}

fn shown(test: &TestOutcome) -> String {
    test.message.as_ref().map_or_else(|| test.name.clone(), |message| format!("{} ({message})", test.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest() -> ImageManifest {
        serde_json::from_value(serde_json::json!({
            "version": 1, "name": "t", "services": {},
            "writable": [{"path": "/var/cache/nginx", "kind": {"tmpfs": {"size": "1MiB"}}, "user": "root", "mode": 493}],
        }))
        .unwrap()
    }

    #[test]
    fn unit_a_writable_root_is_seen() {
        let root = "1 0 0:1 / / rw,nosuid - erofs x ro\n2 1 0:2 / /run rw - tmpfs x rw\n";
        assert_eq!(writable_mounts(root, &manifest()), ["/"]);
        let good = "1 0 0:1 / / ro - erofs x rw\n2 1 0:2 / /var/cache/nginx rw - tmpfs x rw\n";
        assert_eq!(writable_mounts(good, &manifest()), [""; 0]);
    }

    #[test]
    fn unit_neighbours_of_allowed_paths_are_not_allowed() {
        assert!(allowed("/run/lock", &manifest()) && !allowed("/runner", &manifest()));
        assert!(!allowed("/var/cache", &manifest()) && !allowed("/", &manifest()));
    }

    fn boot(verdicts: &[(&str, bool)]) -> Boot {
        let tests =
            verdicts.iter().map(|(name, good)| outcome(name, Duration::ZERO, (!good).then(|| "status 500".to_owned())));
        Boot { ready: None, tests: tests.collect(), proposals: Vec::new() }
    }

    #[test]
    fn unit_a_second_boot_that_differs_is_named() {
        let same = second_boot(&boot(&[("a", true), ("b", false)]), &boot(&[("a", true), ("b", false)]));
        assert_eq!(same.verdict, Verdict::Passed);
        let other = second_boot(&boot(&[("a", true)]), &boot(&[("a", false)]));
        assert_eq!(other.message.as_deref(), Some("a failed only on the second boot: status 500"));
        let turned = second_boot(&boot(&[("a", true), ("b", false)]), &boot(&[("b", false), ("a", true)]));
        assert_eq!(turned.verdict, Verdict::Passed);
        let fewer = second_boot(&boot(&[("a", true), ("a", false), ("b", true)]), &boot(&[("a", true), ("c", false)]));
        let told = "only the first boot has a (status 500), b; only the second boot has c (status 500)";
        assert_eq!(fewer.message.as_deref(), Some(told));
    }
}
