//! `kiln load`: an image from a file that `kiln save` wrote.

use std::path::Path;

use kiln_model::recipe::ImportLimits;

use super::{DeliveryError, Events, Received, receive::Receive};
use crate::{oci::archive::Archive, store::Store};

/// Takes in an image of an OCI archive with its reports and its suite. `name` chooses where there are several.
pub fn load(
    store: &Store,
    file: &Path,
    name: Option<&str>,
    limits: ImportLimits,
    now: jiff::Timestamp,
    events: Events<'_>,
) -> Result<Received, DeliveryError> {
    let archive = Archive::open(file, name.map(str::to_owned))?;
    let receive = Receive { store, origin: &archive, from: file.display().to_string(), now, limits, events };
    Ok(receive.all(&|_| Ok(()))?.0)
}
