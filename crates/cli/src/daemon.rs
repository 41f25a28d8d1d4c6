//! Finding the daemon of a state directory, starting it where none answers, and ending it.
//!
//! A daemon that `kiln up` starts lives in a session of its own, so that closing the terminal does not end it; what it says
//! goes to `daemon.log` in the state directory.

use std::{
    fs::OpenOptions,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::OpenOptionsExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kiln_api::{Client, ClientError, client::SOCKET};
use kiln_sys::{Outcome, pidfd};
use tokio::net::UnixStream;

use crate::{failure::Failure, ui::Ui};

/// A daemon must answer within this time of its start.
const START_LIMIT: Duration = Duration::from_secs(15);
/// A daemon that was asked to end must be gone within this time: it finishes answers and what it writes.
const END_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two tries.
const PAUSE: Duration = Duration::from_millis(5);
/// So much of the end of the log is shown when a daemon did not come up, in bytes.
const LAST_WORDS: usize = 600;

/// The daemon's log.
pub(crate) fn log(state: &Path) -> PathBuf {
    state.join("daemon.log")
}

/// A client of the daemon, which is started if none answers.
pub(crate) async fn ensure(state: &Path, ui: &Ui) -> Result<Client, Failure> {
    let client = Client::new(state);
    match client.status().await {
        Ok(_) => return Ok(client),
        Err(ClientError::NoDaemon { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    let task = ui.task("starting the daemon");
    let mut child = spawn(state)?;
    let started = Instant::now();
    loop {
        match client.status().await {
            Ok(_) => break,
            Err(ClientError::NoDaemon { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let ended = child.try_wait().map_err(|error| Failure::host("look after the daemon", error))?;
        if ended.is_some() || started.elapsed() > START_LIMIT {
            return Err(Failure::NoStart { reason: last_words(state), log: log(state) });
        }
        tokio::time::sleep(PAUSE).await;
    }
    drop(task);
    Ok(client)
}

/// A daemon that is about to be told to end.
pub(crate) struct Leaving<'a> {
    state: &'a Path,
    /// None if it is gone, or in a pid namespace that is not seen from here.
    process: Option<(u32, OwnedFd)>,
}

impl<'a> Leaving<'a> {
    /// The one that answers now for a state directory.
    pub(crate) async fn of(state: &'a Path) -> Result<Self, Failure> {
        let finding = "find the daemon's process";
        let Ok(stream) = UnixStream::connect(state.join(SOCKET)).await else {
            return Ok(Self { state, process: None });
        };
        let pid = stream.peer_cred().map_err(|error| Failure::host(finding, error))?.pid();
        let pid = pid.and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let process = match pid.map(|pid| pidfd::open(pid).map(|process| (pid, process))).transpose() {
            Err(error) if error.outcome == Outcome::Gone => None,
            process => process.map_err(|error| Failure::host(finding, error))?,
        };
        Ok(Self { state, process })
    }

    /// Waits until its process is gone, so that nobody works on the state directory any more.
    pub(crate) async fn gone(self, ui: &Ui) -> Result<(), Failure> {
        let action = "wait for the daemon's end";
        let Some((pid, process)) = self.process else { return Ok(()) };
        let _task = ui.task("waiting for the daemon's end");
        let waiting = tokio::task::spawn_blocking(move || pidfd::wait(process.as_fd(), END_LIMIT));
        match waiting.await.map_err(|error| Failure::host(action, error))? {
            Ok(true) => Ok(()),
            Ok(false) => Err(Failure::NoEnd { pid, limit: END_LIMIT, log: log(self.state) }),
            Err(error) => Err(Failure::host(action, error)),
        }
    }
}

fn spawn(state: &Path) -> Result<Child, Failure> {
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::NotRoot { action: "start the daemon" });
    }
    let write = |source| Failure::Write { path: log(state), source };
    std::fs::create_dir_all(state).map_err(|source| Failure::Write { path: state.to_owned(), source })?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(log(state)).map_err(write)?;
    let errors = log.try_clone().map_err(write)?;
    let program = std::env::current_exe().map_err(|error| Failure::host("find this program", error))?;
    Command::new(program)
        .arg("--state")
        .arg(state)
        .args(["daemon", "--background"])
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|error| Failure::host("start the daemon", error))
}

fn last_words(state: &Path) -> String {
    let Ok(bytes) = std::fs::read(log(state)) else { return "it wrote no log".to_owned() };
    let end = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(LAST_WORDS)..]).trim().to_owned();
    end.lines().last().map_or_else(|| "it said nothing".to_owned(), str::to_owned)
}
