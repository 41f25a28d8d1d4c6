//! Launch, stop, failure, adoption, destruction.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use kiln_model::manifest::{Restart, WritableKind};
use kiln_runtime::{Phase, RuntimeError, Stopped};

use crate::bench::{Bench, IDLE, NO_LIMITS, eventually, id, image, service, tmpfs, writable};

#[test]
fn root_a_server_starts_runs_commands_and_stops_cleanly() {
    let bench = Bench::new();
    let seen = bench.launch("one", image(&format!("echo $GREETING > /run/greeting; {IDLE}")));
    assert_eq!(seen.phase, Phase::Running);
    let services = bench.runtime().services(&id("one")).unwrap();
    assert!(services[0].up, "{services:?}");
    eventually(|| bench.shell("one", "cat /run/greeting") == "hello\n");
    assert_eq!(bench.shell("one", "id -u; hostname; cat /proc/1/comm"), "0\none\nkiln-init\n");
    let stopped = bench.runtime().stop(&id("one"), 1, Duration::from_secs(10)).unwrap();
    assert_eq!(stopped, Stopped::Clean);
    assert_eq!(bench.wait_for_end("one"), "stopped");
    bench.runtime().destroy(&id("one"), 1).unwrap();
    assert_eq!(bench.runtime().observe().unwrap(), []);
    bench.runtime().destroy(&id("one"), 1).unwrap();
    assert_eq!(bench.runtime().stop(&id("one"), 1, Duration::ZERO).unwrap(), Stopped::AlreadyGone);
}

#[test]
fn root_launches_succeed_while_other_threads_fork() {
    let bench = Bench::with(|options| options.berths = 8);
    let over = std::sync::atomic::AtomicBool::new(false);
    let map = kiln_sys::idmap::Map { base: 1 << 24, count: 1 };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !over.load(std::sync::atomic::Ordering::Relaxed) {
                    kiln_sys::idmap::user_namespace(map).unwrap();
                }
            });
        }
        let outcomes: Vec<_> =
            (0..80).map(|n| bench.try_launch(&format!("s{n}"), 1, image(IDLE), NO_LIMITS).map(drop)).collect();
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        let failed: Vec<_> = outcomes.into_iter().filter_map(Result::err).collect();
        assert!(failed.is_empty(), "{failed:?}");
    });
}

#[test]
fn root_an_ignored_stop_signal_ends_in_a_kill_after_the_grace() {
    let bench = Bench::new();
    let mut manifest = image("trap '' TERM; while :; do sleep 1; done");
    manifest.services.values_mut().for_each(|service| service.stop.grace = Duration::from_millis(300));
    bench.launch("stubborn", manifest);
    eventually(|| {
        bench.shell("stubborn", "grep -l '^SigIgn:.*4...$' /proc/[0-9]*/status | head -1").contains("status")
    });
    let start = std::time::Instant::now();
    let stopped = bench.runtime().stop(&id("stubborn"), 1, Duration::from_secs(20)).unwrap();
    assert_eq!(stopped, Stopped::Killed);
    assert!((300..5000).contains(&start.elapsed().as_millis()), "{:?}", start.elapsed());
    assert_eq!(bench.wait_for_end("stubborn"), "stopped; killed after their grace: main");
}

#[test]
fn root_a_service_that_must_not_end_ends_the_server_with_its_last_lines() {
    let bench = Bench::new();
    bench.launch("broken", image("echo starting; echo no such database >&2; exit 3"));
    let reason = bench.wait_for_end("broken");
    assert_eq!(reason, "service main ended: exit code 3; its last lines:\nstarting\nno such database");
}

#[test]
fn root_a_program_that_is_not_there_is_the_reason() {
    let bench = Bench::new();
    let mut manifest = image("");
    manifest.services.values_mut().for_each(|service| service.command = vec!["/usr/bin/absent".into()]);
    bench.launch("absent", manifest);
    let reason = bench.wait_for_end("absent");
    assert!(reason.starts_with("service main ended: could not start /usr/bin/absent: No such file"), "{reason}");
}

#[test]
fn root_services_are_restarted_and_tasks_are_not() {
    let bench = Bench::new();
    let mut manifest = image(IDLE);
    let mut flaky = service("echo x >> /run/starts; [ $(wc -l < /run/starts) -ge 3 ] && exec sleep 1000; exit 1");
    flaky.restart = Restart::OnFailure;
    let mut task = service("echo done > /run/task");
    task.restart = Restart::Once;
    manifest.services.extend(BTreeMap::from([("flaky".parse().unwrap(), flaky), ("task".parse().unwrap(), task)]));
    bench.launch("mixed", manifest);
    eventually(|| bench.shell("mixed", "wc -l < /run/starts").trim() == "3");
    let services = bench.runtime().services(&id("mixed")).unwrap();
    let summary: Vec<_> = services.iter().map(|state| (state.name.as_str(), state.up, state.starts)).collect();
    assert_eq!(summary, [("flaky", true, 3), ("main", true, 1), ("task", true, 1)]);
}

