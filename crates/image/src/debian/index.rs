//! A package index (`Packages`), reduced to what resolving and fetching need.
//!
//! bookworm's `main` is 50 MB of text in 63 000 paragraphs. [`Index::parse`] walks it once, copies the few kept fields
//! into one text and sorts small records that point into it; [`cache`] keeps that form on disk under the hash of the
//! index, so that the next bake reads it back without parsing.

use std::{cmp::Ordering, ops::Range};

use super::{is_ours, relation, version};

pub mod cache;

/// An index that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The text is not UTF-8.
    #[error("the package index is not text (at byte {0})")]
    NotText(usize),
    /// A paragraph lacks a field or has an unusable one.
    #[error("the package index has an unusable `{field}` in its paragraph of `{package}`")]
    Field {
        /// The package, or nothing if even its name is missing.
        package: String,
        /// The field.
        field: &'static str,
    },
    /// More text or packages than the compact form can name.
    #[error("the package index is too large")]
    TooLarge,
}

/// How much a package matters; the resolver prefers the more important among equals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// `required`
    Required,
    /// `important`
    Important,
    /// `standard`
    Standard,
    /// `optional`, and anything else
    Optional,
}

/// The `Multi-Arch` field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MultiArch {
    /// Absent.
    No,
    /// Several architectures beside each other.
    Same,
    /// Serves other architectures.
    Foreign,
    /// Serves other architectures where `:any` is asked for.
    Allowed,
}

/// One package of an index.
#[derive(Debug, Clone, Copy)]
pub struct Package<'a> {
    index: &'a Index,
    record: &'a Record,
    at: usize,
}

/// The packages of one index, sorted by name, newest version first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Index {
    text: String,
    records: Vec<Record>,
    /// Names in `Provides` and the record that provides them, sorted.
    provides: Vec<(Span, u32)>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Span {
    start: u32,
    length: u32,
}

impl Span {
    fn range(self) -> Range<usize> {
        self.start as usize..self.start as usize + self.length as usize
    }
}

/// The kept text fields, in the order of [`Record::fields`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Name,
    Version,
    Architecture,
    Depends,
    PreDepends,
    Provides,
    Conflicts,
    Breaks,
    Filename,
}
const FIELDS: usize = 9;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Record {
    fields: [Span; FIELDS],
    size: u64,
    sha256: [u8; 32],
    /// Bit 7: essential; bits 4-5: multi-arch; bits 0-1: priority.
    flags: u8,
}

impl<'a> Package<'a> {
    fn field(&self, field: Field) -> &'a str {
        &self.index.text[self.record.fields[field as usize].range()]
    }
    /// `Package`
    pub fn name(&self) -> &'a str {
        self.field(Field::Name)
    }
    /// `Version`
    pub fn version(&self) -> &'a str {
        self.field(Field::Version)
    }
    /// `Architecture`: `amd64` or `all`.
    pub fn architecture(&self) -> &'a str {
        self.field(Field::Architecture)
    }
    /// `Depends`, as written.
    pub fn depends(&self) -> &'a str {
        self.field(Field::Depends)
    }
    /// `Pre-Depends`, as written.
    pub fn pre_depends(&self) -> &'a str {
        self.field(Field::PreDepends)
    }
    /// `Provides`, as written.
    pub fn provides(&self) -> &'a str {
        self.field(Field::Provides)
    }
    /// `Conflicts`, as written.
    pub fn conflicts(&self) -> &'a str {
        self.field(Field::Conflicts)
    }
    /// `Breaks`, as written.
    pub fn breaks(&self) -> &'a str {
        self.field(Field::Breaks)
    }
    /// `Filename`, relative to the archive's root.
    pub fn filename(&self) -> &'a str {
        self.field(Field::Filename)
    }
    /// `Size`, in bytes.
    pub fn size(&self) -> u64 {
        self.record.size
    }
    /// `SHA256`
    pub fn sha256(&self) -> [u8; 32] {
        self.record.sha256
    }
    /// `Essential: yes`
    pub fn essential(&self) -> bool {
        self.record.flags & 0x80 != 0
    }
    /// `Multi-Arch`
    pub fn multi_arch(&self) -> MultiArch {
        match (self.record.flags >> 4) & 3 {
            1 => MultiArch::Same,
            2 => MultiArch::Foreign,
            3 => MultiArch::Allowed,
            _ => MultiArch::No,
        }
    }
    /// `Priority`
    pub fn priority(&self) -> Priority {
        match self.record.flags & 3 {
            0 => Priority::Required,
            1 => Priority::Important,
            2 => Priority::Standard,
            _ => Priority::Optional,
        }
    }
    /// Where it stands in its index; stable for the same index.
    pub fn position(&self) -> usize {
        self.at
    }
}

