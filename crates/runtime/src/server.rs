//! A server that exists on this host: running, or ended and not yet destroyed.

use std::{
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kiln_boot::{
    control::{Reply, Request, ServiceState},
    spec::Ending,
    spool,
};
use kiln_model::config::Secrets;
use kiln_sys::{cgroup, pidfd};

use crate::{
    ahead::Ahead,
    control::{Control, unexpected},
    error::{Result, RuntimeError},
    record::{Files, Record, start_ticks},
};

/// This many of the last lines of a failed service's output are part of the reason.
const LAST_LINES: usize = 5;
/// A line in a reason is cut here.
const LINE_BYTES: usize = 300;

/// Where a server is in its life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// PID 1 runs, and waits for the word to start the services.
    Staged,
    /// PID 1 runs.
    Running,
    /// It was asked to stop.
    Stopping,
    /// PID 1 is gone.
    Exited {
        /// What is known of the end.
        reason: String,
        /// Whether it was killed from outside, which says nothing about its release.
        killed: bool,
    },
}

/// How a stop went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// All services ended within their grace.
    Clean,
    /// Something had to be killed.
    Killed,
    /// It was not running.
    AlreadyGone,
}

/// One server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) record: Record,
    pub(crate) group: cgroup::Group,
    pub(crate) files: Files,
    /// None if it was gone when this runtime was opened.
    process: Option<OwnedFd>,
    stopping: AtomicBool,
    reason: OnceLock<String>,
    /// The secrets it was launched with; none if an earlier process launched it.
    pub(crate) secrets: Option<Arc<Secrets>>,
    /// What is ahead of it, while it serves nobody yet.
    pub(crate) ahead: Option<Ahead>,
}

impl Server {
    pub(crate) fn new(record: Record, process: Option<OwnedFd>, group: cgroup::Group, files: Files) -> Self {
        let (stopping, reason) = (AtomicBool::new(false), OnceLock::new());
        Self { record, group, files, process, stopping, reason, secrets: None, ahead: None }
    }

    /// Keeps its secrets for as long as this process runs.
    pub(crate) fn with_secrets(self, secrets: Arc<Secrets>) -> Self {
        Self { secrets: Some(secrets), ..self }
    }

    /// It serves nobody yet.
    pub(crate) fn with_ahead(self, ahead: Ahead) -> Self {
        Self { ahead: Some(ahead), ..self }
    }

    /// Finds the process of a record again. A process that got the same number later is told apart by when it started
    /// and by the inode of its descriptor.
    pub(crate) fn adopt(record: Record, group: cgroup::Group, files: Files) -> Result<Self> {
        let process = match pidfd::open(record.pid) {
            Ok(process) => Some(process),
            Err(error) if error.outcome == kiln_sys::Outcome::Gone => None,
            Err(error) => return Err(error.into()),
        };
        let is_ours = |process: &OwnedFd| {
            Ok::<_, RuntimeError>(
                start_ticks(record.pid) == Some(record.start_ticks)
                    && pidfd::identity(process.as_fd())? == record.identity,
            )
        };
        let process = match process {
            Some(process) if is_ours(&process)? => Some(process),
            _ => None,
        };
        Ok(Self::new(record, process, group, files))
    }

    /// The process, while it runs.
    pub(crate) fn alive(&self) -> Result<Option<&OwnedFd>> {
        match &self.process {
            Some(process) if !pidfd::has_ended(process.as_fd())? => Ok(Some(process)),
            _ => Ok(None),
        }
    }

    pub(crate) fn process(&self) -> Option<&OwnedFd> {
        self.process.as_ref()
    }

    /// The process, or an error that says it is gone.
    pub(crate) fn running(&self) -> Result<&OwnedFd> {
        self.alive()?.ok_or_else(|| RuntimeError::NotRunning(self.record.server.clone()))
    }

    pub(crate) fn phase(&self) -> Result<Phase> {
        Ok(match self.alive()? {
            Some(_) if self.stopping.load(Ordering::Relaxed) => Phase::Stopping,
            Some(_) => Phase::Running,
            None => Phase::Exited {
                reason: self.reason.get_or_init(|| self.find_reason()).clone(),
                killed: self.ending().is_none(),
            },
        })
    }

    /// What PID 1 says of the services.
    pub(crate) fn services(&self) -> Result<Vec<ServiceState>> {
        match Control::connect(&self.files.control())?.ask(&Request::Status, &[])? {
            (Reply::Status { services }, _) => Ok(services),
            (other, _) => Err(unexpected(&self.record.server, other)),
        }
    }

    /// Asks PID 1 to stop everything and waits, at most `limit`; then kills.
    pub(crate) fn stop(&self, limit: Duration) -> Result<Stopped> {
        let Some(process) = self.alive()? else { return Ok(Stopped::AlreadyGone) };
        self.wake()?;
        self.stopping.store(true, Ordering::Relaxed);
        let asked = Control::connect(&self.files.control()).and_then(|mut control| control.ask(&Request::Stop, &[]));
        let ended = asked.is_ok() && pidfd::wait(process.as_fd(), limit)?;
        if !ended {
            pidfd::kill(process.as_fd())?;
            pidfd::wait(process.as_fd(), Duration::from_secs(10))?;
        }
        match (ended, self.ending()) {
            (true, Some(Ending::Stopped { killed })) if killed.is_empty() => Ok(Stopped::Clean),
            _ => Ok(Stopped::Killed),
        }
    }

    /// Kills PID 1, and does not wait for its end.
    pub(crate) fn kill(&self) -> Result<()> {
        match self.alive()? {
            Some(process) => Ok(pidfd::kill(process.as_fd())?),
            None => Ok(()),
        }
    }

    fn ending(&self) -> Option<Ending> {
        serde_json::from_slice(&std::fs::read(self.files.ending()).ok()?).ok()
    }

    fn find_reason(&self) -> String {
        match self.ending() {
            Some(Ending::Stopped { killed }) if killed.is_empty() => "stopped".into(),
            Some(Ending::Stopped { killed }) => format!("stopped; killed after their grace: {}", killed.join(", ")),
            Some(Ending::Failed { service, how }) => {
                let lines = self.last_lines(&service);
                let shown =
                    if lines.is_empty() { String::new() } else { format!("; its last lines:\n{}", lines.join("\n")) };
                format!("service {service} ended: {how}{shown}")
            }
            Some(Ending::Finished) => "every service has ended".into(),
            None => "PID 1 was killed".into(),
        }
    }

    fn last_lines(&self, service: &str) -> Vec<String> {
        let files: Vec<Vec<u8>> =
            self.files.spool().iter().map(|path| std::fs::read(path).unwrap_or_default()).collect();
        let mut frames: Vec<_> = files
            .iter()
            .flat_map(|file| spool::frames(file))
            .filter(|frame| frame.service == service && frame.stream != spool::Stream::Init)
            .collect();
        frames.sort_by_key(|frame| frame.sequence);
        let bytes: Vec<u8> = frames.iter().flat_map(|frame| frame.bytes).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = lines.len().saturating_sub(LAST_LINES);
        lines[last..].iter().map(|line| line.chars().take(LINE_BYTES).collect()).collect()
    }
}
