//! Names of OCI images: in a registry, in an OCI layout directory, in an archive.
//!
//! A registry name is read as Docker reads it: what stands before the first `/` is the registry's address if it has a
//! `.` or a `:` in it or is `localhost`; otherwise the registry is `docker.io`, where a name of one part is below
//! `library/`. Grammar: distribution-spec 1.1, "Pulling manifests".

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// The registry that is meant where none is named.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// A name longer than this (bytes) is refused.
const MAX_BYTES: usize = 512;

/// An image of a registry: `registry/name:tag` or `registry/name@sha256:…`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OciReference {
    /// Host name or address, with a port where one is written.
    pub registry: String,
    /// The name below the registry: `library/debian`.
    pub repository: String,
    /// Which of its images.
    pub version: OciVersion,
}

/// Which image of a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OciVersion {
    /// What the tag points to now; `latest` where nothing is written.
    Tag(String),
    /// Always the same.
    Digest(Digest),
}

/// The OCI name (GOARCH) of the architecture that this program runs on.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Where an OCI image is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OciSource {
    /// A registry.
    Registry(OciReference),
    /// `oci:DIR[:TAG]`: an OCI layout directory.
    Layout(OciPlace),
    /// `oci-archive:FILE[:TAG]` or `docker-archive:FILE[:NAME]`: a tar file with an OCI layout, or of `docker save`.
    Archive(OciPlace),
}

/// A path, and which of the images there; none where there is only one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciPlace {
    /// The directory or file.
    pub path: String,
    /// A tag, or the name that `docker save` was given.
    pub name: Option<String>,
}

/// A text that names no OCI image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not the name of an OCI image: {rule}")]
pub struct InvalidReference {
    text: String,
    rule: &'static str,
}

impl FromStr for OciReference {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let bad = |rule| InvalidReference { text: crate::diagnostic::shown(text), rule };
        if text.len() > MAX_BYTES {
            return Err(bad("it is longer than 512 bytes"));
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                let digest =
                    digest.parse().map_err(|_| bad("after `@` stands `sha256:` and 64 lower-case hex digits"))?;
                (name, Some(digest))
            }
            None => (text, None),
        };
        let (registry, rest) = registry(name);
        let (repository, tag) = match rest.rsplit_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (rest, None),
        };
        if !is_host(registry) {
            return Err(bad("before the first `/` stands a host name or address, with `:PORT` where it has one"));
        }
        if !repository.split('/').all(is_component) {
            return Err(bad("a repository's name is made of a-z, 0-9, `.`, `_`, `-`, in parts between `/`"));
        }
        if !tag.is_none_or(is_tag) {
            return Err(bad("a tag is made of letters, digits, `.`, `_`, `-`, at most 128 of them"));
        }
        // A tag beside a digest says nothing: the digest decides.
        let version = digest.map_or_else(|| OciVersion::Tag(tag.unwrap_or("latest").to_owned()), OciVersion::Digest);
        let library = registry == DEFAULT_REGISTRY && !repository.contains('/');
        let repository = if library { format!("library/{repository}") } else { repository.to_owned() };
        let reference = Self { registry: registry.to_owned(), repository, version };
        if reference.to_string().len() > MAX_BYTES {
            return Err(bad("written in full, with its registry and tag, it is longer than 512 bytes"));
        }
        Ok(reference)
    }
}

