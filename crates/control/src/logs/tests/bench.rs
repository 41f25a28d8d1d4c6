//! What shipping costs, beside `logger` and rsyslog's own forwarding. Run by `cargo xtask bench logs`, which reads what this prints.

use std::{
    fs,
    io::Write as _,
    process::{Child, Command, Stdio},
    time::Duration,
};

use kiln_boot::spool::Stream;
use kiln_model::fleet::Transport;
use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, sleep};

use super::{
    Writer,
    collector::{Collector, Program, RSYSLOG},
    world::{World, web},
};
use crate::logs::{HandOver, Origin};

const LINES: u64 = 300_000;
/// rsyslog's own RELP takes minutes for as many.
const FEWER: u64 = 50_000;
const TEXT: &str =
    "10.75.0.9 - - [27/Nov/2026:15:45:20 +0000] \"GET /index.html HTTP/1.1\" 200 615 \"-\" \"curl/8.5.0\"";

/// Seconds of processor time for each 100,000 lines.
fn each(used: f64, lines: u64) -> f64 {
    used * 100_000.0 / lines as f64
}

fn mine() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Processor time of another process so far: user and system (proc_pid_stat(5)), in hundredths of a second.
fn of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    fields.map_or(0.0, |fields| (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0)
}

/// Waits until all have come; how many that were in a second.
async fn all_of(collector: &Collector, begun: Instant, lines: u64) -> f64 {
    while (collector.count() as u64) < lines {
        assert!(begun.elapsed() < Duration::from_secs(120), "{} of {lines}", collector.count());
        sleep(Duration::from_millis(100)).await;
    }
    lines as f64 / begun.elapsed().as_secs_f64()
}

async fn ship(transport: Transport) {
    let collector = Collector::started(Program::Rsyslog, transport).await;
    let mut writer = Writer::new(1 << 30);
    let mut chunk = Vec::new();
    for number in 0..LINES {
        writeln!(chunk, "{TEXT} {number}").unwrap();
        if chunk.len() > 7 << 10 {
            writer.write("main", Stream::Stdout, &chunk);
            chunk.clear();
        }
    }
    writer.write("main", Stream::Stdout, &chunk);
    let world = World::new();
    let (before, begun) = (mine(), Instant::now());
    world.logs.policy(&web(), Some(&collector.policy()));
    world.follow("web-1", &writer, Origin::Launched);
    let handed = tokio::time::timeout(Duration::from_secs(120), world.hand_over("web-1")).await;
    assert_eq!(handed.expect("in time"), Some(HandOver::Complete));
    // Before the collector's file is looked at: that is no work of the shipper's.
    let used = mine() - before;
    let speed = all_of(&collector, begun, LINES).await;
    let name = if transport == Transport::Relp { "relp" } else { "tcp" };
    println!("PERF {name}_cpu_s {:.4} {name}_lines_per_s {speed:.0}", each(used, LINES));
}

/// util-linux's logger, from a file, octet-counted over TCP.
async fn logger(file: &std::path::Path) {
    let collector = Collector::started(Program::Rsyslog, Transport::Tcp).await;
    let begun = Instant::now();
    let script = format!(
        "logger --server 127.0.0.1 --port {} --tcp --rfc5424 --octet-count -t main --file {}; times",
        collector.port,
        file.display()
    );
    let said = tokio::task::spawn_blocking(move || Command::new("sh").args(["-c", &script]).output().unwrap());
    let said = said.await.unwrap();
    let speed = all_of(&collector, begun, LINES).await;
    let times = String::from_utf8(said.stdout).unwrap();
    // Of the children: `0m0.120s 0m0.340s`.
    let seconds = |text: &str| {
        let (minutes, seconds) = text.trim_end_matches('s').split_once('m').unwrap();
        minutes.parse::<f64>().unwrap() * 60.0 + seconds.parse::<f64>().unwrap()
    };
    let used: f64 = times.lines().nth(1).unwrap().split_whitespace().map(seconds).sum();
    println!("PERF logger_cpu_s {:.4} logger_lines_per_s {speed:.0}", each(used, LINES));
}

/// A process that ends with whoever started it, also when that fails.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

/// rsyslog that reads a file and forwards it over RELP.
async fn rsyslog(file: &std::path::Path) {
    let collector = Collector::started(Program::Rsyslog, Transport::Relp).await;
    let directory = tempfile::tempdir().unwrap();
    let (at, port) = (directory.path().display(), collector.port);
    let text = format!(
        "global(workDirectory=\"{at}\")\nmodule(load=\"imfile\")\nmodule(load=\"omrelp\")\n\
         input(type=\"imfile\" file=\"{}\" tag=\"main\")\n\
         action(type=\"omrelp\" target=\"127.0.0.1\" port=\"{port}\" template=\"RSYSLOG_SyslogProtocol23Format\")\n",
        file.display()
    );
    let config = directory.path().join("rsyslog.conf");
    fs::write(&config, text).unwrap();
    let begun = Instant::now();
    let mut command = Command::new(RSYSLOG);
    command.args(["-n", "-iNONE", "-f"]).arg(&config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let child = Ends(command.spawn().unwrap());
    let speed = all_of(&collector, begun, FEWER).await;
    let used = of(child.0.id());
    drop(child);
    println!("PERF rsyslog_cpu_s {:.4} rsyslog_lines_per_s {speed:.0}", each(used, FEWER));
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a benchmark"]
async fn perf_logs_beside_logger_and_rsyslog() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lines");
    let text = |lines: u64| -> String { (0..lines).map(|number| format!("{TEXT} {number}\n")).collect() };
    fs::write(&file, text(LINES)).unwrap();
    ship(Transport::Tcp).await;
    logger(&file).await;
    ship(Transport::Relp).await;
    fs::write(&file, text(FEWER)).unwrap();
    rsyslog(&file).await;
}
