//! Whether a recipe and a fleet of one directory fit together, before anything is baked.

use std::path::Path;

use kiln_api::error::chain;
use kiln_model::{Group, Recipe, fleet::FleetFiles, shared::SharedDirectory};

use crate::failure::Failure;

/// Values must fit the image's keys, shared directories be there, and every group of the image may publish only ports that one of its services listens on.
pub(super) fn check(state: &Path, recipe: &Recipe, files: &FleetFiles, directory: &Path) -> Result<(), Failure> {
    files.check(&recipe.manifest)?;
    let usable = |shared: &SharedDirectory| {
        kiln_runtime::look_at_shared(shared, &[state, Path::new("/run/kiln")]).map_err(|error| chain(&error))
    };
    files.check_shared(&recipe.manifest, usable)?;
    let ours = files.fleet.groups.iter().filter(|(_, group)| group.image.name == recipe.name);
    for (name, group) in ours {
        if let Some(port) = unheard(recipe, group) {
            return Err(Failure::Misfit {
                directory: directory.to_owned(),
                reason: format!(
                    "group `{name}` publishes port {port}, on which no service of `{}` listens",
                    recipe.name
                ),
            });
        }
    }
    Ok(())
}

fn unheard(recipe: &Recipe, group: &Group) -> Option<u16> {
    let listened = |port: u16| {
        recipe.manifest.services.values().flat_map(|service| &service.ports).any(|declared| declared.port == port)
    };
    group.publish.iter().map(|publish| publish.port).find(|port| !listened(*port))
}
