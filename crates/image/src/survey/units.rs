//! Which service units packages bring, and what they would be in a recipe that runs them.

use std::{collections::BTreeMap, path::Path};

use kiln_model::systemd::{Unit, propose};

use super::{
    EnabledService,
    services::{OF_THE_MACHINE, UNITS},
};
use crate::{store::StoreError, tree::ImageTree};

/// A package's list of files is read so far, bytes: the longest of Debian has 4 MB.
const LIST_LIMIT: u64 = 32 << 20;
/// A unit is read so far, bytes: a longer one is none.
const UNIT_LIMIT: u64 = (1 << 20) + 1;

/// The service units of these packages, by name: those that say what starts them (`[Install]`), or all of them where none does.
/// Templates are of no use without an instance, and aliases are the unit that they lead to.
pub fn units(tree: &ImageTree, packages: &[String]) -> Result<Vec<EnabledService>, StoreError> {
    let mut found = BTreeMap::new();
    for package in packages {
        let lists = [format!("{package}.list"), format!("{package}:amd64.list")];
        for list in lists {
            let path = format!("/var/lib/dpkg/info/{list}");
            let list = tree.read(Path::new(&path), LIST_LIMIT)?.unwrap_or_default();
            for path in String::from_utf8_lossy(&list).lines().filter(|path| is_unit(path)) {
                if let Some((unit, installs)) = service(tree, package, path)? {
                    found.insert(unit.unit.clone(), (unit, installs));
                }
            }
        }
    }
    let some_install = found.values().any(|(_, installs)| *installs);
    let wanted = found.into_values().filter(|(_, installs)| *installs || !some_install);
    Ok(wanted.map(|(unit, _)| unit).collect())
}

fn is_unit(path: &str) -> bool {
    let Some((directory, name)) = path.rsplit_once('/') else { return false };
    UNITS.contains(&directory) && name.ends_with(".service") && !name.contains('@') && !OF_THE_MACHINE.contains(&name)
}

/// A unit, and whether something starts it; none for an alias.
fn service(tree: &ImageTree, package: &str, path: &str) -> Result<Option<(EnabledService, bool)>, StoreError> {
    let at = Path::new(path);
    let Some(real) = tree.resolve(at).filter(|real| real.file_name() == at.file_name()) else { return Ok(None) };
    let Some(bytes) = tree.read(&real, UNIT_LIMIT)? else { return Ok(None) };
    let unit = Unit::parse(&String::from_utf8_lossy(&bytes)).ok();
    let installs = unit.as_ref().is_some_and(|unit| unit.keys("Install").next().is_some());
    let description = unit.as_ref().and_then(|unit| unit.last("Unit", "Description")).unwrap_or_default().to_owned();
    let service = EnabledService {
        unit: at.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        path: real.to_string_lossy().into_owned(),
        package: Some(package.to_owned()),
        of_every_debian: false,
        description,
        proposal: unit.as_ref().map(propose),
    };
    Ok(Some((service, installs)))
}
