//! Starting programs in namespaces and control groups, as root on a real kernel.

use std::{
    ffi::CString,
    fs::File,
    io::Read as _,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use kiln_sys::{
    cgroup::{self, Host},
    idmap, oom, pidfd, spawn,
};

#[derive(Default)]
struct Place<'a> {
    cgroup: Option<BorrowedFd<'a>>,
    cgroup_v1: &'a [BorrowedFd<'a>],
    users: Option<BorrowedFd<'a>>,
    new: Option<spawn::NewNamespaces>,
}

fn output_of(script: &str, place: &Place<'_>) -> String {
    let shell = File::open("/bin/sh").unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = OwnedFd::from(writer);
    let script = CString::new(script).unwrap();
    let job = spawn::Spawn {
        program: shell.as_fd(),
        arguments: &[c"sh", c"-c", &script],
        environment: &[c"PATH=/usr/bin:/bin"],
        fds: &[null.as_fd(), writer.as_fd(), writer.as_fd()],
        cgroup: place.cgroup,
        cgroup_v1: place.cgroup_v1,
        mounts: None,
        users: place.users,
        network: None,
        new: place.new.unwrap_or(spawn::NewNamespaces::NONE),
    };
    let child = spawn::spawn(&job).unwrap();
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(pidfd::wait(child.pidfd.as_fd(), Duration::from_secs(10)).unwrap());
    assert_eq!(pidfd::reap(child.pidfd.as_fd()).unwrap(), Some(pidfd::Exit::Code(0)), "{text}");
    text
}

#[test]
fn root_a_program_gets_exactly_the_given_descriptors() {
    let _not_inherited = rustix::io::dup(File::open("/").unwrap()).unwrap();
    // The shell alone: what it opens for other programs would be seen as well.
    let script = "n=0; while [ $n -lt 256 ]; do [ -e /proc/$$/fd/$n ] && printf '%s ' $n; n=$((n + 1)); done; true";
    assert_eq!(output_of(script, &Place::default()).trim(), "0 1 2");
}

#[test]
fn root_a_program_is_root_of_its_user_namespace_only() {
    let users = idmap::user_namespace(idmap::Map { base: 1_200_000_000, count: idmap::IDS }).unwrap();
    let script = "id -u; tr -s ' ' < /proc/self/uid_map; echo $$; hostname changed && hostname; cat /etc/shadow";
    let place = Place { users: Some(users.as_fd()), new: Some(spawn::NewNamespaces::ALL), ..Place::default() };
    let text = output_of(&format!("{script} 2>&1; true"), &place);
    let lines: Vec<_> = text.lines().map(str::trim).collect();
    assert_eq!(lines[..4], ["0", "0 1200000000 65536", "1", "changed"], "{text}");
    assert!(text.contains("Permission denied"), "{text}");
}

#[test]
fn root_a_program_starts_inside_its_control_group() {
    let host = cgroup::Host::detect().unwrap();
    let group = host.group(&format!("kiln-test-{}", std::process::id()));
    group.create().unwrap();
    group.limit(&cgroup::Limits { memory: Some(64 << 20), cpu_millis: Some(500), pids: Some(20) }).unwrap();
    let entrance = group.entrance().unwrap();
    let v1: Vec<_> = entrance.v1.iter().map(|file| file.as_fd()).collect();
    let place = Place {
        cgroup: entrance.v2.as_ref().map(|file| file.as_fd()),
        cgroup_v1: &v1,
        new: Some(spawn::NewNamespaces::PID),
        ..Place::default()
    };
    let text = output_of("cat /proc/self/cgroup", &place);
    group.remove(Duration::from_secs(10)).unwrap();
    assert!(!group.exists());
    assert!(text.contains(&format!("kiln-test-{}", std::process::id())), "{text}");
}

/// Works for 200 ms of processor time, by the kernel's own account of it.
const WORKS: &str = "while read -r times < /proc/self/stat; set -- $times; [ $((${14} + ${15})) -lt 20 ]; do :; done";

/// The host, and what of it each version has alone.
fn hosts() -> Vec<Host> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let of_version = |kind: &str| {
        let lines = mounts.lines().filter(|line| line.contains(&format!(" - {kind} ")));
        Host::of_mounts(&lines.map(|line| format!("{line}\n")).collect::<String>())
    };
    let hosts: Vec<Host> =
        [Host::detect(), of_version("cgroup"), of_version("cgroup2")].into_iter().flatten().collect();
    assert!(hosts.len() >= 2, "{mounts}");
    hosts
}

fn processor_time_of(host: &cgroup::Host) -> Option<Duration> {
    let group = host.group(&format!("kiln-time-{}-{:?}", std::process::id(), host.limits));
    group.create().unwrap();
    let entrance = group.entrance().unwrap();
    let v1: Vec<_> = entrance.v1.iter().map(|file| file.as_fd()).collect();
    let v2 = entrance.v2.as_ref().map(|file| file.as_fd());
    output_of(WORKS, &Place { cgroup: v2, cgroup_v1: &v1, ..Place::default() });
    let spent = group.processor_time();
    group.remove(Duration::from_secs(10)).unwrap();
    spent
}

