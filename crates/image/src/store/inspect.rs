//! What an image is made of, for people.

use std::path::Path;

use kiln_model::{Digest, ImageDigest};

use super::{Store, StoreError};
use crate::tree::ImageTree;

/// More than any `dpkg` status has, bytes.
const STATUS_LIMIT: u64 = 64 << 20;

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerRecord {
    /// The step that made it.
    pub step: String,
    /// Its digest.
    pub digest: Digest,
    /// Bytes of its tar stream.
    pub size: u64,
}

/// A Debian package of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstalledPackage {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// `amd64`, `all`.
    pub architecture: String,
}

impl Store {
    /// An image's layers, lowest first.
    pub fn layers(&self, image: &ImageDigest) -> Result<Vec<LayerRecord>, StoreError> {
        let documents = self.documents(image)?;
        let layers = documents.manifest.layers.iter().zip(&documents.config.history);
        let record = |(layer, history): (&crate::oci::Descriptor, &crate::oci::History)| LayerRecord {
            step: history.created_by.clone(),
            digest: layer.digest,
            size: layer.size,
        };
        Ok(layers.map(record).collect())
    }
}

impl ImageTree {
    /// The installed Debian packages, sorted; none where the image has no dpkg.
    pub fn packages(&self) -> Result<Vec<InstalledPackage>, StoreError> {
        let status = self.read(Path::new("/var/lib/dpkg/status"), STATUS_LIMIT)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&status);
        let mut found: Vec<_> = text.split("\n\n").filter_map(package).collect();
        found.sort();
        Ok(found)
    }
}

fn package(paragraph: &str) -> Option<InstalledPackage> {
    let field = |name: &str| {
        let value = paragraph.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.map(|value| value.trim().to_owned())
    };
    let installed = field("Status")?.ends_with(" installed");
    let package = || {
        Some(InstalledPackage {
            name: field("Package")?,
            version: field("Version")?,
            architecture: field("Architecture")?,
        })
    };
    installed.then(package)?
}

#[cfg(test)]
mod tests {
    use super::package;

    #[test]
    fn unit_only_installed_packages_count() {
        let paragraph = "Package: nginx\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1.22.1-9\nDescription: x\n Version: 2";
        let found = package(paragraph).expect("installed");
        assert_eq!((found.name.as_str(), found.version.as_str()), ("nginx", "1.22.1-9"));
        assert!(package(&paragraph.replace("ok installed", "ok config-files")).is_none());
    }
}
