//! Recovery: from kill -9 of a server's PID 1 to its replacement's first answer, and a minute in which servers die all the time.

use std::{
    net::SocketAddr,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Bench, http,
    kiln::Kiln,
    launch, load, peers, quantile,
    report::{Row, Target},
};
use crate::{Outcome, command::output, lines::Lines};

/// Servers that are killed, one after another.
const KILLED: usize = 30;
/// The replacement starts within this time.
const LATEST: Duration = Duration::from_secs(20);
/// From one death to the next.
const EVERY: Duration = Duration::from_millis(100);
/// Servers in the group while they die.
const DYING: u32 = 3;
/// The deaths go on for so many times the seconds of a load.
const LONGER: u32 = 12;

/// A single death, and many.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "heal", "hello")?;
    kiln.edit("fleet.toml", "count = 3", &format!("count = {DYING}\nhealing = {{ always = 10000 }}"))?;
    let up = kiln.up()?;
    kiln.keep_downloads(bench)?;
    let mut rows = single(&kiln)?;
    rows.extend(spared(&kiln, "that was staged", None)?);
    // The same where nginx runs already, and stands still.
    kiln.edit("image.toml", "[service.web]\n", "[service.web]\nhold_ready = \"1h\"\n")?;
    rows.extend(spared(&kiln, "that was ready", Some(10.0))?);
    rows.extend(deaths(&kiln, ([127, 0, 0, 1], up.port).into(), bench.seconds * LONGER)?);
    Ok(rows)
}

fn row(what: String, kiln: f64, unit: &str, target: Option<f64>, note: String) -> Row {
    let target = target.map(Target::AtMost);
    Row { bench: "heal".into(), what, kiln, unit: unit.into(), peer: None, target, note }
}

fn single(kiln: &Kiln) -> Outcome<Vec<Row>> {
    let times = one_after_another(kiln, || kiln.settled(DYING))?;
    let what = "kill -9 of a server to the first answer of its replacement, p50";
    Ok(vec![recovered(what, &times, Some(50.0))])
}

/// The same where a warm spare waits for the death.
fn spared(kiln: &Kiln, kind: &str, most: Option<f64>) -> Outcome<Vec<Row>> {
    kiln.edit("fleet.toml", &format!("count = {DYING}\n"), &format!("count = {DYING}\nspares = 1\n"))?;
    kiln.up()?;
    let whole = || kiln.settled(DYING).and_then(|()| held(kiln));
    whole()?;
    let times = one_after_another(kiln, whole)?;
    kiln.edit("fleet.toml", "spares = 1\n", "")?;
    kiln.up()?;
    let what = format!("kill -9 of a server to the first answer of its replacement, p50, with a warm spare {kind}");
    Ok(vec![recovered(&what, &times, most)])
}

/// Waits until the spare is held.
fn held(kiln: &Kiln) -> Outcome {
    let begin = Instant::now();
    while begin.elapsed() < LATEST {
        if kiln.json(&["status"])?["groups"][0]["spares"]["held"] == 1 {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Err("no spare was made".into())
}

fn one_after_another(kiln: &Kiln, whole: impl Fn() -> Outcome) -> Outcome<Vec<f64>> {
    let mut events = Events::follow(kiln)?;
    let mut times = Vec::new();
    for _ in 0..KILLED {
        times.push(launch::rested(kiln, || events.heal(&victim(kiln)?))?);
        whole()?;
    }
    eprintln!("milliseconds, in order: {times:.1?}");
    Ok(times)
}

fn recovered(what: &str, times: &[f64], most: Option<f64>) -> Row {
    let note = format!("{KILLED} deaths, p99 {:.1} ms", quantile(times, 0.99));
    row(what.into(), quantile(times, 0.5), "ms", most, note)
}

/// PID 1 of a server that serves.
fn victim(kiln: &Kiln) -> Outcome<String> {
    let servers = kiln.ready_servers()?;
    servers
        .first()
        .and_then(|server| server["pid"].as_u64())
        .map(|pid| pid.to_string())
        .ok_or_else(|| "no server".into())
}

fn kill(pid: &str) -> Outcome {
    output(std::process::Command::new("kill").args(["-KILL", pid])).map(drop)
}

/// `kiln events -f`, so that a replacement's address is known as soon as it has one.
struct Events(Lines);

impl Events {
    fn follow(kiln: &Kiln) -> Outcome<Self> {
        let last = kiln.json(&["events"])?["id"].to_string();
        Ok(Self(Lines::of(kiln.call(&["events", "-f", "--json", "--after", &last]))?))
    }

    /// Kills, and waits until a server that starts after that answers: milliseconds.
    fn heal(&mut self, pid: &str) -> Outcome<f64> {
        let begin = Instant::now();
        kill(pid)?;
        let address = loop {
            let event: Value = serde_json::from_str(&self.0.next(LATEST)?)?;
            let starting = event["event"] == "server" && event["state"] == "starting";
            if let Some(address) = event["address"].as_str().filter(|_| starting) {
                break address.parse::<std::net::Ipv4Addr>()?;
            }
        };
        peers::wait(SocketAddr::from((address, 80)))?;
        Ok(begin.elapsed().as_secs_f64() * 1e3)
    }
}

/// Servers die all the time while `wrk` and a client that checks every answer ask.
fn deaths(kiln: &Kiln, gateway: SocketAddr, seconds: u32) -> Outcome<Vec<Row>> {
    let load = load::start(&format!("http://{gateway}/"), seconds + 30)?;
    let (over, wrong, right) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let killed = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                match http::ask(gateway) {
                    Ok(head) if head.starts_with(b"HTTP/1.1 200") => drop(right.fetch_add(1, Ordering::Relaxed)),
                    other => {
                        let seen = other.map(|head| String::from_utf8_lossy(&head).lines().next().map(str::to_owned));
                        eprintln!("not what was asked for: {seen:?}");
                        wrong.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        let killed = kill_for(kiln, Duration::from_secs(seconds.into()));
        over.store(true, Ordering::Relaxed);
        killed
    });
    let load = load.stop()?;
    kiln.settled(DYING)?;
    let (wrong, right) = (wrong.into_inner(), right.into_inner());
    let note = format!(
        "{} deaths in {seconds} s among {DYING} servers; {:.0} requests of wrk, {right} of the client that checks",
        killed?, load.requests
    );
    #[allow(clippy::cast_precision_loss)]
    let failed = (load.failed + wrong) as f64;
    Ok(vec![row("failed requests while a server dies every 100 ms".into(), failed, "", Some(0.0), note)])
}

/// Kills a server that serves, again and again; never the last one.
fn kill_for(kiln: &Kiln, time: Duration) -> Outcome<u32> {
    let (begin, mut next, mut killed) = (Instant::now(), Instant::now(), 0);
    while begin.elapsed() < time {
        let servers = kiln.ready_servers()?;
        if servers.len() > 1
            && let Some(pid) = servers.first().and_then(|server| server["pid"].as_u64())
        {
            // It may have been killed already, and nobody knows yet.
            killed += u32::from(kill(&pid.to_string()).is_ok());
        }
        // A host that stood still does not make up for it: deaths without a pause are not what is measured.
        next = (next + EVERY).max(Instant::now() + EVERY / 2);
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    Ok(killed)
}
