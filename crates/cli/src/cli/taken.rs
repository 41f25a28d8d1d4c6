//! How much of an image from elsewhere is taken in.

use clap::Args;
use kiln_model::{ByteSize, recipe::ImportLimits};

/// Limits of `kiln pull` and `kiln load`
#[derive(Debug, Clone, Copy, Args)]
pub struct Taken {
    /// Refuse an image that unpacks to more than this
    #[arg(long, value_name = "SIZE", default_value_t = ImportLimits::default().size)]
    pub max_size: ByteSize,
    /// Refuse an image with more files, directories and links than this
    #[arg(long, value_name = "COUNT", default_value_t = ImportLimits::default().files)]
    pub max_files: u64,
}

impl Taken {
    /// The limits; layers of Kiln's are not packed, so there is no ratio to set.
    pub fn limits(self) -> ImportLimits {
        ImportLimits { size: self.max_size, files: self.max_files, ..ImportLimits::default() }
    }
}
