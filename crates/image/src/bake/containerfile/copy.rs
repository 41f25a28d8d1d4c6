//! `COPY`, `ADD` and `WORKDIR`: files put over the tree without running anything.

use std::{path::Path, time::Instant};

use kiln_model::{
    containerfile::{Copy, CopySource, Instruction, Word},
    evidence::Material,
};

use super::{
    BakeError, archive,
    files::{self, Files, Item, What},
    place::{Changes, Placer},
    remote,
    stage::Stage,
};
use crate::{
    bake::{
        inputs,
        key::Key,
        owner::{self, Owner},
        source,
    },
    layer::{Content, Meta},
    store::Work,
    tree,
};

/// Owner of what nobody says the owner of.
const ROOT: Owner = Owner { uid: 0, gid: 0 };

impl Stage<'_, '_> {
    /// `COPY` and `ADD`.
    pub(super) fn copy(&mut self, instruction: &Instruction, copy: &Copy) -> Result<(), BakeError> {
        let begun = Instant::now();
        let mut sources = Vec::new();
        for source in &copy.sources {
            // An archive of an address stays one, as in Docker.
            let unpack = copy.add && copy.from.is_none() && !matches!(source, CopySource::Remote(_));
            sources.extend(self.source(instruction, copy, source)?.into_iter().map(|files| (files, unpack)));
        }
        let to = self.filled(instruction, &copy.to)?;
        let into = to.ends_with('/') || matches!(to.as_str(), "." | "..") || to.ends_with("/.");
        let target = self.absolute(&to);
        let changes = self.changes(instruction, copy)?;
        let mode = changes.mode;
        let chown = copy.chown.as_ref().map(|word| self.filled(instruction, word)).transpose()?;
        let kept: Vec<_> = (0..).zip(&sources).filter(|(_, (_, unpack))| !unpack).map(|(at, _): (u32, _)| at).collect();
        let kind = match (copy.add && copy.from.is_none(), kept.is_empty()) {
            (false, _) => "containerfile copy".to_owned(),
            (true, true) => "add".to_owned(),
            (true, false) => format!("add, as they are: {kept:?}"),
        };
        let key = Key::new(&kind, Some(&self.build.chain.key))
            .part(target.as_os_str().as_encoded_bytes())
            .part([u8::from(into)])
            .part(chown.as_deref().unwrap_or_default())
            .part(mode.map(|mode| mode.to_string()).unwrap_or_default())
            .parts(sources.iter().map(|(files, _)| *files.digest().as_bytes()))
            .done();
        let name = self.name(instruction);
        let work = Work::new(self.build.chain.store)?;
        let limits = self.build.base.limits;
        let wrong = self.build.fault(instruction);
        self.build.chain.edit(&name, key, begun, |tree, chain| {
            let owner = match &chown {
                Some(text) => Some(owner::find(tree, chain.store.repo(), text)?.map_err(&wrong)?),
                None => None,
            };
            let mut placer = Placer::new(tree, chain.epoch, owner.unwrap_or(ROOT));
            let several = sources.len() > 1;
            let mut unpacked = Vec::new();
            for (files, unpack) in &mut sources {
                unchanged(files).map_err(&wrong)?;
                date(files, chain.epoch);
                if *unpack && let Some(inside) = archive::unpacked(files, limits, &work, chain.epoch).map_err(&wrong)? {
                    unpacked.push(inside);
                    continue;
                }
                let directory = into || several || placer.is_directory(&target);
                let place = match directory && !files.is_directory() {
                    true => target.join(name_of(files)),
                    false => target.clone(),
                };
                placer.put(files, &place, Changes { owner, mode }).map_err(&wrong)?;
            }
            for inside in &unpacked {
                placer.put(inside, &target, Changes { owner, mode: None }).map_err(&wrong)?;
            }
            Ok::<_, BakeError>(placer.done())
        })?;
        Ok(work.remove()?)
    }

    fn changes(&self, instruction: &Instruction, copy: &Copy) -> Result<Changes, BakeError> {
        let Some(word) = &copy.chmod else { return Ok(Changes::default()) };
        let text = self.filled(instruction, word)?;
        match kiln_model::containerfile::octal(&text) {
            Some(mode) => Ok(Changes { owner: None, mode: Some(mode) }),
            None => Err(self.build.wrong(instruction, format!("`{text}` is no mode: write octal digits"))),
        }
    }

