//! Growing a mounted file system to the size that its device has by now.

use std::os::fd::{AsRawFd as _, BorrowedFd};

use crate::error::{Attempt as _, Result};

/// `_IOW('f', 16, __u64)` (fs/ext4/ext4.h).
const EXT4_IOC_RESIZE_FS: libc::c_ulong = 0x4008_6610;
/// `_IOW('X', 110, struct xfs_growfs_data)` (fs/xfs/libxfs/xfs_fs.h).
const XFS_IOC_FSGROWFSDATA: libc::c_ulong = 0x4010_586E;

/// `struct xfs_growfs_data`.
#[repr(C)]
struct GrowData {
    blocks: u64,
    most_inodes_percent: u32,
}

/// Grows ext4 to so many blocks.
pub fn ext4(inside: BorrowedFd<'_>, blocks: u64) -> Result<()> {
    // SAFETY: the kernel reads one number, which lives through the call.
    let result = unsafe { libc::ioctl(inside.as_raw_fd(), EXT4_IOC_RESIZE_FS as _, &raw const blocks) };
    checked(result, "grow an ext4 file system")
}

/// Grows XFS to so many blocks.
pub fn xfs(inside: BorrowedFd<'_>, blocks: u64) -> Result<()> {
    let data = GrowData { blocks, most_inodes_percent: 25 };
    // SAFETY: the kernel reads one structure, which lives through the call.
    let result = unsafe { libc::ioctl(inside.as_raw_fd(), XFS_IOC_FSGROWFSDATA as _, &raw const data) };
    checked(result, "grow an XFS file system")
}

fn checked(result: libc::c_int, action: &str) -> Result<()> {
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).attempt(|| action.into()) }
}
