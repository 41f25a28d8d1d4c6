//! `kiln import`: a recipe from somebody's image or Containerfile, with comments where a person must decide.
//!
//! What the image says of itself (entry point, ports, volumes, health check, user) is asked without fetching its layers, and
//! written down as the recipe would say it. What is written is read again before it is there, so that it is a recipe.

mod text;

use std::path::{Path, PathBuf};

use kiln_image::{Store, bake};
use kiln_model::{ImageName, Recipe, id::nearest, oci::OciSource, recipe::quoted};
use serde_json::json;

use super::Context;
use crate::{
    baking,
    cli::Import,
    exit::Exit,
    failure::Failure,
    parts::{host::HostPlaces, registries},
    project::{self, RECIPE},
};

/// What a recipe is made from.
enum From {
    /// A Containerfile, relative to the recipe.
    Containerfile(String),
    /// An image.
    Oci(OciSource),
}

pub(super) fn run(context: &Context<'_>, arguments: &Import) -> Result<Exit, Failure> {
    let (from, directory) = found(arguments)?;
    let path = directory.join(RECIPE);
    if path.exists() {
        return Err(Failure::Exists { path });
    }
    let name = arguments.name.clone().unwrap_or_else(|| name_of(&from, &directory));
    let failed = |source| Failure::Write { path: path.clone(), source };
    std::fs::create_dir_all(&directory).map_err(failed)?;
    let base = text::base(&name, &from.key(), &arguments.from);
    let recipe = project::recipe_of(&directory, &base)?;
    let execution = asked(&context.state, &directory, &recipe)?;
    let whole = text::whole(&base, &name, &execution);
    project::recipe_of(&directory, &whole)?;
    std::fs::write(&path, &whole).map_err(failed)?;
    let shown = directory.display();
    context.ui.result(&json!({ "directory": directory, "files": [path], "name": name.as_str() }), || {
        format!("wrote {}; read it, then: kiln bake {shown}", path.display())
    });
    Ok(Exit::Ok)
}

/// How the image would be run.
fn asked(state: &Path, directory: &Path, recipe: &Recipe) -> Result<kiln_image::oci::Execution, Failure> {
    let places = HostPlaces::of(state)?;
    let store = Store::open(&places.store())?;
    let (cache, registries) = (places.cache(), registries::read(&places)?);
    let request = baking::request(directory, recipe, &cache, &registries, baking::Settings::USUAL);
    Ok(bake::would_run(&request, &store)?)
}

/// A file of that name, or an image; and where the recipe goes.
fn found(arguments: &Import) -> Result<(From, PathBuf), Failure> {
    let written = Path::new(&arguments.from);
    if written.is_file() {
        let own = written.parent().unwrap_or(Path::new(""));
        let own = if own.as_os_str().is_empty() { Path::new(".") } else { own };
        let directory = arguments.to.clone().unwrap_or_else(|| own.to_owned());
        let inside = inside(written, &directory)?;
        return Ok((From::Containerfile(inside), directory));
    }
    let source =
        arguments.from.parse::<OciSource>().map_err(|error| Failure::NoImport { reason: error.to_string() })?;
    let directory = arguments.to.clone().unwrap_or_else(|| last_word(&source).into());
    Ok((From::Oci(source), directory))
}

/// A file's path from a directory that it lies in.
fn inside(file: &Path, directory: &Path) -> Result<String, Failure> {
    let real = |path: &Path| path.canonicalize().map_err(|source| Failure::Read { path: path.to_owned(), source });
    let (file_real, directory_real) = (real(file)?, real(directory)?);
    let inside = file_real.strip_prefix(&directory_real).ok().and_then(Path::to_str);
    inside.map(str::to_owned).ok_or_else(|| Failure::NoImport {
        reason: format!("{} does not lie in {}, where its recipe would be", file.display(), directory.display()),
    })
}

impl From {
    /// The key of `[base]` that names it.
    fn key(&self) -> String {
        match self {
            Self::Containerfile(path) => format!("containerfile = {}", quoted(path)),
            Self::Oci(source) => format!("oci = {}", quoted(&source.to_string())),
        }
    }
}

/// The last part of an image's name, without its tag.
fn last_word(source: &OciSource) -> String {
    let name = match source {
        OciSource::Registry(reference) => reference.repository.clone(),
        OciSource::Layout(place) | OciSource::Archive(place) => place.path.trim_end_matches(".tar").to_owned(),
    };
    name.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned()
}

/// As near to the image's or directory's name as names of images can be.
fn name_of(from: &From, directory: &Path) -> ImageName {
    let words = match from {
        From::Oci(source) => last_word(source),
        From::Containerfile(_) => {
            let real = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
            real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
        }
    };
    nearest(&words).and_then(|name| name.parse().ok()).unwrap_or_else(|| "imported".parse().expect("a name"))
}
