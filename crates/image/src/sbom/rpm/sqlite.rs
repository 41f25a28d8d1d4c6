//! As much of SQLite's file format as a table of blobs needs (<https://www.sqlite.org/fileformat2.html>).
//!
//! The file is a stranger's, so SQLite itself, which runs what views and triggers say, is not asked. Every page is visited at
//! most once, a row has a limit, and nothing is read outside the file.

use std::collections::HashSet;

const MAGIC: &[u8] = b"SQLite format 3\0";
/// A row of more bytes is no header of a package.
const MAX_ROW: usize = 64 << 20;
/// Types of b-tree pages.
const INTERIOR: u8 = 5;
const LEAF: u8 = 13;

/// Why a database cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(super) enum SqliteError {
    #[error("it is no SQLite database")]
    NotSqlite,
    #[error("the SQLite database has no table `{0}`")]
    NoTable(String),
    #[error("the SQLite database is damaged")]
    Damaged,
}

use SqliteError::{Damaged, NoTable, NotSqlite};

/// Gives every blob of the second column of a table.
pub(super) fn blobs(bytes: &[u8], table: &str, each: &mut dyn FnMut(&[u8])) -> Result<(), SqliteError> {
    let file = File::parse(bytes)?;
    let mut root = None;
    file.rows(1, &mut |row| {
        let (kind, name, page) = (row.column(0), row.column(1), row.column(3));
        if let (Some(Value::Bytes(b"table")), Some(Value::Bytes(name)), Some(Value::Number(page))) = (kind, name, page)
            && name == table.as_bytes()
        {
            root = u32::try_from(page).ok();
        }
    })?;
    file.rows(root.ok_or_else(|| NoTable(table.to_owned()))?, &mut |row| {
        if let Some(Value::Bytes(blob)) = row.column(1) {
            each(blob);
        }
    })
}

struct File<'a> {
    bytes: &'a [u8],
    page: usize,
    /// Bytes of a page that are in use.
    usable: usize,
}

/// The content of a row.
struct Row(Vec<u8>);

enum Value<'a> {
    Number(i64),
    Bytes(&'a [u8]),
    Other,
}

impl<'a> File<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, SqliteError> {
        let head = bytes.get(..100).filter(|head| head.starts_with(MAGIC)).ok_or(NotSqlite)?;
        let page = match usize::from(u16::from_be_bytes([head[16], head[17]])) {
            1 => 65_536,
            size => size,
        };
        let usable = page.checked_sub(usize::from(head[20])).filter(|usable| *usable >= 480).ok_or(Damaged)?;
        Ok(Self { bytes, page, usable })
    }

    /// A page, numbered from 1.
    fn page(&self, number: u32) -> Result<&'a [u8], SqliteError> {
        let at = (number as usize).checked_sub(1).and_then(|before| before.checked_mul(self.page)).ok_or(Damaged)?;
        self.bytes.get(at..).and_then(|rest| rest.get(..self.usable)).ok_or(Damaged)
    }

    fn rows(&self, root: u32, each: &mut dyn FnMut(&Row)) -> Result<(), SqliteError> {
        let (mut todo, mut seen) = (vec![root], HashSet::new());
        while let Some(number) = todo.pop() {
            let page = self.visit(number, &mut seen)?;
            // The first page begins with the file's header.
            let head = page.get(if number == 1 { 100 } else { 0 }..).ok_or(Damaged)?;
            let (kind, cells) = (*head.first().ok_or(Damaged)?, usize::from(u16_at(head, 3)?));
            let pointers = if kind == INTERIOR { 12 } else { 8 };
            for cell in 0..cells {
                let at = usize::from(u16_at(head, pointers + 2 * cell)?);
                let cell = page.get(at..).ok_or(Damaged)?;
                match kind {
                    LEAF => each(&self.row(cell, &mut seen)?),
                    INTERIOR => todo.push(u32_at(cell, 0)?),
                    _ => return Err(Damaged),
                }
            }
            if kind == INTERIOR {
                todo.push(u32_at(head, 8)?);
            }
        }
        Ok(())
    }

    fn visit(&self, number: u32, seen: &mut HashSet<u32>) -> Result<&'a [u8], SqliteError> {
        match seen.insert(number) {
            true => self.page(number),
            false => Err(Damaged),
        }
    }

    /// The content of a cell of a leaf, also where it goes on in other pages.
    fn row(&self, cell: &[u8], seen: &mut HashSet<u32>) -> Result<Row, SqliteError> {
        let (size, rest) = varint(cell)?;
        let (_, rest) = varint(rest)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= MAX_ROW).ok_or(Damaged)?;
        let here = self.here(size);
        let mut content = rest.get(..here).ok_or(Damaged)?.to_vec();
        let mut next = if here < size { u32_at(rest, here)? } else { 0 };
        while content.len() < size {
            let page = self.visit(next, seen)?;
            next = u32_at(page, 0)?;
            let part = (size - content.len()).min(self.usable - 4);
            content.extend_from_slice(page.get(4..4 + part).ok_or(Damaged)?);
        }
        Ok(Row(content))
    }

    /// How many bytes of a row are in its cell ("B-tree Pages", of table leaves).
    fn here(&self, size: usize) -> usize {
        let (most, least) = (self.usable - 35, (self.usable - 12) * 32 / 255 - 23);
        let part = least + size.saturating_sub(least) % (self.usable - 4);
        match size {
            size if size <= most => size,
            _ if part <= most => part,
            _ => least,
        }
    }
}