impl Index {
    /// Reads a `Packages` text. Packages for other machines, which those of flat repositories list as well, are left out.
    pub fn parse(text: &[u8]) -> Result<Self, IndexError> {
        let text = std::str::from_utf8(text).map_err(|error| IndexError::NotText(error.valid_up_to()))?;
        if u32::try_from(text.len()).is_err() {
            return Err(IndexError::TooLarge);
        }
        let mut builder = Builder { record: new_record(), ..Builder::default() };
        let mut start = 0;
        for end in memchr::memchr_iter(b'\n', text.as_bytes()).chain([text.len()]) {
            builder.line(&text[start..end])?;
            start = end + 1;
            if start > text.len() {
                break;
            }
        }
        builder.finish()
    }

    /// The number of packages.
    pub fn len(&self) -> usize {
        self.records.len()
    }
    /// Whether there is no package.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }
    /// Every package.
    pub fn packages(&self) -> impl Iterator<Item = Package<'_>> {
        (0..self.records.len()).map(|at| self.package(at))
    }
    /// All versions of this package, newest first.
    pub fn named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Package<'a>> {
        let start = self.records.partition_point(|record| self.name(record) < name);
        (start..self.records.len()).map(|at| self.package(at)).take_while(move |package| package.name() == name)
    }
    /// The packages that provide this name.
    pub fn providers<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Package<'a>> {
        let start = self.provides.partition_point(|(span, _)| &self.text[span.range()] < name);
        let matching = self.provides[start..].iter().take_while(move |(span, _)| &self.text[span.range()] == name);
        matching.map(|(_, record)| self.package(*record as usize))
    }

    fn package(&self, at: usize) -> Package<'_> {
        Package { index: self, record: &self.records[at], at }
    }
    fn name(&self, record: &Record) -> &str {
        &self.text[record.fields[Field::Name as usize].range()]
    }

    fn sort(&mut self) {
        let text = &self.text;
        let field = |record: &Record, field: Field| &text[record.fields[field as usize].range()];
        self.records.sort_by(|a, b| match field(a, Field::Name).cmp(field(b, Field::Name)) {
            Ordering::Equal => version::compare(field(b, Field::Version), field(a, Field::Version)),
            order => order,
        });
        for (at, record) in self.records.iter().enumerate() {
            let provides = field(record, Field::Provides);
            let base = record.fields[Field::Provides as usize].start;
            for relation in relation::all(provides) {
                let offset = relation.name.as_ptr().addr() - provides.as_ptr().addr();
                let span = Span { start: base + offset as u32, length: relation.name.len() as u32 };
                self.provides.push((span, at as u32));
            }
        }
        self.provides.sort_by(|(a, i), (b, j)| text[a.range()].cmp(&text[b.range()]).then(i.cmp(j)));
    }
}

/// One pass over the lines.
#[derive(Default)]
struct Builder {
    index: Index,
    record: Record,
    started: bool,
    hashed: bool,
    /// Where the paragraph's text starts.
    start: usize,
    /// The kept field that a following indented line belongs to.
    open: Option<Field>,
}

impl Builder {
    fn line(&mut self, line: &str) -> Result<(), IndexError> {
        let line = line.strip_suffix('\r').unwrap_or(line);
        match line.as_bytes().first() {
            None => self.end_paragraph(),
            Some(b' ' | b'\t') => {
                self.continuation(line.trim());
                Ok(())
            }
            Some(_) => self.field(line),
        }
    }

