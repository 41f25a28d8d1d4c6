//! Paths as layers write them, and what they may be.

use super::ImportError;

/// What a deletion's name begins with (image-spec `layer.md`, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
/// AUFS keeps its own records under such names; no other program reads them.
const AUFS: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Longest name and longest path of Linux, bytes.
const NAME_MAX: usize = 255;
const PATH_MAX: usize = 4095;

/// What a path of a layer means.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Meant<'a> {
    /// The root itself.
    Root,
    /// Something at this path.
    At(Vec<&'a [u8]>),
    /// Nothing of the layers below is at this path.
    Gone(Vec<&'a [u8]>),
    /// Nothing of the layers below is in this directory.
    Emptied(Vec<&'a [u8]>),
    /// AUFS's own records.
    Aufs,
}

/// Reads a path.
pub(super) fn meant(raw: &[u8]) -> Result<Meant<'_>, ImportError> {
    let mut parts = parts(raw)?;
    if let Some(at) = parts.iter().position(|part| part.starts_with(WHITEOUT)) {
        if at + 1 == parts.len() && parts[at] == OPAQUE {
            parts.pop();
            return Ok(Meant::Emptied(parts));
        }
        if parts[at].starts_with(AUFS) {
            return Ok(Meant::Aufs);
        }
        if at + 1 != parts.len() {
            return Err(refused(raw, "a directory cannot have a name that begins with `.wh.`, which means a deletion"));
        }
        let name = &parts[at][WHITEOUT.len()..];
        if matches!(name, b"" | b"." | b"..") {
            return Err(refused(raw, "it deletes nothing that can be named"));
        }
        parts[at] = name;
        return Ok(Meant::Gone(parts));
    }
    Ok(if parts.is_empty() { Meant::Root } else { Meant::At(parts) })
}

/// The parts of a path: `/` at the front, `//` and `.` count for nothing.
pub(super) fn parts(raw: &[u8]) -> Result<Vec<&[u8]>, ImportError> {
    if raw.len() > PATH_MAX {
        return Err(refused(raw, "its path is longer than Linux allows"));
    }
    if raw.contains(&0) {
        return Err(refused(raw, "its path has a NUL in it"));
    }
    let parts: Vec<_> = raw.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(refused(raw, "its path has `..` in it, which leads out of the layer"));
    }
    match parts.iter().any(|part| part.len() > NAME_MAX) {
        true => Err(refused(raw, "a name in its path is longer than Linux allows")),
        false => Ok(parts),
    }
}

/// Whether a name would be read as a deletion.
pub(super) fn is_whiteout(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT)
}

pub(super) fn refused(path: &[u8], reason: &'static str) -> ImportError {
    ImportError::Entry { path: shown(path), reason }
}

/// A path for people: control characters and bytes that are not UTF-8 cannot play with a terminal.
pub(super) fn shown(path: &[u8]) -> String {
    let cut = &path[..path.len().min(200)];
    cut.utf8_chunks().fold(String::new(), |text, chunk| {
        let bytes: String = chunk.invalid().iter().map(|b| format!("\\x{b:02x}")).collect();
        text + &chunk.valid().escape_debug().to_string() + &bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_paths_mean_what_they_say() {
        let at = |parts: &[&'static str]| parts.iter().map(|part| part.as_bytes()).collect::<Vec<_>>();
        for (path, meaning) in [
            ("./", Meant::Root),
            ("/", Meant::Root),
            ("./etc//passwd", Meant::At(at(&["etc", "passwd"]))),
            ("/etc/./x/", Meant::At(at(&["etc", "x"]))),
            ("etc/.wh.passwd", Meant::Gone(at(&["etc", "passwd"]))),
            ("etc/.wh..wh..opq", Meant::Emptied(at(&["etc"]))),
            (".wh..wh..opq", Meant::Emptied(at(&[]))),
            (".wh..wh.plnk/12.34", Meant::Aufs),
            ("a/.wh..wh.aufs", Meant::Aufs),
        ] {
            assert_eq!(meant(path.as_bytes()).unwrap_or_else(|e| panic!("{path}: {e}")), meaning, "{path}");
        }
    }

    #[test]
    fn unit_paths_that_mean_nothing_good_are_refused() {
        let long = format!("{}/x", "n".repeat(256));
        let deep = "d/".repeat(2100);
        for path in ["..", "../etc/passwd", "a/../../b", "/..", "a/..", ".wh.", "a/.wh..", ".wh...", ".wh.x/y", "a\0b"]
        {
            assert!(meant(path.as_bytes()).is_err(), "{path:?}");
        }
        assert!(meant(long.as_bytes()).is_err() && meant(deep.as_bytes()).is_err());
    }

    #[test]
    fn unit_messages_cannot_play_with_a_terminal() {
        assert_eq!(shown(b"a\x1b[31m\n\xff\xc3\xa4"), "a\\u{1b}[31m\\n\\xffä");
    }
}
