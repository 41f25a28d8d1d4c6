//! A directory with image.toml and fleet.toml.

mod files;

use std::path::{Path, PathBuf};

use kiln_model::{Fleet, Recipe};

use self::files::DirectoryFiles;
use crate::failure::Failure;

/// File name of a recipe.
pub const RECIPE: &str = "image.toml";
/// File name of a fleet.
pub const FLEET: &str = "fleet.toml";

/// Reads and checks the recipe of a directory.
pub fn recipe(directory: &Path) -> Result<Recipe, Failure> {
    let (path, text) = read(directory, RECIPE)?;
    let files = DirectoryFiles::open(directory)?;
    Ok(Recipe::parse(&text, &path.display().to_string(), &files)?)
}

/// Reads and checks the fleet of a directory.
pub fn fleet(directory: &Path) -> Result<Fleet, Failure> {
    let (path, text) = read(directory, FLEET)?;
    Ok(Fleet::parse(&text, &path.display().to_string())?)
}

/// Reads and checks a fleet that is called otherwise, or stands elsewhere.
pub fn fleet_file(path: &Path) -> Result<Fleet, Failure> {
    let text = std::fs::read_to_string(path).map_err(|source| Failure::Read { path: path.to_owned(), source })?;
    Ok(Fleet::parse(&text, &path.display().to_string())?)
}

/// The fleet of a directory, if it has one.
pub fn fleet_if_any(directory: &Path) -> Result<Option<Fleet>, Failure> {
    match fleet(directory) {
        Ok(fleet) => Ok(Some(fleet)),
        Err(Failure::NoFile { .. }) => Ok(None),
        Err(failure) => Err(failure),
    }
}

/// The recipe and the fleet of a directory; what is wrong with the recipe is shown first.
pub fn both(directory: &Path) -> Result<(Recipe, Fleet), Failure> {
    Ok((recipe(directory)?, fleet(directory)?))
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
