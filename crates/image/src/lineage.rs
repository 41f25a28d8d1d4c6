//! Which image starts from which: read from the layers, so that it holds for images from elsewhere as well.
//!
//! An image descends from another if the other's layers are its lowest layers. Of several such, its base is the one with the most
//! layers; of equals, the newest.

use kiln_model::{ImageDigest, ImageName};

use crate::store::{ImageRecord, Store, StoreError};

/// An image and what it starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kin {
    /// The image.
    pub image: ImageDigest,
    /// Its name.
    pub name: ImageName,
    /// The image that it starts from, if that is here.
    pub base: Option<ImageDigest>,
    /// What the lowest layer was made by: `debian bookworm`, `oci …`.
    pub from: String,
    /// Where its base's name leads now, if that is another image: this one holds an old base.
    pub newer_base: Option<ImageDigest>,
}

impl Store {
    /// Every image with what it starts from, newest first.
    pub fn lineage(&self) -> Result<Vec<Kin>, StoreError> {
        let images = self.images()?;
        let mut kin = Vec::new();
        for image in &images {
            let base = base(image, &images);
            let newer_base = match base {
                Some(base) => self.current(base, &images)?.filter(|current| *current != base.digest),
                None => None,
            };
            let documents = self.documents(&image.digest)?;
            let from = documents.config.history.first().map(|step| step.created_by.clone()).unwrap_or_default();
            let (name, base) = (image.name.clone(), base.map(|base| base.digest));
            kin.push(Kin { image: image.digest, name, base, from, newer_base });
        }
        Ok(kin)
    }

    /// Where a name leads: its channel `dev`, else the newest image.
    fn current(&self, of: &ImageRecord, images: &[ImageRecord]) -> Result<Option<ImageDigest>, StoreError> {
        let dev = "dev".parse().expect("`dev` is a valid channel name");
        let newest = || images.iter().find(|image| image.name == of.name).map(|image| image.digest);
        Ok(self.channels(&of.name)?.get(&dev).copied().or_else(newest))
    }
}

/// The first of the images with the most layers that this one begins with.
fn base<'a>(of: &ImageRecord, images: &'a [ImageRecord]) -> Option<&'a ImageRecord> {
    let below = images.iter().filter(|image| {
        let (layers, own) = (image.layers.len(), of.layers.len());
        layers > 0 && layers < own && of.layers.starts_with(&image.layers)
    });
    below.reduce(|best, image| if image.layers.len() > best.layers.len() { image } else { best })
}
