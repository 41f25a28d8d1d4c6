//! Tests that look inside a server: `command`, `file`, `process`, `port`, `user`, `package`.

use std::{net::SocketAddr, time::Duration};

use kiln_api::error::chain;
use kiln_engine::{Engine, EngineError, Inside};
use kiln_model::{
    ServerId,
    suite::{TestKind, TextMatch},
};

use super::expect::{self, Expect};

/// So much of an output or a file is looked at.
const MAX_BYTES: usize = 1 << 20;
/// A command is killed so long after its test's time is over.
const AFTER_LIMIT: Duration = Duration::from_millis(500);
/// Debian's package database is read up to this size.
const MAX_PACKAGES: usize = 64 << 20;

/// A look inside one server.
pub(super) struct Look<'a> {
    inside: &'a dyn Inside,
    server: &'a ServerId,
    expect: Expect<'a>,
}

/// A line of `/etc/passwd` (passwd(5)).
struct User {
    name: String,
    uid: u32,
    home: String,
    shell: String,
}

impl<'a> Look<'a> {
    pub(super) fn new(engine: &'a dyn Engine, server: &'a ServerId, expect: Expect<'a>) -> Result<Self, String> {
        let inside = engine.inside().ok_or_else(|| format!("engine {} cannot look inside a server", engine.name()))?;
        Ok(Self { inside, server, expect })
    }

    pub(super) async fn command(
        &self,
        command: &[String],
        user: &str,
        exit: i32,
        (stdout, stderr): (&[TextMatch], &[TextMatch]),
        limit: Duration,
    ) -> Result<(), String> {
        // The caller ends the attempt at the limit and keeps what was seen before; this only ends the command itself.
        let limit = limit + AFTER_LIMIT;
        let ran = self.inside.exec(self.server, command, user, limit, MAX_BYTES).await.map_err(said)?;
        if ran.exit != exit {
            let seen = if ran.stderr.is_empty() { &ran.stdout } else { &ran.stderr };
            let seen = self.expect.shown(&String::from_utf8_lossy(seen));
            return Err(format!("expected `{}` to exit with {exit}, saw {} and {seen}", command.join(" "), ran.exit));
        }
        self.expect.texts("standard output", &ran.stdout, stdout)?;
        self.expect.texts("standard error", &ran.stderr, stderr)
    }

    pub(super) async fn file(&self, test: &TestKind) -> Result<(), String> {
        let TestKind::File { path, exists, mode, owner, size, content } = test else {
            return Err("this is not a file test".to_owned());
        };
        let status = match (self.inside.stat(self.server, path).await.map_err(said)?, exists) {
            (None, false) => return Ok(()),
            (Some(_), false) => return Err(format!("expected {path} to be absent, but it is there")),
            (None, true) => return Err(format!("expected {path} to be there, but it is absent")),
            (Some(status), true) => status,
        };
        if let Some(mode) = mode {
            let (seen, expected) = (format!("{:04o}", status.mode & 0o7777), format!("{mode:04o}"));
            expect::equal(&format!("{path} to have mode"), &seen, &expected)?;
        }
        if let Some(owner) = owner {
            let uid = self.uid(owner).await?;
            expect::equal(&format!("{path} to belong to {owner}, user"), &status.uid, &uid)?;
        }
        if let Some(size) = size {
            expect::equal(&format!("the size of {path} in bytes to be"), &status.size, size)?;
        }
        if content.is_empty() {
            return Ok(());
        }
        let seen = self.read(path, MAX_BYTES).await?;
        self.expect.texts(&format!("the content of {path}"), &seen, content)
    }

    pub(super) async fn process(&self, program: &str, user: Option<&str>, count: u32) -> Result<(), String> {
        let uid = match user {
            Some(user) => Some(self.uid(user).await?),
            None => None,
        };
        let all = self.inside.processes(self.server).await.map_err(said)?;
        let fits = |uid: Option<u32>| {
            all.iter().filter(|p| p.program == program && uid.is_none_or(|uid| p.uid == uid)).count() as u32
        };
        if fits(uid) >= count {
            return Ok(());
        }
        let owner = user.map(|user| format!(" of user {user}")).unwrap_or_default();
        let mut programs: Vec<String> = all.iter().map(|p| p.program.clone()).collect();
        programs.sort();
        programs.dedup();
        let (seen, running) = (fits(uid), expect::listed(&programs));
        Err(format!("expected at least {count} of process {program}{owner}, saw {seen}; running: {running}"))
    }

    pub(super) async fn port(&self, port: u16, listening: bool) -> Result<(), String> {
        let listeners = self.inside.listening(self.server).await.map_err(said)?;
        let mut all: Vec<u16> = listeners.iter().map(SocketAddr::port).collect();
        if all.contains(&port) == listening {
            return Ok(());
        }
        all.sort_unstable();
        all.dedup();
        let seen: Vec<String> = all.iter().map(u16::to_string).collect();
        let wanted = if listening { "a listener" } else { "no listener" };
        Err(format!("expected {wanted} on port {port}, saw listeners on: {}", expect::listed(&seen)))
    }

