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
    io::{self, Read as _},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::{CommandExt as _, ExitStatusExt as _},
    },
    path::Path,
    process::{Command, ExitStatus, Stdio},
    time::Duration,
};

use kiln_engine::Observed;
use kiln_model::{
    config::{ConfigKey, Frozen},
    duration,
    suite::TestKind,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, kill_process, kill_process_group, pidfd_open},
};

use super::expect::Expect;
use crate::retry::Miss;

/// Users drawn for runs: far from accounts, from distributions' ranges for containers and from the servers' own.
const FIRST_USER: u32 = 0x7e00_0000;
/// So many of them.
const USERS: u32 = 1 << 20;
/// So much of the output is shown in messages, from its end.
const MAX_OUTPUT: u64 = 64 << 10;

/// Sets the limits of the program and becomes it: no core files, few processes, few open files, small files.
const LIMITS: &str = r#"ulimit -c 0; ulimit -n 256; ulimit -f 131072
if (ulimit -u 128) 2>/dev/null; then ulimit -u 128; else ulimit -p 128; fi
exec "$0" "$@""#;

pub(super) async fn run(server: &Observed, expect: Expect<'_>, test: &TestKind, left: Duration) -> Result<(), Miss> {
    let TestKind::Script { file, content, arguments, secrets } = test else {
        return Err(Miss::Final("this is not a script test".to_owned()));
    };
    let address = server.address.ok_or_else(|| Miss::Again("the server has no address".to_owned()))?;
    // Some time is kept for killing, so that the end is ours and not the caller's.
    let limit = left.mul_f64(0.9);
    let job = Job {
        content: content.clone(),
        arguments: arguments.clone(),
        address: address.to_string(),
        variables: variables(expect, secrets)?,
        limit,
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread of its own: what it gives up (gaining privileges) must not stick to a thread that others use.
    let thread = std::thread::Builder::new().name("script-test".to_owned()).spawn(move || sender.send(job.run()));
    thread.map_err(|e| Miss::Final(format!("could not start a thread for {file}: {e}")))?;
    let ended = receiver.await.map_err(|_| Miss::Final(format!("the thread of {file} ended early")))?;
    let (how, output) = ended.map_err(|e| Miss::Final(format!("could not run {file}: {e}")))?;
    judge((file, limit), how, &expect.shown(output.trim_end()))
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
enum How {
    Exited(ExitStatus),
    Killed,
}

struct Job {
    content: String,
    arguments: Vec<String>,
    address: String,
    variables: Vec<(String, String)>,
    limit: Duration,
}

impl Job {
    /// How it ended, and what it said.
    fn run(self) -> io::Result<(How, String)> {
        let directory = tempfile::Builder::new().prefix("kiln-script-").tempdir()?;
        let user = rustix::process::geteuid().is_root().then(|| FIRST_USER + rand::random::<u32>() % USERS);
        let program = self.write(directory.path(), user)?;
        let output = File::create_new(directory.path().join("output"))?;
        rustix::thread::set_no_new_privs(true)?;
        let mut child = self.command(&program, directory.path(), user, &output)?.spawn()?;
        let group = Pid::from_child(&child);
        let ended = wait(group, self.limit);
        kill(group, user);
        let status = child.wait()?;
        let output = tail(&directory.path().join("output"))?;
        let how = match ended? {
            Ended::ByItself => How::Exited(status),
            Ended::Killed => How::Killed,
        };
        Ok((how, output))
    }

    fn write(&self, directory: &Path, user: Option<u32>) -> io::Result<std::path::PathBuf> {
        let program = directory.join("program");
        std::fs::write(&program, &self.content)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        if let Some(user) = user {
            chown(directory, Some(user), Some(user))?;
        }
        Ok(program)
    }

    fn command(&self, program: &Path, directory: &Path, user: Option<u32>, output: &File) -> io::Result<Command> {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(LIMITS).arg(program).args(&self.arguments);
        command.env_clear().envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LANG", "C.UTF-8");
        command.env("HOME", directory).env("KILN_SERVER_ADDRESS", &self.address).current_dir(directory);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output.try_clone()?).process_group(0);
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
    let limit = Timespec::try_from(limit).map_err(io::Error::other)?;
    let ready = poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))?;
    Ok(if ready == 0 { Ended::Killed } else { Ended::ByItself })
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

fn tail(path: &Path) -> io::Result<String> {
    use std::io::Seek as _;
    let mut file = File::open(path)?;
    let size = file.metadata()?.len();
    file.seek(io::SeekFrom::Start(size.saturating_sub(MAX_OUTPUT)))?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