    fn field(&mut self, line: &str) -> Result<(), IndexError> {
        self.started = true;
        self.open = None;
        let Some((key, value)) = line.split_once(':') else { return Ok(()) };
        let mut value = value.trim();
        let field = match key {
            "Package" => Field::Name,
            "Version" => Field::Version,
            "Architecture" => Field::Architecture,
            "Depends" => Field::Depends,
            "Pre-Depends" => Field::PreDepends,
            "Provides" => Field::Provides,
            "Conflicts" => Field::Conflicts,
            "Breaks" => Field::Breaks,
            "Filename" => {
                // dpkg-scanpackages writes `./` where it is told to look here.
                value = value.strip_prefix("./").unwrap_or(value);
                Field::Filename
            }
            _ => return self.small_field(key, value),
        };
        self.keep(field, value);
        self.open = Some(field);
        Ok(())
    }

    fn small_field(&mut self, key: &str, value: &str) -> Result<(), IndexError> {
        match key {
            "Size" => self.record.size = value.parse().map_err(|_| self.bad("Size"))?,
            "SHA256" => {
                hex::decode_to_slice(value, &mut self.record.sha256).map_err(|_| self.bad("SHA256"))?;
                self.hashed = true;
            }
            "Essential" if value == "yes" => self.record.flags |= 0x80,
            "Multi-Arch" => self.record.flags = self.record.flags & !0x30 | multi_arch_bits(value) << 4,
            "Priority" => self.record.flags = self.record.flags & !3 | priority_bits(value),
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, field: Field, value: &str) {
        self.record.fields[field as usize] = Span { start: self.index.text.len() as u32, length: value.len() as u32 };
        self.index.text.push_str(value);
    }

    /// A kept field is the last thing in the text while it is open, so that it can grow.
    fn continuation(&mut self, line: &str) {
        let Some(field) = self.open else { return };
        self.index.text.push(' ');
        self.index.text.push_str(line);
        self.record.fields[field as usize].length += line.len() as u32 + 1;
    }

    fn end_paragraph(&mut self) -> Result<(), IndexError> {
        if !std::mem::take(&mut self.started) {
            return Ok(());
        }
        let architecture = &self.index.text[self.record.fields[Field::Architecture as usize].range()];
        if !architecture.is_empty() && !is_ours(architecture) {
            self.index.text.truncate(self.start);
            (self.record, self.open, self.hashed) = (new_record(), None, false);
            return Ok(());
        }
        let required = [
            (Field::Name, "Package"),
            (Field::Version, "Version"),
            (Field::Architecture, "Architecture"),
            (Field::Filename, "Filename"),
        ];
        if let Some((_, field)) = required.iter().find(|(field, _)| self.record.fields[*field as usize].length == 0) {
            return Err(self.bad(field));
        }
        if !std::mem::take(&mut self.hashed) {
            return Err(self.bad("SHA256"));
        }
        let filename = &self.index.text[self.record.fields[Field::Filename as usize].range()];
        if !is_plain_path(filename) {
            return Err(self.bad("Filename"));
        }
        self.index.records.push(self.record);
        (self.record, self.open, self.start) = (new_record(), None, self.index.text.len());
        Ok(())
    }

    fn bad(&self, field: &'static str) -> IndexError {
        IndexError::Field { package: self.index.name(&self.record).to_owned(), field }
    }

    fn finish(mut self) -> Result<Index, IndexError> {
        self.end_paragraph()?;
        self.index.sort();
        Ok(self.index)
    }
}

fn new_record() -> Record {
    Record { flags: 3, ..Record::default() }
}

fn multi_arch_bits(value: &str) -> u8 {
    match value {
        "same" => 1,
        "foreign" => 2,
        "allowed" => 3,
        _ => 0,
    }
}

fn priority_bits(value: &str) -> u8 {
    match value {
        "required" => 0,
        "important" => 1,
        "standard" => 2,
        _ => 3,
    }
}

/// Relative, printable, without `..`: it becomes part of an address.
fn is_plain_path(path: &str) -> bool {
    path.bytes().all(|byte| byte.is_ascii_graphic())
        && !path.contains(['?', '#'])
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests;
