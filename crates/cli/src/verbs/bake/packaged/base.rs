//! What `--base` means.

use std::{fs, path::Path};

use kiln_image::Store;
use kiln_model::{
    fleet::ImageRef,
    oci::{OciPlace, OciSource},
    recipe::Distribution,
};

use crate::{failure::Failure, parts::host::HostPlaces};

/// What the recipe starts from.
pub(super) enum Base {
    /// A suite, from its archive.
    Suite(Distribution, String),
    /// An image of this host.
    Image(String),
    /// An image of a registry, or a file that lies beside the recipe now.
    Oci(String),
}

/// A suite is meant before an image of a registry that is called like it: that one has a longer name
/// (`docker.io/library/debian:bookworm`).
pub(super) fn find(state: &Path, text: &str, directory: &Path) -> Result<Base, Failure> {
    if let Some(suite) = suite(text) {
        return Ok(suite);
    }
    if let Some(image) = of_this_host(state, text)? {
        return Ok(Base::Image(image));
    }
    let source = text.parse::<OciSource>().ok().filter(|_| text.contains([':', '/']));
    match source {
        Some(OciSource::Registry(reference)) => Ok(Base::Oci(reference.to_string())),
        Some(OciSource::Layout(place)) => beside(text, &place, directory).map(Base::Oci),
        Some(OciSource::Archive(place)) => beside(text, &place, directory).map(Base::Oci),
        None => Err(Failure::Packaged {
            reason: format!("there is no image `{}` on this host", shown(text)),
            help: "a base is `debian:bookworm`, `ubuntu:noble`, an image that `kiln images` shows, or one of a registry with its tag: \
                   `docker.io/library/debian:bookworm`"
                .to_owned(),
        }),
    }
}

fn suite(text: &str) -> Option<Base> {
    let of = |key: &str, distribution: Distribution| {
        let suite = text.strip_prefix(key)?.strip_prefix(':')?;
        let known = distribution.suites().contains(&suite);
        known.then(|| Base::Suite(distribution, suite.to_owned()))
    };
    of("debian", Distribution::Debian).or_else(|| of("ubuntu", Distribution::Ubuntu))
}

/// An image by its name, or by the first digits of its id, as `kiln images` shows them.
fn of_this_host(state: &Path, text: &str) -> Result<Option<String>, Failure> {
    let store = Store::open(&HostPlaces::of(state)?.store())?;
    if let Ok(reference) = text.parse::<ImageRef>()
        && store.resolve(&reference)?.is_some()
    {
        return Ok(Some(text.to_owned()));
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if digits.len() < 6 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let images = store.images()?;
    let mut found = images.iter().filter(|image| image.digest.0.hex().starts_with(digits));
    match (found.next(), found.next()) {
        (Some(image), None) => Ok(Some(format!("{}@{}", image.name, image.digest))),
        (Some(_), Some(_)) => Err(Failure::Packaged {
            reason: format!("several images of this host begin with `{digits}`"),
            help: "write more digits: `kiln images --json` has all of them".to_owned(),
        }),
        (None, _) => Ok(None),
    }
}

/// A recipe names only files of its own directory.
fn beside(text: &str, place: &OciPlace, directory: &Path) -> Result<String, Failure> {
    let from = Path::new(&place.path);
    let failed = |source| Failure::Read { path: from.to_owned(), source };
    copy(from, &directory.join("base")).map_err(failed)?;
    let transport = text.split(':').next().unwrap_or_default();
    let name = place.name.as_ref().map(|name| format!(":{name}")).unwrap_or_default();
    Ok(format!("{transport}:base{name}"))
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    if !fs::metadata(from)?.is_dir() {
        // The same file where both are on one file system: it is only read.
        return fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop));
    }
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
