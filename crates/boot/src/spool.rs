//! The services' output, as frames in two files used in turn, so that a server's log takes a bounded space.
//!
//! Each file starts with [`MAGIC`]. A frame is, all numbers little-endian:
//!
//! | bytes | what |
//! | --- | --- |
//! | 4 | length of the rest, crc included |
//! | 8 | number of its first line, over both files: 1 at first, and each frame takes [`Frame::lines`] of them |
//! | 8 | nanoseconds of Unix time |
//! | 1 | stream: 1 standard output, 2 standard error, 3 PID 1 itself, 4 a message sent to `/dev/log` |
//! | 1 | length of the service's name |
//! | n | the service's name; none for a message sent to `/dev/log`, which says itself who sent it |
//! | n | the bytes the service wrote |
//! | 4 | crc32 (IEEE) of everything before, length included |
//!
//! A file that would grow over its limit is left and the other one is emptied and written. A reader takes the frames of
//! both in order of their numbers; one that follows sees a gap in the numbers where it was too slow, as wide as the lines that
//! are gone.

/// The first bytes of a spool file.
pub const MAGIC: &[u8; 8] = b"KILNSPL2";
/// A frame's payload is at most this many bytes.
pub const MAX_PAYLOAD: usize = 64 << 10;
/// Bytes of a frame beside name and payload.
pub const OVERHEAD: usize = 26;

/// Where bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output of a service.
    Stdout,
    /// Standard error of a service.
    Stderr,
    /// What PID 1 says of a service: started, ended, restarted.
    Init,
    /// One message sent to `/dev/log`, as it was sent.
    Syslog,
}

impl Stream {
    fn code(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
            Self::Init => 3,
            Self::Syslog => 4,
        }
    }
    fn from_code(code: u8) -> Option<Self> {
        [Self::Stdout, Self::Stderr, Self::Init, Self::Syslog].into_iter().find(|stream| stream.code() == code)
    }
}

/// One piece of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The number of its first line: one more than the last of the frame before.
    pub sequence: u64,
    /// Nanoseconds of Unix time.
    pub nanos: u64,
    /// Where it came from.
    pub stream: Stream,
    /// Which service, at most 255 bytes.
    pub service: &'a str,
    /// What was written, at most [`MAX_PAYLOAD`] bytes.
    pub bytes: &'a [u8],
}

impl Frame<'_> {
    /// Bytes of the whole frame.
    pub fn size(&self) -> usize {
        OVERHEAD + self.service.len().min(255) + self.bytes.len().min(MAX_PAYLOAD)
    }

    /// How many numbers it takes: one for each line that ends in it, and at least one.
    pub fn lines(&self) -> u64 {
        lines(self.stream, self.bytes)
    }

    /// Appends the frame.
    pub fn write(&self, to: &mut Vec<u8>) {
        let start = to.len();
        let name = &self.service.as_bytes()[..self.service.len().min(255)];
        to.extend(((self.size() - 4) as u32).to_le_bytes());
        to.extend(self.sequence.to_le_bytes());
        to.extend(self.nanos.to_le_bytes());
        to.extend([self.stream.code(), name.len() as u8]);
        to.extend(name);
        to.extend(&self.bytes[..self.bytes.len().min(MAX_PAYLOAD)]);
        let crc = crc32(&to[start..]);
        to.extend(crc.to_le_bytes());
    }
}

/// How many numbers some output takes. A message is one, whatever is in it.
pub fn lines(stream: Stream, bytes: &[u8]) -> u64 {
    match stream {
        Stream::Stdout | Stream::Stderr => {
            let bytes = &bytes[..bytes.len().min(MAX_PAYLOAD)];
            (bytes.iter().filter(|byte| **byte == b'\n').count() as u64).max(1)
        }
        Stream::Init | Stream::Syslog => 1,
    }
}

/// What stands at the start of some bytes of a spool file (after its magic).
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed<'a> {
    /// A frame, and how many bytes it takes.
    Frame(Frame<'a>, usize),
    /// The start of a frame whose end is not there (yet).
    Partial,
    /// Not a frame: damaged, or overwritten while it was read.
    Damaged,
}

