//! Two hundred servers that ask for metadata, beside nginx with a static file of the same size, asked by the same servers in
//! the same way, in turn.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use super::{
    Bench,
    askers::{Asker, Askers, Moment},
    kiln::Kiln,
    median,
    peers::{self, Process},
    quantile,
    report::{Row, Target},
};
use crate::{Outcome, command::which};

const SERVERS: u32 = 200;
/// Questions of each server in one round of the benchmark.
const QUESTIONS: u64 = 20;
const METADATA: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::new(169, 254, 169, 254)), 80);
const PATH: &str = "/latest/meta-data/instance-id";

/// p99 of the answers of a round, milliseconds; the median of the rounds.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "metadata", "hello")?;
    kiln.edit("fleet.toml", "count = 3", &format!("count = {SERVERS}"))?;
    kiln.up()?;
    kiln.keep_downloads(bench)?;
    let servers = kiln.ready_servers()?;
    let pids: Vec<u64> = servers.iter().filter_map(|server| server["pid"].as_u64()).collect();
    let first = servers.first().ok_or("there are no servers")?;
    let id = first["id"].as_str().ok_or("a server has an id")?;
    let address = format!("{}:8099", first["address"].as_str().ok_or("a server has an address")?).parse()?;
    let nginx = nginx(&bench.work.join("metadata/nginx"), pids[0], id.len())?;
    let measured = std::thread::scope(|scope| {
        let asking = scope.spawn(|| measure(bench.rounds, &pids, address).map_err(|error| error.to_string()));
        asking.join().map_err(|_| "the askers panicked")?
    });
    nginx.end()?;
    Ok(measured?)
}

/// The host's nginx in the network of one of the servers, so that the others reach it over the same bridge.
fn nginx(directory: &Path, pid: u64, size: usize) -> Outcome<Process> {
    let page = directory.join("pages").join(PATH.trim_start_matches('/'));
    fs::create_dir_all(page.parent().ok_or("a page has a directory")?)?;
    fs::write(&page, "x".repeat(size))?;
    let nginx = which("nginx").ok_or("nginx is not installed")?;
    let configuration = peers::configuration(directory, &directory.join("pages"), "0.0.0.0:8099");
    fs::write(directory.join("nginx.conf"), configuration)?;
    let mut command = Command::new("nsenter");
    command.args(["-n", "-t", &pid.to_string(), "--"]).arg(nginx).args(["-e", "stderr", "-c"]);
    let process = peers::spawn(command.arg(directory.join("nginx.conf")))?;
    std::thread::sleep(std::time::Duration::from_millis(500));
    Ok(process)
}

fn measure(rounds: usize, pids: &[u64], nginx: SocketAddr) -> Outcome<Vec<Row>> {
    let mut ours = Askers::open(pids, METADATA, with_token)?;
    let mut theirs = Askers::open(pids, nginx, |_| Ok(get("")))?;
    let mut rows = Vec::new();
    for (moment, target) in [(Moment::Own, Some(Target::AtMost(1.0))), (Moment::Same, None)] {
        let (mut kiln, mut peer) = (Vec::new(), Vec::new());
        for round in 0..rounds as u64 {
            let seed = round * QUESTIONS;
            let (mut one, mut other) = (Vec::new(), Vec::new());
            for question in seed..seed + QUESTIONS {
                one.extend(ours.round(moment, question)?);
                other.extend(theirs.round(moment, question)?);
            }
            kiln.push(one);
            peer.push(other);
        }
        rows.push(row(moment, target, pids.len(), (&kiln, &peer)));
    }
    Ok(rows)
}

fn row(moment: Moment, target: Option<Target>, servers: usize, (kiln, peer): (&[Vec<f64>], &[Vec<f64>])) -> Row {
    let when = match moment {
        Moment::Own => "each ten times a second",
        Moment::Same => "all at the same instant",
    };
    let (half, peer_half) = (share(kiln, 0.5), share(peer, 0.5));
    Row {
        bench: "metadata".into(),
        what: format!("metadata GET, p99, {servers} servers ask {when}"),
        kiln: share(kiln, 0.99),
        unit: "ms".into(),
        peer: Some(("nginx, static file of that size".into(), share(peer, 0.99))),
        target,
        note: format!("p50 {half:.3} ms, of nginx {peer_half:.3} ms"),
    }
}

/// The time within which this share of a round's answers was there: the median of the rounds.
fn share(rounds: &[Vec<f64>], share: f64) -> f64 {
    median(rounds.iter().map(|times| quantile(times, share)).collect())
}

/// A session token for this server, and a request with it.
fn with_token(asker: &mut Asker) -> Outcome<String> {
    let ttl = "X-aws-ec2-metadata-token-ttl-seconds: 21600";
    let token = asker.exchange(&format!("PUT /latest/api/token HTTP/1.1\r\nHost: metadata\r\n{ttl}\r\n\r\n"))?;
    Ok(get(&format!("X-aws-ec2-metadata-token: {token}\r\n")))
}

fn get(header: &str) -> String {
    format!("GET {PATH} HTTP/1.1\r\nHost: metadata\r\n{header}\r\n")
}
