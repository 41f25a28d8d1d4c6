//! RFC 3164, as it is really written: `TIME TAG[PID]: TEXT`, with or without any of it, and with a host name from those who
//! think that they write to a network.

use super::{Message, Priority};

/// A tag is at most so many bytes; RFC 3164 says 32, programs say what they want.
const LONGEST_TAG: usize = 64;
const MONTHS: [&[u8]; 12] =
    [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];

pub(super) fn parse(priority: Priority, bytes: &[u8]) -> Message<'_> {
    let (rest, timed) = without_time(bytes);
    let here = tagged(rest);
    // A host name only follows a time.
    let there = || word(rest).filter(|_| timed).and_then(|(_, rest)| tagged(rest));
    let (tag, pid, text) = here.or_else(there).unwrap_or((None, None, rest));
    Message { priority, tag, pid, id: None, data: "", text }
}

/// Without `Mmm dd hh:mm:ss ` or a time of RFC 3339, and whether there was one.
fn without_time(bytes: &[u8]) -> (&[u8], bool) {
    let classic = |bytes: &[u8]| {
        MONTHS.contains(&&bytes[..3])
            && [3, 6, 15].iter().all(|blank| bytes[*blank] == b' ')
            && [9, 12].iter().all(|colon| bytes[*colon] == b':')
    };
    if bytes.len() >= 16 && classic(bytes) {
        return (&bytes[16..], true);
    }
    match word(bytes) {
        Some((time, rest)) if (19..=35).contains(&time.len()) && time[4] == b'-' && time[10] == b'T' => (rest, true),
        _ => (bytes, false),
    }
}

/// The first word, and what follows the blank after it.
fn word(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().take(256).position(|byte| *byte == b' ').filter(|end| *end > 0)?;
    Some((&bytes[..end], &bytes[end + 1..]))
}

type Tagged<'a> = (Option<&'a str>, Option<&'a str>, &'a [u8]);

/// `TAG: TEXT` or `TAG[PID]: TEXT`.
fn tagged(bytes: &[u8]) -> Option<Tagged<'_>> {
    let good = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b':' | b'[');
    let end = bytes.iter().take(LONGEST_TAG + 1).position(|byte| !good(byte)).filter(|end| *end > 0)?;
    let (tag, rest) = bytes.split_at(end);
    let (pid, rest) = match rest.strip_prefix(b"[") {
        Some(rest) => {
            let end = rest.iter().take(33).position(|byte| *byte == b']')?;
            let pid = std::str::from_utf8(&rest[..end]).ok().filter(|pid| pid.bytes().all(|b| b.is_ascii_graphic()))?;
            (Some(pid).filter(|pid| !pid.is_empty()), &rest[end + 1..])
        }
        None => (None, rest),
    };
    let text = rest.strip_prefix(b":")?;
    Some((std::str::from_utf8(tag).ok(), pid, text.strip_prefix(b" ").unwrap_or(text)))
}
