//! `[base]` with `oci = …`: an image of somebody else, from a registry or a file, and how much of it is taken in.

use super::{FileKind, check, text::Context};
use crate::{
    oci::{OciPlace, OciSource},
    size::ByteSize,
    text::{Table, Value},
};

/// Keys that go with `oci` only.
pub(super) const ONLY: [&str; 3] = ["max_size", "max_files", "max_ratio"];
/// A whole image of another form than the one that is meant is refused long before it fills the disk.
const SIZES: std::ops::RangeInclusive<ByteSize> = ByteSize::bytes(1 << 10)..=ByteSize::bytes(1 << 44);

/// An image of a registry or a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciBase {
    /// Where it is; paths are relative to the recipe.
    pub source: OciSource,
    /// How much of it is taken in.
    pub limits: ImportLimits,
}

/// Limits of what is taken in from outside. What is larger is refused, before it is written where that can be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImportLimits {
    /// Bytes of all layers, unpacked, and of all files.
    pub size: ByteSize,
    /// Entries of all layers.
    pub files: u64,
    /// A layer may unpack to so many times its packed size. Counts from 64 MiB on.
    pub ratio: u64,
}

impl Default for ImportLimits {
    fn default() -> Self {
        Self { size: ByteSize::bytes(32 << 30), files: 1_000_000, ratio: 200 }
    }
}

pub(super) fn read(table: &Table<'_>, source: &Value<'_>, context: &Context<'_>) -> Option<OciBase> {
    let source = source.parsed::<OciSource>("\"docker.io/library/debian:bookworm\"").and_then(|read| match &read {
        OciSource::Registry(_) => Some(read),
        OciSource::Layout(place) => there(source, place, FileKind::Directory, context).map(|()| read),
        OciSource::Archive(place) => there(source, place, FileKind::File, context).map(|()| read),
    });
    let limits = limits(table);
    Some(OciBase { source: source?, limits: limits? })
}

/// How much is taken in from outside.
pub(super) fn limits(table: &Table<'_>) -> Option<ImportLimits> {
    let usual = ImportLimits::default();
    let size = table.get("max_size").map_or(Some(usual.size), |value| value.size(SIZES, "\"32GiB\""));
    let files = table.get("max_files").map_or(Some(usual.files), |value| value.integer(1..=100_000_000, "1000000"));
    let ratio = table.get("max_ratio").map_or(Some(usual.ratio), |value| value.integer(1..=1_000_000, "200"));
    Some(ImportLimits { size: size?, files: files?, ratio: ratio? })
}

/// Whether the recipe's directory has it.
fn there(value: &Value<'_>, place: &OciPlace, wanted: FileKind, context: &Context<'_>) -> Option<()> {
    let (path, what) = (&place.path, if wanted == FileKind::File { "an archive" } else { "an OCI layout directory" });
    if let Err(problem) = check::recipe_path(path) {
        return value.place.report(problem, format!("put {what} into the recipe's directory and name it from there"));
    }
    match context.files.kind(path) {
        Ok(Some(kind)) if kind == wanted => Some(()),
        Ok(Some(_)) => value.place.report(
            format!("`{path}` is not {what}"),
            "`oci:` names an OCI layout directory, `oci-archive:` and `docker-archive:` a tar file",
        ),
        Ok(None) => value.place.report(
            format!("there is no `{path}` beside the recipe"),
            "write it with `docker save -o FILE NAME` or `skopeo copy … oci:DIR`, or name an image of a registry",
        ),
        Err(problem) => value
            .place
            .report(format!("`{path}` cannot be used: {problem}"), format!("put {what} into the recipe's directory")),
    }
}
