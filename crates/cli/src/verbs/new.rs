//! `kiln new NAME`: a commented recipe and fleet to start from.

use std::path::Path;

use serde_json::json;

use super::Context;
use crate::{
    cli::New,
    exit::Exit,
    failure::Failure,
    project::{FLEET, RECIPE},
};

/// What is written: path and text, in which `__NAME__` stands for the name.
const FILES: [(&str, &str); 3] = [
    (RECIPE, include_str!("../../templates/image.toml")),
    (FLEET, include_str!("../../templates/fleet.toml")),
    ("files/index.html", include_str!("../../templates/index.html")),
];

pub(super) fn run(context: &Context<'_>, arguments: &New) -> Result<Exit, Failure> {
    let name = arguments.name.as_str();
    let directory = arguments.directory.clone().unwrap_or_else(|| name.into());
    if let Some((file, _)) = FILES.iter().find(|(file, _)| directory.join(file).exists()) {
        return Err(Failure::Exists { path: directory.join(file) });
    }
    for (file, text) in FILES {
        write(&directory.join(file), &text.replace("__NAME__", name))?;
    }
    let files: Vec<_> = FILES.iter().map(|(file, _)| directory.join(file)).collect();
    let shown = directory.display();
    context.ui.result(&json!({ "directory": directory, "files": files }), || {
        format!("wrote {RECIPE}, {FLEET} and files/ to {shown}; now: kiln up {shown}")
    });
    Ok(Exit::Ok)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |source| Failure::Write { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}
