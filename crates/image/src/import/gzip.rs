//! Gzip (RFC 1952), any number of members one after the other, as `gzip`, `pigz` and Docker write it.

use std::io::{self, BufRead, Read};

use zlib_rs::{Inflate, InflateFlush, Status};

/// Window of 2^15 bytes, behind a gzip header, whose checksum is checked.
const WINDOW: u8 = 16 + 15;

/// Unpacks a stream.
pub(super) struct Gzip<R> {
    inner: R,
    inflate: Inflate,
    /// Between two members: the stream may end here.
    between: bool,
}

impl<R: BufRead> Gzip<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, inflate: Inflate::new(true, WINDOW), between: false }
    }

    pub(super) fn inner(&self) -> &R {
        &self.inner
    }
    pub(super) fn into_inner(self) -> R {
        self.inner
    }

    /// Whether another member begins. What is behind the last one and is none, padding mostly, is passed over.
    fn begins(&mut self) -> io::Result<bool> {
        if self.inner.fill_buf()?.first() == Some(&0x1f) {
            (self.inflate, self.between) = (Inflate::new(true, WINDOW), false);
            return Ok(true);
        }
        loop {
            match self.inner.fill_buf()?.len() {
                0 => return Ok(false),
                rest => self.inner.consume(rest),
            }
        }
    }
}

impl<R: BufRead> Read for Gzip<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while !buffer.is_empty() {
            if self.between && !self.begins()? {
                return Ok(0);
            }
            let input = self.inner.fill_buf()?;
            let ended = input.is_empty();
            let (read, written) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self.inflate.decompress(input, buffer, InflateFlush::NoFlush);
            let status = status.map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is damaged gzip"))?;
            let read = (self.inflate.total_in() - read) as usize;
            let written = (self.inflate.total_out() - written) as usize;
            self.inner.consume(read);
            self.between = status == Status::StreamEnd;
            if written > 0 {
                return Ok(written);
            }
            if ended && !self.between {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its gzip ends in the middle"));
            }
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    }

    fn unpack(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut out = Vec::new();
        Gzip::new(io::BufReader::with_capacity(7, bytes)).read_to_end(&mut out).map(|_| out)
    }

    #[test]
    fn unit_members_are_read_one_after_the_other() {
        let text: Vec<u8> = (0..100_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let two = [gzip(&text), gzip(b""), gzip(b"end")].concat();
        assert!(unpack(&two).expect("gzip") == [&text[..], b"end"].concat());
        assert!(unpack(&[gzip(b"x"), vec![0; 600]].concat()).expect("padding") == b"x");
    }

    #[test]
    fn unit_damage_and_missing_ends_are_seen() {
        let good = gzip(b"some text that is packed");
        for end in 0..good.len() {
            assert!(unpack(&good[..end]).is_err(), "{end} of {}", good.len());
        }
        for at in good.len() - 8..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(unpack(&bad).is_err(), "checksum and length count: {at}");
        }
    }
}
