//! From frames to lines.
//!
//! PID 1 writes down what a service wrote as it came: a line may be spread over frames, a frame may have many lines. A line that is
//! longer than [`LONGEST`] is cut, and its pieces are numbered. What has no end yet is held until it has one, so a place in the
//! spool is more than the number of the next frame: [`Place`] also names the beginnings of what is held, and a reader that
//! begins anew there holds the same again.

use std::collections::BTreeMap;

use kiln_boot::spool::{Frame, Stream};
use serde::{Deserialize, Serialize};

/// Bytes of a line.
pub(crate) const LONGEST: usize = 8 << 10;

/// The number of a line among all of a server: its frame's number, and which of the frame's lines it is.
pub(crate) type LineId = (u64, u32);

/// One line, or a piece of a long one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Line<'a> {
    pub id: LineId,
    /// Counts up in a server; the same for pieces that end in the same line of a frame.
    pub seq: u64,
    /// Which piece of a line that is cut, or has no end; 0 for a whole one.
    pub part: u32,
    pub nanos: u64,
    pub stream: Stream,
    pub service: &'a str,
    pub bytes: &'a [u8],
}

/// How far a spool was read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// The number of the next frame; none before the first is known.
    pub next: Option<u64>,
    /// Where what is held begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    held: Vec<Held>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    service: String,
    stderr: bool,
    /// The frame it begins in ...
    frame: u64,
    /// ... after so many bytes.
    offset: usize,
    part: u32,
}

impl Place {
    /// Before this frame, with nothing held.
    pub fn at(next: Option<u64>) -> Self {
        Self { next, held: Vec::new() }
    }

    /// The frame at which reading must begin.
    pub fn begin(&self) -> Option<u64> {
        self.held.iter().map(|held| held.frame).chain(self.next).min()
    }
}

/// What a service wrote since the end of its last line.
#[derive(Debug, Default)]
struct Partial {
    begin: (u64, usize),
    part: u32,
    bytes: Vec<u8>,
    nanos: u64,
    /// The last number of the frame that it was continued in.
    seq: u64,
}

/// Makes lines of the frames of one server.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    held: BTreeMap<(String, bool), Partial>,
    /// Frames before this one only fill what is held.
    from: u64,
    /// The number of the next line.
    next_id: LineId,
}

impl Lines {
    /// From a place on.
    pub fn at(place: &Place) -> Self {
        let partial = |held: &Held| Partial { begin: (held.frame, held.offset), part: held.part, ..Partial::default() };
        let held = place.held.iter().map(|held| ((held.service.clone(), held.stderr), partial(held)));
        Self { held: held.collect(), from: place.next.unwrap_or(0), next_id: (place.next.unwrap_or(0), 0) }
    }

    /// Frames before this one were read before.
    pub fn from(&self) -> u64 {
        self.from
    }

    /// Where a reader must begin that is to hold the same.
    pub fn place(&self, next: Option<u64>) -> Place {
        let held = self.held.iter().map(|((service, stderr), partial)| Held {
            service: service.clone(),
            stderr: *stderr,
            frame: partial.begin.0,
            offset: partial.begin.1,
            part: partial.part,
        });
        Place { next, held: held.collect() }
    }

