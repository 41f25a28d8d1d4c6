//! Root tests of the build sandbox: what commands can do, what they cannot, and what is left of them.
#![allow(missing_docs)]

#[path = "sandbox/attacks.rs"]
mod attacks;
#[path = "sandbox/bench.rs"]
mod bench;
#[path = "network/host.rs"]
#[allow(dead_code)]
mod host;

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            fs::{MetadataExt, PermissionsExt},
            net::{SocketAddr, UnixListener},
        },
    },
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bench::Bench;
use kiln_runtime::sandbox::{Bind, Job, Memory, Network, Outcome, SandboxError, Tmp, User};

#[test]
fn root_a_command_is_root_over_its_tree_and_its_files_are_roots_on_disk() {
    let mut bench = Bench::new();
    let ran =
        bench.shell("id -u; echo new > /etc/new; echo x > /etc/other; chown 1000:1000 /etc/other; rm /etc/group").ok();
    assert_eq!(ran.stdout, "0\n");
    let owner = |path: &str| {
        let found = fs::metadata(ran.upper.join(path)).unwrap();
        (found.uid(), found.gid())
    };
    assert_eq!(owner("etc/new"), (0, 0));
    assert_eq!(owner("etc/other"), (1000, 1000));
    assert_eq!(fs::metadata(ran.upper.join("etc/group")).unwrap().rdev(), 0, "a whiteout");
    assert!(!bench.path().join("lower/etc/new").exists());
}

#[test]
fn root_output_exit_code_environment_and_place_are_the_jobs() {
    let mut bench = Bench::new();
    let mut job = bench.job(&["/bin/sh", "-c", "echo out; echo err >&2; echo $COLOUR; pwd; hostname; exit 7"]);
    job.environment.push(("COLOUR".into(), "blue".into()));
    job.working_directory = "/var".into();
    let ran = bench.run(job).unwrap();
    assert_eq!(ran.outcome, Outcome::Exited(7));
    assert_eq!(ran.stdout, "out\nblue\n/var\nbuild\n");
    assert_eq!(ran.stderr, "err\n");
}

#[test]
fn root_nothing_outside_the_tree_is_written_to_it() {
    let mut bench = Bench::new();
    let ran = bench.shell("touch /run/a /tmp/b /dev/shm/c; echo x > /dev/null; ls /proc/self/fd > /tmp/d").ok();
    assert_eq!(fs::read_dir(&ran.upper).unwrap().count(), 0);
}

#[test]
fn root_host_paths_are_shown_where_they_are_asked_for_and_leave_nothing() {
    let mut bench = Bench::new();
    let source = bench.path().join("shown");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "content").unwrap();
    let mut job =
        bench.job(&["/bin/sh", "-c", "cat /run/kiln/in/file; stat -c %u /run/kiln/in/file; touch /run/kiln/in/x"]);
    job.binds.push(Bind { source: source.clone(), target: "/run/kiln/in".into(), writable: false });
    let ran = bench.run(job).unwrap();
    assert_eq!(ran.stdout, "content0\n");
    assert!(ran.stderr.contains("Read-only file system"), "{}", ran.stderr);
    let mut job =
        bench.job(&["/bin/sh", "-c", "cat /new/place/in/file /etc/x/file; echo y > /mem/y; cat /mem/y; ls -d /new"]);
    for target in ["/new/place/in", "/etc/x"] {
        job.binds.push(Bind { source: source.clone(), target: target.into(), writable: false });
    }
    job.memory.push(Memory { target: "/mem".into(), size: Some(1 << 20) });
    let ran = bench.run(job).unwrap().ok();
    assert_eq!(ran.stdout, "contentcontenty\n/new\n");
    assert_eq!(fs::read_dir(&ran.upper).unwrap().count(), 0, "places that the tree lacks are not left in it");
    for target in ["/", "/run/../etc", "/proc/x", "/sys", "/dev/shm/x", "relative"] {
        let mut job = bench.job(&["/bin/true"]);
        job.binds.push(Bind { source: source.clone(), target: target.into(), writable: false });
        assert!(bench.run(job).is_err(), "{target}");
    }
}

#[test]
fn root_a_command_that_runs_too_long_is_stopped_with_all_its_processes() {
    let mut bench = Bench::new();
    let mut job = bench.job(&["/bin/sh", "-c", "setsid sleep 1234.5 & sleep 1234.5"]);
    job.time_limit = Duration::from_millis(300);
    let start = Instant::now();
    let ran = bench.run(job).unwrap();
    assert_eq!(ran.outcome, Outcome::TimedOut);
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(ran.stderr.contains("ran longer than 300ms"), "{}", ran.stderr);
}

