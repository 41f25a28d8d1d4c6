//! `[base]`: what the image starts from.

use super::{
    Base, Distribution,
    archive::{self, Sources},
    containerfile_base, oci_base, packages,
    text::Context,
};
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
        "repository",
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
const ARCHIVE_ONLY: [&str; 1] = ["packages"];
/// Suites whose names move from release to release.
const MOVING: [&str; 7] = ["stable", "oldstable", "oldoldstable", "testing", "unstable", "devel", "rolling"];

/// What the image starts from, and where packages come from.
pub(super) fn read(table: &Table<'_>, context: &Context<'_>) -> Option<(Base, Sources)> {
    let choice = table.one_of(&["debian", "ubuntu", "image", "oci", "containerfile"], "debian = \"bookworm\"")?;
    let what = match choice.key {
        "debian" => "a Debian suite",
        "ubuntu" => "an Ubuntu suite",
        "image" => "an image",
        "containerfile" => "what a Containerfile says",
        _ => "an OCI image",
    };
    let own = if choice.key == "ubuntu" { "debian" } else { choice.key };
    let foreign = [
        ("debian", &ARCHIVE_ONLY[..]),
        ("debian", &archive::KEYS[..]),
        ("oci", &oci_base::ONLY[..]),
        ("containerfile", &containerfile_base::ONLY[..]),
    ];
    // The images that a Containerfile starts from have the limits of other images; packages go over any image.
    let belongs = |owner: &str, keys: &[&str]| {
        let over_images = keys == archive::KEYS && own != "containerfile";
        owner == own || (owner == "oci" && own == "containerfile") || over_images
    };
    for (owner, keys) in foreign.into_iter().filter(|(owner, keys)| !belongs(owner, keys)) {
        for entry in table.entries().filter(|entry| keys.contains(&entry.key)) {
            let help = match (entry.key, own) {
                ("packages", "image" | "oci") => "install them in a step: `[[step]]` with `packages = […]`",
                _ => "remove one of the two",
            };
            entry.place.contradicts::<()>(
                choice.place,
                format!("`{}` goes with `{owner}`, and this base is {what}", entry.key),
                format!("the base is {what}"),
                help,
            );
        }
    }
    let sources = archive::read(table, context);
    let base = match choice.key {
        "image" => choice.value.parsed::<ImageRef>("\"hello@stable\"").map(Base::Image),
        "oci" => oci_base::read(table, &choice.value, context).map(Base::Oci),
        "containerfile" => {
            containerfile_base::read(table, &choice.value, context).map(|base| Base::Containerfile(Box::new(base)))
        }
        "ubuntu" => of_archive(Distribution::Ubuntu, table, &choice.value, sources.as_ref(), context),
        _ => of_archive(Distribution::Debian, table, &choice.value, sources.as_ref(), context),
    };
    Some((base?, sources?))
}

fn of_archive(
    of: Distribution,
    table: &Table<'_>,
    suite: &Value<'_>,
    sources: Option<&Sources>,
    context: &Context<'_>,
) -> Option<Base> {
    let suite = suite_name(of, suite, table.has("mirror"));
    let packages = table.get("packages").map_or(Some(vec![]), |v| packages::list(&v, context));
    Some(Base::Debian(sources?.of(of, suite?, packages?)))
}

fn suite_name(of: Distribution, value: &Value<'_>, own_mirror: bool) -> Option<String> {
    let (example, known) = match of {
        Distribution::Debian => ("\"bookworm\"", of.suites()),
        Distribution::Ubuntu => ("\"noble\"", of.suites()),
    };
    let name = value.checked(example, |text| {
        if Distribution::is_code_name(text) {
            Ok(())
        } else {
            Err(format!("`{}` is not the code name of a suite", shown(text)))
        }
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