impl Row {
    /// The value of a column, if the row is sound up to it.
    fn column(&self, wanted: usize) -> Option<Value<'_>> {
        let (head, _) = varint(&self.0).ok()?;
        let head = usize::try_from(head).ok()?;
        let (_, mut types) = varint(self.0.get(..head)?).ok()?;
        let mut at = head;
        for column in 0.. {
            let (kind, rest) = varint(types).ok()?;
            types = rest;
            let size = size(kind)?;
            if column == wanted {
                return value(kind, self.0.get(at..at.checked_add(size)?)?);
            }
            at = at.checked_add(size)?;
        }
        None
    }
}

/// Bytes of a value of this type ("Record Format").
fn size(kind: u64) -> Option<usize> {
    match kind {
        0 | 8 | 9 => Some(0),
        1..=4 => usize::try_from(kind).ok(),
        5 => Some(6),
        6 | 7 => Some(8),
        10 | 11 => None,
        long => usize::try_from((long - 12) / 2).ok(),
    }
}

fn value(kind: u64, bytes: &[u8]) -> Option<Value<'_>> {
    Some(match kind {
        1..=6 => {
            let negative = bytes.first()? & 0x80 != 0;
            Value::Number(bytes.iter().fold(if negative { -1 } else { 0 }, |sum, byte| (sum << 8) | i64::from(*byte)))
        }
        8 => Value::Number(0),
        9 => Value::Number(1),
        12.. => Value::Bytes(bytes),
        _ => Value::Other,
    })
}

/// One to nine bytes, seven bits in each, the ninth has eight.
fn varint(bytes: &[u8]) -> Result<(u64, &[u8]), SqliteError> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return Ok(((value << 8) | u64::from(*byte), &bytes[9..]));
        }
        value = (value << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Ok((value, &bytes[at + 1..]));
        }
    }
    Err(Damaged)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, SqliteError> {
    let part = bytes.get(at..at + 2).and_then(|part| part.try_into().ok());
    part.map(u16::from_be_bytes).ok_or(Damaged)
}
fn u32_at(bytes: &[u8], at: usize) -> Result<u32, SqliteError> {
    let part = bytes.get(at..at.saturating_add(4)).and_then(|part| part.try_into().ok());
    part.map(u32::from_be_bytes).ok_or(Damaged)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{SqliteError, blobs};

    #[test]
    fn unit_what_is_no_database_is_said() {
        assert_eq!(blobs(b"", "Packages", &mut |_| {}), Err(SqliteError::NotSqlite));
        assert_eq!(blobs(&[0xff; 4096], "Packages", &mut |_| {}), Err(SqliteError::NotSqlite));
    }

    proptest! {
        #[test]
        fn unit_no_bytes_upset_the_reader(mut bytes in proptest::collection::vec(any::<u8>(), 512..4096)) {
            // A header and a first page that lead on.
            bytes[..16].copy_from_slice(b"SQLite format 3\0");
            (bytes[16], bytes[17], bytes[20], bytes[103]) = (2, 0, 0, 0);
            bytes[100] = if bytes[104] % 2 == 0 { super::LEAF } else { super::INTERIOR };
            let read = blobs(&bytes, "Packages", &mut |_| {});
            prop_assert!(read.is_err());
        }
    }
}
