//! Volumes as files: compressed, checked, and without the room that nothing was written to.
//!
//! A stream is zstd over: [`MAGIC`], the file system and the size, pieces (offset, length, bytes), an end mark, and the SHA-256 of all
//! that came before. What comes in is checked for its bounds while it is read, and becomes a volume only when the last
//! byte of it was right.

use std::{
    fs::File,
    io::{BufReader, BufWriter, Read, Write},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::PoisonError,
};

use kiln_model::{
    ByteSize,
    volume::{Filesystem, LARGEST, SnapshotId, VolumeId},
};
use rustix::fs::{FlockOperation, SeekFrom, flock};
use sha2::{Digest as _, Sha256};

use super::{
    Place, Volumes,
    error::{OnFile as _, Result, VolumeError},
    pool::make_private,
    state::State,
    superblock::{self, Left},
};

const MAGIC: &[u8; 16] = b"kiln volume 0001";
const PIECE: usize = 1 << 20;
const END: u64 = u64::MAX;
/// As fast as a disk, and a good deal smaller.
const LEVEL: i32 = 3;

impl Volumes {
    /// Writes a snapshot to a new file.
    pub(crate) fn export(&self, snapshot: &SnapshotId, path: &Path) -> Result<()> {
        let place = self.existing(&snapshot.volume)?;
        let image = place.open_snapshot(&snapshot.name)?;
        let part = Part::begin(path)?;
        write(&image, place.state()?.filesystem, &part.file, &part.path).and_then(|()| part.put_in_place(path))
    }

    /// Makes a volume from a file that [`Self::export`] wrote.
    pub(crate) fn import(&self, path: &Path, volume: &VolumeId) -> Result<()> {
        let lock = self.lock_of(volume);
        let _held = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let place = self.place(volume)?;
        if place.image().exists() {
            return Err(VolumeError::Exists(volume.clone()));
        }
        place.pool.room("import a volume")?;
        make_private(&place.directory)?;
        make_private(&place.snapshots())?;
        let done = self.take(path, &place);
        if done.is_err() {
            std::fs::remove_dir_all(&place.directory).on("remove", volume.as_str())?;
        }
        done
    }

    fn take(&self, path: &Path, place: &Place) -> Result<()> {
        let new = place.directory.join("image.new");
        let image = File::options().create(true).truncate(true).read(true).write(true).open(&new).on("make", &new)?;
        let file = File::open(path).on("open", path)?;
        let mut stream = Incoming::new(&file, path)?;
        let (filesystem, size) = stream.head()?;
        self.fit(&place.pool, ByteSize::bytes(size))?;
        image.set_len(size).on("make", &new)?;
        stream.pieces(size, &image, &place.pool)?;
        if !matches!(superblock::look(&image), Left::Clean(found) | Left::Unclean(found) if found == filesystem) {
            return Err(stream.wrong("there is no such file system in it"));
        }
        image.sync_all().on("write", &new)?;
        State::new(filesystem).write(&place.directory)?;
        std::fs::rename(&new, place.image()).on("put in place", place.volume.as_str())
    }
}

/// A file beside its place until it is whole: nobody takes half of one for a copy of the data.
struct Part {
    file: File,
    path: PathBuf,
    done: bool,
}

impl Part {
    fn begin(whole: &Path) -> Result<Self> {
        let path = PathBuf::from(format!("{}.part", whole.display()));
        must_be_new(whole)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path).on("make", &path)?;
        // One that was interrupted left its part, but not the lock.
        flock(&file, FlockOperation::NonBlockingLockExclusive).on("write alone to", &path)?;
        file.set_len(0).on("empty", &path)?;
        Ok(Self { file, path, done: false })
    }

    fn put_in_place(mut self, whole: &Path) -> Result<()> {
        must_be_new(whole)?;
        std::fs::rename(&self.path, whole).on("make", whole)?;
        self.done = true;
        Ok(())
    }
}

fn must_be_new(path: &Path) -> Result<()> {
    let there = path.try_exists().on("look at", path)?;
    if there { Err(std::io::Error::from(std::io::ErrorKind::AlreadyExists)).on("make", path) } else { Ok(()) }
}

impl Drop for Part {
    fn drop(&mut self) {
        if !self.done
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "half of an export is left");
        }
    }
}

