//! Messages that programs send to `/dev/log`.

use std::{os::unix::net::UnixDatagram, path::PathBuf, process::Command, time::Duration};

use kiln_boot::spool::{Stream, frames};
use kiln_model::syslog;

use crate::bench::{Bench, IDLE, eventually, id, image, service};

/// What is in the spool of a server: stream, service, bytes.
fn spooled(bench: &Bench, server: &str) -> Vec<(Stream, String, Vec<u8>)> {
    let files = bench.runtime().files(&id(server)).unwrap().spool().map(|path| std::fs::read(path).unwrap());
    let mut all: Vec<_> = files.iter().flat_map(|file| frames(file)).collect();
    all.sort_by_key(|frame| frame.sequence);
    all.iter().map(|frame| (frame.stream, frame.service.to_owned(), frame.bytes.to_vec())).collect()
}

fn messages(bench: &Bench, server: &str) -> Vec<Vec<u8>> {
    spooled(bench, server)
        .into_iter()
        .filter(|(stream, ..)| *stream == Stream::Syslog)
        .map(|(.., bytes)| bytes)
        .collect()
}

/// The socket as the host reaches it.
fn socket(bench: &Bench, server: &str) -> PathBuf {
    let seen = bench.runtime().observe().unwrap();
    let seen = seen.iter().find(|seen| seen.record.server == id(server)).unwrap();
    format!("/proc/{}/root/dev/log", seen.record.pid).into()
}

#[test]
fn root_what_is_sent_to_dev_log_is_framed_and_nobody_can_take_it_away() {
    let bench = Bench::new();
    bench.launch("one", image(IDLE));
    let shown = bench.shell("one", "stat -c '%F %a %u' /dev/log; ls /dev/shm; rm -f /dev/log 2>/dev/null; ls /dev/log");
    assert_eq!(shown, "socket 666 0\n/dev/log\n");
    // busybox, as root and as an ordinary user.
    bench.shell("one", "logger -t app -p daemon.err one two");
    let output = bench.shell_as("one", "web", "logger -t web -p local3.info from a user");
    assert_eq!(output.exit, 0, "{output:?}");
    // util-linux, in both forms.
    let logger = |arguments: &[&str]| {
        let mut logger = Command::new("logger");
        let logger = logger.arg("--socket").arg(socket(&bench, "one")).args(["--socket-errors=on"]).args(arguments);
        assert!(logger.status().unwrap().success());
    };
    logger(&["-t", "cron", "-p", "cron.notice", "--id=77", "old form"]);
    logger(&["--rfc5424", "-t", "new", "-p", "mail.crit", "--sd-id", "x@1", "--sd-param", "a=\"1\"", "new form"]);
    eventually(|| messages(&bench, "one").len() == 4);
    let all = messages(&bench, "one");
    let seen: Vec<_> = all
        .iter()
        .map(|bytes| {
            let message = syslog::parse(bytes);
            let text = String::from_utf8_lossy(message.text).into_owned();
            (message.priority.to_string(), message.tag.unwrap_or_default(), message.pid.unwrap_or_default(), text)
        })
        .collect();
    let expected = [
        ("daemon.err", "app", "", "one two"),
        ("local3.info", "web", "", "from a user"),
        ("cron.notice", "cron", "77", "old form"),
        ("mail.crit", "new", "", "new form"),
    ];
    let expected = expected.map(|(priority, tag, pid, text)| (priority.to_owned(), tag, pid, text.to_owned()));
    let without_pids: Vec<_> =
        seen.into_iter().map(|(p, tag, pid, text)| (p, tag, if tag == "cron" { pid } else { "" }, text)).collect();
    assert_eq!(without_pids, expected);
    assert!(syslog::parse(&all[3]).data.contains("[x@1 a=\"1\"]"), "{}", all[3].escape_ascii());
}

#[test]
fn root_a_flood_of_messages_starves_nobody_and_pid_1_stays_small() {
    let bench = Bench::with(|options| options.spool_bytes = 4 << 20);
    let mut manifest = image(IDLE);
    let calm = "i=0; while true; do echo calm $i; i=$((i+1)); usleep 2000; done";
    manifest.services.insert("calm".parse().unwrap(), service(calm));
    bench.launch("flooded", manifest);
    let path = socket(&bench, "flooded");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let socket = UnixDatagram::unbound().unwrap();
            socket.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
            socket.connect(&path).unwrap();
            let (small, large) = ([b'x'; 200], [b'y'; 100_000]);
            for round in 0_u64.. {
                if over.load(std::sync::atomic::Ordering::Relaxed) {
                    break;
                }
                // A full queue makes a sender wait.
                socket.send(if round % 16 == 0 { &large } else { &small }).unwrap_or_default();
            }
        });
        // What is kept is overwritten within milliseconds, so the newest of its lines are looked for.
        let newest = || {
            let ours = spooled(&bench, "flooded").into_iter().filter(|(_, service, _)| service == "calm");
            let number =
                |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.trim().strip_prefix("calm ")?.parse::<u32>().ok();
            ours.filter_map(|(.., bytes)| number(&bytes)).max().unwrap_or(0)
        };
        let begun = std::time::Instant::now();
        let mut seen = 0;
        while seen < 200 && begun.elapsed() < Duration::from_secs(30) {
            seen = seen.max(newest());
        }
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(seen >= 200, "the calm service was kept waiting after line {seen}");
    });
    assert!(messages(&bench, "flooded").iter().all(|message| message.len() <= 8 << 10), "bounded");
    let pid = bench.runtime().observe().unwrap()[0].record.pid;
    let memory = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let private = memory.lines().filter(|line| line.starts_with("Private_"));
    let kib: u64 = private.map(|line| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()).sum();
    println!("private memory of PID 1: {kib} KiB");
    assert!(kib <= 256, "{memory}");
}

#[test]
fn root_a_spool_outlives_all_that_a_restart_of_the_host_takes_away() {
    let mut bench = Bench::new();
    bench.launch("one", image("echo before; exec sleep 1000"));
    eventually(|| !spooled(&bench, "one").is_empty());
    let pid = bench.runtime().observe().unwrap()[0].record.pid;
    bench.runtime = None;
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    std::fs::remove_dir_all(bench.options.run_dir.join("servers/one")).unwrap();
    bench.reopen();
    assert_eq!(bench.runtime().observe().unwrap(), []);
    let spool = bench.runtime().spool(&id("one")).expect("its log is there");
    assert_eq!(frames(&std::fs::read(&spool[0]).unwrap()).next().unwrap().bytes, b"before\n");
    bench.runtime().destroy(&id("one"), 1).unwrap();
    assert_eq!(bench.runtime().spool(&id("one")), None);
    assert!(!spool[0].parent().unwrap().exists());
}
