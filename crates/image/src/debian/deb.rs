//! A `.deb` file (deb(5)): an `ar` archive of `debian-binary`, `control.tar` and `data.tar`, packed with xz, zstd, gzip
//! or not at all. Everything read from it is bounded before it is believed.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::control::Paragraph;

/// Why a file is not a usable package.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// It cannot be read.
    #[error("cannot read the package {}", path.display())]
    Read {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a package, or is damaged.
    #[error("{} is not a Debian package: {reason}", path.display())]
    Malformed {
        /// File.
        path: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
}

/// The files of `control.tar`, without `control` itself: name → content and mode.
pub type ControlFiles = BTreeMap<String, (Vec<u8>, u32)>;

/// A package file, with its control part read.
#[derive(Debug)]
pub struct Deb {
    /// The file.
    pub path: PathBuf,
    /// `control`
    pub control: Paragraph,
    /// Scripts, `conffiles`, `md5sums`, `triggers` and so on.
    pub files: ControlFiles,
    data: Member,
}

/// A member of the `ar` archive.
#[derive(Debug, Clone)]
struct Member {
    name: String,
    offset: u64,
    size: u64,
}

/// Bytes of an unpacked control part.
const CONTROL_LIMIT: u64 = 64 << 20;
/// Bytes of `control` itself: the largest of Debian has 100 KB.
const TEXT_LIMIT: usize = 1 << 20;
/// Files of a control part.
const FILES_LIMIT: usize = 4096;
/// Memory for unpacking xz, bytes.
const XZ_MEMORY: u64 = 256 << 20;
/// Bytes of an unpacked data part.
const DATA_LIMIT: u64 = 32 << 30;

impl Deb {
    /// Opens a package and reads its control part.
    pub fn open(path: &Path) -> Result<Self, DebError> {
        let failed = |source| DebError::Read { path: path.to_owned(), source };
        let bad = |reason| DebError::Malformed { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(failed)?;
        let members = match members(&mut file).map_err(failed)? {
            Table::Whole(members) => members,
            Table::Cut => return Err(bad("it is cut off: a part of it is longer than what is there")),
            Table::None => return Err(bad("it does not begin as one (`!<arch>`)")),
        };
        let named = |prefix: &str| members.iter().find(|member| member.name.starts_with(prefix));
        if members.first().is_none_or(|member| member.name != "debian-binary") {
            return Err(bad("it does not begin with debian-binary"));
        }
        let control = named("control.tar").ok_or_else(|| bad("it has no control.tar"))?;
        let data = named("data.tar").ok_or_else(|| bad("it has no data.tar"))?.clone();
        let reader = unpacked(file, control)
            .map_err(failed)?
            .ok_or_else(|| bad("its control.tar is packed in an unknown way"))?;
        let mut files = read_control(reader).map_err(failed)?.ok_or_else(|| bad("its control part is too large"))?;
        let (text, _) = files.remove("control").ok_or_else(|| bad("it has no control file"))?;
        let (control, path) = (read_text(path, text)?, path.to_owned());
        Ok(Self { path, control, files, data })
    }

    /// A package of which there is only the control file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_control(path: &Path, text: Vec<u8>) -> Result<Self, DebError> {
        let data = Member { name: "data.tar".to_owned(), offset: 0, size: 0 };
        let (control, path) = (read_text(path, text)?, path.to_owned());
        Ok(Self { path, control, files: ControlFiles::new(), data })
    }

    /// `Package`
    pub fn name(&self) -> &str {
        self.control.text("Package")
    }
    /// `Version`
    pub fn version(&self) -> &str {
        self.control.text("Version")
    }
    /// `Architecture`
    pub fn architecture(&self) -> &str {
        self.control.text("Architecture")
    }
    /// How dpkg names its files in `info/`: with the architecture for `Multi-Arch: same`.
    pub fn info_name(&self) -> String {
        match self.control.get("Multi-Arch") {
            Some("same") => format!("{}:{}", self.name(), self.architecture()),
            _ => self.name().to_owned(),
        }
    }
    /// A control file as text; nothing if there is none.
    pub fn text(&self, name: &str) -> String {
        self.files.get(name).map(|(bytes, _)| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default()
    }

    /// The unpacked `data.tar`.
    pub fn data(&self) -> Result<Box<dyn Read + Send>, DebError> {
        let failed = |source| DebError::Read { path: self.path.clone(), source };
        let file = File::open(&self.path).map_err(failed)?;
        let reader = unpacked(file, &self.data).map_err(failed)?;
        let reader = reader.ok_or_else(|| DebError::Malformed {
            path: self.path.clone(),
            reason: "its data.tar is packed in an unknown way",
        })?;
        Ok(Box::new(reader.take(DATA_LIMIT)))
    }
}

/// The control file's paragraph, which names a package, its version and its architecture.
fn read_text(path: &Path, text: Vec<u8>) -> Result<Paragraph, DebError> {
    let bad = |reason| DebError::Malformed { path: path.to_owned(), reason };
    if text.len() > TEXT_LIMIT {
        return Err(bad("its control file is longer than 1 MiB"));
    }
    let text = String::from_utf8(text).map_err(|_| bad("its control file is not text"))?;
    let control = Paragraph::read_all(&text).into_iter().next().ok_or_else(|| bad("its control file is empty"))?;
    let good = is_name(control.text("Package"))
        && is_name(control.text("Architecture"))
        && is_version(control.text("Version"));
    match good {
        true => Ok(control),
        false => Err(bad("its control file names no package, version and architecture as Debian has them")),
    }
}

/// Safe as part of a file name.
fn is_name(text: &str) -> bool {
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    text.bytes().all(valid) && text.starts_with(|first: char| first.is_ascii_alphanumeric())
}

fn is_version(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".+-:~".contains(&byte))
}

/// The table of an `ar` archive.
enum Table {
    Whole(Vec<Member>),
    /// A member reaches past the end of the file, or the file ends within a header.
    Cut,
    /// It is none.
    None,
}

fn members(file: &mut File) -> io::Result<Table> {
    let length = file.metadata()?.len();
    let mut magic = [0; 8];
    if length < 8 || file.read_exact(&mut magic).is_err() || &magic != b"!<arch>\n" {
        return Ok(Table::None);
    }
    let mut found = Vec::new();
    let mut at = 8;
    while at < length && found.len() < 16 {
        if at + 60 > length {
            return Ok(Table::Cut);
        }
        let mut header = [0; 60];
        file.seek(SeekFrom::Start(at))?;
        file.read_exact(&mut header)?;
        let text = |range: std::ops::Range<usize>| str::from_utf8(&header[range]).unwrap_or_default().trim_end();
        let Ok(size) = text(48..58).parse::<u64>() else { return Ok(Table::None) };
        let (name, offset) = (text(0..16).trim_end_matches('/').to_owned(), at + 60);
        let Some(end) = offset.checked_add(size).filter(|end| *end <= length) else {
            return Ok(Table::Cut);
        };
        found.push(Member { name, offset, size });
        at = end + size % 2;
    }
    Ok(Table::Whole(found))
}

/// Unpacks xz, of which a stream says itself how much memory it needs: up to 65 MiB with `-9`.
pub(super) fn unxz<R: BufRead>(packed: R) -> io::Result<liblzma::bufread::XzDecoder<R>> {
    let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED)?;
    Ok(liblzma::bufread::XzDecoder::new_stream(packed, stream))
}

