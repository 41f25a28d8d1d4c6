//! What is on a machine that nobody dares to touch: what was done to it beside installing packages.
//!
//! Read from its files alone (`/`, or the root of a tree), never changed, every path resolved with the tree as its root. Debian's
//! own records say what is whose: `/var/lib/dpkg` which package owns a path and what it shipped there, `apt` which package
//! somebody asked for, `ucf` what it wrote. What is left was made by hand, or by a package's scripts ([`generated`]).
//!
//! [`survey`] finds, [`draft`] makes a recipe of it.

use std::io;

use kiln_model::systemd::Proposal;
use serde::Serialize;

use crate::debian::root::Root;

mod compare;
mod dpkg;
mod draft;
mod generated;
mod listening;
mod scheduled;
mod secret;
mod services;
mod system;
mod units;
mod users;
mod walk;

pub use draft::{Draft, DraftFile, Left, ServiceText, copy, draft, service_text, writable_text};
pub use listening::{Listening, listening};
pub use secret::Secret;
pub use units::units;

/// What is on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// The distribution.
    pub system: System,
    /// Packages that somebody asked for, beside those that every Debian has.
    pub packages: Vec<Package>,
    /// Files of packages that are not as they were shipped.
    pub changed: Vec<Changed>,
    /// What belongs to no package: files, and directories that hold nothing else.
    pub unowned: Vec<Unowned>,
    /// Services that start by themselves.
    pub services: Vec<EnabledService>,
    /// What is run at set times.
    pub scheduled: Vec<Scheduled>,
    /// Users that no package made.
    pub users: Vec<User>,
    /// What is this machine's own, and comes from outside in an immutable server: its names, addresses and keys.
    pub own: Vec<String>,
    /// What could not be looked at, and why.
    pub unread: Vec<Unread>,
}

/// A distribution (`os-release(5)`).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct System {
    /// `debian`.
    pub id: String,
    /// `bookworm`.
    pub codename: String,
    /// `Debian GNU/Linux 12 (bookworm)`.
    pub name: String,
}

/// A package that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its maintainer: tells a package of somebody else from the distribution's.
    pub maintainer: String,
}

/// What happened to a file of a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// A configuration file has other content.
    Configuration,
    /// Another file has other content: a program that was patched, for example.
    Content,
    /// It is not there.
    Missing,
}

/// A file of a package that is not as it was shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Where it is.
    pub path: String,
    /// Whose it is.
    pub package: String,
    /// What happened to it.
    pub change: Change,
    /// Why its content is not to be copied.
    pub secret: Option<Secret>,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A regular file.
    File,
    /// A symbolic link, and where it leads.
    Link(String),
    /// A directory of which nothing belongs to a package.
    Directory {
        /// Files in it, however deep.
        files: u64,
    },
    /// A device, pipe or socket.
    Special,
}

/// What belongs to no package.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unowned {
    /// Where it is.
    pub path: String,
    /// What it is.
    pub kind: Kind,
    /// Its bytes, or those of all files in it.
    pub bytes: u64,
    /// Whose it is, by name where it has one.
    pub user: String,
    /// Permission bits.
    pub mode: u32,
    /// Why its content is not to be copied; of a directory, the first file in it that has such a reason.
    pub secret: Option<Secret>,
}

/// A service that starts by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EnabledService {
    /// `nginx.service`.
    pub unit: String,
    /// Where its file is.
    pub path: String,
    /// The package that it belongs to; none if it was written by hand.
    pub package: Option<String>,
    /// Whether every Debian has that package; the base of a recipe has fewer.
    pub of_every_debian: bool,
    /// What it says of itself.
    pub description: String,
    /// What it would be in a recipe; none if its file could not be understood.
    pub proposal: Option<Proposal>,
}

/// What is run at set times.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Scheduled {
    /// The crontab, script or timer.
    pub path: String,
    /// When: five fields or a word of `crontab(5)`, or a directory's name (`daily`).
    pub when: String,
    /// As whom.
    pub user: String,
    /// What.
    pub command: String,
}

/// A user that no package made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// Its home directory.
    pub home: String,
    /// Its login shell.
    pub shell: String,
    /// The further groups that it is in.
    pub groups: Vec<String>,
}

/// What could not be looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Unread {
    /// Where it is.
    pub path: String,
    /// Why.
    pub reason: String,
}

/// Why there is no survey.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// It is no tree of Debian or of what descends from it.
    #[error("there is no /var/lib/dpkg/status: this is no tree of Debian, Ubuntu or another distribution with dpkg")]
    NoDpkg,
    /// A file that must be read cannot be.
    #[error("could not read {path}")]
    Read {
        /// In the tree.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The tree has more entries than any server.
    #[error("there are more than {most} files: survey a smaller tree, or leave a directory out with `--except`")]
    TooMany {
        /// The limit.
        most: usize,
    },
}

/// Looks at a tree. `except` are directories in it that are left out, and named in [`Survey::unread`].
pub fn survey(root: &Root, except: &[String]) -> Result<Survey, SurveyError> {
    let database = dpkg::Database::read(root)?;
    let accounts = users::Accounts::read(root)?;
    let walked = walk::walk(root, except)?;
    let found = compare::compare(root, &database, &walked, &accounts);
    let services = services::enabled(root, &database);
    let mut unread = walked.unread;
    unread.extend(found.unread);
    Ok(Survey {
        system: system::read(root)?,
        packages: database.by_hand(),
        changed: found.changed,
        unowned: found.unowned,
        services,
        scheduled: scheduled::read(root, &database),
        users: accounts.by_hand(root, &database),
        own: found.own,
        unread,
    })
}

/// A text file of the tree; empty if there is none.
fn text(root: &Root, path: &str) -> Result<String, SurveyError> {
    root.read_text(path.trim_start_matches('/')).map_err(|source| SurveyError::Read { path: path.to_owned(), source })
}
