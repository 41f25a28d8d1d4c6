//! Databases with volumes while clients write all the time: servers are rebuilt, killed, and the daemon is killed in the middle of a
//! hand-over. Every write that was acknowledged must be there afterwards, on a replica as well.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::Value;

use super::project::Project;
use crate::{Outcome, command::output};

const PAUSE: Duration = Duration::from_millis(20);
const PSQL: [&str; 5] = ["--no-psqlrc", "-qtA", "-v", "ON_ERROR_STOP=1", "--username=postgres"];

/// A database that is up.
pub struct Written<'a>(pub Project<'a>);

/// A database, and a client of it that writes one number after another and is told that each is kept.
trait Database: Sized {
    /// For people.
    const NAME: &str;
    /// Where it listens inside.
    const PORT: u16;
    /// Makes the place for the numbers.
    fn prepare(at: SocketAddr) -> Outcome;
    fn connect(at: SocketAddr) -> Option<Self>;
    /// Whether the number was acknowledged.
    fn write(&mut self, number: u64) -> bool;
    fn written(at: SocketAddr) -> Outcome<BTreeSet<u64>>;
}

/// PostgreSQL's own client: one commit for each number.
struct Postgres(ChildStdin, BufReader<ChildStdout>);

impl Database for Postgres {
    const NAME: &str = "PostgreSQL";
    const PORT: u16 = 5432;

    fn prepare(at: SocketAddr) -> Outcome {
        output(psql(at).args(["-c", "create table written (n bigint primary key)"])).map(drop)
    }
    fn connect(at: SocketAddr) -> Option<Self> {
        let mut child = psql(at).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        Some(Self(child.stdin.take()?, BufReader::new(child.stdout.take()?)))
    }
    fn write(&mut self, number: u64) -> bool {
        let (mut line, wanted) = (String::new(), format!("{number}\n"));
        let asked = writeln!(self.0, "insert into written values ({number}) returning n;");
        asked.is_ok() && self.1.read_line(&mut line).is_ok() && line == wanted
    }
    fn written(at: SocketAddr) -> Outcome<BTreeSet<u64>> {
        numbers(output(psql(at).args(["-c", "select n from written"]))?.stdout)
    }
}

/// Redis' own protocol: a list to which each number is added.
struct Redis(BufReader<TcpStream>);

impl Database for Redis {
    const NAME: &str = "Redis";
    const PORT: u16 = 6379;

    fn prepare(_: SocketAddr) -> Outcome {
        Ok(())
    }
    fn connect(at: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(at).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        Some(Self(BufReader::new(stream)))
    }
    fn write(&mut self, number: u64) -> bool {
        let mut line = String::new();
        let asked = write!(self.0.get_mut(), "RPUSH written {number}\r\n");
        asked.is_ok() && self.0.read_line(&mut line).is_ok_and(|count| count > 0) && line.starts_with(':')
    }
    fn written(at: SocketAddr) -> Outcome<BTreeSet<u64>> {
        let (host, port) = (at.ip().to_string(), at.port().to_string());
        numbers(
            output(Command::new("redis-cli").args(["-h", &host, "-p", &port, "lrange", "written", "0", "-1"]))?.stdout,
        )
    }
}

/// PostgreSQL's client, of a database of the example.
pub fn psql(at: SocketAddr) -> Command {
    let mut command = Command::new("psql");
    command.args(PSQL).arg(format!("--host={}", at.ip())).arg(format!("--port={}", at.port()));
    command.env("PGPASSWORD", "change-me").env("PGCONNECT_TIMEOUT", "2");
    command
}

/// Writes numbers until it is over; those that were acknowledged.
fn write_until<D: Database>(over: &AtomicBool, at: SocketAddr) -> BTreeSet<u64> {
    let (mut acknowledged, mut number) = (BTreeSet::new(), 0);
    while !over.load(Ordering::Relaxed) {
        let mut client = D::connect(at);
        while let Some(client) = client.as_mut().filter(|_| !over.load(Ordering::Relaxed)) {
            number += 1;
            if !client.write(number) {
                break;
            }
            acknowledged.insert(number);
        }
        std::thread::sleep(PAUSE);
    }
    acknowledged
}

