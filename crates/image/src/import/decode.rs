//! From packed bytes to unpacked ones: counted, bounded and hashed on both sides.
//!
//! A thread reads, hashes and unpacks; whoever reads here hashes what came out and takes it apart meanwhile. At most
//! [`AHEAD`] pieces are between them, so that a bomb is stopped by the reader's limits. How a layer is packed is seen from its
//! first bytes (RFC 1952 §2.3.1, RFC 8878 §3.1.1), not from its media type, which archives do not carry.

use std::{
    io::{self, BufRead as _, BufReader, Read},
    sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    thread::Scope,
};

use kiln_model::Digest;
use openssl::sha::Sha256;

use super::{ImportError, Meter, gzip::Gzip};

/// Below so many unpacked bytes any ratio is accepted.
const DENSE: u64 = 64 << 20;
/// A zstd frame may need a window of 2^27 bytes, as the reference decoder allows.
const WINDOW: u32 = 27;
const BUFFER: usize = 256 << 10;
/// Pieces of [`BUFFER`] bytes that are unpacked before they are asked for.
const AHEAD: usize = 8;

/// Packed bytes on their way.
pub(crate) struct Packed<R> {
    inner: R,
    /// Size and digest, where a manifest says them.
    expected: Option<(u64, Digest)>,
    seen: Seen,
}

#[derive(Default)]
struct Seen {
    sha: Sha256,
    bytes: u64,
}

impl Seen {
    fn add(&mut self, bytes: &[u8]) {
        self.sha.update(bytes);
        self.bytes += bytes.len() as u64;
    }
}

impl<R: Read> Packed<R> {
    pub(crate) fn new(inner: R, expected: Option<(u64, Digest)>) -> Self {
        Self { inner, expected, seen: Seen::default() }
    }

    /// Whether all is as its manifest says.
    fn check(self) -> Result<(), ImportError> {
        let Some((size, digest)) = self.expected else { return Ok(()) };
        if self.seen.bytes != size {
            return Err(ImportError::WrongSize { expected: size, found: self.seen.bytes });
        }
        same("packed bytes", digest, Digest::from_bytes(self.seen.sha.finish()))
    }
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.seen.add(&buffer[..count]);
        match self.expected {
            Some((expected, _)) if self.seen.bytes > expected => {
                Err(ImportError::WrongSize { expected, found: self.seen.bytes }.into())
            }
            _ => Ok(count),
        }
    }
}

/// How a stream is packed.
enum Unpacker<R: Read> {
    Plain(BufReader<Packed<R>>),
    Gzip(Gzip<BufReader<Packed<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, BufReader<Packed<R>>>),
}

impl<R: Read> Unpacker<R> {
    fn new(packed: Packed<R>) -> io::Result<Self> {
        let mut reader = BufReader::with_capacity(BUFFER, packed);
        Ok(match reader.fill_buf()? {
            [0x1f, 0x8b, ..] => Self::Gzip(Gzip::new(reader)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
                decoder.window_log_max(WINDOW)?;
                Self::Zstd(decoder)
            }
            _ => Self::Plain(reader),
        })
    }

    /// Fills the buffer as far as there is anything; with how many packed bytes came so far.
    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<(usize, u64)> {
        let mut filled = 0;
        while filled < buffer.len() {
            let rest = &mut buffer[filled..];
            let count = match self {
                Self::Plain(reader) => reader.read(rest),
                Self::Gzip(reader) => reader.read(rest),
                Self::Zstd(reader) => reader.read(rest),
            };
            match count? {
                0 => break,
                count => filled += count,
            }
        }
        Ok((filled, self.packed().seen.bytes))
    }

    fn packed(&self) -> &Packed<R> {
        match self {
            Self::Plain(reader) => reader.get_ref(),
            Self::Gzip(reader) => reader.inner().get_ref(),
            Self::Zstd(reader) => reader.get_ref().get_ref(),
        }
    }

    fn finish(self) -> Packed<R> {
        match self {
            Self::Plain(reader) => reader.into_inner(),
            Self::Gzip(reader) => reader.into_inner().into_inner(),
            Self::Zstd(reader) => reader.finish().into_inner(),
        }
    }
}

