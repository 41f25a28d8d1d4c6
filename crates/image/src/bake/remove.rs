//! The `remove` step: paths out of the tree, without running anything.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use super::{
    BakeError,
    copy::{Editor, relative},
    owner::Owner,
};
use crate::{
    layer::{Entry, Kind, Layer, Meta},
    store::objects::Tree,
    tree::{Missing, resolve},
};

/// The layer that removes these paths; one without `*` must be there.
pub(super) fn layer(step: &str, tree: &Tree, paths: &[String]) -> Result<Layer, BakeError> {
    let wrong = |reason| BakeError::Step { step: step.to_owned(), reason };
    let owner = Owner { uid: 0, gid: 0 };
    let mut layer = Editor { tree, epoch: 0, owner, entries: Vec::new(), made: BTreeSet::new() };
    for path in paths {
        for found in matching(tree, path).map_err(wrong)? {
            whiteout(&mut layer, &found).map_err(wrong)?;
        }
    }
    Ok(Layer::new(layer.entries))
}

/// Takes one path out.
pub(super) fn whiteout(layer: &mut Editor<'_>, path: &Path) -> Result<(), String> {
    if let Some(parent) = path.parent() {
        layer.directory(parent, 0o755)?;
    }
    layer.entries.push(Entry { path: relative(path), meta: Meta::default(), kind: Kind::Whiteout });
    Ok(())
}

fn matching(tree: &Tree, path: &str) -> Result<Vec<PathBuf>, String> {
    let written = Path::new(path);
    let (Some(parent), Some(pattern)) = (written.parent(), written.file_name()) else {
        return Err(format!("`{path}` cannot be removed"));
    };
    let star = pattern.as_bytes().contains(&b'*');
    let none = || match star {
        true => Ok(Vec::new()),
        false => Err(format!("`{path}` is not there: remove it from the recipe, or correct it")),
    };
    let Some(real) = resolve(tree, parent, Missing::Refuse) else { return none() };
    let Ok(dir) = tree.root.get_directory(real.as_os_str()) else { return none() };
    let names = dir.sorted_entries().map(|(name, _)| name);
    let found: Vec<_> = names.filter(|name| fits(pattern.as_bytes(), name.as_bytes())).collect();
    match found.is_empty() {
        true => none(),
        false => Ok(found.into_iter().map(|name: &OsStr| real.join(name)).collect()),
    }
}

/// Whether a name fits a pattern in which `*` stands for any bytes.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match pattern.split_first() {
        None => name.is_empty(),
        Some((b'*', rest)) => (0..=name.len()).any(|skip| fits(rest, &name[skip..])),
        Some((first, rest)) => name.split_first().is_some_and(|(b, name)| b == first && fits(rest, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn unit_stars_stand_for_any_bytes() {
        for (pattern, name, expected) in [
            ("*", "", true),
            ("*.deb", "a.deb", true),
            ("*.deb", "a.de", false),
            ("a*c*", "abcd", true),
            ("a", "b", false),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