    pub(super) async fn user(
        &self,
        name: &str,
        uid: Option<u32>,
        home: Option<&str>,
        shell: Option<&str>,
    ) -> Result<(), String> {
        let user = self.find_user(name).await?.ok_or_else(|| format!("there is no user `{name}`"))?;
        let what = |what: &str| format!("user {name} to have {what}");
        uid.map_or(Ok(()), |uid| expect::equal(&what("uid"), &user.uid, &uid))?;
        home.map_or(Ok(()), |home| expect::equal(&what("home"), &user.home.as_str(), &home))?;
        shell.map_or(Ok(()), |shell| expect::equal(&what("shell"), &user.shell.as_str(), &shell))
    }

    pub(super) async fn package(&self, name: &str, installed: bool, version: Option<&str>) -> Result<(), String> {
        let database = self.inside.read(self.server, "/var/lib/dpkg/status", MAX_PACKAGES).await.map_err(said)?;
        let seen = database.map(|text| installed_versions(&String::from_utf8_lossy(&text), name));
        let seen = seen.and_then(|versions| versions.into_iter().next());
        match (seen, installed) {
            (None, false) => Ok(()),
            (None, true) => Err(format!("expected package {name} to be installed, but it is not")),
            (Some(seen), false) => Err(format!("expected package {name} not to be installed, saw version {seen}")),
            (Some(seen), true) => version.map_or(Ok(()), |version| {
                expect::equal(&format!("package {name} to have version"), &seen.as_str(), &version)
            }),
        }
    }

    /// The content of a file that must be there.
    pub(super) async fn read(&self, path: &str, max_bytes: usize) -> Result<Vec<u8>, String> {
        let content = self.inside.read(self.server, path, max_bytes).await.map_err(said)?;
        content.ok_or_else(|| format!("{path} is absent"))
    }

    /// Runs a command as root, for the conformance tests.
    pub(super) async fn exec(&self, command: &[String], limit: Duration) -> Result<kiln_engine::ExecResult, String> {
        self.inside.exec(self.server, command, "root", limit, MAX_BYTES).await.map_err(said)
    }

    async fn uid(&self, user: &str) -> Result<u32, String> {
        match user.parse() {
            Ok(uid) => Ok(uid),
            Err(_) => Ok(self.find_user(user).await?.ok_or_else(|| format!("there is no user `{user}`"))?.uid),
        }
    }

    async fn find_user(&self, name: &str) -> Result<Option<User>, String> {
        let passwd = self.inside.read(self.server, "/etc/passwd", MAX_BYTES).await.map_err(said)?.unwrap_or_default();
        Ok(String::from_utf8_lossy(&passwd).lines().filter_map(parse_user).find(|user| user.name == name))
    }
}

fn said(error: EngineError) -> String {
    chain(&error)
}

fn parse_user(line: &str) -> Option<User> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = fields.nth(1)?.parse().ok()?;
    let home = fields.nth(2)?.to_owned();
    Some(User { name, uid, home, shell: fields.next()?.to_owned() })
}

/// The versions of a package that is fully installed according to dpkg's database (deb822(5)), one for each architecture. A
/// name may say which: `libc6:i386`.
pub(super) fn installed_versions(database: &str, name: &str) -> Vec<String> {
    let field = |paragraph: &'_ str, field: &str| {
        paragraph.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(": ").map(str::to_owned))
    };
    let (name, architecture) = name.split_once(':').map_or((name, None), |(name, of)| (name, Some(of)));
    database
        .split("\n\n")
        .map(|paragraph| paragraph.trim_start_matches('\n'))
        .filter(|paragraph| field(paragraph, "Package").as_deref() == Some(name))
        .filter(|paragraph| architecture.is_none() || field(paragraph, "Architecture").as_deref() == architecture)
        .filter(|paragraph| field(paragraph, "Status").is_some_and(|status| status.ends_with(" installed")))
        .filter_map(|paragraph| field(paragraph, "Version"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: &str = "Package: nginx\nStatus: install ok installed\nVersion: 1.22.1-9\nDescription: x\n y\n\n\
                            Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n";

    #[test]
    fn unit_only_fully_installed_packages_count() {
        assert_eq!(installed_versions(DATABASE, "nginx"), ["1.22.1-9"]);
        assert_eq!(installed_versions(DATABASE, "gone"), [""; 0]);
        assert_eq!(installed_versions(DATABASE, "ngin"), [""; 0]);
    }

    #[test]
    fn unit_a_line_of_passwd_is_read() {
        let user = parse_user("www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin").unwrap();
        assert_eq!((user.uid, user.home.as_str(), user.shell.as_str()), (33, "/var/www", "/usr/sbin/nologin"));
        assert!(parse_user("broken:x").is_none());
    }
}
