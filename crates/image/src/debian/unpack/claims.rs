//! Who owns a path when several packages are unpacked at once.

use std::{
    collections::{BTreeMap, HashMap},
    hash::{BuildHasher, RandomState},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};

use crate::debian::root::Root;

/// Top-level links into `usr` (merged-/usr): two names of one place.
const MERGED: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const SHARDS: usize = 64;

/// Files and links, by the package that has them.
pub struct Claims {
    shards: Vec<Mutex<HashMap<String, usize>>>,
    hasher: RandomState,
    merged: Vec<&'static str>,
    taken_over: Mutex<Vec<(usize, String)>>,
}

/// The part of the table that holds a path, locked: whoever holds it may make or replace that path.
pub struct Claim<'a> {
    shard: MutexGuard<'a, HashMap<String, usize>>,
    key: String,
}

impl Claims {
    pub fn new(root: &Root) -> io::Result<Self> {
        let mut merged = Vec::new();
        for name in MERGED {
            let is_link = |stat: rustix::fs::Stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink();
            if root.stat(name)?.is_some_and(is_link) {
                merged.push(name);
            }
        }
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Ok(Self { shards, hasher: RandomState::new(), merged, taken_over: Mutex::default() })
    }

    /// One name for each place: `bin/sh` is `usr/bin/sh` where `/bin` is a link.
    pub fn canonical(&self, path: &str) -> String {
        let first = path.split('/').next().unwrap_or(path);
        if self.merged.contains(&first) { format!("usr/{path}") } else { path.to_owned() }
    }

    pub fn lock(&self, path: &str) -> Claim<'_> {
        let key = self.canonical(path);
        let shard = self.hasher.hash_one(&key) as usize % SHARDS;
        Claim { shard: self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner), key }
    }

    /// Remembers that a package no longer has a file.
    pub fn take_over(&self, from: usize, listed: &str) {
        self.taken_over.lock().unwrap_or_else(PoisonError::into_inner).push((from, listed.to_owned()));
    }

    pub fn taken_over(self) -> Vec<(usize, String)> {
        self.taken_over.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim<'_> {
    pub fn owner(&self) -> Option<usize> {
        self.shard.get(&self.key).copied()
    }
    pub fn set_owner(&mut self, package: usize) {
        self.shard.insert(self.key.clone(), package);
    }
}

/// What a directory shall be in the end.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub package: usize,
    pub uid: u32,
    pub gid: u32,
    pub mode: u32,
    pub mtime: i64,
}

/// Directories made by this unpacking, and what the first package that ships each wants of it.
#[derive(Default)]
pub struct Directories(Mutex<BTreeMap<String, Wanted>>);

impl Directories {
    /// Makes a directory unless it is there.
    pub fn make(&self, root: &Root, path: &str, wanted: Wanted) -> io::Result<()> {
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get_mut(path) {
            if wanted.package < known.package {
                *known = wanted;
            }
            return Ok(());
        }
        if root.directory(path).is_ok() {
            return Ok(());
        }
        let place = match root.place(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                root.make_directories(path.rsplit_once('/').map_or("", |(above, _)| above))?;
                root.place(path)?
            }
            place => place?,
        };
        rustix::fs::mkdirat(&place.directory, place.name, Mode::from_raw_mode(0o755))?;
        made.insert(path.to_owned(), wanted);
        Ok(())
    }

    /// Gives every made directory its owner, mode and time, the deepest first.
    pub fn finish(self, root: &Root) -> io::Result<()> {
        let made = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        for (path, wanted) in made.iter().rev() {
            let place = root.place(path)?;
            let (uid, gid) = (Uid::from_raw(wanted.uid), Gid::from_raw(wanted.gid));
            rustix::fs::chownat(&place.directory, place.name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            let mode = Mode::from_raw_mode(wanted.mode);
            rustix::fs::chmodat(&place.directory, place.name, mode, AtFlags::empty())?;
            let times = times(wanted.mtime);
            rustix::fs::utimensat(&place.directory, place.name, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        Ok(())
    }
}

pub fn times(mtime: i64) -> Timestamps {
    let at = Timespec { tv_sec: mtime, tv_nsec: 0 };
    Timestamps { last_access: at, last_modification: at }
}
