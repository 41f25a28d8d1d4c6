//! A spool as PID 1 writes it, and real collectors.

mod bench;
mod collector;
mod faults;
mod transports;
mod world;

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::PathBuf,
};

use kiln_boot::spool::{Frame, MAGIC, Stream};
use tempfile::TempDir;

/// Writes frames to two files in turn.
pub(crate) struct Writer {
    directory: TempDir,
    current: usize,
    limit: usize,
    sequence: u64,
}

impl Writer {
    pub fn new(limit: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        (0..2).for_each(|which| drop(File::create(directory.path().join(which.to_string())).unwrap()));
        Self { directory, current: 0, limit, sequence: 1 }
    }

    pub fn paths(&self) -> [PathBuf; 2] {
        ["0", "1"].map(|name| self.directory.path().join(name))
    }

    fn length(&self) -> usize {
        self.paths()[self.current].metadata().unwrap().len() as usize
    }

    fn frame(&mut self, service: &str, stream: Stream, bytes: &[u8]) -> Vec<u8> {
        let nanos = 1_700_000_000_000_000_000 + self.sequence;
        let frame = Frame { sequence: self.sequence, nanos, stream, service, bytes };
        self.sequence += frame.lines();
        let mut written = Vec::new();
        frame.write(&mut written);
        written
    }

    pub fn write(&mut self, service: &str, stream: Stream, bytes: &[u8]) {
        let frame = self.frame(service, stream, bytes);
        if self.length() + frame.len() > self.limit {
            self.turn();
        }
        self.append(&frame);
    }

    /// The first half of a frame; the rest is given back.
    pub fn write_half(&mut self, service: &str, bytes: &[u8]) -> Vec<u8> {
        let mut frame = self.frame(service, Stream::Stdout, bytes);
        let rest = frame.split_off(frame.len() / 2);
        self.append(&frame);
        rest
    }

    /// The other file is emptied and written from now on.
    pub fn turn(&mut self) {
        self.current = 1 - self.current;
        File::create(&self.paths()[self.current]).unwrap();
    }

    pub fn append(&mut self, bytes: &[u8]) {
        let mut file = OpenOptions::new().append(true).open(&self.paths()[self.current]).unwrap();
        if file.metadata().unwrap().len() == 0 {
            file.write_all(MAGIC).unwrap();
        }
        file.write_all(bytes).unwrap();
    }

    /// What is no frame.
    pub fn scribble(&mut self) {
        self.append(&[0xa5; 100]);
    }
}
