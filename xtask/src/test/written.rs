//! Databases with volumes while clients write all the time: servers are rebuilt, killed, and the daemon is killed in the middle of a
//! hand-over. Every write that was acknowledged must be there afterwards.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpStream,
    process::{ChildStdin, ChildStdout, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::project::Project;
use crate::{Outcome, command::output};

const PAUSE: Duration = Duration::from_millis(20);
const PSQL: [&str; 7] = ["--no-psqlrc", "-qtA", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "--username=postgres"];

/// A database that is up.
pub struct Written<'a>(pub Project<'a>);

/// How a client of the database writes one number and is told that it is kept.
trait Client: Sized {
    fn connect(port: u16) -> Option<Self>;
    /// Whether the number was acknowledged.
    fn write(&mut self, number: u64) -> bool;
}

/// PostgreSQL's own client: one commit for each number.
struct Postgres(ChildStdin, BufReader<ChildStdout>);

impl Client for Postgres {
    fn connect(port: u16) -> Option<Self> {
        let mut psql = psql(port);
        let mut child = psql.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().ok()?;
        Some(Self(child.stdin.take()?, BufReader::new(child.stdout.take()?)))
    }
    fn write(&mut self, number: u64) -> bool {
        let (mut line, wanted) = (String::new(), format!("{number}\n"));
        let asked = writeln!(self.0, "insert into written values ({number}) returning n;");
        asked.is_ok() && self.1.read_line(&mut line).is_ok() && line == wanted
    }
}

/// Redis' own protocol: a list to which each number is added.
struct Redis(BufReader<TcpStream>);

impl Client for Redis {
    fn connect(port: u16) -> Option<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        Some(Self(BufReader::new(stream)))
    }
    fn write(&mut self, number: u64) -> bool {
        let mut line = String::new();
        let asked = write!(self.0.get_mut(), "RPUSH written {number}\r\n");
        asked.is_ok() && self.0.read_line(&mut line).is_ok_and(|count| count > 0) && line.starts_with(':')
    }
}

/// PostgreSQL's client, of a database of the example on this host.
pub fn psql(port: u16) -> Command {
    let mut command = Command::new("psql");
    command.args(PSQL).arg(format!("--port={port}"));
    command.env("PGPASSWORD", "change-me").env("PGCONNECT_TIMEOUT", "2");
    command
}

/// Writes numbers until it is over; those that were acknowledged.
fn write_until<C: Client>(over: &AtomicBool, port: u16) -> BTreeSet<u64> {
    let (mut acknowledged, mut number) = (BTreeSet::new(), 0);
    while !over.load(Ordering::Relaxed) {
        let mut client = C::connect(port);
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
        let port = self.port()?;
        output(psql(port).args(["-c", "create table written (n bigint primary key)"]))?;
        let acknowledged = self.while_it_goes_wrong::<Postgres>(port)?;
        let kept = output(psql(port).args(["-c", "select n from written"]))?;
        compare("PostgreSQL", &acknowledged, &numbers(&kept.stdout))
    }

    /// Redis, which writes its file to the disk before it answers.
    pub fn redis_loses_no_answered_command(&self) -> Outcome {
        let port = self.port()?;
        let acknowledged = self.while_it_goes_wrong::<Redis>(port)?;
        let kept = output(Command::new("redis-cli").args(["-p", &port.to_string(), "lrange", "written", "0", "-1"]))?;
        compare("Redis", &acknowledged, &numbers(&kept.stdout))
    }

    fn while_it_goes_wrong<C: Client>(&self, port: u16) -> Outcome<BTreeSet<u64>> {
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| write_until::<C>(&over, port));
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
        for _ in 0..1500 {
            if self.until_ready()? != before {
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
        Err("a server that was killed is not replaced".into())
    }

    fn kill_the_daemon(&self) -> Outcome {
        let daemon = crate::bench::daemon_of(self.0.state)?;
        output(Command::new("kill").args(["-9", &daemon.to_string()])).map(drop)
    }

    /// PID 1 of the server that is ready.
    fn until_ready(&self) -> Outcome<u64> {
        for _ in 0..1500 {
            let group = self.0.group()?;
            let ready = group["servers"].as_array().into_iter().flatten().find(|server| server["state"] == "ready");
            if let Some(pid) = ready.and_then(|server| server["pid"].as_u64()) {
                return Ok(pid);
            }
            std::thread::sleep(PAUSE);
        }
        Err("no server became ready".into())
    }

    fn port(&self) -> Outcome<u16> {
        Ok(self.0.address()?.port())
    }
}

fn numbers(text: &[u8]) -> BTreeSet<u64> {
    String::from_utf8_lossy(text).lines().filter_map(|line| line.trim().parse().ok()).collect()
}

fn compare(who: &str, acknowledged: &BTreeSet<u64>, kept: &BTreeSet<u64>) -> Outcome {
    let lost: Vec<_> = acknowledged.difference(kept).take(10).collect();
    eprintln!("{who}: {} writes were acknowledged, {} are there", acknowledged.len(), kept.len());
    match lost.is_empty() && acknowledged.len() > 100 {
        true => Ok(()),
        false => Err(format!("{who} lost {lost:?} of {} writes", acknowledged.len()).into()),
    }
}
