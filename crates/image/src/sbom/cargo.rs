//! Rust programs that say what they were built from: the ELF section `.dep-v0` of `cargo auditable`, zlib over JSON
//! (<https://github.com/rust-secure-code/cargo-auditable/blob/master/PARSING.md>).
//!
//! Only the program's headers and that section are read, so that looking at every program of an image costs little.

use std::{fs::File, io::Read as _, os::unix::fs::FileExt as _, path::Path};

use flate2::read::ZlibDecoder;
use serde::Deserialize;

use super::{
    collect::Found,
    package::{Ecosystem, Package},
};
use crate::{store::StoreError, tree::ImageTree};

/// The section's name.
const SECTION: &[u8] = b".dep-v0\0";
/// A section of more bytes, or whose content has more, is not read.
const LIMIT: u64 = 8 << 20;
/// Smaller files (bytes) hold no program of Rust.
const SMALLEST: u64 = 4096;
/// The ELF header of 64 bits, and an entry of its section table, bytes (`elf(5)`).
const HEADER: usize = 64;
const ENTRY: usize = 64;
/// A table of more sections is none of a compiler's.
const MAX_SECTIONS: usize = 4096;

#[derive(Deserialize)]
struct Audit {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    /// `runtime` where nothing is said; `build` is not in the program.
    #[serde(default)]
    kind: Option<String>,
}

/// Reads what a program says.
pub(super) fn read(tree: &ImageTree, path: &str, size: u64, found: &mut Found) -> Result<(), StoreError> {
    if size < SMALLEST {
        return Ok(());
    }
    let Some(file) = tree.open(Path::new(path))? else { return Ok(()) };
    let Some(section) = section(&file) else { return Ok(()) };
    match packages(&section, path) {
        Some(packages) => packages.into_iter().for_each(|package| found.package(package)),
        None => found.unread(path, "its list of crates cannot be read"),
    }
    Ok(())
}

/// The content of the section, if the file is a program of 64 bits, little-endian, that has it.
fn section(file: &File) -> Option<Vec<u8>> {
    let header = part(file, 0, HEADER)?;
    if !header.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let (at, entry, count, names) =
        (u64_at(&header, 40)?, u16_at(&header, 58)?, u16_at(&header, 60)?, u16_at(&header, 62)?);
    let (count, names) = (usize::from(count), usize::from(names));
    if usize::from(entry) != ENTRY || count > MAX_SECTIONS || names >= count {
        return None;
    }
    let table = part(file, at, count * ENTRY)?;
    let place = |entry: &[u8]| Some((u64_at(entry, 24)?, u64_at(entry, 32)?));
    let (names_at, names_size) = place(&table[names * ENTRY..])?;
    let names = part(file, names_at, usize::try_from(names_size.min(LIMIT)).ok()?)?;
    let wanted = table.chunks(ENTRY).find(|entry| {
        let name = u32_at(entry, 0).and_then(|at| names.get(at as usize..));
        name.is_some_and(|name| name.starts_with(SECTION))
    })?;
    let (at, size) = place(wanted)?;
    part(file, at, usize::try_from(size).ok().filter(|size| *size as u64 <= LIMIT)?)
}

fn packages(section: &[u8], path: &str) -> Option<Vec<Package>> {
    let mut json = Vec::new();
    ZlibDecoder::new(section).take(LIMIT).read_to_end(&mut json).ok()?;
    let audit: Audit = serde_json::from_slice(&json).ok()?;
    let inside = audit.packages.iter().filter(|part| part.kind.as_deref() != Some("build"));
    inside.map(|part| Package::new(Ecosystem::Cargo, &part.name, &part.version, path)).collect()
}

fn part(file: &File, at: u64, size: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, at).ok()?;
    Some(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}