/// Unpacked bytes on their way from the thread.
enum Piece {
    /// So many bytes at the start of the buffer, and how many packed ones came so far.
    Bytes(Vec<u8>, usize, u64),
    /// All has come: as its manifest says, or not.
    End(Result<(), ImportError>),
    Failed(io::Error),
}

/// Unpacks until there is no more, or nobody who wants it.
fn unpack<R: Read>(packed: Packed<R>, to: &SyncSender<Piece>, empty: &Receiver<Vec<u8>>) -> io::Result<()> {
    let mut unpacker = Unpacker::new(packed)?;
    loop {
        let mut buffer = empty.try_recv().unwrap_or_else(|_| vec![0; BUFFER]);
        let (count, packed) = unpacker.fill(&mut buffer)?;
        if count == 0 {
            break;
        }
        if to.send(Piece::Bytes(buffer, count, packed)).is_err() {
            return Ok(());
        }
    }
    // Nobody listens any more where the reader has given up.
    drop(to.send(Piece::End(unpacker.finish().check())));
    Ok(())
}

/// Unpacked bytes on their way.
pub(super) struct Unpacked<'m> {
    from: Receiver<Piece>,
    /// Buffers go back to the thread.
    back: Sender<Vec<u8>>,
    /// The current piece, its length, and how much of it was read.
    piece: (Vec<u8>, usize, usize),
    packed: u64,
    ended: Option<Result<(), ImportError>>,
    sha: Sha256,
    bytes: u64,
    pub(super) meter: &'m mut Meter,
}

impl<'m> Unpacked<'m> {
    pub(super) fn new<'s, R: Read + Send + 's>(
        packed: Packed<R>,
        meter: &'m mut Meter,
        scope: &'s Scope<'s, '_>,
    ) -> Self {
        let ((to, from), (back, empty)) = (sync_channel(AHEAD), channel());
        scope.spawn(move || {
            if let Err(error) = unpack(packed, &to, &empty) {
                // Nobody listens any more where the reader has given up.
                drop(to.send(Piece::Failed(error)));
            }
        });
        let piece = (Vec::new(), 0, 0);
        Self { from, back, piece, packed: 0, ended: None, sha: Sha256::new(), bytes: 0, meter }
    }

    /// Reads what is left and checks both digests.
    pub(super) fn finish(mut self, diff_id: Digest) -> Result<(), ImportError> {
        while self.next().map_err(ImportError::of_read)? {}
        let found = Digest::from_bytes(self.sha.finish());
        self.ended.unwrap_or(Ok(()))?;
        same("unpacked bytes", diff_id, found)
    }

    /// Takes the next piece; false at the end.
    fn next(&mut self) -> io::Result<bool> {
        if self.ended.is_some() {
            return Ok(false);
        }
        match self.from.recv().map_err(|_| io::Error::other("unpacking ended too early"))? {
            Piece::Failed(error) => Err(error),
            Piece::End(checked) => {
                self.ended = Some(checked);
                Ok(false)
            }
            Piece::Bytes(buffer, length, packed) => {
                self.count(&buffer[..length], packed)?;
                let used = std::mem::replace(&mut self.piece, (buffer, length, 0)).0;
                if !used.is_empty() {
                    // The thread may have ended.
                    drop(self.back.send(used));
                }
                Ok(true)
            }
        }
    }

    fn count(&mut self, bytes: &[u8], packed: u64) -> Result<(), ImportError> {
        self.sha.update(bytes);
        self.bytes += bytes.len() as u64;
        self.packed = packed;
        self.meter.bytes(bytes.len() as u64)?;
        match self.bytes > DENSE.max(self.packed.saturating_mul(self.meter.limits.ratio)) {
            true => Err(ImportError::TooDense { limit: self.meter.limits.ratio }),
            false => Ok(()),
        }
    }
}

fn same(what: &'static str, expected: Digest, found: Digest) -> Result<(), ImportError> {
    if expected == found { Ok(()) } else { Err(ImportError::WrongDigest { what, expected, found }) }
}

impl Read for Unpacked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.piece.2 == self.piece.1 && !self.next()? {
            return Ok(0);
        }
        let (piece, length, at) = &mut self.piece;
        let count = buffer.len().min(*length - *at);
        buffer[..count].copy_from_slice(&piece[*at..*at + count]);
        *at += count;
        Ok(count)
    }
}
