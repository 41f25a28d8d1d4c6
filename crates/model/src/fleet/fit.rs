//! Whether what a fleet says fits an image's keys, before anything is baked: shown at the line, with what to write instead.
//!
//! Values that are not known to be open are masked in what is shown: those of secret keys, of keys that the image does not
//! have, and of other images.

mod data;
mod words;

use std::{collections::BTreeMap, ops::Range};

use self::words::example;
pub(crate) use self::words::{literal, words};
use super::{FleetFiles, Group, Origin, Selector};
use crate::{
    config::{ConfigKey, ConfigSchema, ConfigSource, Delivery, KeySpec, ProblemKind},
    diagnostic::{Diagnostic, Diagnostics},
    id::{BindingName, GroupName},
    manifest::ImageManifest,
    shared::{Place, SharedDirectory},
    text::{Document, listed, suggest},
};

/// Something wrong, and the keys that lead to it.
struct Misfit {
    environment: bool,
    path: Vec<String>,
    at: At,
    message: String,
    help: String,
}

/// Which part of an entry is marked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Key,
    Value,
}

impl FleetFiles {
    /// Checks the groups that get this image when it has been baked, those of its channel `dev`. What is wrong in the first file that has something wrong is told.
    pub fn check(&self, image: &ImageManifest) -> Result<(), Diagnostics> {
        let ours = || self.fleet.groups.iter().filter(|(_, group)| baked(group, image));
        let mut found: Vec<_> = ours().flat_map(|(name, group)| self.group(name, group, image)).collect();
        if ours().count() == self.fleet.groups.len() {
            found.extend(self.shared(image));
        }
        for environment in [false, true] {
            if let Some(diagnostics) = self.shown(&found, environment, image) {
                return Err(diagnostics);
            }
        }
        Ok(())
    }

    /// Asks of every shared directory that the fleet binds whether this host can hand it to servers. What is wrong is shown where
    /// it is bound.
    pub fn check_shared(
        &self,
        image: &ImageManifest,
        usable: impl Fn(&SharedDirectory) -> Result<(), String>,
    ) -> Result<(), Diagnostics> {
        let bound = |(group, spec): (&GroupName, &Group)| {
            let (group, all) = (group.to_string(), spec.shared.clone());
            all.into_iter().map(move |(name, directory)| (group.clone(), name, directory))
        };
        let found = self.fleet.groups.iter().flat_map(bound).filter_map(|(group, name, directory)| {
            let message = usable(&directory).err()?;
            let key = if matches!(directory.place, Place::Directory(_)) { "directory" } else { "nfs" };
            let path = ["group".to_owned(), group, "shared".to_owned(), name.to_string(), key.to_owned()].to_vec();
            let help = "change it here, or on the host: Kiln neither makes nor changes what is there".to_owned();
            Some(Misfit { environment: false, path, at: At::Value, message, help })
        });
        let found: Vec<_> = found.collect();
        self.shown(&found, false, image).map_or(Ok(()), Err)
    }

    /// Keys of `[config]` that no image of the fleet has.
    fn shared(&self, image: &ImageManifest) -> Vec<Misfit> {
        let unknown = self.fleet.config.keys().filter(|key| !image.config.0.contains_key(*key));
        unknown
            .map(|key| {
                let environment = self.over.as_ref().is_some_and(|(_, overlay)| overlay.config.contains_key(key));
                misfit(
                    Origin { environment, own: false },
                    None,
                    key,
                    At::Key,
                    unknown_key(&format!("the image `{}`", image.name), &image.config, key),
                )
            })
            .collect()
    }

