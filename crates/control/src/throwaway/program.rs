//! Programs of throwaways: run by an unprivileged user, with a clean environment, their output in a file.

use std::{
    fs::{self, File},
    io,
    os::unix::{fs::chown, process::CommandExt as _},
    path::Path,
    process::{Command, Stdio},
};

const LOG: &str = "log";
/// So much of the end of the output is shown.
const SHOWN: usize = 500;

/// A user and its group of this host.
#[derive(Debug, Clone, Copy)]
pub(super) struct User {
    uid: u32,
    gid: u32,
}

impl User {
    /// The user of this name, or `nobody`; none where this process has no right to become another.
    pub(super) fn named(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let find = |name: &str| passwd.lines().find_map(|line| parse(line, name));
        Some(find(name).or_else(|| find("nobody")).unwrap_or(Self { uid: 65_534, gid: 65_534 }))
    }
}

/// A line of passwd(5).
fn parse(line: &str, name: &str) -> Option<User> {
    let mut fields = line.split(':');
    (fields.next()? == name).then_some(())?;
    let (uid, gid) = (fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?);
    (uid != 0).then_some(User { uid, gid })
}

/// Gives the directory to the user.
pub(super) fn give(directory: &Path, user: Option<User>) -> io::Result<()> {
    user.map_or(Ok(()), |user| chown(directory, Some(user.uid), Some(user.gid)))
}

/// A command that works in the directory.
pub(super) fn command(program: &Path, directory: &Path, user: Option<User>) -> io::Result<Command> {
    let log = File::options().create(true).append(true).open(directory.join(LOG))?;
    let mut command = Command::new(program);
    command.current_dir(directory).env_clear().env("LC_ALL", "C").env("PATH", "/usr/bin:/bin").env("HOME", directory);
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
    if let Some(user) = user {
        command.uid(user.uid).gid(user.gid);
    }
    Ok(command)
}

/// The end of what a directory's programs said.
pub(super) fn said(directory: &Path) -> String {
    let bytes = fs::read(directory.join(LOG)).unwrap_or_default();
    let end = &bytes[bytes.len().saturating_sub(SHOWN)..];
    String::from_utf8_lossy(end).trim().to_owned()
}