    /// Takes the next frame.
    pub fn feed(&mut self, frame: &Frame<'_>, mut give: impl FnMut(Line<'_>)) {
        let stderr = match frame.stream {
            Stream::Stdout => false,
            Stream::Stderr => true,
            Stream::Init | Stream::Syslog => return self.whole(frame, give),
        };
        let key = (frame.service.to_owned(), stderr);
        if frame.sequence < self.from {
            return self.refill(&key, frame);
        }
        self.next_id = (frame.sequence, 0);
        let mut partial = self.held.remove(&key).unwrap_or_default();
        let last = frame.sequence + frame.lines() - 1;
        let (mut rest, mut seq) = (frame.bytes, frame.sequence);
        let mut say = |partial: &Partial, seq: u64, bytes: &[u8], next_id: &mut LineId| {
            let (part, nanos, stream) = (partial.part, frame.nanos, frame.stream);
            give(Line { id: *next_id, seq: seq.min(last), part, nanos, stream, service: frame.service, bytes });
            next_id.1 += 1;
        };
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            self.cut(&mut partial, &mut rest, end, seq, &mut say);
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            partial.part += u32::from(partial.part > 0);
            match partial.bytes.is_empty() {
                true => say(&partial, seq, &rest[..end], &mut self.next_id),
                false => {
                    partial.bytes.extend_from_slice(&rest[..end]);
                    say(&partial, seq, &partial.bytes, &mut self.next_id);
                }
            }
            partial = Partial::default();
            rest = &rest[end + 1..];
            seq += 1;
        }
        let end = rest.len();
        self.cut(&mut partial, &mut rest, end, seq, &mut say);
        if !rest.is_empty() || partial.part > 0 || !partial.bytes.is_empty() {
            if partial.bytes.is_empty() {
                partial.begin = (frame.sequence, frame.bytes.len() - rest.len());
            }
            partial.bytes.extend_from_slice(rest);
            (partial.nanos, partial.seq) = (frame.nanos, last);
            self.held.insert(key, partial);
        }
    }

    /// Says full pieces of a line that is too long: `end` bytes of `rest` belong to it.
    fn cut(
        &mut self,
        partial: &mut Partial,
        rest: &mut &[u8],
        mut end: usize,
        seq: u64,
        say: &mut impl FnMut(&Partial, u64, &[u8], &mut LineId),
    ) {
        while partial.bytes.len() + end > LONGEST {
            let take = whole_characters(rest, LONGEST.saturating_sub(partial.bytes.len()));
            partial.bytes.extend_from_slice(&rest[..take]);
            partial.part += 1;
            say(partial, seq, &partial.bytes, &mut self.next_id);
            partial.bytes.clear();
            *rest = &rest[take..];
            end -= take;
        }
    }

    fn whole(&mut self, frame: &Frame<'_>, mut give: impl FnMut(Line<'_>)) {
        if frame.sequence < self.from {
            return;
        }
        self.next_id = (frame.sequence, 1);
        let (id, seq, nanos, stream) = ((frame.sequence, 0), frame.sequence, frame.nanos, frame.stream);
        give(Line { id, seq, part: 0, nanos, stream, service: frame.service, bytes: frame.bytes });
    }

    /// A frame that was read before a restart: what was held of it is held again.
    fn refill(&mut self, key: &(String, bool), frame: &Frame<'_>) {
        let Some(partial) = self.held.get_mut(key).filter(|partial| partial.begin.0 <= frame.sequence) else { return };
        let skip = if partial.begin.0 == frame.sequence { partial.begin.1 } else { 0 };
        partial.bytes.extend_from_slice(frame.bytes.get(skip..).unwrap_or_default());
        (partial.nanos, partial.seq) = (frame.nanos, frame.sequence + frame.lines() - 1);
    }

    /// Gives what is held: the server has ended, or what would go on with it is gone.
    pub fn flush(&mut self, mut give: impl FnMut(Line<'_>)) {
        for ((service, stderr), partial) in std::mem::take(&mut self.held) {
            if partial.bytes.is_empty() {
                continue;
            }
            let stream = if stderr { Stream::Stderr } else { Stream::Stdout };
            let (id, seq, part, nanos) = (self.next_id, partial.seq, partial.part + 1, partial.nanos);
            give(Line { id, seq, part, nanos, stream, service: &service, bytes: &partial.bytes });
            self.next_id.1 += 1;
        }
    }
}

