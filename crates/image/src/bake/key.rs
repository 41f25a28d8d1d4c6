//! Keys of steps: what a layer depends on, and nothing else.

use kiln_model::Digest;
use sha2::{Digest as _, Sha256};

use crate::layer;

/// Collects what a layer depends on. Every part is written behind its length, so that no two lists of parts give the
/// same bytes.
pub(super) struct Key(Sha256);

impl Key {
    /// A key below its parent's; the base has none.
    pub(super) fn new(kind: &str, parent: Option<&Digest>) -> Self {
        let key = Self(Sha256::new()).part(b"kiln-step-v1").part(layer::FORMAT.to_le_bytes()).part(kind);
        match parent {
            Some(parent) => key.part(parent.as_bytes()),
            None => key.part(b""),
        }
    }
    pub(super) fn part(mut self, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        self.0.update((bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }
    pub(super) fn parts<T: AsRef<[u8]>>(self, parts: impl IntoIterator<Item = T>) -> Self {
        let parts: Vec<T> = parts.into_iter().collect();
        let key = self.part((parts.len() as u64).to_le_bytes());
        parts.into_iter().fold(key, Self::part)
    }
    pub(super) fn done(self) -> Digest {
        Digest::from_bytes(self.0.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_parts_cannot_run_into_each_other() {
        let key = |parts: &[&str]| Key::new("run", None).parts(parts).done();
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["ab"]), key(&["ab", ""]));
        assert_ne!(Key::new("run", None).done(), Key::new("run", Some(&Digest::of(b""))).done());
    }
}