#[test]
fn root_generations_only_count_up() {
    let bench = Bench::new();
    let first = bench.try_launch("again", 2, image(IDLE), NO_LIMITS).unwrap();
    let same = bench.try_launch("again", 2, image(IDLE), NO_LIMITS).unwrap();
    assert_eq!(first.record, same.record, "a repeated launch is the same server");
    let stale = bench.try_launch("again", 1, image(IDLE), NO_LIMITS).unwrap_err();
    assert!(matches!(stale, RuntimeError::Stale { asked: 1, known: 2, .. }), "{stale}");
    assert!(matches!(bench.runtime().destroy(&id("again"), 1), Err(RuntimeError::Stale { .. })));
    let newer = bench.try_launch("again", 3, image(IDLE), NO_LIMITS).unwrap();
    assert_ne!(newer.record.pid, first.record.pid);
    assert_eq!(bench.runtime().observe().unwrap().len(), 1);
}

#[test]
fn root_servers_outlive_the_runtime_and_are_adopted() {
    let mut bench = Bench::new();
    let before = bench.launch("kept", image(IDLE));
    bench.launch("died", image("sleep 0.3; exit 7"));
    bench.runtime = None;
    eventually(|| bench.options.run_dir.join("servers/died/ending.json").metadata().is_ok_and(|file| file.len() > 0));
    bench.reopen();
    // PID 1 writes its last word, and then ends.
    eventually(|| bench.runtime().observe().unwrap()[0].phase != Phase::Running);
    let seen = bench.runtime().observe().unwrap();
    assert_eq!(seen[1].record, before.record);
    let services = bench.runtime().services(&id("kept")).unwrap();
    assert_eq!((&seen[1].phase, services[0].starts), (&Phase::Running, 1));
    assert_eq!(seen[0].phase, Phase::Exited { reason: "service main ended: exit code 7".into(), killed: false });
    assert_eq!(bench.runtime().stop(&id("kept"), 1, Duration::from_secs(10)).unwrap(), Stopped::Clean);
}

#[test]
fn root_a_record_of_another_process_is_not_adopted() {
    let mut bench = Bench::new();
    bench.launch("mine", image(IDLE));
    let path = bench.options.run_dir.join("servers/mine/record.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let mut record: kiln_runtime::record::Record = serde_json::from_str(&text).unwrap();
    let real = record.pid;
    record.pid = std::process::id();
    bench.runtime = None;
    std::fs::write(&path, serde_json::to_string(&record).unwrap()).unwrap();
    bench.reopen();
    assert!(matches!(bench.runtime().observe().unwrap()[0].phase, Phase::Exited { .. }));
    bench.runtime().destroy(&id("mine"), 1).unwrap();
    let pid = rustix::process::Pid::from_raw(real as i32);
    let mut end = None;
    eventually(|| {
        end = rustix::process::waitpid(pid, rustix::process::WaitOptions::NOHANG).unwrap();
        end.is_some()
    });
    let (_, end) = end.unwrap();
    assert_eq!(end.terminating_signal(), Some(9), "its control group gave it away");
}

#[test]
fn root_writable_paths_are_what_was_declared() {
    let bench = Bench::new();
    let mut manifest = image(IDLE);
    manifest.writable = vec![
        writable("/mnt", tmpfs(1 << 20)),
        writable("/run/web/cache", tmpfs(64 << 10)),
        writable("/var/data", WritableKind::Ephemeral { size: kiln_model::ByteSize::mib(1) }),
    ];
    bench.launch("writer", manifest);
    assert_eq!(bench.shell("writer", "stat -c '%U %a' /mnt /run/web/cache"), "web 750\nweb 750\n");
    let script = "cat /var/data/seed; echo new > /var/data/file && stat -c %U /var/data /var/data/file; \
                  dd if=/dev/zero of=/run/web/cache/full bs=1k count=100 2>&1 | grep -o 'No space.*'; id";
    let output = bench.shell_as("writer", "web", script);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[..4], ["from the image", "web", "web", "No space left on device"], "{text}");
    assert_eq!(lines[4], "uid=33(web) gid=33(web) groups=33(web),50(extra)");
}

