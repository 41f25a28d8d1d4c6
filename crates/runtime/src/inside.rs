//! Looking and acting inside a server.
//!
//! Files, processes and ports are read from the host, through the server's own view of its root and its network;
//! nothing inside takes part. Commands are started by PID 1, so that they live under everything the services live under.

use std::{
    fs::File,
    io::Read as _,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use kiln_boot::control::{Exec, Reply, Request};
use kiln_sys::{
    netlink::{Connection, NetlinkError},
    within,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{CWD, FileType, Mode, OFlags},
    io::Errno,
};

use crate::{
    control::{Control, unexpected},
    error::{OnFile as _, Result, RuntimeError},
    facts,
    server::Server,
};

/// A command's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code; 128 + signal where it was killed.
    pub exit: i32,
    /// Standard output, cut at the limit asked for.
    pub stdout: Vec<u8>,
    /// Standard error, cut at the limit asked for.
    pub stderr: Vec<u8>,
}

/// A file inside, with owners as they are inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileStatus {
    /// `st_mode`.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
}

/// A process inside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its number inside.
    pub pid: u32,
    /// Its user inside.
    pub uid: u32,
    /// File name of the program.
    pub program: String,
}

/// An interactive command that runs.
#[derive(Debug)]
pub struct Session {
    control: Control,
    /// The terminal's master, if one was asked for.
    pub terminal: Option<OwnedFd>,
}

impl Session {
    /// Waits for the command's end. Dropping the session instead kills the command.
    pub fn wait(mut self) -> Result<i32> {
        self.control.wait_forever()?;
        match self.control.reply()? {
            Reply::Ended { exit } => Ok(exit),
            other => Err(RuntimeError::Init {
                action: format!("run the command: {other:?}"),
                source: kiln_sys::Outcome::Invalid,
            }),
        }
    }
}

