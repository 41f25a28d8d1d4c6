//! A directory with image.toml and fleet.toml.

mod files;

use std::path::{Path, PathBuf};

use kiln_model::{
    EnvironmentName, Fleet, Recipe,
    fleet::{FleetFiles, FleetText},
};

use self::files::DirectoryFiles;
use crate::failure::Failure;

/// File name of a recipe.
pub const RECIPE: &str = "image.toml";
/// File name of a fleet.
pub const FLEET: &str = "fleet.toml";

/// Reads and checks the recipe of a directory.
pub fn recipe(directory: &Path) -> Result<Recipe, Failure> {
    let (_, text) = read(directory, RECIPE)?;
    recipe_of(directory, &text)
}

/// Checks the text of a recipe as if it stood in this directory.
pub fn recipe_of(directory: &Path, text: &str) -> Result<Recipe, Failure> {
    let files = DirectoryFiles::open(directory)?;
    Ok(Recipe::parse(text, &directory.join(RECIPE).display().to_string(), &files)?)
}

/// Reads and checks the fleet of a directory, with an environment's file over it.
pub fn fleet(directory: &Path, environment: Option<&EnvironmentName>) -> Result<FleetFiles, Failure> {
    let (path, text) = read(directory, FLEET)?;
    layered(&path, text, environment)
}

/// Reads and checks a fleet that is called otherwise, or stands elsewhere. The environment's file stands beside it.
pub fn fleet_file(path: &Path, environment: Option<&EnvironmentName>) -> Result<FleetFiles, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    layered(path, text, environment)
}

/// The fleet as the daemon is told it: with the values of the caller's variables in their place.
pub fn with_variables(fleet: Fleet) -> Result<Fleet, Failure> {
    Ok(fleet.with_variables(&|name| std::env::var(name).ok())?)
}

fn layered(path: &Path, text: String, environment: Option<&EnvironmentName>) -> Result<FleetFiles, Failure> {
    let named = |path: &Path, text| FleetText { file: path.display().to_string(), text };
    let over = environment.map(|environment| {
        let path = path.with_extension(format!("{environment}.toml"));
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(named(&path, text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(Failure::NoEnvironment { environment: environment.clone(), path })
            }
            Err(source) => Err(Failure::Read { path, source }),
        }
    });
    Ok(FleetFiles::parse(named(path, text), over.transpose()?)?)
}

/// The fleet of a directory, if it has one.
pub fn fleet_if_any(directory: &Path, environment: Option<&EnvironmentName>) -> Result<Option<FleetFiles>, Failure> {
    match fleet(directory, environment) {
        Ok(fleet) => Ok(Some(fleet)),
        Err(Failure::NoFile { .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The environments that have a file beside the fleet of a directory, by name.
pub fn environments(directory: &Path) -> Result<Vec<EnvironmentName>, Failure> {
    let failed = |source| Failure::Read { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let middle = name.to_str().and_then(|name| name.strip_prefix("fleet.")?.strip_suffix(".toml"));
        found.extend(middle.and_then(|environment| environment.parse::<EnvironmentName>().ok()));
    }
    found.sort();
    Ok(found)
}

/// The recipe and the fleet of a directory; what is wrong with the recipe is shown first.
pub fn both(directory: &Path, environment: Option<&EnvironmentName>) -> Result<(Recipe, FleetFiles), Failure> {
    Ok((recipe(directory)?, fleet(directory, environment)?))
}

/// A directory as the daemon must be told it: absolute.
pub fn absolute(directory: &Path) -> Result<PathBuf, Failure> {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    directory.canonicalize().map_err(|source| Failure::Read { path: directory.to_owned(), source })
}

fn read(directory: &Path, file: &'static str) -> Result<(PathBuf, String), Failure> {
    let path = directory.join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok((path, text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(Failure::NoFile { file, directory: directory.to_owned() })
        }
        Err(source) => Err(Failure::Read { path, source }),
    }
}
