//! A package as a database in an image names it.

use kiln_model::Digest;

use super::{distro::Distro, licence::Licence, purl::Purl};

/// Longer names and versions (bytes) are no names and versions.
const MAX_WORD: usize = 256;

/// What a package is a package of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ecosystem {
    Apk,
    Cargo,
    Deb,
    Npm,
    PyPi,
    Rpm,
}

impl Ecosystem {
    /// Whether a distribution is made of such packages.
    fn is_of_system(self) -> bool {
        matches!(self, Self::Apk | Self::Deb | Self::Rpm)
    }

    /// The type of its package URLs.
    pub(super) fn purl_type(self) -> &'static str {
        match self {
            Self::Apk => "apk",
            Self::Cargo => "cargo",
            Self::Deb => "deb",
            Self::Npm => "npm",
            Self::PyPi => "pypi",
            Self::Rpm => "rpm",
        }
    }
}

/// A checksum of a package that its database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha1,
    Sha256,
}

impl Algorithm {
    /// As SPDX writes it.
    pub(super) fn spdx(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA1",
            Self::Sha256 => "SHA256",
        }
    }
    /// As CycloneDX writes it.
    pub(super) fn cyclonedx(self) -> &'static str {
        match self {
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
        }
    }
    fn bytes(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
        }
    }
}

/// A checksum of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Checksum {
    pub(super) algorithm: Algorithm,
    /// Lower-case hex digits.
    pub(super) value: String,
}

impl Checksum {
    /// A checksum of the right length.
    pub(super) fn new(algorithm: Algorithm, bytes: &[u8]) -> Option<Self> {
        (bytes.len() == algorithm.bytes()).then(|| Self { algorithm, value: hex::encode(bytes) })
    }
}

/// The package that a package was built from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) name: String,
    /// None where it is the package's own.
    pub(super) version: Option<String>,
}

/// A package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Package {
    pub(super) ecosystem: Ecosystem,
    /// With its scope, for npm.
    pub(super) name: String,
    pub(super) version: String,
    pub(super) architecture: Option<String>,
    pub(super) source: Option<Source>,
    /// Who maintains it, as the database says.
    pub(super) supplier: Option<String>,
    pub(super) licence: Option<Licence>,
    pub(super) checksum: Option<Checksum>,
    /// The database that names it.
    pub(super) place: String,
    /// Its package URL.
    pub(super) purl: String,
}

impl Package {
    /// A package that a database names; none if these are no name and version.
    pub(super) fn new(ecosystem: Ecosystem, name: &str, version: &str, place: &str) -> Option<Self> {
        Some(Self {
            ecosystem,
            name: word(name)?,
            version: word(version)?,
            architecture: None,
            source: None,
            supplier: None,
            licence: None,
            checksum: None,
            place: place.to_owned(),
            purl: String::new(),
        })
    }

    /// Gives it its package URL, which says of which distribution it is.
    pub(super) fn named(mut self, distro: Option<&Distro>) -> Self {
        let distro = distro.filter(|_| self.ecosystem.is_of_system());
        let default = if self.ecosystem == Ecosystem::Apk { "alpine" } else { "debian" };
        let namespace = match (distro, self.ecosystem) {
            (Some(distro), _) => Some(distro.id.as_str()),
            (None, Ecosystem::Apk | Ecosystem::Deb) => Some(default),
            (None, _) => None,
        };
        let source = self.source.as_ref().map(|source| match &source.version {
            Some(version) => format!("{}@{version}", source.name),
            None => source.name.clone(),
        });
        // The type of rpm has a qualifier for the epoch.
        let (epoch, version) = match self.version.split_once(':').filter(|_| self.ecosystem == Ecosystem::Rpm) {
            Some((epoch, version)) => (epoch, version),
            None => ("", self.version.as_str()),
        };
        self.purl = Purl::new(self.ecosystem.purl_type(), &self.name, version)
            .namespace(namespace)
            .qualifier("arch", self.architecture.as_deref().unwrap_or_default())
            .qualifier("distro", &distro.map(Distro::tag).unwrap_or_default())
            .qualifier("epoch", epoch)
            .qualifier("upstream", &source.unwrap_or_default())
            .to_string();
        self
    }
}

impl Package {
    /// An id that no other package of the image has. Short, for documents name it often.
    pub(super) fn id(&self) -> String {
        Digest::of(self.purl.as_bytes()).hex()[..16].to_owned()
    }

    /// Where it was found, unless its system has only one database.
    pub(super) fn own_place(&self) -> Option<&str> {
        (!self.ecosystem.is_of_system()).then_some(self.place.as_str())
    }
}

/// A word of a database: one line of printable characters, not too long.
pub(super) fn word(text: &str) -> Option<String> {
    let text = text.trim();
    let good = !text.is_empty() && text.len() <= MAX_WORD && !text.chars().any(|c| c.is_control() || c == '\u{fffd}');
    good.then(|| text.to_owned())
}
