//! A tar file with an OCI layout in it, or written by `docker save` (moby `image/spec/v1.2.md`, "Combined Image JSON").
//!
//! The archive is read once for where its files are, and then only at these places: nothing is unpacked. A `docker save`
//! of today holds both forms; the layout is preferred, for it says what every file must be.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use kiln_model::Digest;
use serde::Deserialize;

use super::{
    foreign::{Described, ForeignConfig},
    source::{Found, FoundLayer, LayerBytes, OciError, Origin, Top, bounded, document, named, unnamed},
};

/// An archive holds at most so many files.
const MAX_MEMBERS: usize = 100_000;
/// Links from file to file that are followed.
const MAX_LINKS: u32 = 4;

/// An archive whose files are known.
pub(crate) struct Archive {
    path: PathBuf,
    file: Arc<File>,
    members: HashMap<String, Member>,
    name: Option<String>,
}

#[derive(Debug, Clone)]
enum Member {
    Bytes {
        offset: u64,
        size: u64,
    },
    /// Older versions of Docker write a layer that two images share once.
    Link(String),
}

/// One image in `manifest.json`.
#[derive(Deserialize)]
struct Saved {
    #[serde(rename = "Config")]
    config: String,
    #[serde(rename = "RepoTags", default)]
    tags: Option<Vec<String>>,
    #[serde(rename = "Layers")]
    layers: Vec<String>,
}

impl Archive {
    pub(crate) fn open(path: &Path, name: Option<String>) -> Result<Self, OciError> {
        let failed = |source| OciError::file(path)(source);
        let mut file = File::open(path).map_err(failed)?;
        let mut magic = [0; 4];
        if file.read_exact(&mut magic).is_ok() && (magic[..2] == [0x1f, 0x8b] || magic == [0x28, 0xb5, 0x2f, 0xfd]) {
            return Err(failed(io::Error::other(
                "it is packed as a whole: unpack it first, with `gunzip` or `unzstd`",
            )));
        }
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let members = members(&file).map_err(failed)?;
        Ok(Self { path: path.to_owned(), file: Arc::new(file), members, name })
    }

    fn member(&self, name: &str) -> Result<Slice, OciError> {
        let missing =
            || OciError::file(&self.path)(io::Error::other(format!("it has no file `{}`", name.escape_debug())));
        let mut member = self.members.get(name).ok_or_else(missing)?;
        for _ in 0..MAX_LINKS {
            match member {
                Member::Link(target) => member = self.members.get(target).ok_or_else(missing)?,
                Member::Bytes { offset, size } => {
                    return Ok(Slice { file: self.file.clone(), at: *offset, end: offset.saturating_add(*size) });
                }
            }
        }
        Err(missing())
    }

    fn read(&self, what: &'static str, name: &str) -> Result<Vec<u8>, OciError> {
        bounded(what, self.member(name)?, &self.path)
    }

    /// The image of a `docker save` without a layout.
    fn saved(&self) -> Result<Found, OciError> {
        let list = self.read("manifest", "manifest.json")?;
        let list: Vec<Saved> =
            serde_json::from_slice(&list).map_err(|e| OciError::document("manifest", e.to_string()))?;
        let is_named = |saved: &Saved| match &self.name {
            Some(name) => saved.tags.iter().flatten().any(|tag| tag == name || tag.ends_with(&format!("/{name}"))),
            None => true,
        };
        let mut found = list.iter().filter(|saved| is_named(saved));
        let (Some(saved), None) = (found.next(), found.next()) else {
            let has: Vec<_> = list.iter().flat_map(|saved| saved.tags.clone().unwrap_or_default()).take(20).collect();
            return Err(OciError::NoImage {
                place: self.path.display().to_string(),
                name: self.name.clone().unwrap_or("(none named)".to_owned()),
                has: has.join(", ").escape_debug().to_string(),
            });
        };
        let config = self.read("configuration", &saved.config)?;
        let id = Digest::of(&config);
        let config = ForeignConfig::parse(&config)?;
        if config.rootfs.diff_ids.len() != saved.layers.len() {
            return Err(OciError::document("manifest", "it has another number of layers than its configuration"));
        }
        let named = config.layer_names().into_iter().zip(config.rootfs.diff_ids.clone()).zip(&saved.layers);
        let layers = named.map(|((name, diff_id), member)| FoundLayer {
            name,
            diff_id,
            bytes: LayerBytes::Member(member.clone()),
        });
        Ok(Found { id, layers: layers.collect(), config })
    }
}

impl Origin for Archive {
    fn top(&self, locked: Option<Digest>) -> Result<Top, OciError> {
        if !self.members.contains_key("index.json") {
            let found = self.saved()?;
            return match locked {
                Some(expected) if expected != found.id => {
                    Err(OciError::WrongDocument { what: "configuration", expected, found: found.id })
                }
                _ => Ok(Top::Whole(Box::new(found))),
            };
        }
        let index = self.read("index", "index.json")?;
        let locked = locked.filter(|digest| self.members.contains_key(&blob(digest)));
        let described = match locked {
            Some(digest) => {
                let bytes = self.read("manifest", &blob(&digest))?;
                return match Digest::of(&bytes) == digest {
                    true => Ok(Top::Document(digest, bytes)),
                    false => {
                        Err(OciError::WrongDocument { what: "manifest", expected: digest, found: Digest::of(&bytes) })
                    }
                };
            }
            None => named(&index, self.name.as_deref(), None, &self.path)?,
        };
        Ok(Top::Document(described.digest, document(self, "manifest", &described)?))
    }
    fn document(&self, what: &'static str, described: &Described) -> Result<Vec<u8>, OciError> {
        self.read(what, &blob(&described.digest))
    }
    fn referrers(&self, _subject: &Digest) -> Result<Vec<Described>, OciError> {
        unnamed(&self.read("index", "index.json")?)
    }
    fn open(&self, bytes: &LayerBytes) -> Result<Box<dyn Read + Send>, OciError> {
        Ok(Box::new(match bytes {
            LayerBytes::Blob(described) => self.member(&blob(&described.digest))?,
            LayerBytes::Member(name) => self.member(name)?,
        }))
    }
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Where each file of the archive is.
fn members(file: &File) -> io::Result<HashMap<String, Member>> {
    let mut archive = tar::Archive::new(file);
    let mut found = HashMap::new();
    for entry in archive.entries_with_seek()? {
        let entry = entry?;
        let Ok(name) = String::from_utf8(entry.path_bytes().into_owned()) else { continue };
        let name = name.trim_start_matches("./").to_owned();
        let member = match entry.header().entry_type() {
            tar::EntryType::Regular => {
                Member::Bytes { offset: entry.raw_file_position(), size: entry.header().entry_size()? }
            }
            tar::EntryType::Symlink | tar::EntryType::Link => match link(&name, &entry) {
                Some(target) => Member::Link(target),
                None => continue,
            },
            _ => continue,
        };
        found.insert(name, member);
        if found.len() > MAX_MEMBERS {
            return Err(io::Error::other(format!("it has more than {MAX_MEMBERS} files, which no saved image has")));
        }
    }
    Ok(found)
}

/// The member that a link names: relative to its own directory, or to the archive for a hard link.
fn link<R: Read>(name: &str, entry: &tar::Entry<'_, R>) -> Option<String> {
    let target = String::from_utf8(entry.link_name_bytes()?.into_owned()).ok()?;
    if entry.header().entry_type() == tar::EntryType::Link {
        return Some(target.trim_start_matches("./").to_owned());
    }
    let mut parts: Vec<&str> = name.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// A part of the archive.
struct Slice {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Slice {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buffer[..length], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
