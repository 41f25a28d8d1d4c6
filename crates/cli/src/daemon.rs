//! Finding the daemon of a state directory, and starting it where none answers.
//!
//! A daemon that `kiln up` starts lives in a session of its own, so that closing the terminal does not end it; what it says
//! goes to `daemon.log` in the state directory.

use std::{
    fs::OpenOptions,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kiln_api::{Client, ClientError};

use crate::{failure::Failure, ui::Ui};

/// A daemon must answer within this time of its start.
const START_LIMIT: Duration = Duration::from_secs(15);
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
