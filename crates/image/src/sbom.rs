//! What is in an image, for scanners and auditors: its packages as an SPDX 2.3 or a CycloneDX 1.6 document.
//!
//! The packages come from the databases that are found in the frozen tree ([`collect`]), each read by a parser of its own. A
//! tree may be a stranger's, so nothing in it is believed: files are read through [`ImageTree`], which follows links inside
//! the tree only; every read has a limit; what is no package name, version or licence is left out and said. A database
//! that is there and is not read is named in the document, which would else look complete.
//!
//! A document depends on the image and on nothing else: its time is the image's (`SOURCE_DATE_EPOCH`), its ids come from the
//! image's digest, its entries are sorted. So it is made when it is asked for and not kept, and everyone who has the image
//! can make it again and compare.
//!
//! One that travels beside an image does not name the image's digest, and takes its ids from the packages: the manifest that
//! refers to it says which image it is of. So it is the same bytes, and goes over once, for all images with the same packages.

mod apk;
mod cargo;
mod collect;
mod cyclonedx;
mod distro;
mod dpkg;
mod licence;
mod npm;
mod package;
pub(crate) mod purl;
mod python;
mod rpm;
mod spdx;

#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use kiln_model::{Digest, ImageDigest};

use crate::{
    oci,
    store::{Store, StoreError},
};

pub(crate) use self::distro::Distro;
use self::{collect::Inventory, package::Package};

/// How a document is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SbomFormat {
    /// SPDX 2.3, JSON.
    Spdx,
    /// CycloneDX 1.6, JSON.
    CycloneDx,
}

impl SbomFormat {
    /// Every format.
    pub const ALL: [Self; 2] = [Self::Spdx, Self::CycloneDx];

    /// The media type of such a document.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Spdx => "application/spdx+json",
            Self::CycloneDx => "application/vnd.cyclonedx+json",
        }
    }

    /// The in-toto predicate type of such a document.
    pub fn predicate_type(self) -> &'static str {
        match self {
            Self::Spdx => "https://spdx.dev/Document",
            Self::CycloneDx => "https://cyclonedx.org/bom",
        }
    }
}

impl fmt::Display for SbomFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spdx => "spdx",
            Self::CycloneDx => "cyclonedx",
        })
    }
}

/// A word that names no format.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the formats are `spdx` and `cyclonedx`")]
pub struct UnknownFormat;

impl FromStr for SbomFormat {
    type Err = UnknownFormat;
    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        Self::ALL.into_iter().find(|format| format.to_string() == text).ok_or(UnknownFormat)
    }
}

/// A document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sbom {
    /// The document: JSON, in one line.
    pub bytes: Vec<u8>,
    /// How many packages it names.
    pub packages: usize,
    /// What was found and not read, with the reason.
    pub unread: Vec<String>,
}

/// The image that a document is about.
struct Subject {
    name: String,
    /// None in a document that travels.
    image: Option<ImageDigest>,
    created: jiff::Timestamp,
    distro: Option<Distro>,
}

impl Subject {
    fn purl(&self) -> String {
        let digest = self.image.map(|image| image.to_string()).unwrap_or_default();
        purl::Purl::new("oci", &self.name, &digest).qualifier("arch", oci::architecture()).to_string()
    }

    /// What the ids of a document come from: the image, or all that the document says.
    fn seed(&self, said: &impl serde::Serialize) -> Digest {
        let all = || Digest::of(&oci::render(&(&self.name, self.created.to_string(), said)));
        self.image.map_or_else(all, |image| image.0)
    }
}

impl Store {
    /// What is in an image.
    pub fn sbom(&self, image: &ImageDigest, format: SbomFormat) -> Result<Sbom, StoreError> {
        let [sbom] = self.sboms(image, [format])?;
        Ok(sbom)
    }

    /// What is in an image, in several formats.
    pub fn sboms<const N: usize>(
        &self,
        image: &ImageDigest,
        formats: [SbomFormat; N],
    ) -> Result<[Sbom; N], StoreError> {
        self.documents_of(image, Some(*image), formats)
    }

    /// The same as it travels: without the image's digest.
    pub(crate) fn travelling_sboms(&self, image: &ImageDigest) -> Result<[Sbom; 2], StoreError> {
        self.documents_of(image, None, SbomFormat::ALL)
    }

    fn documents_of<const N: usize>(
        &self,
        image: &ImageDigest,
        named: Option<ImageDigest>,
        formats: [SbomFormat; N],
    ) -> Result<[Sbom; N], StoreError> {
        let record = self.image(image)?.ok_or(StoreError::NotFound(*image))?;
        let found = Inventory::of(&self.tree(image)?)?;
        let created = self.documents(image)?.config.created;
        let subject = Subject { name: record.name.to_string(), image: named, created, distro: found.distro };
        let unread: Vec<_> = found.unread.iter().map(ToString::to_string).collect();
        Ok(formats.map(|format| Sbom {
            bytes: match format {
                SbomFormat::Spdx => spdx::render(&subject, &found.packages, &unread),
                SbomFormat::CycloneDx => cyclonedx::render(&subject, &found.packages, &unread),
            },
            packages: found.packages.len(),
            unread: unread.clone(),
        }))
    }
}
