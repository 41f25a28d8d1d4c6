//! Contents of files between a layer and the store: small ones in memory as long as there is room, others in numbered
//! files of a directory on the store's file system, from where they are linked into it.

use std::{
    fs::{File, OpenOptions},
    io::{Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::{
    ImportError,
    entries::{Archive, Data},
};
use crate::layer::Content;

/// Files up to this size may stay in memory, bytes.
const SMALL: u64 = 64 << 10;
/// All of these together, bytes.
const MEMORY: u64 = 64 << 20;

pub(super) struct Spool<'a> {
    directory: &'a Path,
    count: u64,
    memory: u64,
}

impl<'a> Spool<'a> {
    pub(super) fn new(directory: &'a Path) -> Self {
        Self { directory, count: 0, memory: MEMORY }
    }

    /// Takes the content of the archive's current entry.
    pub(super) fn take(&mut self, archive: &mut Archive<'_, '_>, data: &Data) -> Result<Content, ImportError> {
        match data {
            Data::Whole(size) if *size <= SMALL && *size <= self.memory => {
                self.memory -= size;
                let mut bytes = Vec::with_capacity(*size as usize);
                archive.content(*size, &mut |piece| {
                    bytes.extend_from_slice(piece);
                    Ok(())
                })?;
                Ok(Content::Bytes(bytes))
            }
            Data::Whole(size) => {
                let (mut file, path) = self.file()?;
                archive.content(*size, &mut |piece| file.write_all(piece))?;
                Ok(Content::Path { path, size: *size, take: true })
            }
            Data::Sparse { pieces, size } => {
                let (mut file, path) = self.file()?;
                for (offset, length) in pieces {
                    file.seek(SeekFrom::Start(*offset)).map_err(ImportError::Write)?;
                    archive.content(*length, &mut |piece| file.write_all(piece))?;
                }
                file.set_len(*size).map_err(ImportError::Write)?;
                Ok(Content::Path { path, size: *size, take: true })
            }
        }
    }

    fn file(&mut self) -> Result<(File, PathBuf), ImportError> {
        let path = self.directory.join(self.count.to_string());
        self.count += 1;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        Ok((file.map_err(ImportError::Write)?, path))
    }
}