    fn group(&self, name: &GroupName, group: &Group, image: &ImageManifest) -> Vec<Misfit> {
        let values = self.fleet.values_of(group, &image.config);
        let given = values.iter().filter_map(|(key, source)| {
            let origin = self.origin(name, key)?;
            let (at, words) = wrong(&format!("the image `{}`", image.name), &image.config, key, source)?;
            Some(misfit(origin, Some(name), key, at, words))
        });
        let missing = image.config.required().filter(|(key, _)| !values.contains_key(*key));
        let missing = missing.map(|(key, spec)| {
            let origin = Origin { environment: false, own: true };
            misfit(origin, Some(name), key, At::Key, missing_key(name, (&key.to_string(), "config"), key, spec))
        });
        let bindings =
            image.bindings.iter().flat_map(|(binding, wanted)| bound(name, group, (binding, &wanted.fields)));
        let strange = group.bindings.keys().filter(|binding| !image.bindings.contains_key(*binding));
        let strange = strange.map(|binding| unknown_binding(name, binding, image));
        given.chain(missing).chain(bindings).chain(strange).chain(data::data(name, group, image)).collect()
    }

    fn shown(&self, found: &[Misfit], environment: bool, image: &ImageManifest) -> Option<Diagnostics> {
        let found: Vec<_> = found.iter().filter(|misfit| misfit.environment == environment).collect();
        let file = self.file(Origin { environment, own: false });
        let document = Document::parse(&file.file, &file.text).ok().filter(|_| !found.is_empty())?;
        let masked = masked(&file.text, &self.hidden(&document, image));
        let diagnostics = found.into_iter().map(|misfit| {
            let span = document.find(&misfit.path).map_or(0..0, |entry| match misfit.at {
                At::Key => entry.place.span(),
                At::Value => entry.value.place.span(),
            });
            Diagnostic::new(&file.file, &masked, span, misfit.message.clone(), misfit.help.clone())
        });
        Diagnostics::new(&file.file, &masked, diagnostics.collect())
    }

    /// The places of all values that are not known to be open.
    fn hidden(&self, document: &Document<'_>, image: &ImageManifest) -> Vec<Range<usize>> {
        let mut hidden = values_but(document, &["config".to_owned()], &image.config);
        for (name, group) in &self.fleet.groups {
            let path = |last: &str| ["group".to_owned(), name.to_string(), last.to_owned()];
            let other = ConfigSchema::default();
            let schema = if baked(group, image) { &image.config } else { &other };
            hidden.extend(values_but(document, &path("config"), schema));
            hidden.extend(document.children(&path("service_binding")).map(|(_, span)| span));
        }
        hidden
    }
}

fn baked(group: &Group, image: &ImageManifest) -> bool {
    let dev = matches!(&group.image.selector, Selector::Channel(channel) if channel.as_str() == "dev");
    dev && group.image.name == image.name
}

fn misfit(
    origin: Origin,
    group: Option<&GroupName>,
    key: &ConfigKey,
    at: At,
    (message, help): (String, String),
) -> Misfit {
    let own = group.filter(|_| origin.own).map(|group| vec!["group".to_owned(), group.to_string()]);
    let path = [own.unwrap_or_default(), vec!["config".to_owned(), key.to_string()]].concat();
    Misfit { environment: origin.environment, path, at, message, help }
}

/// What is wrong with the fields of a binding.
fn bound(name: &GroupName, group: &Group, (binding, schema): (&BindingName, &ConfigSchema)) -> Vec<Misfit> {
    let nothing = BTreeMap::new();
    let fields = group.bindings.get(binding).unwrap_or(&nothing);
    let given = fields.iter().filter_map(|(key, source)| {
        let (at, words) = wrong(&format!("the binding `{binding}`"), schema, key, source)?;
        Some(misfit_of_binding(name, binding, Some(key), at, words))
    });
    let missing = schema.required().filter(|(key, _)| !fields.contains_key(*key)).map(|(key, spec)| {
        let place = (format!("{binding}.{key}"), format!("service_binding.{binding}"));
        let words = missing_key(name, (&place.0, &place.1), key, spec);
        misfit_of_binding(name, binding, Some(key), At::Key, words)
    });
    given.chain(missing).collect()
}

