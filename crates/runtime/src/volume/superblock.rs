//! What the first bytes of an image say of the file system in it.

use std::{fs::File, os::unix::fs::FileExt as _};

use kiln_model::volume::Filesystem;

/// Offsets from the start of the image, from Documentation/filesystems/ext4/super.rst: the block is at 1024.
const EXT4: usize = 1024;
const EXT4_MAGIC: (usize, [u8; 2]) = (EXT4 + 0x38, [0x53, 0xEF]);
const EXT4_STATE: usize = EXT4 + 0x3A;
const EXT4_INCOMPATIBLE: usize = EXT4 + 0x60;
const VALID: u16 = 1;
const ERRORS: u16 = 2;
const NEEDS_RECOVERY: u32 = 4;
/// Numbers of blocks have 64 bits.
const WIDE: u32 = 0x80;
const XFS_MAGIC: &[u8; 4] = b"XFSB";

/// How a file system was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Detached in order.
    Clean(Filesystem),
    /// Its journal must be gone through first, or it says itself that something is wrong.
    Unclean(Filesystem),
    /// No file system that we know.
    Unknown,
}

/// Reads the first bytes of an image.
pub(super) fn look(image: &File) -> Left {
    let mut bytes = [0; 2048];
    match image.read_exact_at(&mut bytes, 0) {
        Ok(()) => of(&bytes),
        Err(_) => Left::Unknown,
    }
}

/// How many bytes the file system takes of its image; none where there is none.
pub(super) fn size(image: &File) -> Option<u64> {
    let mut bytes = [0; 2048];
    image.read_exact_at(&mut bytes, 0).ok()?;
    let four = |at: usize| [bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]];
    match of(&bytes) {
        Left::Unknown => None,
        Left::Clean(Filesystem::Xfs) | Left::Unclean(Filesystem::Xfs) => {
            let blocks = u64::from(u32::from_be_bytes(four(8))) << 32 | u64::from(u32::from_be_bytes(four(12)));
            blocks.checked_mul(u64::from(u32::from_be_bytes(four(4))))
        }
        Left::Clean(Filesystem::Ext4) | Left::Unclean(Filesystem::Ext4) => {
            let wide = u32::from_le_bytes(four(EXT4_INCOMPATIBLE)) & WIDE != 0;
            let high = if wide { u32::from_le_bytes(four(EXT4 + 0x150)) } else { 0 };
            let blocks = u64::from(high) << 32 | u64::from(u32::from_le_bytes(four(EXT4 + 4)));
            blocks.checked_mul(1024_u64.checked_shl(u32::from_le_bytes(four(EXT4 + 0x18)))?)
        }
    }
}

fn of(bytes: &[u8; 2048]) -> Left {
    let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    if bytes.starts_with(XFS_MAGIC) {
        // XFS goes through its log by itself when it is mounted, and refuses what it cannot mend.
        return Left::Clean(Filesystem::Xfs);
    }
    let (at, magic) = EXT4_MAGIC;
    if bytes[at..at + 2] != magic {
        return Left::Unknown;
    }
    let state = u16_at(EXT4_STATE);
    let incompatible = u32::from(u16_at(EXT4_INCOMPATIBLE));
    let clean = state & VALID != 0 && state & ERRORS == 0 && incompatible & NEEDS_RECOVERY == 0;
    if clean { Left::Clean(Filesystem::Ext4) } else { Left::Unclean(Filesystem::Ext4) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_an_image_says_how_it_was_left() {
        let mut bytes = [0; 2048];
        assert_eq!(of(&bytes), Left::Unknown);
        bytes[1024 + 0x38..1024 + 0x3A].copy_from_slice(&[0x53, 0xEF]);
        assert_eq!(of(&bytes), Left::Unclean(Filesystem::Ext4));
        bytes[1024 + 0x3A] = 1;
        assert_eq!(of(&bytes), Left::Clean(Filesystem::Ext4));
        bytes[1024 + 0x60] = 4;
        assert_eq!(of(&bytes), Left::Unclean(Filesystem::Ext4), "its journal is not empty");
        (bytes[1024 + 0x60], bytes[1024 + 0x3A]) = (0, 3);
        assert_eq!(of(&bytes), Left::Unclean(Filesystem::Ext4), "it says that it has errors");
        bytes[..4].copy_from_slice(b"XFSB");
        assert_eq!(of(&bytes), Left::Clean(Filesystem::Xfs));
    }
}
