//! The frames of RELP, the Reliable Event Logging Protocol (librelp's `doc/relp.html`): `TXNR COMMAND LENGTH[ DATA]\n`.
//!
//! Pure: bytes in, frames out, all of them bounded. A collector answers each command with `rsp` and the command's number.

/// What a collector says at once, at most. Ours say less than a hundred bytes.
const MAX_DATA: usize = 32 << 10;
/// Numbers go from 1 to this, and then from 1 again.
const LAST_TXNR: u32 = 999_999_999;
/// What is said first.
pub(super) const OFFER: &str =
    concat!("relp_version=0\nrelp_software=kiln,", env!("CARGO_PKG_VERSION"), "\ncommands=syslog");

/// One frame of a collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    /// The command that it answers; 0 for what nobody asked.
    pub txnr: u32,
    pub command: &'a str,
    pub data: &'a [u8],
}

/// What stands at the start of some bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed<'a> {
    /// A frame, and how many bytes it takes.
    Frame(Frame<'a>, usize),
    /// The start of one.
    Partial,
    /// No RELP.
    Broken(&'static str),
}

/// The number after this one.
pub(super) fn after(txnr: u32) -> u32 {
    if txnr >= LAST_TXNR { 1 } else { txnr + 1 }
}

/// Appends a frame.
pub(super) fn write(to: &mut Vec<u8>, txnr: u32, command: &str, data: &[u8]) {
    to.extend_from_slice(format!("{txnr} {command} {}", data.len()).as_bytes());
    if !data.is_empty() {
        to.push(b' ');
        to.extend_from_slice(data);
    }
    to.push(b'\n');
}

/// Reads the frame at the start.
pub(super) fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut rest = bytes;
    let (txnr, command) = match (word(&mut rest, 9), word(&mut rest, 32)) {
        (Err(stop), _) | (_, Err(stop)) => return stop,
        (Ok(txnr), Ok(command)) => (txnr, command),
    };
    let digits = rest.iter().take(10).take_while(|byte| byte.is_ascii_digit()).count();
    let Some(end) = rest.get(digits) else {
        return if digits > 9 { Parsed::Broken("a length that is none") } else { Parsed::Partial };
    };
    let (Some(txnr), Some(length)) = (number(txnr), std::str::from_utf8(&rest[..digits]).ok().and_then(number)) else {
        return Parsed::Broken("a number that is none");
    };
    let length = length as usize;
    if length > MAX_DATA {
        return Parsed::Broken("an answer that is too long");
    }
    let data = match (length, end) {
        (0, b'\n') => &[],
        (_, b' ') => match rest.get(digits + 1..digits + 1 + length) {
            Some(data) => data,
            None => return Parsed::Partial,
        },
        _ => return Parsed::Broken("a length that is none"),
    };
    let ended = if length == 0 && *end == b'\n' { digits } else { digits + 1 + length };
    match rest.get(ended) {
        None => Parsed::Partial,
        Some(b'\n') => Parsed::Frame(Frame { txnr, command, data }, bytes.len() - rest.len() + ended + 1),
        Some(_) => Parsed::Broken("a frame without its end"),
    }
}

/// The next word and the blank after it.
fn word<'a>(rest: &mut &'a [u8], longest: usize) -> Result<&'a str, Parsed<'a>> {
    let whole = *rest;
    let end = whole.iter().take(longest + 1).position(|byte| !byte.is_ascii_alphanumeric());
    match end {
        Some(end) if end > 0 && whole[end] == b' ' => {
            *rest = &whole[end + 1..];
            std::str::from_utf8(&whole[..end]).map_err(|_| Parsed::Broken("a word that is none"))
        }
        None if whole.len() <= longest => Err(Parsed::Partial),
        _ => Err(Parsed::Broken("a word that is none")),
    }
}

fn number(text: &str) -> Option<u32> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// The number at the start of an answer: 200 says that all is well. What follows is for people.
pub(super) fn code(data: &[u8]) -> Option<u32> {
    let end = data.iter().take(4).position(|byte| !byte.is_ascii_digit()).unwrap_or(data.len().min(4));
    number(std::str::from_utf8(&data[..end]).ok()?)
}

/// What the fuzz target calls: what is read is written as it was, and no frame is longer than what was read.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(bytes: &[u8]) {
    let mut rest = bytes;
    while let Parsed::Frame(frame, size) = parse(rest) {
        assert!(size <= rest.len() && frame.data.len() <= MAX_DATA);
        let mut written = Vec::new();
        write(&mut written, frame.txnr, frame.command, frame.data);
        assert!(matches!(parse(&written), Parsed::Frame(again, _) if again == frame));
        code(frame.data);
        rest = &rest[size..];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_frames_are_read_as_librelp_writes_them() {
        let offer = "200 OK\nrelp_version=0\nrelp_software=librelp,1.11.0,http://librelp.adiscon.com\ncommands=syslog";
        let text = format!("1 rsp {} {offer}\n2 rsp 6 200 OK\n0 serverclose 0\n", offer.len());
        let bytes = text.as_bytes();
        let Parsed::Frame(open, size) = parse(bytes) else { panic!("{:?}", parse(bytes)) };
        assert_eq!((open.txnr, open.command, code(open.data)), (1, "rsp", Some(200)));
        let Parsed::Frame(answer, more) = parse(&bytes[size..]) else { panic!() };
        assert_eq!((answer.txnr, answer.data), (2, b"200 OK".as_slice()));
        let close = Frame { txnr: 0, command: "serverclose", data: b"" };
        assert_eq!(parse(&bytes[size + more..]), Parsed::Frame(close, 16));
        (0..size).for_each(|cut| assert_eq!(parse(&bytes[..cut]), Parsed::Partial, "{cut}"));
        for bad in [
            "x rsp 1 a\n",
            "1 r-p 1 a\n",
            "1 rsp 99999999999 a",
            "1 rsp 33000 a",
            "1 rsp 1 ab\n",
            "1 rsp 1a",
            " rsp",
            "1  1",
        ] {
            assert!(matches!(parse(bad.as_bytes()), Parsed::Broken(_)), "{bad}: {:?}", parse(bad.as_bytes()));
        }
        assert_eq!((after(1), after(LAST_TXNR)), (2, 1));
        assert_eq!((code(b"500 no"), code(b"200"), code(b"x"), code(b"")), (Some(500), Some(200), None, None));
    }

    #[test]
    fn unit_what_was_fuzzed_is_read_without_fault() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/relp");
        let files: Vec<_> = std::fs::read_dir(directory).expect("a corpus").flatten().collect();
        assert!(!files.is_empty());
        files.iter().for_each(|file| fuzz(&std::fs::read(file.path()).expect("readable")));
    }

    proptest::proptest! {
        #[test]
        fn unit_any_answer_is_read_without_fault(text in "[0-9]{1,10} (rsp|serverclose|x) [0-9]{1,6}[ \na-z0-9]{0,40}") {
            fuzz(text.as_bytes());
        }
    }
}
