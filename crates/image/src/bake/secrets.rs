//! Secrets that a step left in the image, where everybody who has the image has them.
//!
//! Looked for where a recipe's own words made the layer, not in packages of an archive, which are public. What is found is
//! named, never shown.

use std::{fs, io::Read as _};

use crate::{
    credential::Credential,
    layer::{Content, Kind, Layer},
};

/// So much of a file (bytes) is looked at: keys are small files, and tokens stand in configuration.
const LOOKED_AT: u64 = 1 << 20;
/// So many are named.
const NAMED: usize = 20;

/// A warning for each file with a secret in it.
pub(super) fn found(layer: &Layer) -> Vec<String> {
    let warning = |(path, credential): (&[u8], Credential)| {
        let (path, what) = (String::from_utf8_lossy(path), credential.words());
        format!("/{path} holds {what}: everybody who has the image has it. A fleet's secrets reach servers at launch")
    };
    let files = layer.entries().iter().filter_map(|entry| match &entry.kind {
        Kind::File(content) => Some((entry.path.as_slice(), Credential::held(&beginning(content))?)),
        _ => None,
    });
    files.take(NAMED).map(warning).collect()
}

fn beginning(content: &Content) -> Vec<u8> {
    match content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::Path { path, .. } => {
            let mut bytes = Vec::new();
            // A file that cannot be read cannot be stored either, which is said then.
            let read = fs::File::open(path).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut bytes));
            read.map(|_| bytes).unwrap_or_default()
        }
    }
}