/// At most so many bytes, without cutting a character of UTF-8 in two.
fn whole_characters(bytes: &[u8], most: usize) -> usize {
    let most = most.min(bytes.len());
    let begins = |at: &usize| bytes.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    (most.saturating_sub(3)..=most).rev().find(begins).filter(|at| *at > 0).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Said = (LineId, u64, u32, String);

    struct Spool(u64);

    impl Spool {
        fn frame<'a>(&mut self, service: &'a str, bytes: &'a [u8]) -> Frame<'a> {
            let frame = Frame { sequence: self.0, nanos: 7, stream: Stream::Stdout, service, bytes };
            self.0 += frame.lines();
            frame
        }
    }

    fn said(lines: &mut Lines, frame: &Frame<'_>) -> Vec<Said> {
        let mut said = Vec::new();
        lines.feed(frame, |line| {
            said.push((line.id, line.seq, line.part, String::from_utf8_lossy(line.bytes).into_owned()));
        });
        said
    }

    #[test]
    fn unit_lines_are_joined_over_frames_and_numbered_on() {
        let (mut spool, mut lines) = (Spool(1), Lines::default());
        assert_eq!(said(&mut lines, &spool.frame("a", b"one\ntw")), [((1, 0), 1, 0, "one".to_owned())]);
        assert_eq!(said(&mut lines, &spool.frame("b", b"other\n")), [((2, 0), 2, 0, "other".to_owned())]);
        assert_eq!(said(&mut lines, &spool.frame("a", b"o")), []);
        let place = lines.place(Some(spool.0));
        assert_eq!(place.begin(), Some(1), "reading begins where the beginning of `two` is");
        let third = said(&mut lines, &spool.frame("a", b"\n\nthree\n"));
        let expected =
            [((4, 0), 4, 0, "two".to_owned()), ((4, 1), 5, 0, String::new()), ((4, 2), 6, 0, "three".to_owned())];
        assert_eq!(third, expected);
        // The same from the place on, with what was read before read again.
        let (mut spool, mut again) = (Spool(1), Lines::at(&place));
        assert_eq!(said(&mut again, &spool.frame("a", b"one\ntw")), []);
        assert_eq!(said(&mut again, &spool.frame("b", b"other\n")), []);
        assert_eq!(said(&mut again, &spool.frame("a", b"o")), []);
        assert_eq!(said(&mut again, &spool.frame("a", b"\n\nthree\n")), expected);
    }

    #[test]
    fn unit_a_long_line_is_cut_into_numbered_pieces_and_nothing_of_it_is_lost() {
        let (mut spool, mut lines) = (Spool(1), Lines::default());
        let line: Vec<u8> = "é".repeat(600_000).into_bytes();
        let all = [b"short\n".as_slice(), &line, b"\nlast\nno end"].concat();
        let mut seen = Vec::new();
        for chunk in all.chunks(5000) {
            seen.extend(said(&mut lines, &spool.frame("a", chunk)));
        }
        lines.flush(|line| seen.push((line.id, line.seq, line.part, String::from_utf8_lossy(line.bytes).into_owned())));
        assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "every line has a number of its own");
        assert_eq!((seen[0].2, seen[0].3.as_str()), (0, "short"));
        let pieces = &seen[1..seen.len() - 2];
        assert!(pieces.iter().enumerate().all(|(index, piece)| piece.2 as usize == index + 1), "numbered");
        assert!(pieces.iter().all(|piece| piece.3.len() <= LONGEST && !piece.3.contains('\u{fffd}')));
        assert_eq!(pieces.iter().map(|piece| piece.3.as_str()).collect::<String>().into_bytes(), line);
        assert_eq!((seen[seen.len() - 2].2, seen[seen.len() - 2].3.as_str()), (0, "last"));
        assert_eq!((seen[seen.len() - 1].2, seen[seen.len() - 1].3.as_str()), (1, "no end"));
    }

    proptest::proptest! {
        #[test]
        fn unit_however_output_is_cut_its_lines_are_the_same(
            text in proptest::collection::vec(proptest::sample::select(vec![b'a', b'b', b'\n', 0xff]), 0..300),
            cuts in proptest::collection::vec(1_usize..40, 1..40),
            stop in 0_usize..40,
        ) {
            let (mut spool, mut lines, mut frames) = (Spool(1), Lines::default(), Vec::new());
            let (mut rest, mut seen) = (text.as_slice(), Vec::new());
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                if now.is_empty() { break; }
                frames.push(now);
                rest = later;
            }
            for (index, bytes) in frames.iter().enumerate() {
                let frame = spool.frame("a", bytes);
                lines.feed(&frame, |line| seen.push(line.bytes.to_vec()));
                if index == stop {
                    // A restart: from the place on, over the frames again.
                    let place = lines.place(Some(spool.0));
                    lines = Lines::at(&place);
                    let mut again = Spool(1);
                    for bytes in &frames[..=index] {
                        let frame = again.frame("a", bytes);
                        if place.begin().is_some_and(|begin| frame.sequence >= begin) {
                            lines.feed(&frame, |line| panic!("{line:?} was said before"));
                        }
                    }
                }
            }
            lines.flush(|line| seen.push(line.bytes.to_vec()));
            let mut expected: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
            if expected.last().is_some_and(Vec::is_empty) { expected.pop(); }
            proptest::prop_assert_eq!(seen, expected);
        }
    }
}
