//! Structured data (RFC 5424, 6.3): `[ID NAME="VALUE" …][ID …]`, or `-`.

use super::SD_ID;

/// Of a sender's structured data at most so many bytes are kept; more of it is no header. What is left out does not
/// count: a line that Kiln wrote, its own element before the sender's, is read as it was.
const LONGEST: usize = 4096;

/// The structured data at the start, and what follows. Elements that look like Kiln's own are left out with all that is
/// before them.
pub(super) fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    if let Some(rest) = bytes.strip_prefix(b"-") {
        return Some(("", rest));
    }
    let (mut rest, mut begin) = (bytes, 0);
    while rest.first() == Some(&b'[') {
        let (name, after) = element(rest)?;
        rest = after;
        if name.eq_ignore_ascii_case(SD_ID.as_bytes()) {
            begin = bytes.len() - rest.len();
        }
    }
    let end = bytes.len() - rest.len();
    let data = std::str::from_utf8(bytes.get(begin..end)?).ok()?;
    (end > 0 && data.len() <= LONGEST).then_some((data, rest))
}

/// One element's name, and what follows the element.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, mut rest) = name(bytes.strip_prefix(b"[")?)?;
    while let Some(parameter) = rest.strip_prefix(b" ") {
        let (_, after) = self::name(parameter)?;
        rest = value(after.strip_prefix(b"=\"")?)?;
    }
    Some((name, rest.strip_prefix(b"]")?))
}

fn name(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let good = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'=' | b']' | b'"');
    let end = bytes.iter().take(33).position(|byte| !good(byte))?;
    (1..=32).contains(&end).then(|| bytes.split_at(end))
}

/// What follows a value and its closing quote. Control characters end the belief that it is one.
fn value(bytes: &[u8]) -> Option<&[u8]> {
    let mut escaped = false;
    for (index, byte) in bytes.iter().enumerate().take(LONGEST) {
        match byte {
            _ if byte.is_ascii_control() => return None,
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return Some(&bytes[index + 1..]),
            b']' => return None,
            _ => {}
        }
    }
    None
}
