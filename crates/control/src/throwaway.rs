//! Throwaway services for tests: a real PostgreSQL or Redis, started for one test and gone after it.
//!
//! Each has a directory of its own, an unprivileged user, a random password and a free port. It ends with its
//! [`Throwaway`]. [`Throwaways`] starts them where the test servers of this host reach them, and nobody else does. What a killed daemon left is found by [`sweep`] at the next start: every process that works below the
//! directory of all throwaways is killed, and the directory emptied.

mod answer;
mod lend;
mod postgresql;
mod program;
mod redis;

use std::{
    collections::BTreeMap,
    fs, io,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use kiln_model::config::{ConfigKey, ConfigValue};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;

pub use self::{
    answer::{Kind, answers},
    lend::{Lent, Throwaways},
};

/// A throwaway answers within this time of its start.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Why there is no throwaway.
#[derive(Debug, thiserror::Error)]
pub enum ThrowawayError {
    /// The program is not on this host.
    #[error(
        "the tests need a throwaway {kind}, and {program} is not on this host: install Debian's package `{package}`"
    )]
    NoProgram {
        /// What was wanted.
        kind: &'static str,
        /// What was looked for.
        program: &'static str,
        /// What has it.
        package: &'static str,
    },
    /// Its directory.
    #[error("could not prepare a throwaway service in {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing that could start it.
    #[error("the tests need a throwaway {kind}, which cannot be started here")]
    Nowhere {
        /// What was wanted.
        kind: String,
    },
    /// Servers have no network here.
    #[error("the tests need a throwaway {kind}, and servers here have no network to reach it through")]
    NoNetwork {
        /// What was wanted.
        kind: &'static str,
    },
    /// The way to it.
    #[error("could not let test servers reach a throwaway service")]
    Way(#[from] kiln_runtime::network::NetworkError),
    /// A program failed.
    #[error("could not start a throwaway {kind}: {said}")]
    Start {
        /// What was wanted.
        kind: &'static str,
        /// The end of what it said.
        said: String,
    },
}

/// A running throwaway service. Dropping it ends it and removes its directory.
#[derive(Debug)]
pub struct Throwaway {
    /// Where it listens.
    pub address: SocketAddr,
    /// What a binding of its kind would hold: host, port, and what its kind has beside.
    pub fields: BTreeMap<ConfigKey, ConfigValue>,
    process: Child,
    directory: TempDir,
}

impl Throwaway {
    /// Starts one that listens at `listen`, below the directory of all throwaways, and waits until it answers. Blocks.
    pub fn start(kind: Kind, listen: IpAddr, all: &Path) -> Result<Self, ThrowawayError> {
        let failed = |source| ThrowawayError::Directory { path: all.to_owned(), source };
        let directory = tempfile::Builder::new().prefix(kind.word()).tempdir_in(all).map_err(failed)?;
        let address = free(listen).map_err(failed)?;
        let password = format!("{:032x}", rand::random::<u128>());
        let place = Place { directory: directory.path(), address, password: &password };
        let (process, more) = match kind {
            Kind::Postgresql => postgresql::start(&place)?,
            Kind::Redis => redis::start(&place)?,
        };
        crate::foreign::expose(process.id());
        let own = [
            ("host", ConfigValue::Text(listen.to_string())),
            ("port", ConfigValue::Integer(address.port().into())),
            ("password", ConfigValue::Text(password.clone())),
        ];
        let fields = own.into_iter().chain(more);
        let fields = fields.map(|(key, value)| (key.parse().expect("the usual fields are keys"), value)).collect();
        let mut started = Self { address, fields, process, directory };
        started.wait(kind)?;
        Ok(started)
    }

    fn wait(&mut self, kind: Kind) -> Result<(), ThrowawayError> {
        let end = std::time::Instant::now() + READY_WITHIN;
        loop {
            let seen = match answers(kind, self.address, Duration::from_secs(1)) {
                Ok(()) => return Ok(()),
                Err(seen) => seen,
            };
            let ended = self.process.try_wait().ok().flatten();
            if ended.is_some() || std::time::Instant::now() > end {
                let said = program::said(self.directory.path());
                return Err(ThrowawayError::Start { kind: kind.word(), said: format!("{seen}; {said}") });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Throwaway {
    fn drop(&mut self) {
        kill_below(self.directory.path());
        if let Err(error) = self.process.kill().and_then(|()| self.process.wait()) {
            tracing::warn!(%error, "a throwaway service could not be waited for");
        }
    }
}

/// A process, and the fields that its kind has beside host, port and password.
type Started = (Child, Vec<(&'static str, ConfigValue)>);

/// Where a throwaway is made.
struct Place<'a> {
    directory: &'a Path,
    address: SocketAddr,
    password: &'a str,
}

fn free(listen: IpAddr) -> io::Result<SocketAddr> {
    TcpListener::bind((listen, 0))?.local_addr()
}

/// Ends and removes every throwaway below this directory: those of a daemon that was killed.
pub fn sweep(all: &Path) -> io::Result<()> {
    fs::create_dir_all(all)?;
    kill_below(all);
    for entry in fs::read_dir(all)? {
        fs::remove_dir_all(entry?.path())?;
    }
    Ok(())
}

/// Kills every process whose working directory lies below this one, until none is left (at most 2 s).
fn kill_below(directory: &Path) {
    for _ in 0..200 {
        let Ok(entries) = fs::read_dir("/proc") else { return };
        let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        if pids.filter(|pid| kill_if_below(*pid, directory)).count() == 0 {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The process is held first and looked at then, so that its number cannot pass to another meanwhile.
fn kill_if_below(pid: i32, directory: &Path) -> bool {
    let Some(Ok(held)) = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty())) else { return false };
    let Ok(works_in) = fs::read_link(format!("/proc/{pid}/cwd")) else { return false };
    works_in.starts_with(directory) && pidfd_send_signal(&held, Signal::KILL).is_ok()
}
