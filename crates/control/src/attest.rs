//! What this host signs of images beside reports: where they come from, and what is in them.
//!
//! Nothing of it decides a launch; reports do. It is for people, for auditors and for other programs, and it is signed with the
//! same key, so that whoever believes this host's reports can believe it too.

use kiln_image::{Store, StoreError, bake::Baked, sbom::SbomFormat};
use kiln_model::{
    Digest, ImageDigest, ImageName, KeyName,
    evidence::{Attestation, AttestationError, Envelope, Provenance},
    fleet::EvidencePolicy,
};

use crate::keys::{Keys, KeysError};

/// Why a statement could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The key could not be read.
    #[error(transparent)]
    Keys(#[from] KeysError),
}

/// A statement of where an image comes from.
#[derive(Debug)]
pub struct Origin {
    /// What is said.
    pub attestation: Attestation,
    /// Who is believed to have said it; none if nobody is believed.
    pub believed: Option<Vec<KeyName>>,
    /// Why nobody is believed.
    pub doubt: Option<String>,
}

/// Signs where a baked image comes from, and files it under the image.
pub fn provenance(store: &Store, keys: &Keys, baked: &Baked) -> Result<Digest, AttestError> {
    let builder = keys.id()?;
    let provenance = Provenance {
        name: &baked.name,
        image: baked.image,
        inputs: &baked.inputs,
        builder: &builder,
        version: env!("CARGO_PKG_VERSION"),
    };
    Ok(store.add_statement(&baked.image, &provenance.attestation().seal(&keys.signing()?))?)
}

/// What is in an image, as signed statements.
pub fn sboms(store: &Store, keys: &Keys, name: &ImageName, image: &ImageDigest) -> Result<Vec<Envelope>, AttestError> {
    let key = keys.signing()?;
    let documents = SbomFormat::ALL.into_iter().zip(store.sboms(image, SbomFormat::ALL)?);
    let signed = documents.map(|(format, sbom)| {
        let predicate = serde_json::from_slice(&sbom.bytes).expect("an SBOM is JSON");
        let predicate_type = format.predicate_type().to_owned();
        Attestation { name: name.to_string(), image: *image, predicate_type, predicate }.seal(&key)
    });
    Ok(signed.collect())
}

/// Where an image comes from, as its makers say it: what is believed here first.
pub fn origins(store: &Store, keys: &Keys, name: &ImageName, image: &ImageDigest) -> Result<Vec<Origin>, AttestError> {
    let policy = keys.policy(EvidencePolicy::default())?;
    let trusted: Vec<_> = policy.keys.iter().filter(|key| policy.counts(name, &key.name)).cloned().collect();
    let read = |envelope: &Envelope| match Attestation::open(envelope, image, &trusted) {
        Ok(opened) => {
            let believed = Some(opened.signers.into_iter().collect());
            Some(Origin { attestation: opened.attestation, believed, doubt: None })
        }
        Err(error) => {
            let doubt = Some(doubt(&error));
            Attestation::peek(envelope).map(|attestation| Origin { attestation, believed: None, doubt })
        }
    };
    let mut origins: Vec<_> = store.provenance(image)?.iter().filter_map(read).collect();
    origins.sort_by_key(|origin| (origin.believed.is_none(), origin.attestation.render()));
    Ok(origins)
}

fn doubt(error: &AttestationError) -> String {
    kiln_api::error::chain(error)
}
