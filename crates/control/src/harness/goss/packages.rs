//! Packages: dpkg's database is read; other package managers are asked inside, as goss asks them.

use std::time::Duration;

use kiln_model::goss::Value;

use super::{Eyes, Seen, nothing, said};
use crate::harness::inside::installed_versions;

const ALL: [&str; 2] = ["installed", "version"];
/// dpkg's database, and how much of it is read.
const DPKG: (&str, usize) = ("/var/lib/dpkg/status", 64 << 20);
/// A package manager answers within this time.
const LIMIT: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Dpkg,
    Rpm,
    Apk,
    Pacman,
}

impl Eyes<'_> {
    pub(super) async fn package(self, name: &str) -> Seen {
        let versions = match self.manager().await {
            None => Err("the image has none of dpkg, rpm, apk and pacman".to_owned()),
            Some(Manager::Dpkg) => self.dpkg(name).await,
            Some(manager) => self.ask_manager(manager, name).await,
        };
        match versions {
            Err(reason) => nothing(&ALL, &reason),
            Ok(versions) if versions.is_empty() => {
                let no = format!("package {name} is not installed");
                Seen::from([("installed", Ok(Value::Bool(false))), ("version", Err(no))])
            }
            Ok(versions) => Seen::from([("installed", Ok(Value::Bool(true))), ("version", Ok(Value::Texts(versions)))]),
        }
    }

    /// By the distribution's own file, and else by the programs.
    async fn manager(self) -> Option<Manager> {
        if self.is_there(DPKG.0).await {
            return Some(Manager::Dpkg);
        }
        let files = [
            ("/etc/redhat-release", Manager::Rpm),
            ("/etc/system-release", Manager::Rpm),
            ("/etc/alpine-release", Manager::Apk),
            ("/etc/arch-release", Manager::Pacman),
        ];
        for (file, manager) in files {
            if self.is_there(file).await {
                return Some(manager);
            }
        }
        for (program, manager) in [("rpm", Manager::Rpm), ("apk", Manager::Apk), ("pacman", Manager::Pacman)] {
            if self.has_program(program).await {
                return Some(manager);
            }
        }
        None
    }

    async fn dpkg(self, name: &str) -> Result<Vec<String>, String> {
        let database = self.read(DPKG.0, DPKG.1).await?.unwrap_or_default();
        Ok(installed_versions(&String::from_utf8_lossy(&database), name))
    }

    async fn ask_manager(self, manager: Manager, name: &str) -> Result<Vec<String>, String> {
        const FORMAT: &str = "%|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n";
        let command: &[&str] = match manager {
            Manager::Dpkg => &["dpkg-query", "-W", name],
            Manager::Rpm => &["rpm", "-q", "--nosignature", "--nohdrchk", "--nodigest", "--qf", FORMAT, name],
            Manager::Apk => &["apk", "version", name],
            Manager::Pacman => &["pacman", "-Q", "--color", "never", "--noconfirm", name],
        };
        let ran = self.run(command, LIMIT).await.map_err(said)?;
        if ran.exit != 0 {
            return Ok(Vec::new());
        }
        Ok(versions(manager, name, &String::from_utf8_lossy(&ran.stdout)))
    }
}

fn versions(manager: Manager, name: &str, said: &str) -> Vec<String> {
    let lines = said.trim().lines();
    match manager {
        Manager::Dpkg | Manager::Rpm => lines.map(str::to_owned).collect(),
        Manager::Apk => lines
            .filter(|line| !line.starts_with("Installed:") && !line.starts_with("WARNING"))
            .filter_map(|line| line.split_whitespace().next())
            .map(|first| first.strip_prefix(&format!("{name}-")).unwrap_or(first).to_owned())
            .collect(),
        Manager::Pacman => lines.take(1).filter_map(|line| line.split_whitespace().nth(1)).map(str::to_owned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_what_package_managers_say_is_read() {
        let apk = "Installed:                                Available:\nmusl-1.2.3-r4                           = 1.2.3-r4\n";
        assert_eq!(versions(Manager::Apk, "musl", apk), ["1.2.3-r4"]);
        assert_eq!(versions(Manager::Pacman, "bash", "bash 5.2.026-2\n"), ["5.2.026-2"]);
        assert_eq!(versions(Manager::Rpm, "kernel", "5.1-1\n5.2-1\n"), ["5.1-1", "5.2-1"]);
    }
}