fn unknown_binding(name: &GroupName, binding: &BindingName, image: &ImageManifest) -> Misfit {
    let message = format!("the image `{}` has no service binding `{binding}`", image.name);
    let valid: Vec<_> = image.bindings.keys().map(BindingName::as_str).collect();
    let help = match suggest(binding.as_str(), &valid) {
        Some(meant) => format!("did you mean `{meant}`? Its bindings are {}", listed(&valid)),
        None if valid.is_empty() => {
            format!("it has none at all: declare it with `[service_binding.{binding}]` in image.toml, or remove it")
        }
        None => format!("its bindings are {}", listed(&valid)),
    };
    misfit_of_binding(name, binding, None, At::Key, (message, help))
}

fn misfit_of_binding(
    group: &GroupName,
    binding: &BindingName,
    key: Option<&ConfigKey>,
    at: At,
    (message, help): (String, String),
) -> Misfit {
    let mut path = vec!["group".to_owned(), group.to_string(), "service_binding".to_owned(), binding.to_string()];
    path.extend(key.map(ToString::to_string));
    Misfit { environment: false, path, at, message, help }
}

fn wrong(whose: &str, schema: &ConfigSchema, key: &ConfigKey, source: &ConfigSource) -> Option<(At, (String, String))> {
    let literal = match source {
        ConfigSource::Literal(value) => Some(value),
        _ => None,
    };
    match schema.problem(key, literal)? {
        ProblemKind::Unfit { wanted } => {
            let spec = schema.0.get(key)?;
            let open = literal.filter(|_| spec.delivery != Delivery::Secret);
            let found = open.map(|value| format!(", but this is {}", words(value))).unwrap_or_default();
            let help = format!("write `{key} = {}`", example(key, spec));
            Some((At::Value, (format!("`{key}` must be {wanted}{found}"), help)))
        }
        _ => Some((At::Key, unknown_key(whose, schema, key))),
    }
}

fn unknown_key(whose: &str, schema: &ConfigSchema, key: &ConfigKey) -> (String, String) {
    let message = format!("{whose} has no configuration key `{key}`");
    let valid: Vec<_> = schema.0.keys().map(ConfigKey::as_str).collect();
    let help = match schema.problem(key, None) {
        _ if valid.is_empty() => {
            format!("it has no keys at all: declare this one with `[config.{key}]` in image.toml, or remove it")
        }
        Some(ProblemKind::Unknown { meant: Some(meant) }) => {
            format!("did you mean `{meant}`? Its keys are {}", listed(&valid))
        }
        _ => format!("its keys are {}", listed(&valid)),
    };
    (message, help)
}

fn missing_key(group: &GroupName, (full, table): (&str, &str), key: &ConfigKey, spec: &KeySpec) -> (String, String) {
    let message = format!("group `{group}` gives no value for `{full}`, which must be {}", spec.kind.wanted());
    (message, format!("add it below `[group.{group}.{table}]`: `{key} = {}`", example(key, spec)))
}

fn values_but(document: &Document<'_>, path: &[String], open: &ConfigSchema) -> Vec<Range<usize>> {
    let is_open: BTreeMap<_, _> =
        open.0.iter().map(|(key, spec)| (key.as_str(), spec.delivery != Delivery::Secret)).collect();
    let children = document.children(path);
    children.filter(|(key, _)| !is_open.get(key).copied().unwrap_or(false)).map(|(_, span)| span).collect()
}

/// The text with stars in these places, as long as it was.
fn masked(text: &str, hidden: &[Range<usize>]) -> String {
    let covered = |index: usize| hidden.iter().any(|span| span.contains(&index));
    let stars = |(index, c): (usize, char)| match covered(index) && c != '\n' {
        true => "*".repeat(c.len_utf8()),
        false => c.to_string(),
    };
    text.char_indices().map(stars).collect()
}
