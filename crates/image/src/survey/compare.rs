//! What is there beside what was shipped.

use std::collections::BTreeMap;
use std::io::Read as _;

use md5::{Digest as _, Md5};
use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};

use super::{
    Change, Changed, Kind, Unowned, Unread,
    dpkg::Database,
    generated::{TEMPLATES, is_apt_source, is_generated, is_own, is_passed_over},
    secret::{self, Secret},
    users::Accounts,
    walk::{Entry, Walked, What},
};
use crate::debian::root::Root;

/// What [`compare`] found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) changed: Vec<Changed>,
    pub(super) unowned: Vec<Unowned>,
    pub(super) own: Vec<String>,
    pub(super) unread: Vec<Unread>,
}

pub(super) fn compare(root: &Root, database: &Database, walked: &Walked, accounts: &Accounts) -> Found {
    let at = Compare { root, database, walked, accounts };
    let mut found =
        Found { own: walked.entries.keys().filter(|path| is_own(path)).cloned().collect(), ..Found::default() };
    at.shipped(&mut found);
    at.templates(&mut found);
    found.changed.sort_by(|a, b| a.path.cmp(&b.path));
    found.unowned = at.unowned();
    found
}

struct Compare<'a> {
    root: &'a Root,
    database: &'a Database,
    walked: &'a Walked,
    accounts: &'a Accounts,
}

/// How a file is to what was shipped.
enum Compared {
    Equal,
    Other(Option<Secret>),
    Missing,
    Unread(String),
}

