//! A running command: its output, its limits in time and on disk, and its end.

use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use kiln_sys::{cgroup, pidfd};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};

use super::{Job, Outcome, SandboxError, Stream, failed, terminal::Terminal};

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_millis(250);
const BUFFER: usize = 64 * 1024;
/// A command is stopped when less than this is free on the file system it writes to, or a twentieth of a small one.
const RESERVE: u64 = 512 * 1024 * 1024;

/// The command's standard streams.
#[derive(Debug)]
pub(super) struct Streams {
    inside: [OwnedFd; 3],
    outside: Outside,
}

/// Our ends of the command's streams.
#[derive(Debug)]
enum Outside {
    Pipes(Vec<(Stream, OwnedFd)>),
    Terminal(Terminal),
}

impl Streams {
    /// Pipes for the output, and no input.
    pub(super) fn pipes() -> Result<Self, SandboxError> {
        let problem = |errno: rustix::io::Errno| failed("make", Path::new("a pipe"))(errno.into());
        let null = Path::new("/dev/null");
        let input = File::open(null).map_err(failed("open", null))?.into();
        let (from_output, output) = pipe_with(PipeFlags::CLOEXEC).map_err(problem)?;
        let (from_error, error) = pipe_with(PipeFlags::CLOEXEC).map_err(problem)?;
        let outside = Outside::Pipes(vec![(Stream::Stdout, from_output), (Stream::Stderr, from_error)]);
        Ok(Self { inside: [input, output, error], outside })
    }

    /// A terminal of the sandbox, joined to the caller's.
    pub(super) fn terminal(master: OwnedFd) -> Result<Self, SandboxError> {
        let copy = |end: &OwnedFd| end.try_clone().map_err(failed("use", Path::new("the terminal")));
        let (terminal, end) = Terminal::join(master)?;
        Ok(Self { inside: [copy(&end)?, copy(&end)?, end], outside: Outside::Terminal(terminal) })
    }

    /// Descriptors 0, 1 and 2 of the command.
    pub(super) fn inside(&self) -> [BorrowedFd<'_>; 3] {
        self.inside.each_ref().map(AsFd::as_fd)
    }

    /// Whether they are a terminal.
    pub(super) fn are_terminal(&self) -> bool {
        matches!(self.outside, Outside::Terminal(_))
    }
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Supervised {
    process: OwnedFd,
    outside: Outside,
    buffer: Vec<u8>,
    /// When the disk was last looked at.
    looked: Instant,
}

impl Drop for Supervised {
    /// However the caller leaves, the command ends.
    fn drop(&mut self) {
        let ended = pidfd::kill(self.process.as_fd())
            .and_then(|()| pidfd::wait(self.process.as_fd(), Duration::from_secs(10)))
            .and_then(|_| pidfd::reap(self.process.as_fd()));
        if let Err(error) = ended {
            tracing::error!(%error, "a build step could not be ended");
        }
    }
}

/// Why the sandbox ended a command.
enum Stopped {
    Time,
    Disk,
}

impl Supervised {
    pub(super) fn new(process: OwnedFd, streams: Streams) -> Self {
        // The command's own ends are closed here, so that the pipes end with the last process that holds them.
        drop(streams.inside);
        Self { process, outside: streams.outside, buffer: vec![0; BUFFER], looked: Instant::now() }
    }

