//! A layer as a tar stream: POSIX ustar headers, with pax records (POSIX.1-2001) only for what a header cannot hold.
//!
//! Deletions are written as OCI whiteouts (image-spec `layer.md`): an empty file `.wh.NAME`, and `.wh..wh..opq` for a
//! directory that hides its parent's content, right behind the directory so that readers that go entry by entry see it
//! before the new content.

use super::{Content, Entry, Kind, Layer, Meta, name, parent};

const BLOCK: usize = 512;
/// Largest number that seven octal digits hold.
const OCTAL_7: u64 = 0o7_777_777;
/// Largest number that eleven octal digits hold.
const OCTAL_11: u64 = 0o77_777_777_777;

/// Receives a tar stream.
pub(super) trait Sink {
    type Error;
    /// Headers, padding, and whatever is not the content of a regular file.
    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Self::Error>;
    /// The content of the entry with this index.
    fn content(&mut self, index: usize, content: &Content) -> Result<(), Self::Error>;
}

/// Writes the whole stream.
pub(super) fn emit<S: Sink>(layer: &Layer, sink: &mut S) -> Result<(), S::Error> {
    for (index, entry) in layer.entries().iter().enumerate() {
        sink.bytes(&headers(entry))?;
        if let Kind::File(content) = &entry.kind {
            sink.content(index, content)?;
            sink.bytes(&[0; BLOCK][..padding(content.size())])?;
        }
    }
    sink.bytes(&[0; 2 * BLOCK])
}

fn padding(size: u64) -> usize {
    (size.next_multiple_of(BLOCK as u64) - size) as usize
}

fn headers(entry: &Entry) -> Vec<u8> {
    let Entry { path, meta, kind } = entry;
    match kind {
        Kind::Directory { opaque } => {
            let mut bytes = header(&[path, &b"/"[..]].concat(), meta, b'5', 0, b"");
            if *opaque {
                bytes.extend(whiteout(&[path, &b"/.wh..wh..opq"[..]].concat()));
            }
            bytes
        }
        Kind::File(content) => header(path, meta, b'0', content.size(), b""),
        Kind::Symlink(target) => header(path, meta, b'2', 0, target),
        Kind::Hardlink(target) => header(path, meta, b'1', 0, target),
        Kind::Fifo => header(path, meta, b'6', 0, b""),
        Kind::Whiteout => {
            let dir = parent(path);
            let slash: &[u8] = if dir.is_empty() { b"" } else { b"/" };
            whiteout(&[dir, slash, b".wh.", name(path)].concat())
        }
    }
}

fn whiteout(path: &[u8]) -> Vec<u8> {
    header(path, &Meta { mode: 0o644, ..Meta::default() }, b'0', 0, b"")
}

/// One entry's header, behind its pax records if it needs any.
fn header(path: &[u8], meta: &Meta, kind: u8, size: u64, link: &[u8]) -> Vec<u8> {
    let records = pax(path, meta, size, link);
    let mut bytes = Vec::new();
    if !records.is_empty() {
        let own = Meta { mode: 0o644, ..Meta::default() };
        bytes.extend(ustar(b"././@PaxHeader", &own, b'x', records.len() as u64, b""));
        bytes.extend(&records);
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    }
    bytes.extend(ustar(path, meta, kind, size, link));
    bytes
}

/// The records of what a ustar header cannot hold, in a fixed order.
fn pax(path: &[u8], meta: &Meta, size: u64, link: &[u8]) -> Vec<u8> {
    let mut records = Vec::new();
    let number = |value: u64| value.to_string().into_bytes();
    if u64::from(meta.gid) > OCTAL_7 {
        record(&mut records, b"gid", &number(meta.gid.into()));
    }
    if link.len() > 100 {
        record(&mut records, b"linkpath", link);
    }
    if path.len() > 100 {
        record(&mut records, b"path", path);
    }
    if size > OCTAL_11 {
        record(&mut records, b"size", &number(size));
    }
    if u64::from(meta.uid) > OCTAL_7 {
        record(&mut records, b"uid", &number(meta.uid.into()));
    }
    for (name, value) in &meta.xattrs {
        record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    records
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    records.extend(length.to_string().bytes());
    records.push(b' ');
    records.extend(key);
    records.push(b'=');
    records.extend(value);
    records.push(b'\n');
}

fn ustar(path: &[u8], meta: &Meta, kind: u8, size: u64, link: &[u8]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    put(&mut block[..100], path);
    octal(&mut block[100..108], u64::from(meta.mode & 0o7777));
    octal(&mut block[108..116], u64::from(meta.uid).min(OCTAL_7));
    octal(&mut block[116..124], u64::from(meta.gid).min(OCTAL_7));
    octal(&mut block[124..136], size.min(OCTAL_11));
    octal(&mut block[136..148], meta.mtime.clamp(0, OCTAL_11 as i64) as u64);
    block[156] = kind;
    put(&mut block[157..257], link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    block[148..156].fill(b' ');
    let sum: u64 = block.iter().map(|b| u64::from(*b)).sum();
    octal(&mut block[148..155], sum);
    block
}

/// As much as fits; what does not is in a pax record.
fn put(field: &mut [u8], bytes: &[u8]) {
    let length = bytes.len().min(field.len());
    field[..length].copy_from_slice(&bytes[..length]);
}

/// Zero-padded octal digits and a NUL.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    field[..digits].copy_from_slice(format!("{value:0digits$o}").as_bytes());
    field[digits] = 0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_pax_records_count_their_own_length() {
        for length in [1, 80, 88, 89, 90, 91, 980, 990, 991, 995, 10_000] {
            let mut records = Vec::new();
            record(&mut records, b"path", &vec![b'x'; length]);
            let text = std::str::from_utf8(&records).expect("ASCII");
            let written: usize = text.split(' ').next().and_then(|n| n.parse().ok()).expect("a number");
            assert_eq!(written, records.len());
        }
    }
}
