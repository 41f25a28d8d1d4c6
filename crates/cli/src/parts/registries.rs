//! What this host knows of registries: `registries.toml` of the state directory, and Docker's credentials.

use std::{env, path::PathBuf};

use kiln_image::registry::{Registries, RegistryError};

use super::host::HostPlaces;
use crate::failure::Failure;

/// Reads both.
pub(crate) fn read(places: &HostPlaces) -> Result<Registries, Failure> {
    let path = places.state.join("registries.toml");
    Registries::read(&path, credentials())
        .map_err(|error: RegistryError| Failure::host("read what is known of registries", error))
}

/// Docker's file, or the one that Podman and Skopeo are told to use.
fn credentials() -> Option<PathBuf> {
    let from = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    from("REGISTRY_AUTH_FILE")
        .or_else(|| from("DOCKER_CONFIG").map(|directory| directory.join("config.json")))
        .or_else(|| from("HOME").map(|home| home.join(".docker/config.json")))
}