    /// Passes output on until the command and all its processes are gone.
    pub(super) fn run_to_the_end(
        mut self,
        job: &Job,
        group: Option<&cgroup::Group>,
        output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Result<Outcome, SandboxError> {
        let deadline = Instant::now() + job.time_limit;
        let mut stopped = None;
        while !self.step(deadline, output)? {
            if stopped.is_none() {
                stopped = self.reason_to_stop(job, deadline);
                if stopped.is_some() {
                    pidfd::kill(self.process.as_fd())?;
                }
            }
        }
        self.drain(output)?;
        let exit = pidfd::reap(self.process.as_fd())?;
        explain(stopped.as_ref(), job, group, output);
        Ok(match (stopped, exit) {
            (Some(Stopped::Time), _) => Outcome::TimedOut,
            (_, Some(pidfd::Exit::Code(code))) => Outcome::Exited(code),
            (_, Some(pidfd::Exit::Signal(signal))) => Outcome::Signalled(signal),
            (_, None) => return Err(SandboxError::Job("somebody else took the end of the command")),
        })
    }

    /// Waits for output or the end, at most until the next look at the limits. Returns whether it has ended.
    fn step(&mut self, deadline: Instant, output: &mut dyn FnMut(Stream, &[u8])) -> Result<bool, SandboxError> {
        let wait = deadline.saturating_duration_since(Instant::now()).clamp(Duration::from_millis(1), LOOK);
        let wait = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        match &mut self.outside {
            Outside::Terminal(terminal) => terminal.step(self.process.as_fd(), wait),
            Outside::Pipes(pipes) => {
                let ready = poll_all(self.process.as_fd(), pipes, wait)?;
                let (ended, pipes_ready) = (ready[0], &ready[1..]);
                for index in (0..pipes_ready.len()).rev().filter(|index| pipes_ready[*index]) {
                    pass_on(pipes, index, &mut self.buffer, output)?;
                }
                Ok(ended)
            }
        }
    }

    /// Everything that still lies in the pipes; nobody can write any more.
    fn drain(&mut self, output: &mut dyn FnMut(Stream, &[u8])) -> Result<(), SandboxError> {
        match &mut self.outside {
            Outside::Terminal(terminal) => terminal.drain()?,
            Outside::Pipes(pipes) => {
                while !pipes.is_empty() {
                    pass_on(pipes, 0, &mut self.buffer, output)?;
                }
            }
        }
        Ok(())
    }

    fn reason_to_stop(&mut self, job: &Job, deadline: Instant) -> Option<Stopped> {
        let now = Instant::now();
        if now >= deadline {
            return Some(Stopped::Time);
        }
        if now.duration_since(self.looked) < LOOK {
            return None;
        }
        self.looked = now;
        disk_is_full(&job.root.upper).then_some(Stopped::Disk)
    }
}

fn poll_all(process: BorrowedFd<'_>, pipes: &[(Stream, OwnedFd)], wait: Timespec) -> Result<Vec<bool>, SandboxError> {
    let mut fds = vec![PollFd::from_borrowed_fd(process, PollFlags::IN)];
    fds.extend(pipes.iter().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)));
    match poll(&mut fds, Some(&wait)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
        Err(errno) => Err(failed("wait for", Path::new("a build step"))(errno.into())),
    }
}

/// One piece of output; at the end of a stream, the stream goes.
fn pass_on(
    pipes: &mut Vec<(Stream, OwnedFd)>,
    index: usize,
    buffer: &mut [u8],
    output: &mut dyn FnMut(Stream, &[u8]),
) -> Result<(), SandboxError> {
    let (stream, pipe) = &pipes[index];
    match rustix::io::read(pipe, &mut *buffer) {
        Ok(0) => {
            pipes.remove(index);
        }
        Ok(length) => output(*stream, &buffer[..length]),
        Err(rustix::io::Errno::INTR) => {}
        Err(errno) => return Err(failed("read", Path::new("the output of a build step"))(errno.into())),
    }
    Ok(())
}

fn disk_is_full(path: &Path) -> bool {
    rustix::fs::statvfs(path).is_ok_and(|disk| {
        let (free, size) = (disk.f_bavail * disk.f_frsize, disk.f_blocks * disk.f_frsize);
        free < RESERVE.min(size / 20)
    })
}

/// Says in words what the outcome alone would not.
fn explain(stopped: Option<&Stopped>, job: &Job, group: Option<&cgroup::Group>, output: &mut dyn FnMut(Stream, &[u8])) {
    let mut say = |text: String| output(Stream::Stderr, format!("kiln: {text}\n").as_bytes());
    match stopped {
        Some(Stopped::Time) => say(format!("the step was stopped: it ran longer than {:?}", job.time_limit)),
        Some(Stopped::Disk) => {
            say(format!("the step was stopped: it filled the disk below {}", job.root.upper.display()))
        }
        None => {}
    }
    let hits = group.map(cgroup::Group::limit_hits).unwrap_or_default();
    if hits.memory {
        say("a process of the step was killed: the step used more memory than a build step may".to_owned());
    }
    if hits.pids {
        say("the step was refused a new process: it had as many as a build step may".to_owned());
    }
}