/// Starts a command with these standard input, output and error, or with a terminal of its own.
pub(crate) fn start(server: &Server, exec: Exec, stdio: Option<[BorrowedFd<'_>; 3]>) -> Result<Session> {
    server.running()?;
    let mut control = Control::connect(&server.files.control())?;
    let fds = stdio.as_ref().map_or(&[][..], |fds| &fds[..]);
    match control.ask(&Request::Exec(exec), fds)? {
        (Reply::Started { .. }, terminal) => Ok(Session { control, terminal }),
        (other, _) => Err(unexpected(&server.record.server, other)),
    }
}

/// Starts a command in the server whose control socket this is, for a program that does not keep the servers. See
/// [`crate::Runtime::exec_interactive`].
pub fn open_session(socket: &Path, exec: Exec, stdio: Option<[BorrowedFd<'_>; 3]>) -> Result<Session> {
    let mut control = Control::connect(socket)?;
    let fds = stdio.as_ref().map_or(&[][..], |fds| &fds[..]);
    match control.ask(&Request::Exec(exec), fds)? {
        (Reply::Started { .. }, terminal) => Ok(Session { control, terminal }),
        (Reply::Refused { reason }, _) => Err(std::io::Error::other(reason)).on("start a command through", socket),
        (other, _) => Err(std::io::Error::other(format!("an unexpected answer: {other:?}"))).on("ask", socket),
    }
}

/// Runs a command to its end, at most `limit`, and keeps at most `max_bytes` of each output; more is read and dropped.
/// `root` is the host's id of the server's root.
pub(crate) fn run(server: &Server, root: u32, exec: Exec, limit: Duration, max_bytes: usize) -> Result<Output> {
    let deadline = Instant::now() + limit;
    let null = File::open("/dev/null").on("open", "/dev/null")?;
    let (stdout, stdout_inside) = std::io::pipe().on("make", "a pipe")?;
    let (stderr, stderr_inside) = std::io::pipe().on("make", "a pipe")?;
    // Programs open /dev/stdout again, which is allowed to the pipe's owner only; PID 1 passes it on to the user.
    for pipe in [&stdout_inside, &stderr_inside] {
        std::os::unix::fs::fchown(pipe, Some(root), Some(root)).on("own", "a pipe")?;
    }
    let mut session = start(server, exec, Some([null.as_fd(), stdout_inside.as_fd(), stderr_inside.as_fd()]))?;
    drop((stdout_inside, stderr_inside));
    let mut pipes = [Capture::new(stdout.into(), max_bytes)?, Capture::new(stderr.into(), max_bytes)?];
    let exit = collect(&mut session.control, &mut pipes, deadline)?.ok_or(RuntimeError::TimedOut(limit))?;
    let [stdout, stderr] = pipes.map(|capture| capture.kept);
    Ok(Output { exit, stdout, stderr })
}

struct Capture {
    pipe: OwnedFd,
    kept: Vec<u8>,
    limit: usize,
    open: bool,
}

impl Capture {
    fn new(pipe: OwnedFd, limit: usize) -> Result<Self> {
        rustix::fs::fcntl_setfl(&pipe, OFlags::NONBLOCK).on("set up", "a pipe")?;
        Ok(Self { pipe, kept: Vec::new(), limit, open: true })
    }

    /// Reads what is there.
    fn drain(&mut self) -> Result<()> {
        let mut buffer = [0; 16 << 10];
        while self.open {
            match rustix::io::read(&self.pipe, &mut buffer) {
                Ok(0) => self.open = false,
                Ok(count) => {
                    let room = self.limit.saturating_sub(self.kept.len()).min(count);
                    self.kept.extend(&buffer[..room]);
                }
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).on("read", "a command's output"),
            }
        }
        Ok(())
    }
}

/// Reads output until the command has ended; what its descendants write later is not waited for. None if the time was
/// over.
fn collect(control: &mut Control, pipes: &mut [Capture; 2], deadline: Instant) -> Result<Option<i32>> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let socket = control.socket().as_fd();
        let mut polled = vec![PollFd::from_borrowed_fd(socket, PollFlags::IN)];
        polled.extend(
            pipes
                .iter()
                .filter(|pipe| pipe.open)
                .map(|pipe| PollFd::from_borrowed_fd(pipe.pipe.as_fd(), PollFlags::IN)),
        );
        match rustix::event::poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno).on("wait for", "a command"),
        }
        let ended = !polled[0].revents().is_empty();
        drop(polled);
        pipes.iter_mut().try_for_each(Capture::drain)?;
        if ended {
            return match control.reply()? {
                Reply::Ended { exit } => Ok(Some(exit)),
                other => Err(RuntimeError::Init {
                    action: format!("run the command: {other:?}"),
                    source: kiln_sys::Outcome::Invalid,
                }),
            };
        }
    }
}

/// Opens a path as the server sees it, to be looked at but not read. Nothing inside can lead the way out: the kernel resolves it within that root.
fn find_inside(server: &Server, path: &str) -> Result<Option<OwnedFd>> {
    find(server, path, OFlags::empty())
}

/// As [`find_inside`], with further flags: `NOFOLLOW` for a link itself.
pub(crate) fn find(server: &Server, path: &str, flags: OFlags) -> Result<Option<OwnedFd>> {
    let root = format!("/proc/{}/root", server.record.pid);
    let opened = rustix::fs::open(&root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    // Looked at after opening: while PID 1 was alive the number was its own.
    server.running()?;
    let root = opened.on("open", root)?;
    match within::open(&root, path, OFlags::PATH | flags, Mode::empty()) {
        Ok(file) => Ok(Some(file)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno).on("open inside the server", path),
    }
}

/// A directory as the server sees it, opened to be asked things.
pub(crate) fn open_directory(server: &Server, path: &str) -> Result<Option<OwnedFd>> {
    let Some(place) = find_inside(server, path)? else { return Ok(None) };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(&place, ".", flags, Mode::empty()).on("open inside the server", path).map(Some)
}

/// Status of a path, links followed; none if absent. `first_id` is the host's id behind id 0 inside.
pub(crate) fn stat(server: &Server, first_id: u32, path: &str) -> Result<Option<FileStatus>> {
    let Some(file) = find_inside(server, path)? else { return Ok(None) };
    let stat = rustix::fs::fstat(&file).on("look at", path)?;
    Ok(Some(status(&stat, first_id)))
}

pub(crate) fn status(stat: &rustix::fs::Stat, first_id: u32) -> FileStatus {
    let (uid, gid) = (inside_id(stat.st_uid, first_id), inside_id(stat.st_gid, first_id));
    FileStatus { mode: stat.st_mode, uid, gid, size: stat.st_size.unsigned_abs() }
}

/// Ids without a counterpart inside are seen there as the overflow id.
fn inside_id(id: u32, first_id: u32) -> u32 {
    id.checked_sub(first_id).filter(|id| *id < kiln_sys::idmap::IDS).unwrap_or(65_534)
}

/// The first `max_bytes` of a regular file; none if absent or something else.
pub(crate) fn read(server: &Server, path: &str, max_bytes: usize) -> Result<Option<Vec<u8>>> {
    let Some(place) = find_inside(server, path)? else { return Ok(None) };
    let stat = rustix::fs::fstat(&place).on("look at", path)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Ok(None);
    }
    // The same file again, now to be read: it was looked at first, so no pipe or device is ever opened.
    let again = format!("/proc/self/fd/{}", place.as_raw_fd());
    let file = rustix::fs::openat(CWD, again, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).on("open", path)?;
    let mut bytes = Vec::new();
    File::from(file).take(max_bytes as u64).read_to_end(&mut bytes).on("read", path)?;
    Ok(Some(bytes))
}

