//! `script` tests: a program of the recipe, run on the host without privileges.
//!
//! The program runs as a user that nobody else is (a number drawn for each run), in its own process group, unable to gain
//! privileges (`PR_SET_NO_NEW_PRIVS`), with small limits, in an empty directory of its own, with nothing in its environment
//! but `PATH`, `HOME`, `LANG`, `KILN_SERVER_ADDRESS` and the configuration under test, `KILN_CONFIG_KEY` for every key that
//! has a value; a secret only where the test names it. When its time is over, and also after its end, the group and every
//! other process of that user are killed. Started by an ordinary user, it keeps that user, and only the group is killed.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::{
        fs::chown,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use kiln_engine::Observed;
use kiln_model::{
    config::{ConfigKey, Frozen},
    duration,
    suite::TestKind,
};
use kiln_sys::executable;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, ResolveFlags, openat2},
    io::Errno,
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};

use super::expect::Expect;
use crate::{foreign, retry::Miss};

/// Users drawn for runs: far from accounts, from distributions' ranges for containers and from the servers' own.
const FIRST_USER: u32 = 0x7e00_0000;
/// So many of them.
const USERS: u32 = 1 << 20;
/// So much of the output is shown in messages, from its end.
const MAX_OUTPUT: u64 = 64 << 10;
/// So much of what is printed is read, where that is what counts.
pub(super) const MAX_PRINTED: u64 = 4 << 20;
/// Some time is kept for killing, so that the end is ours and not the caller's.
pub(super) const KEPT: f64 = 0.9;

/// Sets the limits of the program and becomes it: no core files, few processes, few open files, small files.
const LIMITS: &str = r#"ulimit -c 0; ulimit -n 256; ulimit -f 131072
if (ulimit -u 128) 2>/dev/null; then ulimit -u 128; else ulimit -p 128; fi
exec "$0" "$@""#;

pub(super) async fn run(server: &Observed, expect: Expect<'_>, test: &TestKind, left: Duration) -> Result<(), Miss> {
    let TestKind::Script { file, content, arguments, secrets } = test else {
        return Err(Miss::Final("this is not a script test".to_owned()));
    };
    let limit = left.mul_f64(KEPT);
    let job = Job::new(server, expect, (content, arguments, secrets), limit)?;
    let place = Place::new().map_err(|e| Miss::Final(format!("could not run {file}: {e}")))?;
    let ran = job.carried_out(&place).await.map_err(|reason| Miss::Final(format!("could not run {file}: {reason}")))?;
    judge((file, limit), ran.how, &expect.shown(ran.said.trim_end()))
}

/// The configuration as variables: `KILN_CONFIG_LOG_LEVEL` for `log_level`.
fn variables(expect: Expect<'_>, secrets: &BTreeSet<ConfigKey>) -> Result<Vec<(String, String)>, String> {
    let values = expect.0;
    let told = values.config.values.iter().filter(|(key, value)| match value {
        Frozen::Value(_) => true,
        Frozen::Secret(_) => secrets.contains(*key),
    });
    told.map(|(key, _)| {
        let text = values.text(key).map_err(|error| error.to_string())?.unwrap_or_default();
        Ok((format!("KILN_CONFIG_{}", key.as_str().to_ascii_uppercase()), text))
    })
    .collect()
}

fn judge((file, limit): (&str, Duration), how: How, shown: &str) -> Result<(), Miss> {
    match how {
        How::Killed => {
            let limit = duration::format(limit);
            Err(Miss::Final(format!("{file} did not end within {limit} and was killed; its output: {shown}")))
        }
        How::Exited(status) => match status.code() {
            Some(0) => Ok(()),
            Some(code) => Err(Miss::Again(format!("{file} exited with {code}; its output: {shown}"))),
            None => {
                let signal = status.signal().unwrap_or_default();
                Err(Miss::Again(format!("{file} was ended by signal {signal}; its output: {shown}")))
            }
        },
    }
}

/// How the program ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum How {
    Exited(ExitStatus),
    Killed,
}

/// Where one run of a program takes place: an empty directory that belongs to a user who is drawn for it.
pub(super) struct Place {
    directory: tempfile::TempDir,
    user: Option<u32>,
}

impl Place {
    pub(super) fn new() -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("kiln-script-").tempdir()?;
        let user = rustix::process::geteuid().is_root().then(|| FIRST_USER + rand::random::<u32>() % USERS);
        let place = Self { directory, user };
        place.give(place.path())?;
        Ok(place)
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Whoever runs there: none where that is who we are.
    pub(super) fn user(&self) -> Option<u32> {
        self.user
    }

    /// Gives a path to the user of the place.
    pub(super) fn give(&self, path: &Path) -> io::Result<()> {
        self.user.map_or(Ok(()), |user| chown(path, Some(user), Some(user)))
    }
}

/// A program, and what it is told.
#[derive(Clone)]
pub(super) struct Job {
    pub(super) content: String,
    pub(super) arguments: Vec<String>,
    address: String,
    pub(super) variables: Vec<(String, String)>,
    /// Files beside it, by their paths relative to the directory of the run.
    pub(super) files: Vec<(String, String)>,
    /// Whether what it prints is kept apart from what it says on standard error.
    pub(super) apart: bool,
    /// A file that it writes in its directory, and how much of it is read.
    pub(super) report: Option<(String, u64)>,
    limit: Duration,
}

