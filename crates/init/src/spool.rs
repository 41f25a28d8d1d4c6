//! Writes frames to the two spool files in turn.

use std::os::fd::{AsFd as _, OwnedFd};

use kiln_boot::spool::{Frame, MAGIC, Stream};
use rustix::{io::Errno, time::ClockId};

/// The writer's side of [`kiln_boot::spool`].
pub(crate) struct Spool {
    files: [OwnedFd; 2],
    current: usize,
    offset: u64,
    limit: u64,
    sequence: u64,
    frame: Vec<u8>,
}

impl Spool {
    /// Starts with the first of two empty files.
    pub(crate) fn new(files: [OwnedFd; 2], limit: u64) -> Self {
        Self { files, current: 0, offset: 0, limit, sequence: 1, frame: Vec::new() }
    }

    /// Writes what a service wrote. A frame that the disk has no room for is lost and leaves a gap in the numbers: the
    /// server goes on.
    pub(crate) fn write(&mut self, service: &str, stream: Stream, bytes: &[u8]) {
        let nanos = rustix::time::clock_gettime(ClockId::Realtime);
        let nanos = nanos.tv_sec as u64 * 1_000_000_000 + nanos.tv_nsec as u64;
        let frame = Frame { sequence: self.sequence, nanos, stream, service, bytes };
        self.sequence += frame.lines();
        let mut buffer = std::mem::take(&mut self.frame);
        buffer.clear();
        frame.write(&mut buffer);
        if self.append(&buffer).is_err() {
            // The next frame starts over in the other file, so that no reader meets half a frame in the middle.
            self.offset = u64::MAX;
        }
        self.frame = buffer;
    }

    fn append(&mut self, frame: &[u8]) -> Result<(), Errno> {
        if self.offset == 0 || self.offset.saturating_add(frame.len() as u64) > self.limit {
            if self.offset != 0 {
                self.current = 1 - self.current;
            }
            rustix::fs::ftruncate(self.files[self.current].as_fd(), 0)?;
            self.offset = 0;
            self.put(MAGIC)?;
        }
        self.put(frame)
    }

    fn put(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        while !bytes.is_empty() {
            let written = rustix::io::pwrite(self.files[self.current].as_fd(), bytes, self.offset)?;
            self.offset += written as u64;
            bytes = &bytes[written..];
        }
        Ok(())
    }
}
