//! The compact form of an [`Index`] on disk: read back in a few milliseconds, where parsing takes a few hundred.
//!
//! Layout, little-endian: 8 bytes of magic, the SHA-256 of everything that follows it, the numbers of records (u32),
//! provided names (u32) and text bytes (u64), then the records, the provided names and the text. A file that does not
//! match its hash or this version of the form is taken as absent.

use std::{fs, io, path::Path};

use sha2::{Digest as _, Sha256};

use super::{FIELDS, Index, Record, Span};

const MAGIC: &[u8; 8] = b"KILNIDX1";
const RECORD: usize = FIELDS * 8 + 8 + 32 + 1;
const PROVIDED: usize = 12;
const HEADER: usize = 16;

/// Reads it back; none if there is no usable file.
pub fn load(path: &Path) -> Option<Index> {
    decode(&fs::read(path).ok()?)
}

/// Writes it; readers see the old file or the whole new one.
pub fn store(path: &Path, index: &Index) -> io::Result<()> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let file = tempfile::NamedTempFile::new_in(directory)?;
    fs::write(file.path(), encode(index))?;
    file.persist(path)?;
    Ok(())
}

fn encode(index: &Index) -> Vec<u8> {
    let size = HEADER + index.records.len() * RECORD + index.provides.len() * PROVIDED + index.text.len();
    let mut body = Vec::with_capacity(size);
    body.extend((index.records.len() as u32).to_le_bytes());
    body.extend((index.provides.len() as u32).to_le_bytes());
    body.extend((index.text.len() as u64).to_le_bytes());
    for record in &index.records {
        record.fields.iter().for_each(|span| encode_span(&mut body, *span));
        body.extend(record.size.to_le_bytes());
        body.extend(record.sha256);
        body.push(record.flags);
    }
    for (span, record) in &index.provides {
        encode_span(&mut body, *span);
        body.extend(record.to_le_bytes());
    }
    body.extend(index.text.as_bytes());
    [&MAGIC[..], &Sha256::digest(&body), &body].concat()
}

fn encode_span(out: &mut Vec<u8>, span: Span) {
    out.extend(span.start.to_le_bytes());
    out.extend(span.length.to_le_bytes());
}

fn decode(bytes: &[u8]) -> Option<Index> {
    let (hash, body) = bytes.strip_prefix(MAGIC)?.split_at_checked(32)?;
    if hash != Sha256::digest(body).as_slice() {
        return None;
    }
    let (header, rest) = body.split_at_checked(HEADER)?;
    let (records, provides) = (u32_at(header, 0)? as usize, u32_at(header, 4)? as usize);
    let (records, rest) = rest.split_at_checked(records.checked_mul(RECORD)?)?;
    let (provides, text) = rest.split_at_checked(provides.checked_mul(PROVIDED)?)?;
    let index = Index {
        records: records.chunks_exact(RECORD).map(decode_record).collect::<Option<_>>()?,
        provides: provides.chunks_exact(PROVIDED).map(decode_provided).collect::<Option<_>>()?,
        text: str::from_utf8(text).ok()?.to_owned(),
    };
    is_sound(&index).then_some(index)
}

/// Every pointer stays inside: a file that only looks right must not make a reader panic.
fn is_sound(index: &Index) -> bool {
    let inside = |span: Span| index.text.get(span.range()).is_some();
    index.records.iter().all(|record| record.fields.iter().all(|span| inside(*span)))
        && index.provides.iter().all(|(span, at)| inside(*span) && (*at as usize) < index.records.len())
}

fn decode_record(bytes: &[u8]) -> Option<Record> {
    let mut fields = [Span::default(); FIELDS];
    for (at, span) in fields.iter_mut().enumerate() {
        *span = decode_span(bytes, at * 8)?;
    }
    let after = FIELDS * 8;
    Some(Record {
        fields,
        size: u64::from_le_bytes(bytes.get(after..after + 8)?.try_into().ok()?),
        sha256: bytes.get(after + 8..after + 40)?.try_into().ok()?,
        flags: *bytes.get(after + 40)?,
    })
}

fn decode_provided(bytes: &[u8]) -> Option<(Span, u32)> {
    Some((decode_span(bytes, 0)?, u32_at(bytes, 8)?))
}

fn decode_span(bytes: &[u8], at: usize) -> Option<Span> {
    Some(Span { start: u32_at(bytes, at)?, length: u32_at(bytes, at + 4)? })
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_as_it_was_and_a_damaged_one_does_not() {
        let text = b"Package: a\nVersion: 1\nArchitecture: all\nProvides: b, c (= 2)\nFilename: pool/a.deb\nSize: 3\n\
            SHA256: e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n";
        let index = Index::parse(text).unwrap();
        let bytes = encode(&index);
        assert_eq!(decode(&bytes).unwrap(), index);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert_eq!(decode(&damaged), None, "byte {at}");
        }
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
    }
}