#[test]
fn root_a_command_starts_quickly() {
    let mut bench = Bench::new();
    let mut times: Vec<_> = (0..20)
        .map(|_| {
            let job = bench.job(&["/bin/true"]);
            let start = Instant::now();
            bench.run(job).unwrap().ok();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("one command: best {:?}, median {:?}, slowest {:?}", times[0], times[10], times[19]);
    assert!(times[10] < Duration::from_millis(100));
}

/// Shows this test program to a job, which then runs one of its tests inside.
fn run_inside(job: &mut Job, test: &str) {
    let program = std::env::current_exe().unwrap();
    for (source, target) in [("/lib/x86_64-linux-gnu".into(), "/run/t/lib"), (program, "/run/t/test")] {
        job.binds.push(Bind { source, target: target.into(), writable: false });
    }
    let words = ["/run/t/lib/ld-linux-x86-64.so.2", "--library-path", "/run/t/lib", "/run/t/test", "--exact", test];
    job.command = words.iter().chain(&["--nocapture", "--test-threads=1"]).map(|word| (*word).to_owned()).collect();
    job.environment.push((attacks::INSIDE.into(), "1".into()));
}

/// Runs only inside the sandbox.
#[test]
fn inside_attacks() {
    if std::env::var_os(attacks::INSIDE).is_some() {
        attacks::all();
    }
}

#[test]
fn root_a_hostile_step_is_refused_everything() {
    let mut bench = Bench::new();
    let device = bench.path().join("lower/device");
    let zero = rustix::fs::makedev(1, 5);
    rustix::fs::mknodat(rustix::fs::CWD, &device, rustix::fs::FileType::CharacterDevice, 0o666.into(), zero).unwrap();
    let name = format!("kiln-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let mut job = bench.job(&[]);
    run_inside(&mut job, "inside_attacks");
    job.environment.push((attacks::ABSTRACT.into(), name));
    let ran = bench.run(job).unwrap().ok();
    println!("{}", ran.stdout);
    assert!(!ran.stdout.contains("SUCCEEDED"), "{}", ran.stdout);
    assert!(ran.stdout.matches(": refused").count() >= 50, "{}", ran.stdout);
}

#[test]
fn root_symbolic_links_of_the_tree_lead_nowhere_outside_it() {
    let mut bench = Bench::new();
    let victim = bench.path().join("victim");
    fs::create_dir(&victim).unwrap();
    for name in ["dev", "run", "tmp"] {
        let place = bench.path().join("lower").join(name);
        fs::remove_dir(&place).unwrap();
        std::os::unix::fs::symlink(&victim, &place).unwrap();
    }
    let mut job = bench.job(&["/bin/sh", "-c", "touch /run/x /tmp/x /dev/x"]);
    job.binds.push(Bind { source: "/etc/hostname".into(), target: "/run/kiln/x".into(), writable: false });
    assert!(bench.run(job).is_err(), "nothing is mounted over a symbolic link");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
}

#[test]
fn root_links_of_an_earlier_command_lead_no_mount_out_of_the_tree() {
    let mut bench = Bench::new();
    let (victim, cache) = (bench.path().join("victim"), bench.path().join("cache"));
    for path in [&victim, &cache] {
        fs::create_dir(path).unwrap();
    }
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o777)).unwrap();
    std::os::unix::fs::symlink(&victim, cache.join("link")).unwrap();
    for place in ["/tmp/cache", "/run/cache"] {
        let mut job = bench.job(&["/bin/true"]);
        job.binds.push(Bind { source: cache.clone(), target: place.into(), writable: true });
        job.binds.push(Bind { source: cache.clone(), target: format!("{place}/link/made/x"), writable: true });
        drop(bench.run(job));
        assert_eq!(fs::read_dir(&victim).unwrap().count(), 0, "{place}");
    }
}

#[test]
fn root_a_command_runs_as_somebody_else_and_can_leave_files_in_tmp() {
    let mut bench = Bench::new();
    let script = "id -u; id -g; id -G; grep CapEff /proc/self/status; echo x > /tmp/mine; ! echo x > /root-only";
    let mut job = bench.job(&["/bin/sh", "-c", script]);
    job.user = Some(User { uid: 33, gid: 34, groups: vec![4, 7] });
    job.tmp = Tmp::Tree;
    fs::set_permissions(bench.path().join("lower/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let ran = bench.run(job).unwrap().ok();
    assert_eq!(ran.stdout, "33\n34\n34 4 7\nCapEff:\t0000000000000000\n");
    let stat = fs::metadata(ran.upper.join("tmp/mine")).unwrap();
    assert_eq!((stat.uid(), stat.gid()), (33, 34));
}

#[test]
fn root_set_user_id_programs_and_other_users_work() {
    let mut bench = Bench::new();
    let script = r#"cp /bin/busybox /home/su; chmod 4755 /home/su; su other -c 'id -u; /home/su -c "id -u"'"#;
    let ran = bench.shell(script).ok();
    assert_eq!(ran.stdout, "1000\n0\n");
    assert_eq!(fs::metadata(ran.upper.join("home/su")).unwrap().mode() & 0o7777, 0o4755);
}

#[test]
fn root_a_fork_bomb_is_limited() {
    let mut bench = Bench::with(|options| options.pids = 100);
    let mut job = bench.job(&["/bin/sh", "-c", "f() { f | f & }; f; sleep 1"]);
    job.time_limit = Duration::from_secs(10);
    let start = Instant::now();
    let ran = bench.run(job).unwrap();
    assert!(start.elapsed() < Duration::from_secs(20));
    assert!(ran.stderr.contains("had as many as a build step may"), "{}", ran.stderr);
}

#[test]
fn root_a_step_that_eats_memory_is_killed_and_it_is_said() {
    let mut bench = Bench::with(|options| options.memory = Some(64 << 20));
    for script in ["tail /dev/zero", "dd if=/dev/zero of=/tmp/x bs=1M count=200"] {
        let ran = bench.shell(script);
        assert_ne!(ran.outcome, Outcome::Exited(0));
        assert!(ran.stderr.contains("more memory than a build step may"), "{script}: {}", ran.stderr);
    }
}

#[test]
fn root_a_step_that_fills_the_disk_is_stopped() {
    let mut bench = Bench::new();
    kiln_sys::namespace::leave_mounts().unwrap();
    let disk = bench.path().join("disk");
    fs::create_dir(&disk).unwrap();
    let small = [kiln_sys::mount::Setting::Text("size", "64m")];
    let mount = kiln_sys::mount::create("tmpfs", &small, kiln_sys::mount::Attributes::NONE).unwrap();
    kiln_sys::mount::attach(std::os::fd::AsFd::as_fd(&mount), rustix::fs::CWD, &disk).unwrap();
    let mut job = bench.job(&["/bin/sh", "-c", "dd if=/dev/zero of=/var/x bs=1M; sleep 5"]);
    for place in [&mut job.root.upper, &mut job.root.work] {
        *place = disk.join(place.file_name().unwrap());
        fs::create_dir(place).unwrap();
    }
    let ran = bench.run(job).unwrap();
    assert!(ran.stderr.contains("filled the disk"), "{}", ran.stderr);
    assert_ne!(ran.outcome, Outcome::Exited(0));
}

fn processes_with(argument: &str) -> usize {
    let commands =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.unwrap().path().join("cmdline")).ok());
    commands.filter(|command| command.split(|byte| *byte == 0).any(|word| word == argument.as_bytes())).count()
}

#[test]
fn root_a_daemon_left_behind_dies_with_the_step() {
    let mut bench = Bench::new();
    let time = format!("5432.{}", std::process::id());
    let ran = bench.shell(&format!("setsid sleep {time} >/dev/null 2>&1 & echo started")).ok();
    assert_eq!(ran.stdout, "started\n");
    assert_eq!(processes_with(&time), 0);
}

#[test]
fn root_nothing_is_left_on_the_host() {
    let mut bench = Bench::new();
    let state = |bench: &Bench| {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let ours = mounts.lines().filter(|line| line.contains(&*bench.path().to_string_lossy())).count();
        let groups = groups_of(&bench.id());
        let open = fs::read_dir("/proc/self/fd").unwrap().count();
        (ours, groups, open)
    };
    // The sandbox keeps one quiet network namespace for the next command.
    bench.shell("true").ok();
    let before = state(&bench);
    bench.shell("exit 3");
    bench.shell("kill -9 $$");
    let mut missing = bench.job(&["/bin/nothing"]);
    missing.working_directory = "/nowhere".into();
    assert!(bench.run(missing).is_err());
    let mut late = bench.job(&["/bin/sleep", "100"]);
    late.time_limit = Duration::from_millis(50);
    bench.run(late).unwrap();
    assert_eq!(state(&bench), before);
}

fn groups_of(id: &str) -> Vec<String> {
    let name = format!("kiln-build-{id}-");
    let root = std::path::PathBuf::from("/sys/fs/cgroup");
    let hierarchies = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path());
    // Version 2 has the groups at the root itself.
    let groups = hierarchies.chain([root]).flat_map(|path| fs::read_dir(path).into_iter().flatten());
    groups
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|found| found.starts_with(&name))
        .collect()
}