/// Reads the frame at the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let Some((length, _)) = bytes.split_first_chunk::<4>() else { return Parsed::Partial };
    let length = u32::from_le_bytes(*length) as usize;
    if !(OVERHEAD - 4..=OVERHEAD - 4 + 255 + MAX_PAYLOAD).contains(&length) {
        return Parsed::Damaged;
    }
    let Some(frame) = bytes.get(..4 + length) else { return Parsed::Partial };
    body(frame).map_or(Parsed::Damaged, |parsed| Parsed::Frame(parsed, frame.len()))
}

fn body(frame: &[u8]) -> Option<Frame<'_>> {
    let (covered, crc) = frame.split_last_chunk::<4>()?;
    if crc32(covered) != u32::from_le_bytes(*crc) {
        return None;
    }
    let (_, rest) = covered.split_first_chunk::<4>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (nanos, rest) = rest.split_first_chunk::<8>()?;
    let ([stream, name], rest) = rest.split_first_chunk::<2>()?;
    let (name, bytes) = rest.split_at_checked(usize::from(*name))?;
    Some(Frame {
        sequence: u64::from_le_bytes(*sequence),
        nanos: u64::from_le_bytes(*nanos),
        stream: Stream::from_code(*stream)?,
        service: std::str::from_utf8(name).ok()?,
        bytes,
    })
}

/// The frames of one spool file, up to the first that is partial or damaged.
pub fn frames(file: &[u8]) -> impl Iterator<Item = Frame<'_>> {
    let mut rest = file.strip_prefix(MAGIC).unwrap_or_default();
    std::iter::from_fn(move || match parse(rest) {
        Parsed::Frame(frame, size) => {
            rest = &rest[size..];
            Some(frame)
        }
        Parsed::Partial | Parsed::Damaged => None,
    })
}

const NIBBLES: [u32; 16] = {
    let mut table = [0; 16];
    let mut index = 0;
    while index < 16 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 4 {
            value = if value & 1 == 1 { (value >> 1) ^ 0xedb8_8320 } else { value >> 1 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

/// CRC-32 (IEEE 802.3), with a table of 64 bytes: PID 1's memory counts.
pub fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        let crc = crc ^ u32::from(*byte);
        let crc = (crc >> 4) ^ NIBBLES[(crc & 15) as usize];
        (crc >> 4) ^ NIBBLES[(crc & 15) as usize]
    })
}

/// What the fuzz target calls: frames are bounded, and what is read is written as it was.
#[cfg(any(test, fuzzing))]
pub fn fuzz(file: &[u8]) {
    let mut written = MAGIC.to_vec();
    frames(file).for_each(|frame| frame.write(&mut written));
    assert!(file.starts_with(&written) || written == MAGIC);
    let _parsed = parse(file);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_fuzzed_is_read_without_fault() {
        let corpus = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/spool");
        let files: Vec<_> = std::fs::read_dir(corpus).expect("a corpus").flatten().collect();
        assert!(!files.is_empty());
        files.iter().for_each(|file| fuzz(&std::fs::read(file.path()).expect("readable")));
    }

    #[test]
    fn crc32_has_the_standards_check_value() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn frames_are_read_back_and_damage_ends_the_reading() {
        let mut file = MAGIC.to_vec();
        let frame = |sequence, bytes| Frame { sequence, nanos: 7, stream: Stream::Stderr, service: "web", bytes };
        frame(1, b"one".as_slice()).write(&mut file);
        frame(2, b"two".as_slice()).write(&mut file);
        assert_eq!(frames(&file).collect::<Vec<_>>(), [frame(1, b"one".as_slice()), frame(2, b"two".as_slice())]);
        assert_eq!(frames(&file[..file.len() - 1]).count(), 1, "a partial frame is not read");
        let last = file.len() - 6;
        file[last] ^= 1;
        assert_eq!(frames(&file).count(), 1, "a damaged frame is not read");
        assert_eq!(parse(&[0; 64]), Parsed::Damaged);
        assert_eq!(parse(&[]), Parsed::Partial);
        assert_eq!(frame(1, b"one\ntwo\nthr".as_slice()).lines(), 2);
        assert_eq!(frame(1, b"on".as_slice()).lines(), 1);
        assert_eq!(lines(Stream::Syslog, b"a\nb\n"), 1);
    }
}
