//! A header of rpm: tags with values (rpm, `docs/manual/format_header.md`). In the database it stands without its magic number.

/// Tags (rpm, `include/rpm/rpmtag.h`).
pub(super) const SHA256: u32 = 273;
pub(super) const NAME: u32 = 1000;
pub(super) const VERSION: u32 = 1001;
pub(super) const RELEASE: u32 = 1002;
pub(super) const EPOCH: u32 = 1003;
pub(super) const VENDOR: u32 = 1011;
pub(super) const LICENCE: u32 = 1014;
pub(super) const ARCHITECTURE: u32 = 1022;
pub(super) const SOURCE: u32 = 1044;

/// Types of values: 32-bit numbers, and the three that begin with a text.
const INT32: u32 = 4;
const TEXTS: [u32; 3] = [6, 8, 9];
/// Bytes of an entry of the index.
const ENTRY: usize = 16;

/// A header.
pub(super) struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let entries = usize::try_from(number(bytes, 0)?).ok()?;
        let size = usize::try_from(number(bytes, 4)?).ok()?;
        let (index, data) = bytes.get(8..)?.split_at_checked(entries.checked_mul(ENTRY)?)?;
        Some(Self { index, data: data.get(..size)? })
    }

    /// The text of a tag; the first one where there are several.
    pub(super) fn text(&self, tag: u32) -> Option<&'a str> {
        let value = self.value(tag, &TEXTS)?;
        let end = value.iter().position(|b| *b == 0)?;
        std::str::from_utf8(&value[..end]).ok()
    }

    /// The number of a tag.
    pub(super) fn number(&self, tag: u32) -> Option<u32> {
        number(self.value(tag, &[INT32])?, 0)
    }

    fn value(&self, tag: u32, kinds: &[u32]) -> Option<&'a [u8]> {
        let entry = self.index.chunks_exact(ENTRY).find(|entry| number(entry, 0) == Some(tag))?;
        let kind = number(entry, 4)?;
        kinds.contains(&kind).then(|| self.data.get(usize::try_from(number(entry, 8)?).ok()?..))?
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}
