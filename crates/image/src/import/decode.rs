//! From packed bytes to unpacked ones: counted, bounded and hashed on both sides.
//!
//! How a layer is packed is seen from its first bytes (RFC 1952 §2.3.1, RFC 8878 §3.1.1), not from its media type, which
//! archives do not carry.

use std::{
    cell::RefCell,
    io::{self, BufRead as _, BufReader, Read},
    rc::Rc,
};

use kiln_model::Digest;
use openssl::sha::Sha256;

use super::{ImportError, Meter};

/// Below so many unpacked bytes any ratio is accepted.
const DENSE: u64 = 64 << 20;
/// A zstd frame may need a window of 2^27 bytes, as the reference decoder allows.
const WINDOW: u32 = 27;
const BUFFER: usize = 256 << 10;

/// Packed bytes on their way.
pub(crate) struct Packed<R> {
    inner: R,
    /// Size and digest, where a manifest says them.
    expected: Option<(u64, Digest)>,
    seen: Rc<RefCell<Seen>>,
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
        Self { inner, expected, seen: Rc::default() }
    }
}

impl<R: Read> Read for Packed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        let mut seen = self.seen.borrow_mut();
        seen.add(&buffer[..count]);
        match self.expected {
            Some((expected, _)) if seen.bytes > expected => {
                Err(ImportError::WrongSize { expected, found: seen.bytes }.into())
            }
            _ => Ok(count),
        }
    }
}

/// Unpacked bytes on their way.
pub(super) struct Unpacked<'m, 'r> {
    inner: Box<dyn Read + 'r>,
    sha: Sha256,
    bytes: u64,
    packed: Rc<RefCell<Seen>>,
    expected: Option<(u64, Digest)>,
    pub(super) meter: &'m mut Meter,
}

impl<'m, 'r> Unpacked<'m, 'r> {
    pub(super) fn new<R: Read + 'r>(packed: Packed<R>, meter: &'m mut Meter) -> Result<Self, ImportError> {
        let (expected, seen) = (packed.expected, packed.seen.clone());
        let mut reader = BufReader::with_capacity(BUFFER, packed);
        let first = reader.fill_buf().map_err(ImportError::of_read)?;
        let inner: Box<dyn Read + 'r> = match first {
            [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(reader).map_err(ImportError::Read)?;
                decoder.window_log_max(WINDOW).map_err(ImportError::Read)?;
                Box::new(decoder)
            }
            _ => Box::new(reader),
        };
        Ok(Self { inner, sha: Sha256::new(), bytes: 0, packed: seen, expected, meter })
    }

    /// Reads what is left and checks both digests.
    pub(super) fn finish(mut self, diff_id: Digest) -> Result<(), ImportError> {
        let mut rest = vec![0; BUFFER];
        while self.read(&mut rest).map_err(ImportError::of_read)? > 0 {}
        let found = Digest::from_bytes(self.sha.finish());
        drop(self.inner);
        let seen = self.packed.take();
        if let Some((size, digest)) = self.expected {
            if seen.bytes != size {
                return Err(ImportError::WrongSize { expected: size, found: seen.bytes });
            }
            same("packed bytes", digest, Digest::from_bytes(seen.sha.finish()))?;
        }
        same("unpacked bytes", diff_id, found)
    }
}

fn same(what: &'static str, expected: Digest, found: Digest) -> Result<(), ImportError> {
    if expected == found { Ok(()) } else { Err(ImportError::WrongDigest { what, expected, found }) }
}

impl Read for Unpacked<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.sha.update(&buffer[..count]);
        self.bytes += count as u64;
        self.meter.bytes(count as u64)?;
        let allowed = self.packed.borrow().bytes.saturating_mul(self.meter.limits.ratio);
        if self.bytes > DENSE.max(allowed) {
            return Err(ImportError::TooDense { limit: self.meter.limits.ratio }.into());
        }
        Ok(count)
    }
}