/// All processes, from the server's control group.
pub(crate) fn processes(server: &Server, first_id: u32) -> Result<Vec<Process>> {
    server.running()?;
    let pids = server.group.processes()?;
    let mut processes: Vec<Process> = pids.into_iter().filter_map(|pid| process(pid, first_id)).collect();
    processes.sort_by_key(|process| process.pid);
    Ok(processes)
}

/// None if it ended meanwhile.
fn process(pid: u32, first_id: u32) -> Option<Process> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let uid = field("Uid:")?.split_whitespace().next()?.parse().ok()?;
    let inner = field("NSpid:")?.split_whitespace().last()?.parse().ok()?;
    let short = field("Name:")?.to_owned();
    // The kernel's name is cut at 15 bytes; then the program's file name says more.
    let program =
        if short.len() < 15 { short } else { file_name(pid).filter(|name| name.starts_with(&short)).unwrap_or(short) };
    Some(Process { pid: inner, uid: inside_id(uid, first_id), program })
}

fn file_name(pid: u32) -> Option<String> {
    let path = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    Some(path.file_name()?.to_str()?.to_owned())
}

/// Where TCP is listened to, in the server's network.
pub(crate) fn listening(server: &Server) -> Result<Vec<SocketAddr>> {
    let network = facts::network(server)?;
    let failed = |error: NetlinkError| match error.not_found() {
        true => std::io::Error::other("the kernel is built without INET_DIAG"),
        false => std::io::Error::other(error.to_string()),
    };
    let listeners = Connection::open_sockets_in(network.as_fd()).and_then(|mut sockets| sockets.tcp_listeners());
    let mut listeners = listeners.map_err(failed).on("list the ports of", "the server's network")?;
    server.running()?;
    listeners.sort_unstable();
    listeners.dedup();
    Ok(listeners)
}

/// So much of a table of connections is read. The kernel writes a line of 150 bytes for each, and a server may have very many.
const MAX_TABLE: u64 = 4 << 20;

/// TCP connections of the server's network that do not stay in it, as far as the table is read.
pub(crate) fn connections(server: &Server) -> Result<u64> {
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        let path = format!("/proc/{}/net/{table}", server.record.pid);
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MAX_TABLE).read_to_string(&mut text));
        match read {
            // A kernel without IPv6.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && table == "tcp6" => continue,
            other => other.on("read", path)?,
        };
        count += text.lines().skip(1).filter(|line| is_connection(line)).count() as u64;
    }
    server.running()?;
    Ok(count)
}

/// State 01 is ESTABLISHED; addresses are written as the processor has them (proc_net(5)).
fn is_connection(line: &str) -> bool {
    let mut fields = line.split_whitespace();
    let local = fields.nth(1).and_then(|local| local.split(':').next()).unwrap_or_default();
    let loopback = local.ends_with("7F") && (local.len() == 8 || local.starts_with("0000000000000000FFFF0000"))
        || local == "00000000000000000000000001000000";
    fields.nth(1) == Some("01") && !loopback
}
