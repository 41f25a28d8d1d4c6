//! One service: its processes, its output, and what happens when it ends.

use std::os::fd::{AsFd as _, OwnedFd};

use kiln_boot::{
    control::ServiceState,
    spec::{Restart, ServiceSpec},
};
use rustix::{
    fs::OFlags,
    io::Errno,
    pipe::PipeFlags,
    process::{Pid, WaitStatus},
};

use crate::{Failure, Trying as _, child, kernel};

const FIRST_PAUSE_MS: u64 = 100;
const LONGEST_PAUSE_MS: u64 = 30_000;
/// A service that ran this long starts over with the first pause.
const SETTLED_MS: u64 = 60_000;

/// The two ends of a pipe; both stay open over restarts, and the writing end can be opened again by its owner.
pub(crate) struct Pipe {
    pub(crate) reader: OwnedFd,
    writer: OwnedFd,
}

/// What to do after a service ended.
pub(crate) enum Next {
    /// Nothing: it may be down.
    Rest,
    /// It is started again later.
    Restart,
    /// The server must end.
    Fail,
}

/// One service of the server.
pub(crate) struct Service {
    pub(crate) spec: ServiceSpec,
    pub(crate) pid: Option<Pid>,
    /// Standard output and standard error.
    pub(crate) pipes: [Pipe; 2],
    /// Milliseconds of the monotonic clock at which it is to be started again.
    pub(crate) restart_at: Option<u64>,
    /// Milliseconds of the monotonic clock at which it is to be killed.
    pub(crate) kill_at: Option<u64>,
    /// Whether it did not end within its grace.
    pub(crate) killed: bool,
    starts: u32,
    started_at: u64,
    pause_ms: u64,
    last_exit: Option<String>,
    done: bool,
}

impl Service {
    /// A service that does not run yet.
    pub(crate) fn new(spec: ServiceSpec) -> Result<Self, Failure> {
        let pipe = || -> Result<Pipe, Errno> {
            let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&reader, OFlags::NONBLOCK)?;
            Ok(Pipe { reader, writer })
        };
        let pipes = [pipe().trying(|| "make a pipe".into())?, pipe().trying(|| "make a pipe".into())?];
        Ok(Self {
            spec,
            pid: None,
            pipes,
            restart_at: None,
            kill_at: None,
            killed: false,
            starts: 0,
            started_at: 0,
            pause_ms: FIRST_PAUSE_MS,
            last_exit: None,
            done: false,
        })
    }

    /// Starts its process.
    pub(crate) fn start(&mut self, null: &OwnedFd, now: u64) -> Result<(), Failure> {
        self.restart_at = None;
        self.starts += 1;
        self.started_at = now;
        let user = child::user(&self.spec.user)?;
        for pipe in &self.pipes {
            // Programs open /dev/stderr again; that is allowed to the pipe's owner only.
            let (uid, gid) = (rustix::fs::Uid::from_raw(user.uid), rustix::fs::Gid::from_raw(user.gid));
            rustix::fs::fchown(&pipe.writer, Some(uid), Some(gid)).trying(|| "own a pipe".into())?;
        }
        self.pid = Some(child::start(&child::Program {
            command: &self.spec.command,
            user: &user,
            environment: &self.spec.environment,
            directory: &self.spec.directory,
            stdio: [null.as_fd(), self.pipes[0].writer.as_fd(), self.pipes[1].writer.as_fd()],
            terminal: false,
        })?);
        Ok(())
    }

    /// Takes note of its process's end and of what is left of its session.
    pub(crate) fn ended(&mut self, status: WaitStatus, now: u64) -> Next {
        if let Some(pid) = self.pid.take() {
            end_group(pid);
        }
        self.kill_at = None;
        self.note_end(describe(status), status.exit_status() == Some(0), now)
    }

    /// Takes note that it could not be started.
    pub(crate) fn not_started(&mut self, failure: &Failure, now: u64) -> Next {
        self.note_end(format!("could not {}: {}", failure.action, failure.errno), false, now)
    }

    fn note_end(&mut self, how: String, well: bool, now: u64) -> Next {
        self.last_exit = Some(how);
        match self.spec.restart {
            Restart::Once if well => {
                self.done = true;
                Next::Rest
            }
            Restart::OnFailure if well => Next::Rest,
            Restart::OnFailure => {
                if now.saturating_sub(self.started_at) >= SETTLED_MS {
                    self.pause_ms = FIRST_PAUSE_MS;
                }
                self.restart_at = Some(now + self.pause_ms);
                self.pause_ms = (self.pause_ms * 2).min(LONGEST_PAUSE_MS);
                Next::Restart
            }
            Restart::Never | Restart::Once => Next::Fail,
        }
    }

    /// Asks it to stop.
    pub(crate) fn stop(&mut self, now: u64) {
        self.restart_at = None;
        if let Some(pid) = self.pid
            && self.kill_at.is_none()
            && !self.killed
        {
            // A process that has just ended is reaped soon.
            kernel::send_signal(pid.as_raw_pid(), self.spec.stop_signal).unwrap_or(());
            self.kill_at = Some(now + self.spec.grace_ms);
        }
    }

    /// Kills it: its grace is over.
    pub(crate) fn kill(&mut self) {
        self.kill_at = None;
        if let Some(pid) = self.pid {
            self.killed = true;
            end_group(pid);
            kernel::send_signal(pid.as_raw_pid(), libc::SIGKILL).unwrap_or(());
        }
    }

    /// Whether it neither runs nor will.
    pub(crate) fn at_rest(&self) -> bool {
        self.pid.is_none() && self.restart_at.is_none()
    }

    /// How it last ended.
    pub(crate) fn last_exit(&self) -> &str {
        self.last_exit.as_deref().unwrap_or_default()
    }

    /// For the control socket.
    pub(crate) fn state(&self) -> ServiceState {
        ServiceState {
            name: self.spec.name.clone(),
            up: self.pid.is_some() || self.done,
            starts: self.starts,
            pid: self.pid.map(Pid::as_raw_pid),
            last_exit: self.last_exit.clone(),
        }
    }
}

/// Kills what is left of a process's group; its workers must not outlive it.
fn end_group(leader: Pid) {
    kernel::send_signal(-leader.as_raw_pid(), libc::SIGKILL).unwrap_or(());
}

fn describe(status: WaitStatus) -> String {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".into(),
    }
}

/// As a shell counts: 128 + signal where it was killed.
pub(crate) fn exit_number(status: WaitStatus) -> i32 {
    status.exit_status().unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or(0))
}