    /// The things that one source means.
    fn source(&mut self, instruction: &Instruction, copy: &Copy, source: &CopySource) -> Result<Vec<Files>, BakeError> {
        match source {
            CopySource::Text(heredoc) => {
                let text = match heredoc.expands {
                    true => {
                        let word = Word::heredoc(&heredoc.content, heredoc.at);
                        let word = word.map_err(|reason| self.build.wrong(instruction, reason))?;
                        self.value(instruction, &word)?
                    }
                    false => heredoc.content.clone(),
                };
                Ok(vec![of_text(&heredoc.name, text)])
            }
            CopySource::Remote(word) => {
                let address = self.filled(instruction, word)?;
                let fetched = remote::fetch(&self.build.chain, &address, copy.checksum);
                let files = fetched.map_err(|reason| self.build.wrong(instruction, reason))?;
                let material = copy.checksum.map(|checksum| Material::new(remote::public(&address), checksum));
                self.build.chain.materials.extend(material);
                Ok(vec![files])
            }
            CopySource::Path(word) => {
                let path = self.value(instruction, word)?;
                self.path(instruction, copy, &path)
            }
        }
    }

    fn path(&mut self, instruction: &Instruction, copy: &Copy, path: &str) -> Result<Vec<Files>, BakeError> {
        let found = match &copy.from {
            None => {
                let found = self.build.context.find(path);
                found.map_err(|error| self.build.wrong(instruction, error.to_string()))?
            }
            Some(name) => self.of_other(name, path)?,
        };
        if found.is_empty() {
            let place = copy.from.as_ref().map_or("the context".to_owned(), |from| format!("`{from}`"));
            let hidden = if copy.from.is_none() { ", or an ignore file hides it" } else { "" };
            return Err(self.build.wrong(instruction, format!("there is no `{path}` in {place}{hidden}")));
        }
        let materials = found.iter().filter_map(|files| material(path, files));
        self.build.chain.materials.extend(materials);
        Ok(found)
    }

    /// What is at a path of a stage or an image.
    pub(super) fn of_other(&self, name: &str, path: &str) -> Result<Vec<Files>, BakeError> {
        let Some(position) = self.others.get(name) else { return Ok(Vec::new()) };
        let store = self.build.chain.store;
        let tree = tree::load(store.repo(), &position.tree)?;
        let objects = store.dir().join("composefs/objects");
        Ok(files::of_tree(&tree, &objects, &super::settings::plain(Path::new(path))))
    }

    /// `WORKDIR`, which makes the directory.
    pub(super) fn workdir(&mut self, instruction: &Instruction) -> Result<(), BakeError> {
        let begun = Instant::now();
        let path = self.absolute("");
        let key = Key::new("workdir", Some(&self.build.chain.key)).part(path.as_os_str().as_encoded_bytes()).done();
        let name = self.name(instruction);
        let wrong = self.build.fault(instruction);
        self.build.chain.edit(&name, key, begun, |tree, chain| {
            let mut placer = Placer::new(tree, chain.epoch, ROOT);
            if !placer.is_directory(&path) {
                placer.directory(&path).map_err(wrong)?;
            }
            Ok::<_, BakeError>(placer.done())
        })
    }
}

fn name_of(files: &Files) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(&files.name)
}

/// A text of the Containerfile as a file.
fn of_text(name: &str, text: String) -> Files {
    let bytes = text.into_bytes();
    let sha256 = openssl::sha::sha256(&bytes);
    let what = What::File { content: Content::Bytes(bytes), id: sha256.to_vec(), sha256: None };
    let item = Item { path: Vec::new(), meta: Meta { mode: 0o644, ..Meta::default() }, what };
    Files { name: name.as_bytes().to_vec(), items: vec![item] }
}

/// What has no time of its own is as old as the image.
fn date(files: &mut Files, epoch: i64) {
    for item in &mut files.items {
        if item.meta.mtime == 0 || item.meta.mtime > epoch {
            item.meta.mtime = epoch;
        }
    }
}

/// A large file is read twice: for the key and when it is stored. In between it must not have changed.
fn unchanged(files: &Files) -> Result<(), String> {
    for item in &files.items {
        if let What::File { content: Content::Path { path, .. }, sha256: Some(sha256), .. } = &item.what
            && source::hash(path).map_err(|error| format!("{}: {error}", path.display()))? != *sha256
        {
            return Err(format!("{} changes while it is read", path.display()));
        }
    }
    Ok(())
}

/// What came from the host, for the provenance.
fn material(path: &str, files: &Files) -> Option<Material> {
    let of = |item: &'_ Item| match &item.what {
        What::File { sha256: Some(sha256), .. } => Some(*sha256),
        _ => None,
    };
    match &files.items[..] {
        [only] if only.path.is_empty() => {
            of(only).map(|sha256| Material::new(path, kiln_model::Digest::from_bytes(sha256)))
        }
        items => {
            let sums: Vec<_> = items.iter().filter_map(|item| Some((&item.path, of(item)?))).collect();
            let files = sums.iter().map(|(path, sum)| (*path, sum)).collect::<Vec<_>>();
            (!files.is_empty()).then(|| inputs::of_files(path, files))
        }
    }
}
