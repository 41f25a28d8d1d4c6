//! A value that is a file's content.

use std::{io, path::Path};

use rustix::fs::{Mode, OFlags};
use tokio::io::AsyncReadExt as _;

use super::{LIMIT, MAX_BYTES, SourceError, text};

/// Reads a plain file; what comes after the limit is not read. A pipe or a device is refused without waiting for it.
pub(super) async fn read(path: &Path) -> Result<String, SourceError> {
    let what = format!("the file {}", path.display());
    match tokio::time::timeout(LIMIT, bytes(path)).await {
        Ok(Ok(bytes)) => text(&what, bytes),
        Ok(Err(error)) => Err(SourceError::File { path: path.display().to_string(), reason: error.to_string() }),
        Err(_) => Err(SourceError::Silent { what, limit: LIMIT }),
    }
}

async fn bytes(path: &Path) -> io::Result<Vec<u8>> {
    let owned = path.to_owned();
    let opened = tokio::task::spawn_blocking(move || {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
        rustix::fs::open(&owned, flags, Mode::empty()).map(std::fs::File::from)
    });
    let file = tokio::fs::File::from_std(opened.await.map_err(io::Error::other)??);
    if !file.metadata().await?.is_file() {
        return Err(io::Error::other("it is not a plain file"));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).await?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn host_files_are_bounded_and_must_be_plain() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        std::fs::write(&path, "hello\n").unwrap();
        assert_eq!(read(&path).await.unwrap(), "hello");
        std::fs::write(&path, vec![b'x'; 2 << 20]).unwrap();
        assert!(matches!(read(&path).await, Err(SourceError::TooLarge { .. })));
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert!(matches!(read(&path).await, Err(SourceError::NotText { at: 0, .. })));
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::RWXU).unwrap();
        for bad in [pipe, directory.path().to_owned(), "/dev/zero".into(), directory.path().join("absent")] {
            assert!(matches!(read(&bad).await, Err(SourceError::File { .. })), "{}", bad.display());
        }
    }
}
