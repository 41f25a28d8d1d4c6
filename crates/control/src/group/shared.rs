//! The shared directories of a group's servers.

use kiln_model::{
    ImageManifest,
    shared::{self, Attachment, Source},
};

use super::GroupTask;

impl GroupTask {
    /// What a server of an image is given. One that the fleet does not bind is missed when the server is launched.
    pub(super) fn shared_by(&self, image: &ImageManifest) -> Vec<Attachment> {
        let bound = shared::needed(image).filter_map(|name| {
            let directory = self.row.spec.shared.get(name)?.clone();
            Some(Attachment { name: name.clone(), source: Source::Bound(directory) })
        });
        bound.collect()
    }
}