impl Written<'_> {
    /// PostgreSQL.
    pub fn postgres_loses_no_commit(&self) -> Outcome {
        self.loses_nothing::<Postgres>()
    }

    /// Redis, which writes its file to the disk before it answers.
    pub fn redis_loses_no_answered_command(&self) -> Outcome {
        self.loses_nothing::<Redis>()
    }

    fn loses_nothing<D: Database>(&self) -> Outcome {
        let at = self.0.address()?;
        D::prepare(at)?;
        let acknowledged = self.while_it_goes_wrong::<D>(at)?;
        eprintln!("{}: {} writes were acknowledged", D::NAME, acknowledged.len());
        if acknowledged.len() < 100 {
            return Err("too few writes to show anything".into());
        }
        nothing_is_missing(D::NAME, &acknowledged, &D::written(at)?)?;
        self.a_second_server_is_a_replica::<D>(at, acknowledged)
    }

    /// It begins with a clone of the data, has what was written since, takes no writes, and follows the primary to where that is
    /// after it was killed.
    fn a_second_server_is_a_replica<D: Database>(
        &self,
        primary: SocketAddr,
        mut acknowledged: BTreeSet<u64>,
    ) -> Outcome {
        let fleet = self.0.directory.join("fleet.toml");
        let text = std::fs::read_to_string(&fleet)?;
        std::fs::write(&fleet, text.replace("count = 1", "count = 2"))?;
        self.0.up()?;
        let writes = |at, number| D::connect(at).is_some_and(|mut client| client.write(number));
        for (round, number) in (1_000_000..1_000_003).enumerate() {
            if round > 0 {
                // So many deaths in so short a time are more than a group heals without being asked.
                output(&mut self.0.call(&["heal", &self.0.name()?]))?;
                self.kill_the_server()?;
            }
            let replica = SocketAddr::from((self.address_of(1)?, D::PORT));
            until("the primary takes writes", || Ok(writes(primary, number)))?;
            acknowledged.insert(number);
            let replicated = || Ok(D::written(replica).is_ok_and(|written| written.contains(&number)));
            until(&format!("the replica of {} has {number}", D::NAME), replicated)?;
            nothing_is_missing(&format!("the replica of {}", D::NAME), &acknowledged, &D::written(replica)?)?;
            if writes(replica, number + 1_000_000) {
                return Err(format!("the replica of {} takes writes", D::NAME).into());
            }
        }
        eprintln!("{}: the replica had every write, also after its primary was killed twice", D::NAME);
        Ok(())
    }

    fn while_it_goes_wrong<D: Database>(&self, at: SocketAddr) -> Outcome<BTreeSet<u64>> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_until::<D>(&over, at));
            let gone_wrong = self.go_wrong();
            over.store(true, Ordering::Relaxed);
            let acknowledged = writer.join().map_err(|_| "the writer panicked")?;
            gone_wrong.map(|()| acknowledged)
        })
    }

    fn go_wrong(&self) -> Outcome {
        let group = self.0.name()?;
        for round in 0..3 {
            self.0.rebuild()?;
            self.kill_the_server()?;
            // Killed at another moment of a hand-over each time.
            let mut rebuild = self.0.call(&["rebuild", &group]).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
            std::thread::sleep(Duration::from_millis(60 * round + 20));
            self.kill_the_daemon()?;
            rebuild.wait()?;
            output(self.0.call(&["apply"]).arg(self.0.directory))?;
            self.until_ready()?;
        }
        Ok(())
    }

    fn kill_the_server(&self) -> Outcome {
        let before = self.until_ready()?;
        output(Command::new("kill").args(["-9", &before.to_string()]))?;
        until("a server that was killed is replaced", || Ok(self.until_ready()? != before))
    }

    fn kill_the_daemon(&self) -> Outcome {
        let daemon = crate::bench::daemon_of(self.0.state)?;
        output(Command::new("kill").args(["-9", &daemon.to_string()])).map(drop)
    }

    /// PID 1 of the first slot's server when it is ready.
    fn until_ready(&self) -> Outcome<u64> {
        let mut pid = None;
        until("a server is ready", || {
            pid = self.ready_in(0)?.and_then(|server| server["pid"].as_u64());
            Ok(pid.is_some())
        })?;
        Ok(pid.ok_or("a server that is ready has a process")?)
    }

    fn address_of(&self, slot: u64) -> Outcome<Ipv4Addr> {
        let server = self.ready_in(slot)?.ok_or("no server is ready in the slot")?;
        Ok(server["address"].as_str().ok_or("a server has an address")?.parse()?)
    }

    fn ready_in(&self, slot: u64) -> Outcome<Option<Value>> {
        let group = self.0.group()?;
        let servers = group["servers"].as_array().ok_or("a group has servers")?;
        let ready = servers.iter().find(|server| server["slot"] == slot && server["state"] == "ready");
        Ok(ready.cloned())
    }
}

/// Waits for at most half a minute.
fn until(what: &str, mut good: impl FnMut() -> Outcome<bool>) -> Outcome {
    for _ in 0..1500 {
        if good()? {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(format!("never: {what}").into())
}

fn numbers(lines: Vec<u8>) -> Outcome<BTreeSet<u64>> {
    Ok(String::from_utf8(lines)?.lines().filter_map(|line| line.trim().parse().ok()).collect())
}

fn nothing_is_missing(who: &str, acknowledged: &BTreeSet<u64>, kept: &BTreeSet<u64>) -> Outcome {
    let lost: Vec<_> = acknowledged.difference(kept).take(10).collect();
    if lost.is_empty() { Ok(()) } else { Err(format!("{who} lost {lost:?} of {} writes", acknowledged.len()).into()) }
}