#[test]
fn root_looking_inside_shows_what_the_server_sees() {
    let bench = Bench::new();
    bench.launch("seen", image("ln -s /etc/passwd /run/link; ln -s ../../../../etc/shadow /run/out; nc -l -p 8080"));
    let ports = |all: Vec<SocketAddr>| all.iter().map(SocketAddr::port).collect::<Vec<_>>();
    eventually(|| ports(bench.runtime().listening(&id("seen")).unwrap()) == [8080]);
    let runtime = bench.runtime();
    let status = runtime.stat(&id("seen"), "/var/data").unwrap().unwrap();
    assert_eq!((status.uid, status.gid, status.mode & 0o170_000), (33, 33, 0o040_000));
    assert_eq!(runtime.stat(&id("seen"), "/absent").unwrap(), None);
    let passwd = runtime.read(&id("seen"), "/run/link", 4).unwrap().unwrap();
    assert_eq!(passwd, b"root");
    assert_eq!(runtime.read(&id("seen"), "/run/out", 100).unwrap(), None, "the way up ends at the server's root");
    assert_eq!(runtime.read(&id("seen"), "/dev/zero", 100).unwrap(), None, "devices are not read");
    let programs: Vec<_> =
        runtime.processes(&id("seen")).unwrap().into_iter().map(|p| (p.pid, p.uid, p.program)).collect();
    assert_eq!(programs[0], (1, 0, "kiln-init".to_owned()));
    assert!(programs.iter().any(|(_, _, program)| program == "nc"), "{programs:?}");
}

#[test]
fn root_a_command_that_takes_too_long_is_killed() {
    let bench = Bench::new();
    bench.launch("slow", image(IDLE));
    let exec = kiln_runtime::protocol::Exec {
        command: vec!["sleep".into(), "4321".into()],
        user: "web".into(),
        environment: Vec::new(),
        directory: None,
        terminal: None,
    };
    let error = bench.runtime().exec(&id("slow"), exec, Duration::from_millis(100), 10).unwrap_err();
    assert!(matches!(error, RuntimeError::TimedOut(_)), "{error}");
    eventually(|| !bench.shell("slow", "ps").contains("4321"));
    assert_eq!(bench.shell_as("slow", "web", "kill -9 $$").exit, 137);
}

#[test]
fn root_services_may_open_their_standard_output_again() {
    let bench = Bench::new();
    let mut manifest = image("echo again > /dev/stderr && echo and again > /dev/stdout; exit 1");
    manifest.services.values_mut().for_each(|service| service.user = "web".into());
    bench.launch("reopen", manifest);
    let reason = bench.wait_for_end("reopen");
    assert!(reason.contains("\nagain") && reason.contains("\nand again"), "{reason}");
}

#[test]
fn root_an_interactive_command_has_a_terminal_of_its_own() {
    use std::io::{Read as _, Write as _};
    let bench = Bench::new();
    bench.launch("shell", image(IDLE));
    let exec = kiln_runtime::protocol::Exec {
        command: vec!["/bin/sh".into(), "-c".into(), "tty; stty size; read line; echo got $line; exit 5".into()],
        user: "web".into(),
        environment: Vec::new(),
        directory: Some("/tmp".into()),
        terminal: Some((31, 99)),
    };
    let mut session = bench.runtime().exec_interactive(&id("shell"), exec, None).unwrap();
    let mut terminal = std::fs::File::from(session.terminal.take().unwrap());
    let (mut text, mut said) = (Vec::new(), false);
    let mut buffer = [0; 512];
    // A terminal whose last user is gone answers EIO.
    while let Ok(count @ 1..) = terminal.read(&mut buffer) {
        text.extend(&buffer[..count]);
        // Earlier, the terminal's echo of it could stand in the middle of what the command writes.
        if !said && String::from_utf8_lossy(&text).contains("31 99\r\n") {
            terminal.write_all(b"words\n").unwrap();
            said = true;
        }
    }
    assert_eq!(session.wait().unwrap(), 5);
    let text = String::from_utf8_lossy(&text).replace("\r\n", "\n");
    assert!(text.contains("/dev/pts/0\n") && text.contains("31 99\n") && text.contains("got words\n"), "{text}");
}

#[test]
fn root_output_is_framed_in_a_spool_of_bounded_size() {
    let bench = Bench::with(|options| options.spool_bytes = 16 << 10);
    bench.launch("chatty", image("i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done; sleep 1000"));
    let read = || bench.runtime().files(&id("chatty")).unwrap().spool().map(|path| std::fs::read(path).unwrap());
    // Said by the service, and then read by PID 1.
    let last = b"line 2999\n";
    eventually(|| read().iter().any(|file| file.windows(last.len()).any(|bytes| bytes == last)));
    let files = read();
    assert!(files.iter().all(|file| file.len() <= 16 << 10));
    let mut frames: Vec<_> = files.iter().flat_map(|file| kiln_boot::spool::frames(file)).collect();
    frames.sort_by_key(|frame| frame.sequence);
    assert!(
        frames.windows(2).all(|pair| pair[1].sequence == pair[0].sequence + pair[0].lines()),
        "no gap in what is kept"
    );
    assert!(frames.iter().all(|frame| frame.service == "main" && frame.nanos > 1_700_000_000_000_000_000));
    let text: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes).copied().collect();
    assert!(text.ends_with(last), "{}", String::from_utf8_lossy(&text[text.len().saturating_sub(80)..]));
}