/// Runs in a process of its own, which is then killed.
#[test]
fn inside_victim() {
    let Some(directory) = std::env::var_os(attacks::INSIDE) else { return };
    let mut bench = Bench::again(directory.as_ref());
    bench.shell(&format!("echo ready > /var/ready; sleep 6543.{}", bench.id()));
}

#[test]
fn root_when_the_caller_is_killed_the_step_dies_and_the_rest_is_swept() {
    let mut bench = Bench::new();
    let mut caller = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside_victim"])
        .env(attacks::INSIDE, bench.path())
        .spawn()
        .unwrap();
    let ready = bench.path().join("upper1/var/ready");
    wait_until(|| ready.exists());
    assert_ne!(groups_of(&bench.id()), Vec::<String>::new());
    caller.kill().unwrap();
    caller.wait().unwrap();
    let sleeping = format!("6543.{}", bench.id());
    wait_until(|| processes_with(&sleeping) == 0);
    // The kernel gives the dead caller's slot free a moment later; whoever takes it then sweeps.
    let deadline = Instant::now() + Duration::from_secs(10);
    while !groups_of(&bench.id()).is_empty() {
        assert!(Instant::now() < deadline, "{:?}", groups_of(&bench.id()));
        bench.shell("true").ok();
    }
}

fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn root_much_output_passes_through() {
    let mut bench = Bench::new();
    let ran = bench.shell("yes | head -c 20000000").ok();
    assert_eq!(ran.stdout.len(), 20_000_000);
}

