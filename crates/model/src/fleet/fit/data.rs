//! Volumes and shared directories that the image needs and the group says nothing of, and the reverse.

use super::{At, Misfit};
use crate::{fleet::Group, id::GroupName, manifest::ImageManifest, shared, text::suggest, volume};

/// A kind of data, in words.
struct Kind<'a> {
    /// The key of a group, and of a writable path.
    key: &'static str,
    /// What it is.
    what: &'static str,
    /// What a group that forgot one says not.
    unsaid: &'static str,
    /// What to write below its table.
    example: &'static str,
    wanted: Vec<&'a str>,
    given: Vec<&'a str>,
}

pub(super) fn data(name: &GroupName, group: &Group, image: &ImageManifest) -> Vec<Misfit> {
    let volumes = Kind {
        key: "volume",
        what: "volume",
        unsaid: "says no size for",
        example: "size = \"1GiB\"",
        wanted: volume::needed(image).map(|needed| needed.name.as_str()).collect(),
        given: group.volumes.keys().map(|name| name.as_str()).collect(),
    };
    let shared = Kind {
        key: "shared",
        what: "shared directory",
        unsaid: "does not say where to find",
        example: "directory = \"/srv/uploads\"",
        wanted: shared::needed(image).map(|name| name.as_str()).collect(),
        given: group.shared.keys().map(|name| name.as_str()).collect(),
    };
    [volumes, shared].iter().flat_map(|kind| kind.misfits(name, image)).collect()
}

impl Kind<'_> {
    fn misfits(&self, name: &GroupName, image: &ImageManifest) -> Vec<Misfit> {
        let Self { key, what, unsaid, example, wanted, given } = self;
        let path = |last: Option<&str>| {
            let group = ["group".to_owned(), name.to_string()].into_iter();
            group.chain(last.iter().flat_map(|last| [(*key).to_owned(), (*last).to_owned()])).collect()
        };
        let missing = wanted.iter().filter(|wanted| !given.contains(wanted)).map(|wanted| Misfit {
            environment: false,
            path: path(None),
            at: At::Key,
            message: format!("group `{name}` {unsaid} the {what} `{wanted}` of the image `{}`", image.name),
            help: format!("add `[group.{name}.{key}.{wanted}]` followed by `{example}`"),
        });
        let strange = given.iter().filter(|given| !wanted.contains(given)).map(|given| Misfit {
            environment: false,
            path: path(Some(given)),
            at: At::Key,
            message: format!("the image `{}` has no {what} `{given}`", image.name),
            help: match suggest(given, wanted) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("declare it in `[writable]` of image.toml (`{{ {key} = \"{given}\" }}`), or remove it"),
            },
        });
        missing.chain(strange).collect()
    }
}
