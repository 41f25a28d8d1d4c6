//! Reading what a program sent to `/dev/log`.

use super::{Message, Priority, data, legacy};

/// Reads a message in either form. What has no header is text.
pub fn parse(bytes: &[u8]) -> Message<'_> {
    // Python's and others' senders end with a zero, some with a newline.
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\0' | b'\n' | b'\r')).map_or(0, |last| last + 1);
    let bytes = &bytes[..end];
    let (priority, rest) = priority(bytes).unwrap_or((Priority::USUAL, bytes));
    modern(priority, rest).unwrap_or_else(|| legacy::parse(priority, rest))
}

fn priority(bytes: &[u8]) -> Option<(Priority, &[u8])> {
    let rest = bytes.strip_prefix(b"<")?;
    let end = rest.iter().take(4).position(|byte| *byte == b'>')?;
    let number = std::str::from_utf8(&rest[..end]).ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit()))?;
    Some((Priority::of(number.parse().ok()?)?, &rest[end + 1..]))
}

/// RFC 5424: `1 TIME HOST APP PROCESS ID DATA TEXT`.
fn modern(priority: Priority, bytes: &[u8]) -> Option<Message<'_>> {
    let rest = bytes.strip_prefix(b"1 ")?;
    let (_time, rest) = field(rest, 64)?;
    let (_host, rest) = field(rest, 255)?;
    let (tag, rest) = field(rest, 48)?;
    let (pid, rest) = field(rest, 128)?;
    let (id, rest) = field(rest, 32)?;
    let (data, rest) = data::split(rest)?;
    let text = match rest {
        [] => rest,
        // A mark that says UTF-8 follows.
        [b' ', text @ ..] => text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text),
        _ => return None,
    };
    Some(Message { priority, tag, pid, id, data, text })
}

/// One field and the blank after it: visible ASCII, none where it is `-`.
fn field(bytes: &[u8], longest: usize) -> Option<(Option<&str>, &[u8])> {
    let end = bytes.iter().take(longest + 1).position(|byte| *byte == b' ')?;
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let good = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| (Some(text).filter(|text| *text != "-"), &bytes[end + 1..]))
}
