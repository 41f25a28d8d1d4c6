//! A PostgreSQL whose volume goes from one server to the next, beside the same PostgreSQL stopped and started again.
//!
//! Both are asked the same way all the time: a client connects and begins a session. The longest time without an answer is what
//! the replacement costs. Before each round both write the same rows, which their stop must bring to the disk.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::{
        fs::{MetadataExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use super::{
    Bench,
    kiln::Kiln,
    median,
    report::{Row, Target},
};
use crate::{Outcome, command::output, test::psql};

/// Rows that are changed before each round.
const ROWS: u32 = 20_000;
/// One try of a client: who is held until somebody serves waits so long.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(1);
/// PostgreSQL's protocol 3.0, one parameter: `user` is `postgres` (its documentation, "Message Formats").
const STARTUP: &[u8] = b"\0\0\0\x17\0\x03\0\0user\0postgres\0\0";

/// Milliseconds.
pub fn run(bench: &Bench) -> Outcome<Vec<Row>> {
    let kiln = Kiln::fresh(bench, "handover", "postgres")?;
    let port = kiln.up()?.port;
    kiln.keep_downloads(bench)?;
    let mut own = Bare::start()?;
    for port in [port, own.port] {
        query(port, &format!("create table filler as select n, 0 as changed from generate_series(1, {ROWS}) n"))?;
    }
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        ours.push(silence(port, || output(kiln.call(&["rebuild", "db"]).arg("--quiet")).map(drop))?);
        peers.push(silence(own.port, || own.restart())?);
    }
    eprintln!("milliseconds of each: {ours:.1?}, {peers:.1?}");
    let volumes = kiln.json(&["volume", "ls"])?;
    let inside = volumes["volumes"][0]["handover_ms"].as_u64().ok_or("the volume says no `handover_ms`")?;
    Ok(vec![Row {
        bench: "handover".into(),
        what: "a PostgreSQL volume goes to the next server: longest time without an answer".into(),
        kiln: median(ours),
        unit: "ms".into(),
        peer: Some(("the same PostgreSQL stopped and started".into(), median(peers))),
        target: Some(Target::RatioAtMost(1.2)),
        note: format!("through the gateway; `handover_ms` of the last {inside} ms; {ROWS} rows to write at the stop"),
    }])
}

/// The longest time without an answer while something is done, milliseconds.
fn silence(port: u16, deed: impl FnOnce() -> Outcome) -> Outcome<f64> {
    query(port, "update filler set changed = changed + 1")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (first, answers) = mpsc::channel();
        let over = &over;
        let asker = scope.spawn(move || {
            let (mut longest, mut last) = (Duration::ZERO, None::<Instant>);
            while !over.load(Ordering::Relaxed) {
                if answers_at(port) {
                    longest = longest.max(last.map_or(Duration::ZERO, |last| last.elapsed()));
                    last = Some(Instant::now());
                    first.send(()).ok();
                }
                std::thread::sleep(PAUSE);
            }
            longest
        });
        let begun = answers.recv_timeout(PATIENCE);
        let done = deed();
        over.store(true, Ordering::Relaxed);
        let longest = asker.join().map_err(|_| "the client panicked")?;
        begun.map_err(|_| "PostgreSQL does not answer")?;
        done.map(|()| longest.as_secs_f64() * 1e3)
    })
}

/// Whether a session can begin: PostgreSQL asks who it is.
fn answers_at(port: u16) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from(([127, 0, 0, 1], port)), PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(STARTUP)?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        Ok::<_, std::io::Error>(kind[0])
    };
    matches!(ask(), Ok(b'R'))
}

fn query(port: u16, sql: &str) -> Outcome {
    output(psql(([127, 0, 0, 1], port).into()).args(["-c", sql])).map(drop)
}

/// A PostgreSQL of this host with data of its own.
struct Bare {
    programs: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
    server: Child,
}

impl Bare {
    fn start() -> Outcome<Self> {
        let directory = tempfile::Builder::new().prefix("kiln-bench-").tempdir_in("/var/tmp")?;
        let owner = owner()?;
        chown(directory.path(), Some(owner.0), Some(owner.1))?;
        let programs = programs()?;
        let mut init = Command::new(programs.join("initdb"));
        init.args(["--username=postgres", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--pgdata"]);
        init.arg(directory.path().join("data")).current_dir(directory.path());
        output(init.uid(owner.0).gid(owner.1))?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = spawn(&programs, directory.path(), port)?;
        let own = Self { programs, directory, port, server };
        own.wait()?;
        Ok(own)
    }

    /// Stopped as the example's server is, and started as soon as it has ended.
    fn restart(&mut self) -> Outcome {
        self.stop()?;
        self.server = spawn(&self.programs, self.directory.path(), self.port)?;
        self.wait()
    }

    fn stop(&mut self) -> Outcome {
        output(Command::new("kill").args(["-INT", &self.server.id().to_string()]))?;
        self.server.wait()?;
        Ok(())
    }

    fn wait(&self) -> Outcome {
        let begin = Instant::now();
        while !answers_at(self.port) {
            if begin.elapsed() > PATIENCE {
                return Err("the bare PostgreSQL does not answer".into());
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("the bare PostgreSQL could not be stopped: {error}");
        }
    }
}

fn spawn(programs: &Path, directory: &Path, port: u16) -> Outcome<Child> {
    let owner = fs::metadata(directory)?;
    let mut server = Command::new(programs.join("postgres"));
    server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "logging_collector=off"]);
    server.arg("-D").arg(directory.join("data")).arg(format!("--port={port}")).current_dir(directory);
    server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(server.uid(owner.uid()).gid(owner.gid()).spawn()?)
}

/// Whom PostgreSQL runs as.
fn owner() -> Outcome<(u32, u32)> {
    let number = |option: &str| -> Outcome<u32> {
        let said = output(Command::new("id").args([option, "postgres"]))?;
        Ok(String::from_utf8(said.stdout)?.trim().parse()?)
    };
    Ok((number("-u")?, number("-g")?))
}

/// The directory of the newest PostgreSQL's programs, as Debian has them.
fn programs() -> Outcome<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").map_err(|_| "PostgreSQL is not installed")?;
    let mut versions: Vec<_> = versions.collect::<Result<_, _>>()?;
    versions.sort_by_key(fs::DirEntry::path);
    Ok(versions.last().ok_or("PostgreSQL is not installed")?.path().join("bin"))
}