/// The registry and what is below it.
fn registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some((first, rest)) if first == "localhost" || first.contains(['.', ':']) => {
            (if first == "index.docker.io" { DEFAULT_REGISTRY } else { first }, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

/// A host name, an IPv4 address or an IPv6 address in brackets, with or without a port.
fn is_host(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let name = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address = bracketed.is_some_and(|inner| inner.parse::<std::net::Ipv6Addr>().is_ok());
    (name || address) && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn is_component(text: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = text.bytes().next().is_some_and(good) && text.bytes().last().is_some_and(good);
    ends && text.bytes().all(|b| good(b) || b"._-".contains(&b)) && !text.contains("..")
}

fn is_tag(text: &str) -> bool {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    first && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

impl fmt::Display for OciReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match &self.version {
            OciVersion::Tag(tag) => write!(f, ":{tag}"),
            OciVersion::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}
impl TryFrom<String> for OciReference {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}
impl From<OciReference> for String {
    fn from(reference: OciReference) -> String {
        reference.to_string()
    }
}

/// The word before the colon of a place on disk.
const PLACES: [&str; 3] = ["oci", "oci-archive", "docker-archive"];

impl FromStr for OciSource {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        let place = text.split_once(':').filter(|(word, _)| PLACES.contains(word));
        let Some((word, rest)) = place else { return text.parse().map(Self::Registry) };
        let (path, name) = match rest.split_once(':') {
            Some((path, name)) => (path, Some(name.to_owned())),
            None => (rest, None),
        };
        if path.is_empty() || name.as_deref() == Some("") || rest.chars().any(char::is_control) {
            let rule = "after `oci:`, `oci-archive:` or `docker-archive:` stands a path, and `:NAME` where it has several images";
            return Err(InvalidReference { text: crate::diagnostic::shown(text), rule });
        }
        let place = OciPlace { path: path.to_owned(), name };
        Ok(if word == "oci" { Self::Layout(place) } else { Self::Archive(place) })
    }
}

impl fmt::Display for OciSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, place) = match self {
            Self::Registry(reference) => return reference.fmt(f),
            Self::Layout(place) => ("oci", place),
            Self::Archive(place) => ("oci-archive", place),
        };
        write!(f, "{word}:{}", place.path)?;
        place.name.iter().try_for_each(|name| write!(f, ":{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_names_are_read_as_docker_reads_them() {
        let hex = "ab".repeat(32);
        for (text, full) in [
            ("debian", "docker.io/library/debian:latest".to_owned()),
            ("debian:bookworm", "docker.io/library/debian:bookworm".to_owned()),
            ("some/app", "docker.io/some/app:latest".to_owned()),
            ("index.docker.io/some/app:1", "docker.io/some/app:1".to_owned()),
            ("localhost/app", "localhost/app:latest".to_owned()),
            ("127.0.0.1:5000/a/b_c/d-e:V1.0", "127.0.0.1:5000/a/b_c/d-e:V1.0".to_owned()),
            ("[::1]:5000/a", "[::1]:5000/a:latest".to_owned()),
            (&format!("reg.example/a:tag@sha256:{hex}"), format!("reg.example/a@sha256:{hex}")),
        ] {
            let read: OciReference = text.parse().unwrap_or_else(|e| panic!("{e}"));
            assert_eq!(read.to_string(), full);
            assert_eq!(full.parse(), Ok(read), "{full}");
        }
    }

    #[test]
    fn unit_what_is_no_name_is_refused() {
        let long = "a".repeat(600);
        let long_in_full = "a".repeat(500);
        for text in [
            "",
            ":tag",
            "a:",
            "A",
            "a//b",
            "a/../b",
            "host:0/a",
            "h_st.x/a",
            "a@sha256:12",
            "a@md5:x",
            "-a",
            "a:b/c",
            &long,
            &long_in_full,
        ] {
            assert!(text.parse::<OciReference>().is_err(), "{text}");
        }
    }

    #[test]
    fn unit_places_on_disk_have_a_word_before_them() {
        let place = |path: &str, name: Option<&str>| OciPlace { path: path.into(), name: name.map(str::to_owned) };
        assert_eq!("oci:dir".parse(), Ok(OciSource::Layout(place("dir", None))));
        assert_eq!("oci-archive:a/b.tar:v1".parse(), Ok(OciSource::Archive(place("a/b.tar", Some("v1")))));
        assert_eq!("docker-archive:x.tar:a/b:1".parse(), Ok(OciSource::Archive(place("x.tar", Some("a/b:1")))));
        for text in ["oci:", "oci::x", "oci:a:", "oci:a\nb"] {
            assert!(text.parse::<OciSource>().is_err(), "{text:?}");
        }
    }
}