/// What became of a program.
pub(super) struct Ran {
    pub(super) how: How,
    /// The end of all that it said.
    pub(super) said: String,
    /// The beginning of what it printed, where that is kept apart.
    pub(super) printed: Vec<u8>,
    /// The file that it was to write; none if there is none.
    pub(super) report: Option<Vec<u8>>,
}

impl Job {
    pub(super) fn new(
        server: &Observed,
        expect: Expect<'_>,
        (content, arguments, secrets): (&str, &[String], &BTreeSet<ConfigKey>),
        limit: Duration,
    ) -> Result<Self, String> {
        Ok(Self {
            content: content.to_owned(),
            arguments: arguments.to_vec(),
            address: server.address.ok_or("the server has no address")?.to_string(),
            variables: variables(expect, secrets)?,
            files: Vec::new(),
            apart: false,
            report: None,
            limit,
        })
    }

    /// Runs on a thread of its own: what it gives up (gaining privileges) must not stick to a thread that others use. When this
    /// future is dropped the program still ends at its limit.
    pub(super) async fn carried_out(self, place: &Place) -> Result<Ran, String> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let (directory, user) = (place.path().to_owned(), place.user);
        let thread = std::thread::Builder::new()
            .name("script-test".to_owned())
            .spawn(move || sender.send(self.run(&directory, user)));
        thread.map_err(|e| e.to_string())?;
        let ended = receiver.await.map_err(|_| "its thread ended early".to_owned())?;
        ended.map_err(|e| e.to_string())
    }

    fn run(self, directory: &Path, user: Option<u32>) -> io::Result<Ran> {
        let program = self.write(directory, user)?;
        // Without names: the program can put nothing in their place.
        let output = tempfile::tempfile()?;
        let errors = if self.apart { tempfile::tempfile()? } else { output.try_clone()? };
        rustix::thread::set_no_new_privs(true)?;
        let mut child = self.command(&program, directory, user, (&output, &errors))?.spawn()?;
        foreign::expose(child.id());
        let group = Pid::from_child(&child);
        let ended = wait(group, self.limit);
        kill(group, user);
        let status = child.wait()?;
        let how = match ended? {
            Ended::ByItself => How::Exited(status),
            Ended::Killed => How::Killed,
        };
        let said = match self.apart {
            true => format!("{}{}", tail(&output)?, tail(&errors)?),
            false => tail(&output)?,
        };
        let printed = if self.apart { head(&output, MAX_PRINTED + 1)? } else { Vec::new() };
        let report = match &self.report {
            Some((path, limit)) => written(directory, path, limit + 1)?,
            None => None,
        };
        Ok(Ran { how, said, printed, report })
    }

    fn write(&self, directory: &Path, user: Option<u32>) -> io::Result<std::path::PathBuf> {
        for (path, content) in &self.files {
            let path = directory.join(path);
            path.parent().map_or(Ok(()), std::fs::create_dir_all)?;
            std::fs::write(path, content)?;
        }
        let program = directory.join("program");
        executable::write(&program, self.content.as_bytes()).map_err(io::Error::other)?;
        if let Some(user) = user {
            chown(directory, Some(user), Some(user))?;
        }
        Ok(program)
    }

    fn command(
        &self,
        program: &Path,
        directory: &Path,
        user: Option<u32>,
        (output, errors): (&File, &File),
    ) -> io::Result<Command> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(LIMITS).arg(program).args(&self.arguments);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.env("HOME", directory).env("KILN_SERVER_ADDRESS", &self.address).current_dir(directory);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(errors.try_clone()?).process_group(0);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        Ok(command)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    ByItself,
    Killed,
}

fn wait(child: Pid, limit: Duration) -> io::Result<Ended> {
    let pidfd = pidfd_open(child, PidfdFlags::empty())?;
    let begun = Instant::now();
    loop {
        let left = Timespec::try_from(limit.saturating_sub(begun.elapsed())).map_err(io::Error::other)?;
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ok(Ended::Killed),
            Ok(_) => return Ok(Ended::ByItself),
            // The end of another program.
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Kills the group, and every process of the drawn user until there is none. Processes that are already gone are what we
/// want, so their errors are.
fn kill(group: Pid, user: Option<u32>) {
    if kill_process_group(group, Signal::KILL).is_err() {
        tracing::debug!("the script's process group was already gone");
    }
    let Some(user) = user else { return };
    for _round in 0..100 {
        let left = processes_of(user);
        if left.is_empty() {
            return;
        }
        left.into_iter().filter(|pid| kill_process(*pid, Signal::KILL).is_err()).for_each(|pid| {
            tracing::debug!(pid = pid.as_raw_nonzero().get(), "a script's process was already gone");
        });
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Living processes of a user, from `/proc` (proc_pid(5): a directory belongs to the process's effective user).
fn processes_of(user: u32) -> Vec<Pid> {
    use std::os::unix::fs::MetadataExt as _;
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| entry.metadata().is_ok_and(|status| status.uid() == user))
        .filter(|entry| !is_zombie(&entry.path()))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

fn is_zombie(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn tail(mut file: &File) -> io::Result<String> {
    let size = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(size.saturating_sub(MAX_OUTPUT)))?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn head(mut file: &File, limit: u64) -> io::Result<Vec<u8>> {
    file.seek(io::SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The beginning of a file that a program wrote. No link leads out of its directory, nothing but a plain file is read, and a pipe is
/// not waited for.
fn written(directory: &Path, path: &str, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let directory = File::open(directory)?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let file = match openat2(&directory, path, flags, Mode::empty(), resolve) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    if !file.metadata()?.is_file() {
        return Ok(None);
    }
    head(&file, limit).map(Some)
}
