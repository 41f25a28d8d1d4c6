//! Renders the files of a server from templates, in a child that ends before the first service starts.
//!
//! The child parses and renders bytes of the image; PID 1 makes the files, hands the child their descriptors, and waits for
//! its word with a limit. Nothing that a template does reaches further than that child: its address space, its time, its
//! steps and the size of each file are bounded, and it holds no right that PID 1 has not given up already.

mod engine;

use std::{
    fs::File,
    io::{Read as _, Seek as _, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

use kiln_boot::render::{Files, MAX_MEMORY, MAX_RENDERING, MAX_TIME, Rendering, Target, TemplateFailure};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Gid, Mode, OFlags, Uid},
    io::Errno,
    pipe::PipeFlags,
    process::{Pid, Resource, Rlimit, WaitOptions},
};

use crate::{Failure, Trying as _, kernel, setup};

/// The child's word is at most this long.
const MAX_WORD: u64 = 8 << 10;

/// Why files could not be rendered.
pub(crate) enum NotRendered {
    /// The kernel refused something.
    Kernel(Failure),
    /// A template is wrong.
    Template(TemplateFailure),
}

impl From<Failure> for NotRendered {
    fn from(failure: Failure) -> Self {
        Self::Kernel(failure)
    }
}

/// Makes the files and has them rendered.
pub(crate) fn render(files: &Files, source: OwnedFd) -> Result<(), NotRendered> {
    let targets: Vec<OwnedFd> = files.files.iter().map(make).collect::<Result<_, _>>()?;
    let action = || "render templates".to_owned();
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).trying(action)?;
    match kernel::fork().trying(action)? {
        kernel::Forked::Child => {
            drop(reader);
            let word = in_child(source, targets).err();
            // A word that cannot be written is an end without a word.
            let bytes = serde_json::to_vec(&word).unwrap_or_default();
            let written = File::from(writer).write_all(&bytes).is_ok();
            kernel::exit_now(i32::from(!written))
        }
        kernel::Forked::Parent(child) => {
            drop((writer, source, targets));
            let word = hear(reader);
            end(child).trying(action)?;
            word.map_or(Ok(()), |failure| Err(NotRendered::Template(failure)))
        }
    }
}

/// Makes a file with its owner and mode, in the place of one that an image has there.
fn make(target: &Target) -> Result<OwnedFd, Failure> {
    let action = || format!("make the file {}", target.path);
    let user = setup::find_user(&target.user).trying(|| format!("find user {} in the image", target.user))?;
    make_directories(&target.path).trying(action)?;
    match rustix::fs::unlink(target.path.as_str()) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(errno) => return Err(errno).trying(action),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(target.path.as_str(), flags, Mode::from_raw_mode(0o600)).trying(action)?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(user.uid)), Some(Gid::from_raw(user.gid))).trying(action)?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(target.mode & 0o7777)).trying(action)?;
    Ok(file)
}

fn make_directories(path: &str) -> Result<(), Errno> {
    for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
        match rustix::fs::mkdir(&path[..end], Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST | Errno::ROFS) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

fn in_child(source: OwnedFd, targets: Vec<OwnedFd>) -> Result<(), TemplateFailure> {
    let failed = |message: &str| TemplateFailure { template: 0, line: None, message: message.to_owned() };
    limit().map_err(|_| failed("the limits of rendering could not be set"))?;
    let mut bytes = Vec::new();
    // Whoever wrote it left the position at its end.
    let mut source = File::from(source);
    let read = source.rewind().and_then(|()| source.take(MAX_RENDERING).read_to_end(&mut bytes));
    let rendering: Rendering = read
        .ok()
        .and_then(|_| serde_json::from_slice(&bytes).ok())
        .ok_or_else(|| failed("the values for templates could not be read"))?;
    drop(bytes);
    engine::render(&rendering, targets)
}

fn limit() -> Result<(), Errno> {
    let both = |value| Rlimit { current: Some(value), maximum: Some(value) };
    rustix::process::setrlimit(Resource::As, both(MAX_MEMORY))?;
    rustix::process::setrlimit(Resource::Core, both(0))?;
    rustix::process::setrlimit(Resource::Cpu, both(MAX_TIME.as_secs() + 1))
}

/// What the child says, within the limit. None when all is well.
fn hear(reader: OwnedFd) -> Option<TemplateFailure> {
    let wordless = |message: String| Some(TemplateFailure { template: usize::MAX, line: None, message });
    let limit = Timespec { tv_sec: MAX_TIME.as_secs() as i64, tv_nsec: i64::from(MAX_TIME.subsec_nanos()) };
    let mut polled = [PollFd::from_borrowed_fd(reader.as_fd(), PollFlags::IN)];
    match rustix::event::poll(&mut polled, Some(&limit)) {
        Ok(0) => return wordless(format!("rendering took longer than {} s", MAX_TIME.as_secs())),
        Ok(_) => {}
        Err(errno) => return wordless(format!("PID 1 could not wait for rendering: {errno}")),
    }
    let mut bytes = Vec::new();
    let read = File::from(reader).take(MAX_WORD).read_to_end(&mut bytes);
    match read.ok().and_then(|_| serde_json::from_slice::<Option<TemplateFailure>>(&bytes).ok()) {
        Some(word) => word,
        None => wordless(format!("rendering needs more than {} MiB of memory", MAX_MEMORY >> 20)),
    }
}

fn end(child: Pid) -> Result<(), Errno> {
    // One that has ended already is only reaped.
    kernel::send_signal(child.as_raw_pid(), libc::SIGKILL).unwrap_or(());
    loop {
        match rustix::process::waitpid(Some(child), WaitOptions::empty()) {
            Err(Errno::INTR) => {}
            other => return other.map(drop),
        }
    }
}
