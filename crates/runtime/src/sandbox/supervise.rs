//! A running command: its output, its limits in time and on disk, and its end.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use kiln_sys::{cgroup, pidfd};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    pipe::{PipeFlags, pipe_with},
};

use super::{Job, Outcome, SandboxError, Stream, failed};

/// How often the disk is looked at.
const LOOK: Duration = Duration::from_millis(250);
const BUFFER: usize = 64 * 1024;
/// A command is stopped when less than this is free on the file system it writes to, or a twentieth of a small one.
const RESERVE: u64 = 512 * 1024 * 1024;

/// The command's standard streams.
#[derive(Debug)]
pub(super) struct Streams {
    inside: [OwnedFd; 3],
    outside: Vec<(Stream, OwnedFd)>,
}

impl Streams {
    /// Pipes, or the caller's own streams for an interactive command.
    pub(super) fn open(interactive: bool) -> Result<Self, SandboxError> {
        if interactive {
            return Self::of_caller().map_err(failed("use", Path::new("the caller's terminal")));
        }
        let problem = |errno: rustix::io::Errno| failed("make", Path::new("a pipe"))(errno.into());
        let null = Path::new("/dev/null");
        let input = File::open(null).map_err(failed("open", null))?.into();
        let (from_output, output) = pipe_with(PipeFlags::CLOEXEC).map_err(problem)?;
        let (from_error, error) = pipe_with(PipeFlags::CLOEXEC).map_err(problem)?;
        let outside = vec![(Stream::Stdout, from_output), (Stream::Stderr, from_error)];
        Ok(Self { inside: [input, output, error], outside })
    }

    fn of_caller() -> io::Result<Self> {
        let inside = [
            io::stdin().as_fd().try_clone_to_owned()?,
            io::stdout().as_fd().try_clone_to_owned()?,
            io::stderr().as_fd().try_clone_to_owned()?,
        ];
        Ok(Self { inside, outside: Vec::new() })
    }

    /// Descriptors 0, 1 and 2 of the command.
    pub(super) fn inside(&self) -> [BorrowedFd<'_>; 3] {
        self.inside.each_ref().map(AsFd::as_fd)
    }
}

/// A command that runs.
#[derive(Debug)]
pub(super) struct Supervised {
    process: OwnedFd,
    outside: Vec<(Stream, OwnedFd)>,
    buffer: Vec<u8>,
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
        Self { process, outside: streams.outside, buffer: vec![0; BUFFER] }
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
                stopped = reason_to_stop(job, deadline);
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
        let ready = self.poll(wait)?;
        let (ended, streams) = (ready[0], &ready[1..]);
        for index in (0..streams.len()).rev().filter(|index| streams[*index]) {
            self.pass_on(index, output)?;
        }
        Ok(ended)
    }

    fn poll(&self, wait: Duration) -> Result<Vec<bool>, SandboxError> {
        let timeout = Timespec { tv_sec: wait.as_secs() as i64, tv_nsec: wait.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&self.process, PollFlags::IN)];
        fds.extend(self.outside.iter().map(|(_, pipe)| PollFd::new(pipe, PollFlags::IN)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(fds.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(errno) => Err(failed("wait for", Path::new("a build step"))(errno.into())),
        }
    }

    /// One piece of output; at the end of a stream, the stream goes.
    fn pass_on(&mut self, index: usize, output: &mut dyn FnMut(Stream, &[u8])) -> Result<(), SandboxError> {
        let (stream, pipe) = &self.outside[index];
        match rustix::io::read(pipe, &mut self.buffer[..]) {
            Ok(0) => {
                self.outside.remove(index);
            }
            Ok(length) => output(*stream, &self.buffer[..length]),
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(failed("read", Path::new("the output of a build step"))(errno.into())),
        }
        Ok(())
    }

    /// Everything that still lies in the pipes; nobody can write any more.
    fn drain(&mut self, output: &mut dyn FnMut(Stream, &[u8])) -> Result<(), SandboxError> {
        while !self.outside.is_empty() {
            self.pass_on(0, output)?;
        }
        Ok(())
    }
}

fn reason_to_stop(job: &Job, deadline: Instant) -> Option<Stopped> {
    if Instant::now() >= deadline {
        return Some(Stopped::Time);
    }
    disk_is_full(&job.root.upper).then_some(Stopped::Disk)
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
