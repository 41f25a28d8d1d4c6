//! The packages that are asked for: names, and files, which are copied beside the recipe.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kiln_image::{
    bake::{BakeError, LockProblem},
    debian::Local,
};
use kiln_model::recipe::deb_file;

use crate::failure::Failure;

/// A package.
pub(super) struct Package {
    /// As `packages` of a recipe has it.
    pub(super) wanted: String,
    /// Its own name.
    pub(super) name: String,
}

/// What is asked for; files are in the directory then, and were read.
pub(super) fn gather(what: &[PathBuf], directory: &Path) -> Result<Vec<Package>, Failure> {
    what.iter().map(|what| package(what, directory)).collect()
}

fn package(what: &Path, directory: &Path) -> Result<Package, Failure> {
    let text = what.to_str().ok_or_else(|| Failure::Packaged {
        reason: format!("the name of {} is not UTF-8, which a recipe must be", what.display()),
        help: "give the file another name".to_owned(),
    })?;
    if deb_file(text).is_none() {
        let name = text.split('=').next().unwrap_or(text).to_owned();
        return Ok(Package { wanted: text.to_owned(), name });
    }
    let file = what.file_name().and_then(|name| name.to_str()).unwrap_or(text);
    let to = directory.join(file);
    if to.exists() {
        return Err(Failure::Packaged {
            reason: format!("two packages' files are called {file}"),
            help: "give one of them another name".to_owned(),
        });
    }
    if !fs::metadata(what).map_err(|source| Failure::Read { path: what.to_owned(), source })?.is_file() {
        return Err(Failure::Packaged {
            reason: format!("{} is not a file", what.display()),
            help: "name the package's file, or the package of an archive".to_owned(),
        });
    }
    fs::copy(what, &to).map_err(|source| Failure::Read { path: what.to_owned(), source })?;
    let local = Local::read(directory, file).map_err(|source| BakeError::from(LockProblem::Local(Box::new(source))))?;
    Ok(Package { wanted: format!("./{file}"), name: local.name })
}
