//! What a tool is given, read once: the same bytes are hashed for the step's key and seen by the tool.

use std::{
    fs, io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt as _, symlink},
    },
    path::Path,
};

use kiln_model::{
    Digest,
    recipe::provision::{Provision, Tool},
};

use super::{TOOL, command::Command, files};
use crate::{
    bake::{
        BakeError,
        key::Key,
        source::{ItemKind, Source},
    },
    layer::Content,
};

/// Files beside `image.toml` that are Kiln's: a tool that is begun with a file of the recipe's own directory does not see
/// them, nor what begins with a dot.
const OWN: [&str; 3] = ["image.toml", "fleet.toml", "kiln.lock"];

/// Files of the recipe.
pub(super) struct Inputs {
    /// Paths relative to the recipe, none inside another.
    pub(super) sources: Vec<(String, Source)>,
}

impl Inputs {
    pub(super) fn read(step: &str, directory: &Path, tool: &Tool) -> Result<Self, BakeError> {
        let mut paths = Vec::new();
        for path in tool.inputs() {
            match path {
                "" => paths.extend(beside(directory).map_err(|source| BakeError::Source {
                    step: step.to_owned(),
                    path: ".".to_owned(),
                    source,
                })?),
                path => paths.push(path.to_owned()),
            }
        }
        paths.sort();
        paths.dedup();
        let all = paths.clone();
        paths.retain(|path| !all.iter().any(|other| Path::new(path).starts_with(other) && path != other));
        let read = |path: String| Ok((path.clone(), Source::read(step, directory, &path)?));
        Ok(Self { sources: paths.into_iter().map(read).collect::<Result<_, BakeError>>()? })
    }

    pub(super) fn digest(&self) -> Digest {
        let parts = self.sources.iter().flat_map(|(path, source)| [path.clone(), source.digest().to_string()]);
        Key::new("inputs", None).parts(parts).done()
    }

    fn write(&self, to: &Path) -> io::Result<()> {
        fs::create_dir(to)?;
        for (path, source) in &self.sources {
            let place = to.join(path);
            place.parent().map_or(Ok(()), fs::create_dir_all)?;
            for item in &source.items {
                let relative = Path::new(std::ffi::OsStr::from_bytes(&item.path));
                let place = if item.path.is_empty() { place.clone() } else { place.join(relative) };
                write_item(&place, &item.kind)?;
            }
        }
        Ok(())
    }
}

fn beside(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        match name.to_str() {
            Some(name) if !name.starts_with('.') && !OWN.contains(&name) => names.push(name.to_owned()),
            _ => {}
        }
    }
    Ok(names)
}

fn write_item(place: &Path, kind: &ItemKind) -> io::Result<()> {
    match kind {
        ItemKind::Directory => fs::create_dir(place),
        ItemKind::Symlink(target) => symlink(std::ffi::OsStr::from_bytes(target), place),
        ItemKind::File { content, executable, .. } => {
            match content {
                Content::Bytes(bytes) => fs::write(place, bytes)?,
                Content::Path { path, .. } => fs::copy(path, place).map(drop)?,
            }
            let mode = if *executable { 0o755 } else { 0o644 };
            fs::set_permissions(place, fs::Permissions::from_mode(mode))
        }
    }
}

/// Everything that is shown below `/run` for a step.
pub(super) struct Staged<'a> {
    pub(super) inputs: &'a Inputs,
    pub(super) command: &'a Command,
    pub(super) what: &'a Provision,
}

impl Staged<'_> {
    /// Writes `provision` and `recipe` below this directory.
    pub(super) fn write(&self, work: &Path) -> io::Result<()> {
        self.inputs.write(&work.join("recipe"))?;
        let own = work.join("provision");
        for directory in ["bin", "plugins", "shims"] {
            fs::create_dir_all(own.join(directory))?;
        }
        // Python finds its own modules beside the program that it was started as.
        symlink(format!("{TOOL}/usr/lib"), own.join("lib"))?;
        program(&own.join("systemd"), files::DRIVER)?;
        program(&own.join("shims/.service"), files::SERVICE)?;
        for name in files::SERVICE_NAMES {
            symlink(".service", own.join("shims").join(name))?;
        }
        for (name, text) in files::programs(self.what.tool.name()) {
            program(&own.join("bin").join(name), &text)?;
        }
        for (name, text) in files::PLUGINS {
            fs::write(own.join("plugins").join(name), text)?;
        }
        self.command.files.iter().try_for_each(|(name, text)| fs::write(own.join(name), text))
    }
}

fn program(path: &Path, text: &str) -> io::Result<()> {
    kiln_sys::executable::write(path, text.as_bytes()).map_err(io::Error::other)
}
