//! `[base]`: what the image starts from.

use super::{Base, DebianBase, Distribution, FileKind, check, containerfile_base, oci_base, text::Context};
use crate::{
    diagnostic::shown,
    fleet::ImageRef,
    text::{Keys, Table, Value},
};

/// The keys of `[base]`.
pub(crate) const KEYS: Keys = Keys {
    of: "`[base]`",
    valid: &[
        "debian",
        "ubuntu",
        "packages",
        "mirror",
        "security_mirror",
        "components",
        "keyring",
        "image",
        "oci",
        "max_size",
        "max_files",
        "max_ratio",
        "containerfile",
        "context",
        "target",
        "args",
        "secrets",
        "network",
    ],
};

/// Keys that go with `debian` or `ubuntu` only.
const ARCHIVE_ONLY: [&str; 5] = ["packages", "mirror", "security_mirror", "components", "keyring"];
/// Suites whose names move from release to release.
const MOVING: [&str; 7] = ["stable", "oldstable", "oldoldstable", "testing", "unstable", "devel", "rolling"];
/// Code names that can be mistyped.
const DEBIAN: &[&str] = &["bullseye", "bookworm", "trixie", "forky", "duke", "sid"];
const UBUNTU: &[&str] = &["focal", "jammy", "noble", "oracular", "plucky", "questing", "resolute"];
/// A keyring longer than this (bytes) is refused.
const MAX_KEYRING: u64 = 4 << 20;

pub(super) fn read(table: &Table<'_>, context: &Context<'_>) -> Option<Base> {
    let choice = table.one_of(&["debian", "ubuntu", "image", "oci", "containerfile"], "debian = \"bookworm\"")?;
    let what = match choice.key {
        "debian" => "a Debian suite",
        "ubuntu" => "an Ubuntu suite",
        "image" => "an image",
        "containerfile" => "what a Containerfile says",
        _ => "an OCI image",
    };
    let own = if choice.key == "ubuntu" { "debian" } else { choice.key };
    let foreign =
        [("debian", &ARCHIVE_ONLY[..]), ("oci", &oci_base::ONLY[..]), ("containerfile", &containerfile_base::ONLY[..])];
    // The images that a Containerfile starts from have the limits of other images.
    let belongs = |owner: &str| owner == own || (owner == "oci" && own == "containerfile");
    for (owner, keys) in foreign.into_iter().filter(|(owner, _)| !belongs(owner)) {
        for entry in table.entries().filter(|entry| keys.contains(&entry.key)) {
            entry.place.contradicts::<()>(
                choice.place,
                format!("`{}` goes with `{owner}`, and this base is {what}", entry.key),
                format!("the base is {what}"),
                "remove one of the two",
            );
        }
    }
    match choice.key {
        "image" => choice.value.parsed::<ImageRef>("\"hello@stable\"").map(Base::Image),
        "oci" => oci_base::read(table, &choice.value, context).map(Base::Oci),
        "containerfile" => {
            let base = containerfile_base::read(table, &choice.value, context)?;
            Some(Base::Containerfile(Box::new(base)))
        }
        "ubuntu" => archive(Distribution::Ubuntu, table, &choice.value, context).map(Base::Debian),
        _ => archive(Distribution::Debian, table, &choice.value, context).map(Base::Debian),
    }
}

fn archive(of: Distribution, table: &Table<'_>, suite: &Value<'_>, context: &Context<'_>) -> Option<DebianBase> {
    let suite = suite_name(of, suite, table.has("mirror"));
    let packages = table.get("packages").map_or(Some(vec![]), |v| package_list(&v));
    let mirror = table.get("mirror").map_or(Some(of.mirror().to_owned()), |v| address(&v));
    let security_mirror = match table.get("security_mirror") {
        None => Some(of.security_mirror().to_owned()),
        Some(value) if value.is_false() => None,
        Some(value) => address(&value),
    };
    let usual = of.components().iter().map(|component| (*component).to_owned()).collect();
    let components = table.get("components").map_or(Some(usual), |v| components(&v));
    let keyring = table.get("keyring").and_then(|v| keyring(&v, context));
    Some(DebianBase {
        distribution: of,
        suite: suite?,
        packages: packages?,
        mirror: mirror?,
        security_mirror,
        components: components?,
        keyring,
    })
}