impl Compare<'_> {
    /// Every file whose hash is known, several at a time.
    fn shipped(&self, found: &mut Found) {
        let known: Vec<(&str, &str)> =
            self.database.hashes().filter(|(path, _)| !is_own(path) && !is_passed_over(path)).collect();
        let compared: Vec<_> = known.into_par_iter().map(|(path, hash)| (path, self.file(path, hash))).collect();
        for (path, compared) in compared {
            let change = match &compared {
                Compared::Equal => continue,
                Compared::Unread(reason) => {
                    found.unread.push(Unread { path: path.to_owned(), reason: reason.clone() });
                    continue;
                }
                Compared::Missing if self.database.is_left_out(path) => continue,
                Compared::Missing => Change::Missing,
                Compared::Other(_) if self.database.is_conffile(path) => Change::Configuration,
                Compared::Other(_) => Change::Content,
            };
            let secret = if let Compared::Other(secret) = compared { secret } else { None };
            let package = self.database.owner(path).unwrap_or("?").to_owned();
            found.changed.push(Changed { path: path.to_owned(), package, change, secret });
        }
    }

    fn file(&self, path: &str, hash: &str) -> Compared {
        match self.walked.entries.get(path).map(|entry| (&entry.what, entry.mode)) {
            None => Compared::Missing,
            Some((What::File, mode)) => match digest(self.root, path) {
                Ok(seen) if seen == hash => Compared::Equal,
                Ok(_) => Compared::Other(self.secret(path, mode)),
                Err(error) => Compared::Unread(error.to_string()),
            },
            // A program's name that update-alternatives or a person leads elsewhere.
            Some(_) => Compared::Other(None),
        }
    }

    /// Files that scripts copy from a file of their package.
    fn templates(&self, found: &mut Found) {
        for template in TEMPLATES {
            let (seen, shipped) = (digest(self.root, template.path), digest(self.root, template.from));
            let (Ok(seen), Ok(shipped)) = (seen, shipped) else { continue };
            if seen != shipped {
                let mode = self.walked.entries.get(template.path).map_or(0, |entry| entry.mode);
                let secret = self.secret(template.path, mode);
                let (path, package) = (template.path.to_owned(), template.package.to_owned());
                found.changed.push(Changed { path, package, change: Change::Configuration, secret });
            }
        }
    }

    fn secret(&self, path: &str, mode: u32) -> Option<Secret> {
        let mut beginning = Vec::new();
        let file = open(self.root, path).ok()?;
        file.take(secret::LOOKED_AT as u64).read_to_end(&mut beginning).ok()?;
        Secret::of(mode, &beginning)
    }

    /// What belongs to no package; directories of which nothing does stand for what is in them.
    fn unowned(&self) -> Vec<Unowned> {
        let mut whole: BTreeMap<&str, Unowned> = BTreeMap::new();
        let holds_owned = self.directories_with_others();
        for (path, entry) in &self.walked.entries {
            if self.belongs(path, entry) {
                continue;
            }
            if let Some((_, above)) = above(path).find_map(|above| whole.get_key_value(above)) {
                let top = above.path.clone();
                if let Some(unowned) = whole.get_mut(top.as_str()) {
                    self.add(unowned, path, entry);
                }
            } else if entry.what != What::Directory || !holds_owned.contains(path.as_str()) {
                whole.insert(path, self.one(path, entry));
            }
        }
        let empty = |unowned: &Unowned| matches!(unowned.kind, Kind::Directory { files: 0 }) && unowned.bytes == 0;
        whole.into_values().filter(|unowned| !empty(unowned) || !self.is_of_a_script(&unowned.path)).collect()
    }

    /// Every directory in which, however deep, something belongs to a package, to Debian or to the machine.
    fn directories_with_others(&self) -> std::collections::BTreeSet<&str> {
        let others = self.walked.entries.iter().filter(|(path, entry)| self.belongs(path, entry));
        others.flat_map(|(path, _)| above(path)).collect()
    }

    fn belongs(&self, path: &str, entry: &Entry) -> bool {
        let known = self.database.owner(path).is_some() || is_generated(path) || is_own(path) || is_apt_source(path);
        known || self.is_link_of_a_script(entry, path)
    }

    /// `sites-enabled/default`, `multi-user.target.wants/nginx.service`: a link to what a package ships, as old as an installation.
    fn is_link_of_a_script(&self, entry: &Entry, path: &str) -> bool {
        let What::Link(target) = &entry.what else { return false };
        let target = self.database.canonical(&resolved(path, target));
        let shipped = self.database.owner(&target).is_some() && self.database.is_of_an_installation(entry.modified);
        shipped || target.starts_with("/etc/alternatives/")
    }

    fn is_of_a_script(&self, path: &str) -> bool {
        self.walked.entries.get(path).is_some_and(|entry| self.database.is_of_an_installation(entry.modified))
    }

    fn one(&self, path: &str, entry: &Entry) -> Unowned {
        let kind = match &entry.what {
            What::File => Kind::File,
            What::Directory => Kind::Directory { files: 0 },
            What::Link(target) => Kind::Link(target.clone()),
            What::Special => Kind::Special,
        };
        let is_file = entry.what == What::File;
        Unowned {
            path: path.to_owned(),
            kind,
            bytes: if is_file { entry.size } else { 0 },
            user: self.accounts.name(entry.uid),
            mode: entry.mode,
            secret: if is_file { self.secret(path, entry.mode) } else { None },
        }
    }

    fn add(&self, to: &mut Unowned, path: &str, entry: &Entry) {
        if let Kind::Directory { files } = &mut to.kind {
            *files += u64::from(entry.what != What::Directory);
        }
        if entry.what == What::File {
            to.bytes += entry.size;
            to.secret = to.secret.or_else(|| self.secret(path, entry.mode));
        }
    }
}

/// The directories that a path is in, the nearest first, without `/`.
fn above(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rfind('/').map(|at| &path[..at]), |path| path.rfind('/').map(|at| &path[..at]))
        .filter(|path| !path.is_empty())
}

/// Where a link leads, from its own place.
pub(super) fn resolved(link: &str, target: &str) -> String {
    let start = if target.starts_with('/') { "" } else { link.rsplit_once('/').map_or("", |(directory, _)| directory) };
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(target.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn open(root: &Root, path: &str) -> std::io::Result<std::fs::File> {
    let place = root.place(path.trim_start_matches('/'))?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(&place.directory, place.name, flags, Mode::empty())?.into())
}

/// The MD5 of a file in hexadecimal digits: what dpkg keeps. It finds changes, it proves nothing.
fn digest(root: &Root, path: &str) -> std::io::Result<String> {
    let mut file = open(root, path)?;
    let mut md5 = Md5::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(md5.finalize())),
            read => md5.update(&buffer[..read]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{above, resolved};

    #[test]
    fn unit_links_lead_from_where_they_are() {
        assert_eq!(resolved("/etc/a/link", "../b/file"), "/etc/b/file");
        assert_eq!(resolved("/etc/a/link", "/usr/file"), "/usr/file");
        assert_eq!(resolved("/link", "../../../x"), "/x");
        assert_eq!(above("/a/b/c").collect::<Vec<_>>(), ["/a/b", "/a"]);
    }
}