/// Hashes what passes through.
struct Hashing<T> {
    inner: T,
    hash: Sha256,
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(&bytes[..count]);
        Ok(count)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

fn write(image: &File, filesystem: Filesystem, file: &File, path: &Path) -> Result<()> {
    let size = image.metadata().on("look at", "a snapshot")?.len();
    let encoder = zstd::Encoder::new(BufWriter::new(file), LEVEL).on("write", path)?;
    let mut out = Hashing { inner: encoder, hash: Sha256::new() };
    out.write_all(MAGIC).on("write", path)?;
    out.write_all(&[filesystem as u8]).on("write", path)?;
    out.write_all(&size.to_le_bytes()).on("write", path)?;
    let mut at = 0;
    while let Some((begin, end)) = next_data(image, at, size).on("read", "a snapshot")? {
        write_pieces(image, begin, end, &mut out).on("write", path)?;
        at = end;
    }
    out.write_all(&END.to_le_bytes()).on("write", path)?;
    let Hashing { mut inner, hash } = out;
    inner.write_all(&hash.finalize()).on("write", path)?;
    inner.finish().and_then(|mut buffer| buffer.flush()).on("write", path)?;
    file.sync_all().on("write", path)
}

/// The next place where something was written, from `at` on.
fn next_data(image: &File, at: u64, size: u64) -> rustix::io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    let begin = match rustix::fs::seek(image, SeekFrom::Data(at)) {
        Err(rustix::io::Errno::NXIO) => return Ok(None),
        other => other?,
    };
    Ok(Some((begin, rustix::fs::seek(image, SeekFrom::Hole(begin))?.min(size))))
}

fn write_pieces(image: &File, begin: u64, end: u64, out: &mut impl Write) -> std::io::Result<()> {
    let mut buffer = vec![0; PIECE];
    let mut at = begin;
    while at < end {
        let count = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        image.read_exact_at(&mut buffer[..count], at)?;
        out.write_all(&at.to_le_bytes())?;
        out.write_all(&(count as u32).to_le_bytes())?;
        out.write_all(&buffer[..count])?;
        at += count as u64;
    }
    Ok(())
}

/// A stream that is being read.
struct Incoming<'a> {
    reader: zstd::Decoder<'static, BufReader<&'a File>>,
    hash: Sha256,
    path: &'a Path,
}

impl<'a> Incoming<'a> {
    fn new(file: &'a File, path: &'a Path) -> Result<Self> {
        let reader = zstd::Decoder::new(file).on("read", path)?;
        Ok(Self { reader, hash: Sha256::new(), path })
    }

    fn wrong(&self, why: &'static str) -> VolumeError {
        VolumeError::Stream { path: self.path.to_owned(), why }
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.reader.read_exact(bytes).map_err(|_| self.wrong("it is cut off, or is no volume"))?;
        self.hash.update(bytes);
        Ok(())
    }

    fn head(&mut self) -> Result<(Filesystem, u64)> {
        if self.read::<16>()? != *MAGIC {
            return Err(self.wrong("it is no volume, or one of a newer Kiln"));
        }
        let filesystem = match self.read::<1>()? {
            [0] => Filesystem::Ext4,
            [1] => Filesystem::Xfs,
            _ => return Err(self.wrong("its file system is not known")),
        };
        let size = u64::from_le_bytes(self.read()?);
        if !(filesystem.least()..=LARGEST).contains(&ByteSize::bytes(size)) {
            return Err(self.wrong("its size is none that a volume can have"));
        }
        Ok((filesystem, size))
    }

    fn pieces(&mut self, size: u64, image: &File, pool: &super::Pool) -> Result<()> {
        let mut buffer = vec![0; PIECE];
        let mut behind = 0;
        loop {
            let at = u64::from_le_bytes(self.read()?);
            if at == END {
                return self.checksum();
            }
            let count = u32::from_le_bytes(self.read()?) as usize;
            let end = at.checked_add(count as u64).filter(|end| *end <= size && at >= behind);
            let (Some(end), 1..=PIECE) = (end, count) else { return Err(self.wrong("a piece of it has no place")) };
            self.fill(&mut buffer[..count])?;
            pool.room("import a volume")?;
            image.write_all_at(&buffer[..count], at).on("write", "a volume")?;
            behind = end;
        }
    }

    fn checksum(&mut self) -> Result<()> {
        let wanted = self.hash.clone().finalize();
        let found = self.read::<32>()?;
        if wanted[..] == found[..] { Ok(()) } else { Err(self.wrong("its checksum is another one: it was changed")) }
    }
}
