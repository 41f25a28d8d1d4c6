//! Archives that `ADD` unpacks: tar, plain or packed with gzip, xz or zstd, as their first bytes say.
//!
//! They are somebody else's, and are read as the layers of other people's images are: bounded, and nothing of them is written
//! under a name that they chose. A path with `..` in it is refused.

use std::{
    fs::File,
    io::{self, Cursor, Read},
};

use kiln_model::recipe::ImportLimits;

use super::files::{Files, Item, What};
use crate::{
    import::{self, Ground, Meter, Packed},
    layer::{Content, Kind, apply},
    store::Work,
};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: [u8; 3] = *b"BZh";
/// A tar header, bytes.
const HEADER: usize = 512;
/// Memory that unpacking xz may need, bytes.
const XZ_MEMORY: u64 = 256 << 20;

/// What is in an archive, if the thing is one. Its files lie in the work directory.
pub(super) fn unpacked(files: &Files, limits: ImportLimits, work: &Work, epoch: i64) -> Result<Option<Files>, String> {
    let [Item { what: What::File { content, .. }, .. }] = &files.items[..] else { return Ok(None) };
    let failed = |error: io::Error| error.to_string();
    if !is_archive(content).map_err(failed)? {
        return Ok(None);
    }
    let empty = apply::empty(epoch);
    let directory = work.path().join(format!("archive-{}", hex::encode(&files.name)));
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let ground = Ground { below: &empty, objects: &directory, work: &directory, epoch };
    let packed = Packed::new(open(content).map_err(failed)?, None);
    let imported = import::unchecked(packed, &mut Meter::new(limits), &ground).map_err(|error| {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("the archive cannot be unpacked: {error}{cause}")
    })?;
    let mut items = vec![Item { path: Vec::new(), meta: apply::meta(&empty.root.stat), what: What::Directory }];
    for entry in imported.layer.entries() {
        let what = match &entry.kind {
            Kind::Directory { .. } => What::Directory,
            Kind::File(content) => What::File { content: content.clone(), id: Vec::new(), sha256: None },
            Kind::Symlink(target) => What::Symlink(target.clone()),
            Kind::Hardlink(first) => What::Hardlink(first.clone()),
            Kind::Fifo => What::Fifo,
            Kind::Whiteout => {
                return Err("the archive has a name that begins with `.wh.`, which no image can hold".to_owned());
            }
        };
        items.push(Item { path: entry.path.clone(), meta: entry.meta.clone(), what });
    }
    Ok(Some(Files { name: Vec::new(), items }))
}

/// Whether these bytes are an archive, packed or not.
fn is_archive(content: &Content) -> io::Result<bool> {
    let mut first = [0; HEADER];
    let count = fill(&mut raw(content)?, &mut first)?;
    if first.starts_with(&BZIP2) && count > 10 {
        return Err(io::Error::other("Kiln does not unpack bzip2: pack the archive with gzip, xz or zstd"));
    }
    if !packed(&first) {
        return Ok(count == HEADER && is_header(&first));
    }
    let mut header = [0; HEADER];
    // What cannot be unpacked is a file like any other.
    let mut reader = open(content)?;
    let count = match () {
        () if first.starts_with(&GZIP) => fill(&mut flate2::read::GzDecoder::new(reader), &mut header),
        () if first.starts_with(&ZSTD) => {
            zstd::stream::read::Decoder::new(reader).and_then(|mut reader| fill(&mut reader, &mut header))
        }
        () => fill(&mut reader, &mut header),
    };
    Ok(count.is_ok_and(|count| count == HEADER && is_header(&header)))
}

fn packed(first: &[u8]) -> bool {
    first.starts_with(&GZIP) || first.starts_with(&ZSTD) || first.starts_with(&XZ)
}

/// Its sum of bytes is the one that stands in it (pax, "ustar Interchange Format").
fn is_header(bytes: &[u8; HEADER]) -> bool {
    let header = tar::Header::from_byte_slice(bytes);
    let sum = |byte: (usize, &u8)| if (148..156).contains(&byte.0) { 32 } else { u32::from(*byte.1) };
    let expected: u32 = bytes.iter().enumerate().map(sum).sum();
    header.cksum().is_ok_and(|found| found == expected) && bytes.iter().any(|byte| *byte != 0)
}

fn raw(content: &Content) -> io::Result<Box<dyn Read + Send>> {
    Ok(match content {
        Content::Bytes(bytes) => Box::new(Cursor::new(bytes.clone())),
        Content::Path { path, .. } => Box::new(File::open(path)?),
    })
}

/// The bytes; those of xz unpacked, for layers are never packed with it.
fn open(content: &Content) -> io::Result<Box<dyn Read + Send>> {
    let mut first = [0; 6];
    let count = fill(&mut raw(content)?, &mut first)?;
    if count < first.len() || first != XZ {
        return raw(content);
    }
    let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).map_err(io::Error::other)?;
    Ok(Box::new(liblzma::read::XzDecoder::new_stream(raw(content)?, stream)))
}

fn fill(reader: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            count => filled += count,
        }
    }
    Ok(filled)
}
