//! What a server wrote where nothing outlives it.
//!
//! The tree is the server's own and its services are not trusted. So nothing of it is opened but directories, one below the other,
//! each resolved by the kernel beneath the one before, over no symbolic link and onto no other file system; of all else only the status
//! is read. A pipe, a device or a socket is never touched. A service decides how much there is: the walk ends at [`Bounds`],
//! and says so. What the memory file system holds in all is asked of the kernel, which nobody inside can make slow or wrong.

use std::{
    collections::BTreeSet,
    ffi::{CStr, CString},
    os::fd::{AsFd as _, OwnedFd},
    time::Instant,
};

use kiln_model::loss::{Bounds, Place, PlaceKind, Written, WrittenFile};
use kiln_sys::within;
use rustix::{
    fs::{AtFlags, FileType, Mode, OFlags, RawDir, Stat},
    io::Errno,
};

use crate::{
    Inner,
    error::{OnFile as _, Result},
    inside,
    server::Server,
};

/// `f_type` of a memory file system (statfs(2)).
const TMPFS: u64 = 0x0102_1994;
/// Nothing deeper is looked at: every level needs a descriptor.
const MAX_DEPTH: usize = 64;
/// Characters of a path that is shown.
const MAX_SHOWN: usize = 300;

/// Looks at these places of a server that runs. A place that is not there is left out.
pub(crate) fn written(inner: &Inner, server: &Server, places: &[Place], bounds: Bounds) -> Result<Vec<Written>> {
    let until = Instant::now() + bounds.time;
    let look = |place: &Place| look(inner, server, place, bounds, until).transpose();
    places.iter().filter_map(look).collect()
}

fn look(inner: &Inner, server: &Server, place: &Place, bounds: Bounds, until: Instant) -> Result<Option<Written>> {
    let Some(top) = inside::open_directory(server, &place.path)? else { return Ok(None) };
    let status = rustix::fs::fstatfs(&top).on("look at", &place.path)?;
    if status.f_type as u64 != TMPFS {
        return Ok(None);
    }
    let blocks = (status.f_blocks as u64).saturating_sub(status.f_bfree as u64);
    let held = blocks.saturating_mul(u64::try_from(status.f_bsize).unwrap_or(0));
    let from = if place.kind == PlaceKind::Ephemeral { image_directory(inner, server, &place.path) } else { None };
    let mut walk =
        Walk { found: Written::nothing(place.clone(), held), bounds, until, seen: 0, linked: BTreeSet::new() };
    walk.directory(&top, from.as_ref(), &place.path, 0);
    Ok(Some(walk.found))
}

/// The directory that the place was copied from. Without it all that is there counts as written.
fn image_directory(inner: &Inner, server: &Server, path: &str) -> Option<OwnedFd> {
    let namespace = format!("/proc/{}/ns/user", server.record.pid);
    let users = rustix::fs::open(namespace, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let root = inner.roots.root(&server.record.image, users.as_fd()).ok()?;
    within::open(&root, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).ok()
}

struct Walk {
    found: Written,
    bounds: Bounds,
    until: Instant,
    /// Entries so far.
    seen: u64,
    /// Files with several names that were counted already.
    linked: BTreeSet<u64>,
}

impl Walk {
    /// Whether there is no more time, or too much was seen.
    fn is_over(&mut self) -> bool {
        let over = self.seen >= self.bounds.entries || Instant::now() >= self.until;
        self.found.whole &= !over;
        over
    }

    /// What cannot be listed any more is gone, or was not seen.
    fn directory(&mut self, directory: &OwnedFd, image: Option<&OwnedFd>, path: &str, depth: usize) {
        if depth >= MAX_DEPTH {
            self.found.whole = false;
            return;
        }
        for name in self.entries(directory, image, path) {
            if self.is_over() {
                return;
            }
            match within::below(directory, &name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW) {
                Ok(inner) => {
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
                    let image = image.and_then(|image| within::below(image, &name, flags).ok());
                    self.directory(&inner, image.as_ref(), &join(path, &name), depth + 1);
                }
                // Gone meanwhile, something else now, or another file system, whose content is not this place's.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(_) => self.found.whole = false,
            }
        }
    }

    /// Counts the files of a directory, and gives the names of those in it that are directories.
    fn entries(&mut self, directory: &OwnedFd, image: Option<&OwnedFd>, path: &str) -> Vec<CString> {
        let mut directories = Vec::new();
        let mut buffer = Vec::with_capacity(16 << 10);
        let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let Ok(entry) = entry else {
                self.found.whole = false;
                break;
            };
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if self.is_over() {
                break;
            }
            self.seen += 1;
            let Ok(status) = rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(status.st_mode) {
                FileType::Directory => directories.push(name.to_owned()),
                FileType::RegularFile if !is_of_image(image, name, &status) => self.file(path, name, &status),
                _ => {}
            }
        }
        directories
    }

    fn file(&mut self, path: &str, name: &CStr, status: &Stat) {
        if status.st_nlink > 1 && !self.linked.insert(status.st_ino) {
            return;
        }
        let bytes = status.st_size.unsigned_abs().min(status.st_blocks.unsigned_abs().saturating_mul(512));
        let changed = status.st_mtime.saturating_mul(1000).saturating_add(status.st_mtime_nsec as i64 / 1_000_000);
        let found = &mut self.found;
        found.files += 1;
        found.bytes = found.bytes.saturating_add(bytes);
        found.oldest_ms = Some(found.oldest_ms.map_or(changed, |oldest| oldest.min(changed)));
        found.newest_ms = Some(found.newest_ms.map_or(changed, |newest| newest.max(changed)));
        let place = found.largest.partition_point(|file| file.bytes >= bytes);
        if place < self.bounds.largest {
            found.largest.truncate(self.bounds.largest.saturating_sub(1));
            found.largest.insert(place, WrittenFile { path: shown(&join(path, name)), bytes, changed_ms: changed });
        }
    }
}

/// Whether the image has the same file: of the same size, changed at the same time.
fn is_of_image(image: Option<&OwnedFd>, name: &CStr, status: &Stat) -> bool {
    let of_image = |image| rustix::fs::statat(image, name, AtFlags::SYMLINK_NOFOLLOW).ok();
    image.and_then(of_image).is_some_and(|before| {
        let of = |status: &Stat| (status.st_size, status.st_mtime, status.st_mtime_nsec);
        FileType::from_raw_mode(before.st_mode) == FileType::RegularFile && of(&before) == of(status)
    })
}

fn join(path: &str, name: &CStr) -> String {
    format!("{path}/{}", name.to_string_lossy())
}

/// A path as it may be shown anywhere: a service chose it.
fn shown(path: &str) -> String {
    let mut shown: String = path.chars().take(MAX_SHOWN).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if path.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    shown
}
