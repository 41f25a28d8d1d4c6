//! Programs of Debian 13 for hosts of Debian 12: single files, taken out of their packages into `target/tools/`.
//!
//! apt fetches them with its own directories and with the archive's keys as Kiln carries them, so that signatures and checksums
//! are checked as for any package, and nothing is installed on the host.
//!
//! No version is pinned: the archive keeps one version of a package in a suite, so the day of a point release would end CI. What was
//! fetched is printed with its SHA-256.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Outcome,
    command::{root, run},
};

const SOURCE: &str = "http://deb.debian.org/debian trixie main";
const KEYS: [&str; 2] = ["debian-archive-trixie-automatic.gpg", "debian-archive-trixie-stable.gpg"];

/// A program of one file, and its package.
pub struct Foreign {
    pub program: &'static str,
    package: &'static str,
}

/// What the tests need.
pub const TEST: &[Foreign] =
    &[Foreign { program: "cosign", package: "cosign" }, Foreign { program: "goss", package: "goss" }];

impl Foreign {
    /// Where it is, or is to be.
    pub fn path(&self) -> PathBuf {
        directory().join(self.program)
    }

    /// Fetches it, if it is not there.
    pub fn fetch(&self) -> Outcome {
        if self.path().exists() {
            return Ok(());
        }
        let work = directory().join("apt");
        let apt = apt(&work)?;
        run(apt().args(["update", "--quiet"]))?;
        let download = work.join("download");
        if download.exists() {
            fs::remove_dir_all(&download)?;
        }
        fs::create_dir_all(&download)?;
        run(apt().args(["download", "--quiet", self.package]).current_dir(&download))?;
        let package =
            fs::read_dir(&download)?.flatten().map(|entry| entry.path()).next().ok_or("apt fetched nothing")?;
        run(Command::new("sha256sum").arg(&package))?;
        let tree = work.join("tree");
        run(Command::new("dpkg-deb").arg("--extract").arg(&package).arg(&tree))?;
        fs::rename(tree.join("usr/bin").join(self.program), self.path())?;
        fs::remove_dir_all(&work)?;
        Ok(())
    }
}

/// `target/tools` of the workspace, where tests look.
fn directory() -> PathBuf {
    root().join("target/tools")
}

/// apt-get with its own directories and one source.
fn apt(work: &Path) -> Outcome<impl Fn() -> Command + use<>> {
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(work.join(part))?;
    }
    let keys = KEYS.map(|key| root().join("crates/image/keys").join(key).display().to_string()).join(",");
    let list = work.join("trixie.list");
    fs::write(&list, format!("deb [signed-by={keys}] {SOURCE}\n"))?;
    let options = [
        format!("Dir::Etc::sourcelist={}", list.display()),
        "Dir::Etc::sourceparts=/dev/null".to_owned(),
        format!("Dir::State::lists={}", work.join("lists").display()),
        format!("Dir::Cache={}", work.join("cache").display()),
        // Not as `_apt`, which may not write here.
        "APT::Sandbox::User=root".to_owned(),
    ];
    Ok(move || {
        let mut command = Command::new("apt-get");
        command.args(options.iter().flat_map(|option| ["-o", option.as_str()]));
        command
    })
}