fn unpacked(mut file: File, member: &Member) -> io::Result<Option<Box<dyn Read + Send>>> {
    file.seek(SeekFrom::Start(member.offset))?;
    let packed = BufReader::with_capacity(256 << 10, file.take(member.size));
    Ok(Some(match member.name.split_once(".tar").map(|(_, ending)| ending) {
        Some(".xz") => Box::new(unxz(packed)?),
        Some(".zst") => Box::new(zstd::Decoder::with_buffer(packed)?),
        Some(".gz") => Box::new(flate2::bufread::MultiGzDecoder::new(packed)),
        Some("") => Box::new(packed),
        _ => return Ok(None),
    }))
}

/// The files of a control part; none if there is more than any package has.
fn read_control(reader: impl Read) -> io::Result<Option<ControlFiles>> {
    let mut files = ControlFiles::new();
    // One byte more than the limit tells a part that is too large from one that is cut off.
    let mut reader = reader.take(CONTROL_LIMIT + 1);
    let read = entries(&mut reader, &mut files).and_then(|()| io::copy(&mut reader, &mut io::sink()));
    if reader.limit() == 0 || files.len() > FILES_LIMIT {
        return Ok(None);
    }
    read.map(|_| Some(files))
}

fn entries(reader: impl Read, files: &mut ControlFiles) -> io::Result<()> {
    for entry in tar::Archive::new(reader).entries()? {
        let mut entry = entry?;
        let path = entry.path_bytes().into_owned();
        let name = String::from_utf8_lossy(path.strip_prefix(b"./").unwrap_or(&path)).into_owned();
        if !entry.header().entry_type().is_file() || !is_name(&name) {
            continue;
        }
        let mut content = Vec::new();
        entry.read_to_end(&mut content)?;
        files.insert(name, (content, entry.header().mode()? & 0o777));
        if files.len() > FILES_LIMIT {
            break;
        }
    }
    Ok(())
}