#[test]
fn root_processor_time_is_read_from_control_groups_of_both_versions() {
    let likely = Duration::from_millis(190)..Duration::from_secs(2);
    for host in hosts() {
        let spent = processor_time_of(&host).expect("every host counts it");
        assert!(likely.contains(&spent), "{spent:?} on {host:?}");
    }
}

/// A program that works all the time, in a group of its own.
fn working(host: &Host, name: &str) -> (cgroup::Group, spawn::Spawned) {
    let group = host.group(&format!("kiln-test-{}-{name}", std::process::id()));
    group.create().unwrap();
    let (shell, null) =
        (File::open("/bin/sh").unwrap(), File::options().read(true).write(true).open("/dev/null").unwrap());
    let entrance = group.entrance().unwrap();
    let v1: Vec<_> = entrance.v1.iter().map(|file| file.as_fd()).collect();
    let job = spawn::Spawn {
        program: shell.as_fd(),
        arguments: &[c"sh", c"-c", c"while :; do :; done"],
        environment: &[],
        fds: &[null.as_fd(), null.as_fd(), null.as_fd()],
        cgroup: entrance.v2.as_ref().map(|file| file.as_fd()),
        cgroup_v1: &v1,
        mounts: None,
        users: None,
        network: None,
        new: spawn::NewNamespaces::NONE,
    };
    let child = spawn::spawn(&job).unwrap();
    (group, child)
}

#[test]
fn root_what_is_frozen_uses_no_processor_goes_on_when_thawed_and_can_be_killed() {
    let pause = || std::thread::sleep(Duration::from_millis(60));
    for host in hosts() {
        assert!(host.freezes(), "{host:?}");
        let (group, child) = working(&host, "frozen");
        pause();
        group.freeze(Duration::from_secs(5)).unwrap();
        assert!(group.is_frozen().unwrap());
        std::thread::sleep(Duration::from_millis(5));
        let before = group.processor_time().unwrap();
        pause();
        assert_eq!(group.processor_time().unwrap(), before, "{host:?}");
        group.thaw().unwrap();
        assert!(!group.is_frozen().unwrap());
        pause();
        assert!(group.processor_time().unwrap() > before, "{host:?}");
        group.freeze(Duration::from_secs(5)).unwrap();
        pidfd::kill(child.pidfd.as_fd()).unwrap();
        group.let_die().unwrap();
        assert!(pidfd::wait(child.pidfd.as_fd(), Duration::from_secs(5)).unwrap(), "{host:?}");
        pidfd::reap(child.pidfd.as_fd()).unwrap();
        group.remove(Duration::from_secs(5)).unwrap();
        // One that is removed while it is frozen takes what is in it along.
        let (group, child) = working(&host, "removed");
        group.freeze(Duration::from_secs(5)).unwrap();
        let killing = std::thread::spawn(move || group.remove(Duration::from_secs(5)).map(|()| group));
        assert!(pidfd::wait(child.pidfd.as_fd(), Duration::from_secs(5)).unwrap(), "{host:?}");
        pidfd::reap(child.pidfd.as_fd()).unwrap();
        assert!(!killing.join().unwrap().unwrap().exists());
    }
}

#[test]
fn root_a_missing_program_is_a_named_error() {
    let text_file = File::open("/etc/passwd").unwrap();
    let error = spawn::spawn(&spawn::Spawn {
        program: text_file.as_fd(),
        arguments: &[c"x"],
        environment: &[],
        fds: &[],
        cgroup: None,
        cgroup_v1: &[],
        mounts: None,
        users: None,
        network: None,
        new: spawn::NewNamespaces::NONE,
    })
    .unwrap_err();
    assert_eq!(error.action, "start a program: execute the program");
    assert_eq!(error.outcome, kiln_sys::Outcome::NotPermitted);
}

#[test]
fn root_a_program_of_a_protected_process_is_not_protected_and_cannot_become_so() {
    let users = idmap::user_namespace(idmap::Map { base: 1_200_000_000, count: idmap::IDS }).unwrap();
    let place = Place { users: Some(users.as_fd()), ..Place::default() };
    let of = |process: &str| -> i32 {
        std::fs::read_to_string(format!("/proc/{process}/oom_score_adj")).unwrap().trim().parse().unwrap()
    };
    oom::protect().unwrap();
    let own = of("self");
    let script = "cat /proc/self/oom_score_adj; (echo -900 >/proc/self/oom_score_adj) 2>/dev/null || echo refused";
    let said = output_of(script, &place);
    let (score, refused) = said.split_once('\n').unwrap();
    let score: i32 = score.parse().unwrap();
    assert!(score >= own + 500, "{score} and {own}: it is not ended before this process");
    assert_eq!(refused, "refused\n");
    assert_eq!(of("self"), own, "this process keeps its own");

    let mut other = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    assert_eq!(of(&other.id().to_string()), own);
    oom::expose(other.id()).unwrap();
    assert_eq!(of(&other.id().to_string()), score);
    other.kill().unwrap();
    other.wait().unwrap();
}
