//! The gateway beside HAProxy: same servers, same load, one after the other in each round.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    Bench, load, median,
    peers::{self, Nginx, Process},
    report::{Row, Target},
};
use crate::Outcome;

const SERVERS: usize = 3;

/// What one proxy did in one round.
struct Measured {
    per_second: f64,
    p99: f64,
    /// Microseconds of processor time per request.
    processor: f64,
}

/// Throughput, p99 and processor time per request.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let dir = bench.work.join("gateway");
    let (_nginx, servers) = start_servers(&dir)?;
    let ports = [peers::free_port()?, peers::free_port()?];
    let haproxy = peers::haproxy(&dir, ports[0], &servers)?;
    let gateway = start_gateway(bench, &dir.join("state"), ports[1], &servers)?;
    for port in ports {
        peers::wait(([127, 0, 0, 1], port).into())?;
    }
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        theirs.push(measure(bench, ports[0], haproxy.0.id())?);
        ours.push(measure(bench, ports[1], gateway.0.id())?);
    }
    let middle = |all: &[Measured], of: fn(&Measured) -> f64| median(all.iter().map(of).collect());
    let row = |what: &str, unit: &str, of: fn(&Measured) -> f64, target| Row {
        bench: "gateway".into(),
        what: what.into(),
        kiln: middle(&ours, of),
        unit: unit.into(),
        peer: Some(("HAProxy".into(), middle(&theirs, of))),
        target,
        note: format!("{} connections, 1 KiB pages, {SERVERS} nginx", load::CONNECTIONS),
    };
    Ok(vec![
        row("gateway: requests per second", "/s", |m| m.per_second, None),
        row("gateway: p99", "ms", |m| m.p99, None),
        row("gateway: processor time per request", "µs", |m| m.processor, None::<Target>),
    ])
}

fn start_servers(dir: &Path) -> Outcome<(Vec<Process>, Vec<SocketAddr>)> {
    let pages = dir.join("pages");
    fs::create_dir_all(&pages)?;
    fs::write(pages.join("index.html"), "x".repeat(1_024))?;
    let servers: Vec<Nginx> =
        (0..SERVERS).map(|n| Nginx::prepare(&dir.join(format!("nginx-{n}")), &pages)).collect::<Outcome<_>>()?;
    let processes = servers.iter().map(Nginx::start).collect::<Outcome<_>>()?;
    Ok((processes, servers.iter().map(Nginx::address).collect()))
}

fn start_gateway(bench: &Bench, state: &Path, port: u16, servers: &[SocketAddr]) -> Outcome<Process> {
    if state.exists() {
        fs::remove_dir_all(state)?;
    }
    fs::create_dir_all(state)?;
    let process = peers::spawn(Command::new(&bench.kiln).arg("--state").arg(state).arg("gateway"))?;
    let backends: Vec<Value> = servers
        .iter()
        .enumerate()
        .map(|(n, address)| json!({ "server": format!("web-{n}"), "address": address }))
        .collect();
    let route = json!({ "group": "web", "port": 80, "listen": port, "protocol": "http", "backends": backends });
    let answer = ask(&state.join("gateway.sock"), &json!({ "op": "set_routes", "version": 1, "routes": [route] }))?;
    if answer["reply"] != "routed" {
        return Err(format!("the gateway answered {answer}").into());
    }
    Ok(process)
}

/// One line to the gateway and one back (docs/gateway.md).
fn ask(socket: &Path, request: &Value) -> Outcome<Value> {
    let start = Instant::now();
    let mut stream = loop {
        match UnixStream::connect(socket) {
            Ok(stream) => break stream,
            Err(error) if start.elapsed() > Duration::from_secs(10) => return Err(error.into()),
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    };
    writeln!(stream, "{request}")?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn measure(bench: &Bench, port: u16, pid: u32) -> Outcome<Measured> {
    let before = peers::processor_time(pid)?;
    let load = load::run(&format!("http://127.0.0.1:{port}/"), bench.seconds)?;
    let used = peers::processor_time(pid)? - before;
    if load.failed > 0 {
        return Err(format!("{} requests failed on port {port}", load.failed).into());
    }
    Ok(Measured { per_second: load.per_second, p99: load.p99, processor: used / load.requests * 1e6 })
}