#[test]
fn root_commands_run_side_by_side() {
    let mut bench = Bench::new();
    let jobs: Vec<Job> = (0..4).map(|_| bench.job(&["/bin/sh", "-c", "sleep 0.3; hostname > /etc/here"])).collect();
    let start = Instant::now();
    std::thread::scope(|scope| {
        for job in jobs {
            scope.spawn(|| bench.run(job).unwrap().ok());
        }
    });
    assert!(start.elapsed() < Duration::from_millis(1100));
}

#[test]
fn root_with_the_network_on_a_step_reaches_out_resolves_and_leaves_nothing() {
    let host = host::Host::new();
    let network = Arc::new(host.open("000000c1"));
    let _world = host::answer(&host.outside, [192, 0, 2, 1].into());
    let mut bench = Bench::with(|options| options.network = Some(network.clone()));
    let script = "cat /etc/resolv.conf; echo $SSL_CERT_FILE; echo hello | nc -w 2 192.0.2.1 7; ip addr show eth0";
    let mut job = bench.job(&["/bin/sh", "-c", script]);
    job.network = Network::On;
    let ran = bench.run(job).unwrap();
    println!("{ran:?}");
    assert!(ran.stdout.contains("nameserver"), "{}", ran.stdout);
    assert!(ran.stdout.contains("/run/kiln/ca-certificates.crt"));
    assert!(ran.stdout.contains("192.0.2.2"), "the outside sees the host's address: {}", ran.stdout);
    assert_eq!(fs::read_dir(&ran.upper).unwrap().count(), 0, "no resolv.conf in the tree");
    assert_eq!(network.list().unwrap(), []);
}

#[test]
fn root_with_the_network_off_there_is_loopback_only() {
    let mut bench = Bench::new();
    let ran = bench
        .shell(
            "ip -o link; test -e /etc/resolv.conf; echo $?; echo hello | nc -l -p 80 & sleep 0.1; nc -w 1 127.0.0.1 80",
        )
        .ok();
    assert_eq!(ran.stdout.lines().filter(|line| line.contains("<")).count(), 1, "{}", ran.stdout);
    assert!(ran.stdout.contains("hello"), "{}", ran.stdout);
    let mut job = bench.job(&["/bin/true"]);
    job.network = Network::On;
    assert!(matches!(bench.run(job), Err(SandboxError::NoNetwork)));
}

