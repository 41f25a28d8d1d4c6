//! Loop devices (drivers/block/loop.c): a file as a block device.
//!
//! Every device is made with `LO_FLAGS_AUTOCLEAR` and is held by a descriptor or by what is mounted from it: it is gone with
//! the last of them, whoever dies. The driver keeps the open file it was given, not the path, so a lock (flock(2)) taken on
//! that open file before is held for as long as the device exists, and no longer: a file that is locked so is never under
//! two devices.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, Mode, OFlags};

use crate::error::{Attempt as _, Outcome, Result, SysError};

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;
const LOOP_GET_STATUS64: libc::c_ulong = 0x4C05;
const LOOP_SET_CAPACITY: libc::c_ulong = 0x4C07;
const AUTOCLEAR: u32 = 4;
const DIRECT_IO: u32 = 16;
/// What file systems that share content want to be written in at least; no disk wants more.
pub const BLOCK: u32 = 4096;
/// Others take free devices as well: so often another one is tried.
const TRIES: u32 = 64;

/// `struct loop_info64` (linux/loop.h).
#[repr(C)]
#[derive(Clone, Copy)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}
const _: () = assert!(size_of::<Info>() == 232);

/// `struct loop_config` (linux/loop.h).
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}
const _: () = assert!(size_of::<Config>() == 304);

const EMPTY: Info = Info {
    device: 0,
    inode: 0,
    rdevice: 0,
    offset: 0,
    size_limit: 0,
    number: 0,
    encrypt_type: 0,
    encrypt_key_size: 0,
    flags: 0,
    file_name: [0; 64],
    crypt_name: [0; 64],
    encrypt_key: [0; 32],
    init: [0; 2],
};

/// A loop device, held.
#[derive(Debug)]
pub struct LoopDevice {
    number: u32,
    device: OwnedFd,
}

impl LoopDevice {
    /// Puts a device with blocks of [`BLOCK`] bytes over a file, with direct input and output where the file's file system has it.
    pub fn attach(backing: &File) -> Result<Self> {
        let control = open(Path::new("/dev/loop-control"))?;
        for _ in 0..TRIES {
            let number = free(control.as_fd())?;
            let device = open(&path_of(number))?;
            match configure(device.as_fd(), backing) {
                Ok(()) => return Ok(Self { number, device }),
                // Somebody else was faster.
                Err(error) if error.outcome == Outcome::Busy => {}
                Err(error) => return Err(error),
            }
        }
        Err(SysError { action: "find a free loop device".into(), outcome: Outcome::Exhausted })
    }

    /// Finds the device over a file that some process attached before.
    pub fn find(backing: &File) -> Result<Option<Self>> {
        let wanted = backing.metadata().attempt(|| "look at a file".into())?;
        let entries = std::fs::read_dir("/sys/block").attempt(|| "list block devices".into())?;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("loop")?.parse::<u32>().ok());
            let Some(number) = number.filter(|_| entry.path().join("loop").exists()) else { continue };
            // One that is just going away cannot be opened or asked any more.
            let Ok(device) = open(&path_of(number)) else { continue };
            if let Ok(info) = status(device.as_fd())
                && (info.device, info.inode) == (wanted.dev(), wanted.ino())
            {
                return Ok(Some(Self { number, device }));
            }
        }
        Ok(None)
    }

    /// The device's file.
    pub fn path(&self) -> PathBuf {
        path_of(self.number)
    }

    /// Takes over the size that the file has by now.
    pub fn take_size(&self) -> Result<()> {
        // SAFETY: the request takes no argument; the descriptor is open.
        let result = unsafe { libc::ioctl(self.device.as_raw_fd(), LOOP_SET_CAPACITY as _, 0) };
        checked(result, || format!("take over the size of the file under {}", self.path().display()))
    }
}

impl AsFd for LoopDevice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// Locks an open file for as long as it, or a loop device over it, is open. False if it is locked already.
pub fn lock(file: &File) -> Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno).attempt(|| "lock a file".into()),
    }
}

fn path_of(number: u32) -> PathBuf {
    PathBuf::from(format!("/dev/loop{number}"))
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::open(path, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).attempt(|| format!("open {}", path.display()))
}

fn free(control: BorrowedFd<'_>) -> Result<u32> {
    // SAFETY: the request takes no argument; the descriptor is open.
    let number = unsafe { libc::ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE as _) };
    checked(number, || "find a free loop device".into())?;
    Ok(number.unsigned_abs())
}

fn configure(device: BorrowedFd<'_>, backing: &File) -> Result<()> {
    let info = Info { flags: AUTOCLEAR | DIRECT_IO, ..EMPTY };
    let config = Config { fd: backing.as_raw_fd() as u32, block_size: BLOCK, info, reserved: [0; 8] };
    // SAFETY: `config` is the structure the request reads, and lives through the call.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_CONFIGURE as _, &raw const config) };
    checked(result, || "put a loop device over a file".into())
}

fn status(device: BorrowedFd<'_>) -> Result<Info> {
    let mut info = EMPTY;
    // SAFETY: the kernel writes one `Info` to a place of that size.
    let result = unsafe { libc::ioctl(device.as_raw_fd(), LOOP_GET_STATUS64 as _, &raw mut info) };
    checked(result, || "ask a loop device".into())?;
    Ok(info)
}

fn checked(result: libc::c_int, action: impl FnOnce() -> String) -> Result<()> {
    if result >= 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).attempt(action) }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::Duration};

    use super::{LoopDevice, lock};

    fn file(directory: &std::path::Path) -> File {
        let file =
            File::options().create(true).truncate(false).read(true).write(true).open(directory.join("f")).unwrap();
        file.set_len(8 << 20).unwrap();
        file
    }

    #[test]
    fn root_a_locked_file_stays_locked_while_its_device_exists_and_is_free_then() {
        let directory = tempfile::tempdir().unwrap();
        let first = file(directory.path());
        assert!(lock(&first).unwrap());
        let device = LoopDevice::attach(&first).unwrap();
        drop(first);
        let second = file(directory.path());
        assert!(!lock(&second).unwrap(), "the device holds the lock");
        let found = LoopDevice::find(&second).unwrap().expect("it is found by its file");
        assert_eq!(found.path(), device.path());
        drop((device, found));
        let freed = (0..100).any(|_| {
            std::thread::sleep(Duration::from_millis(5));
            lock(&second).unwrap()
        });
        assert!(freed, "the device is gone with its last descriptor, and the lock with it");
        assert!(LoopDevice::find(&second).unwrap().is_none());
    }
}