fn suite_name(of: Distribution, value: &Value<'_>, own_mirror: bool) -> Option<String> {
    let (example, known) = match of {
        Distribution::Debian => ("\"bookworm\"", DEBIAN),
        Distribution::Ubuntu => ("\"noble\"", UBUNTU),
    };
    let name = value.checked(example, |text| {
        let good = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase())
            && text.len() <= 63
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if good { Ok(()) } else { Err(format!("`{}` is not the code name of a suite", shown(text))) }
    })?;
    if MOVING.contains(&name.as_str()) {
        return value.place.report(
            format!("`{name}` means another suite next year"),
            format!("write the code name, which does not move: `{} = {example}`", of.name().to_lowercase()),
        );
    }
    match crate::text::suggest(&name, known) {
        Some(meant) if !known.contains(&name.as_str()) && !own_mirror => {
            value.place.report(format!("there is no {} suite `{name}`", of.name()), format!("did you mean `{meant}`?"))
        }
        _ => Some(name),
    }
}

/// A list of package names, without doubles.
pub(super) fn package_list(value: &Value<'_>) -> Option<Vec<String>> {
    let names: Vec<_> = value
        .list("[\"nginx\"]")?
        .iter()
        .map(|item| Some((item.checked("[\"nginx\"]", check::package)?, item.place)))
        .collect();
    let names: Vec<_> = names.into_iter().collect::<Option<_>>()?;
    for (index, (name, place)) in names.iter().enumerate() {
        if let Some((_, first)) = names[..index].iter().find(|(earlier, _)| bare(earlier) == bare(name)) {
            place.contradicts::<()>(
                *first,
                format!("the package `{}` is listed twice", bare(name)),
                "it is here already",
                "keep one of them",
            );
        }
    }
    Some(names.into_iter().map(|(name, _)| name).collect())
}

fn bare(package: &str) -> &str {
    package.split('=').next().unwrap_or(package)
}

fn address(value: &Value<'_>) -> Option<String> {
    let text = value.checked("\"http://deb.debian.org/debian\"", check::address)?;
    Some(text.trim_end_matches('/').to_owned())
}

fn components(value: &Value<'_>) -> Option<Vec<String>> {
    let example = "[\"main\", \"contrib\"]";
    let items = value.list(example)?;
    if items.is_empty() {
        return value
            .place
            .report("an archive without components has no packages", format!("write `components = {example}`"));
    }
    let word = |text: &str| {
        let good = !text.is_empty()
            && text
                .split('/')
                .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        if good { Ok(()) } else { Err(format!("`{}` is not a component of an archive", shown(text))) }
    };
    let words: Vec<_> = items.iter().map(|item| item.checked(example, word)).collect();
    words.into_iter().collect()
}

fn keyring(value: &Value<'_>, context: &Context<'_>) -> Option<String> {
    let path = value.checked("\"keys/archive.gpg\"", check::recipe_path)?;
    match context.files.kind(&path) {
        Ok(Some(FileKind::File)) => {}
        Ok(Some(_)) => return value.place.report(format!("`{path}` is not a file"), "name the OpenPGP keyring itself"),
        Ok(None) => {
            return value.place.report(
                format!("there is no file `{path}` beside the recipe"),
                "add the keyring, or remove `keyring` to use the archive keys shipped with Kiln",
            );
        }
        Err(problem) => {
            return value
                .place
                .report(format!("`{path}` cannot be used: {problem}"), "put the keyring into the recipe's directory");
        }
    }
    match context.files.read(&path, MAX_KEYRING) {
        Ok(_) => Some(path),
        Err(problem) => value
            .place
            .report(format!("`{path}` cannot be used: {problem}"), "a keyring is an OpenPGP file of at most 4 MiB"),
    }
}