/// Runs with a terminal as its standard input and output.
#[test]
fn inside_terminal() {
    if std::env::var_os(attacks::INSIDE).is_none() {
        return;
    }
    let mut bench = Bench::new();
    let mut job = bench.job(&[
        "/bin/sh",
        "-c",
        "trap 'echo stopped; exit 4' INT; tty; stty size; read line; echo got $line; while :; do sleep 0.1; done",
    ]);
    job.interactive = true;
    println!("{:?}", bench.run(job).unwrap().outcome);
}

#[test]
fn root_an_interactive_step_has_a_terminal_of_its_own() {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let size = rustix::termios::Winsize { ws_row: 33, ws_col: 77, ws_xpixel: 0, ws_ypixel: 0 };
    rustix::termios::tcsetwinsize(&master, size).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    let end = || fs::OpenOptions::new().read(true).write(true).open(&name).unwrap();
    let mut caller = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "inside_terminal", "--nocapture"])
        .env(attacks::INSIDE, "1")
        .stdin(end())
        .stdout(end())
        .spawn()
        .unwrap();
    let mut shown = String::new();
    let mut see = |wanted: &str| {
        let mut buffer = [0; 1024];
        while !shown.contains(wanted) {
            let length = rustix::io::read(&master, &mut buffer).unwrap();
            shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
        shown.clone()
    };
    see("33 77");
    rustix::io::write(&master, b"hello\r").unwrap();
    see("got hello");
    rustix::io::write(&master, b"\x03").unwrap();
    let all = see("Exited(4)");
    assert!(all.contains("/dev/pts/0"), "{all}");
    assert!(all.contains("stopped"), "{all}");
    assert!(caller.wait().unwrap().success());
}

#[test]
fn root_a_tree_without_mount_points_gets_none() {
    let mut bench = Bench::new();
    for name in ["dev", "proc", "run", "sys", "tmp"] {
        fs::remove_dir(bench.path().join("lower").join(name)).unwrap();
    }
    let ran = bench.shell("touch /run/x /tmp/x; echo > /dev/null; cat /proc/self/comm; ls /sys").ok();
    assert_eq!(ran.stdout, "cat\n");
    assert_eq!(fs::read_dir(&ran.upper).unwrap().count(), 0);
}

#[test]
fn root_a_linked_resolver_configuration_is_shown_where_the_link_leads() {
    let host = host::Host::new();
    let network = Arc::new(host.open("000000c2"));
    let mut bench = Bench::with(|options| options.network = Some(network.clone()));
    let link = bench.path().join("lower/etc/resolv.conf");
    std::os::unix::fs::symlink("../run/systemd/resolve/stub-resolv.conf", link).unwrap();
    let mut job = bench.job(&["/bin/cat", "/etc/resolv.conf"]);
    job.network = Network::On;
    let ran = bench.run(job).unwrap().ok();
    assert!(ran.stdout.contains("nameserver"), "{}", ran.stdout);
    assert_eq!(fs::read_dir(&ran.upper).unwrap().count(), 0);
}

#[test]
fn root_the_same_upper_directory_serves_several_commands() {
    let mut bench = Bench::new();
    let first = bench.shell("echo 1 > /var/count").ok();
    for number in 2..5 {
        let mut job = bench.job(&["/bin/sh", "-c", "echo $(( $(cat /var/count) + 1 )) > /var/count"]);
        job.root.upper.clone_from(&first.upper);
        job.root.work = bench.path().join("work1");
        bench.run(job).unwrap().ok();
        assert_eq!(fs::read_to_string(first.upper.join("var/count")).unwrap().trim(), number.to_string());
    }
}

/// `cap_net_raw=ep` as in `struct vfs_cap_data` of version 2 (linux/capability.h).
const FILE_CAPABILITIES: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Runs only inside the sandbox.
#[test]
fn inside_file_capabilities() {
    if std::env::var_os(attacks::INSIDE).is_some() {
        fs::write("/var/ping", "").unwrap();
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr("/var/ping", "security.capability", &FILE_CAPABILITIES, flags).unwrap();
    }
}

#[test]
fn root_file_capabilities_set_by_a_step_are_the_images() {
    let mut bench = Bench::new();
    let mut job = bench.job(&[]);
    run_inside(&mut job, "inside_file_capabilities");
    let ran = bench.run(job).unwrap().ok();
    let mut value = [0u8; 64];
    let length = rustix::fs::getxattr(ran.upper.join("var/ping"), "security.capability", &mut value[..]).unwrap();
    assert_eq!(value[..length], FILE_CAPABILITIES, "as if set by root on the host");
}
