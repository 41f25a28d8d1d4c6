//! What differs between two images, as `kiln diff` finds it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What differs between two images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Difference {
    /// Digest of the image before.
    pub before: String,
    /// Digest of the image after.
    pub after: String,
    /// Bytes of their files.
    pub size: Sizes,
    /// Packages: their versions.
    pub packages: Vec<Change>,
    /// Services, writable paths, configuration keys, templates and bindings.
    pub manifest: Vec<Change>,
    /// Paths.
    pub files: Vec<Change>,
    /// So many further paths differ and are left out here; `kiln diff` has them all.
    #[serde(default)]
    pub files_left_out: u64,
}

/// Bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Sizes {
    /// Of the image before.
    pub before: u64,
    /// Of the image after.
    pub after: u64,
}

/// Something that is in one of two images, or in both and not the same.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// `package`, `service`, `writable`, `config`, `template`, `service_binding`, `file`.
    pub what: String,
    /// Its name or path.
    pub name: String,
    /// As it was; null if it was not there.
    #[schema(value_type = Object)]
    pub before: Option<Value>,
    /// As it is; null if it is gone.
    #[schema(value_type = Object)]
    pub after: Option<Value>,
}

impl Difference {
    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty() && self.manifest.is_empty() && self.files.is_empty()
    }
}
