//! The recipes below some directories.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kiln_model::Recipe;

use crate::{
    failure::Failure,
    project::{self, RECIPE},
};

/// So deep below a directory that was named recipes are looked for.
const DEPTH: u32 = 5;

/// A directory with a recipe.
pub(super) struct Project {
    /// The directory.
    pub directory: PathBuf,
    /// Its recipe.
    pub recipe: Recipe,
}

/// Every recipe at or below these directories, each once, in the order of their paths. What is below a recipe is part of it.
pub(super) fn projects(directories: &[PathBuf]) -> Result<Vec<Project>, Failure> {
    let mut found = Vec::new();
    for directory in directories {
        look(&project::absolute(directory)?, DEPTH, &mut found)?;
    }
    found.sort();
    found.dedup();
    let read = |directory: PathBuf| Ok(Project { recipe: project::recipe(&directory)?, directory });
    found.into_iter().map(read).collect()
}

fn look(directory: &Path, depth: u32, found: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if directory.join(RECIPE).exists() {
        found.push(directory.to_owned());
        return Ok(());
    }
    let failed = |source| Failure::Read { path: directory.to_owned(), source };
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        // Links are not followed: a tree has an end.
        if depth > 0 && !hidden && entry.file_type().map_err(failed)?.is_dir() {
            look(&entry.path(), depth - 1, found)?;
        }
    }
    Ok(())
}
