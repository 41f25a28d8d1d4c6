//! A new process of a service or command, from `fork` to `exec`.

use std::{
    ffi::CString,
    fs::File,
    io::Read as _,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use kiln_boot::users::User;
use rustix::{
    io::Errno,
    pipe::PipeFlags,
    process::Pid,
    thread::{Gid, Uid},
};

use crate::{Failure, Trying as _, kernel, setup};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What to start.
pub(crate) struct Program<'a> {
    pub(crate) command: &'a [String],
    pub(crate) user: &'a User,
    pub(crate) environment: &'a [(String, String)],
    pub(crate) directory: &'a str,
    /// Standard input, output and error.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether standard input is a terminal of its own.
    pub(crate) terminal: bool,
}

/// Looks a user up.
pub(crate) fn user(name: &str) -> Result<User, Failure> {
    setup::find_user(name).trying(|| format!("find user {name} in the image"))
}

/// Starts a program in a session of its own. Answers when it executes, or why it does not.
pub(crate) fn start(program: &Program<'_>) -> Result<Pid, Failure> {
    let name = program.command.first().map(String::as_str).unwrap_or_default();
    let action = || format!("start {name}");
    let prepared = prepare(program).trying(action)?;
    let (reader, writer) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).trying(action)?;
    match kernel::fork().trying(action)? {
        kernel::Forked::Child => {
            drop(reader);
            let errno = become_program(program, &prepared);
            report(&writer, errno);
            kernel::exit_now(127)
        }
        kernel::Forked::Parent(pid) => {
            drop(writer);
            failure_of(reader).map_or(Ok(pid), |errno| Err(Failure { action: action(), errno }))
        }
    }
}

struct Prepared {
    paths: Vec<CString>,
    arguments: Vec<CString>,
    environment: Vec<CString>,
}

fn prepare(program: &Program<'_>) -> Result<Prepared, Errno> {
    let text = |text: String| CString::new(text).map_err(|_| Errno::INVAL);
    let defaults = [("HOME", program.user.home.as_str()), ("USER", &program.user.name), ("PATH", DEFAULT_PATH)];
    let given = |key: &str| program.environment.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let missing = defaults.iter().filter(|(key, _)| given(key).is_none());
    let environment = program
        .environment
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .chain(missing.map(|(key, value)| format!("{key}={value}")));
    let name = program.command.first().ok_or(Errno::INVAL)?;
    let paths: Vec<String> = if name.contains('/') {
        vec![name.clone()]
    } else {
        given("PATH").unwrap_or(DEFAULT_PATH).split(':').map(|directory| format!("{directory}/{name}")).collect()
    };
    Ok(Prepared {
        paths: paths.into_iter().map(text).collect::<Result<_, _>>()?,
        arguments: program.command.iter().cloned().map(text).collect::<Result<_, _>>()?,
        environment: environment.map(text).collect::<Result<_, _>>()?,
    })
}

/// In the new process. Returns only if the program cannot be executed.
fn become_program(program: &Program<'_>, prepared: &Prepared) -> Errno {
    if let Err(errno) = take_place(program) {
        return errno;
    }
    let mut result = Errno::NOENT;
    for path in &prepared.paths {
        let errno = kernel::execute(path, &prepared.arguments, &prepared.environment);
        // A file that may not be executed says more than one that is not there.
        if !matches!(errno, Errno::NOENT | Errno::NOTDIR) {
            result = errno;
        }
    }
    result
}

fn take_place(program: &Program<'_>) -> Result<(), Errno> {
    rustix::process::setsid()?;
    let [input, output, error] = program.stdio;
    rustix::stdio::dup2_stdin(input)?;
    rustix::stdio::dup2_stdout(output)?;
    rustix::stdio::dup2_stderr(error)?;
    if program.terminal {
        kernel::control_terminal(rustix::stdio::stdin())?;
    }
    // Groups first, the user last: each step needs a right that the next may give up.
    let groups: Vec<Gid> = program.user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (gid, uid) = (Gid::from_raw(program.user.gid), Uid::from_raw(program.user.uid));
    rustix::thread::set_thread_groups(&groups)?;
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    rustix::process::chdir(program.directory)?;
    kernel::default_signals()
}

fn report(writer: &OwnedFd, errno: Errno) {
    // If PID 1 cannot be told, the exit code says that the start failed.
    rustix::io::write(writer.as_fd(), &errno.raw_os_error().to_ne_bytes()).unwrap_or(0);
}

/// None when the pipe was closed by a successful exec.
fn failure_of(reader: OwnedFd) -> Option<Errno> {
    let mut bytes = [0; 4];
    File::from(reader).read_exact(&mut bytes).ok()?;
    Some(Errno::from_raw_os_error(i32::from_ne_bytes(bytes)))
}
