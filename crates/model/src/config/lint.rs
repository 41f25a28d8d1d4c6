//! What is doubtful about a configuration although nothing in it is wrong: too much that differs, keys that nobody reads, keys
//! that no test ever saw with another value.

use std::collections::{BTreeMap, BTreeSet};

use super::{ConfigKey, ConfigSource, ConfigValue, Delivery, keys_of_template};
use crate::{Group, GroupName, fleet::FleetFiles, recipe::Recipe, suite::MatrixEntry};

/// More keys than this that differ between groups, or between environments, are a warning.
pub const BREADTH: usize = 8;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lint {
    /// Keys that groups of the image have different values for.
    pub by_group: BTreeSet<ConfigKey>,
    /// Keys that have another value in some environment.
    pub by_environment: BTreeSet<ConfigKey>,
    /// Keys that only a metadata request can have read, where it is not known which were made.
    pub unknown: BTreeSet<ConfigKey>,
    /// What is doubtful.
    pub findings: Vec<Finding>,
}

/// Something doubtful.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Much differs between groups.
    #[error("{0} keys differ between groups of the image, more than {BREADTH}: are these groups of one role?")]
    BroadGroups(usize),
    /// Much differs between environments.
    #[error("{0} keys differ between environments, more than {BREADTH}: each is something that only one of them tests")]
    BroadEnvironments(usize),
    /// Nobody reads a key.
    #[error("`{0}` is read by no template, no variable of a service and no metadata request during the tests")]
    Unread(ConfigKey),
    /// A key had one value in all tests.
    #[error("`{0}` has had one value in all tests: give it another one in a `[[test.matrix]]`")]
    Unvaried(ConfigKey),
}

impl Finding {
    /// What programs call it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::BroadGroups(_) | Self::BroadEnvironments(_) => "broad",
            Self::Unread(_) => "unread",
            Self::Unvaried(_) => "unvaried",
        }
    }

    /// The key, where it is about one.
    pub fn key(&self) -> Option<&ConfigKey> {
        match self {
            Self::BroadGroups(_) | Self::BroadEnvironments(_) => None,
            Self::Unread(key) | Self::Unvaried(key) => Some(key),
        }
    }
}

/// Looks at a recipe and its fleet: as it is, then in each environment. `reads` are the keys that test servers of the image
/// asked for; none where none was tested.
pub fn lint(recipe: &Recipe, fleets: &[FleetFiles], reads: Option<&BTreeSet<ConfigKey>>) -> Lint {
    let wanted: Vec<_> = fleets.iter().map(|files| values(recipe, files)).collect();
    let mut lint = Lint { by_group: by_group(&wanted), by_environment: by_environment(&wanted), ..Lint::default() };
    let broad = |count: usize, finding: fn(usize) -> Finding| (count > BREADTH).then(|| finding(count));
    lint.findings.extend(broad(lint.by_group.len(), Finding::BroadGroups));
    lint.findings.extend(broad(lint.by_environment.len(), Finding::BroadEnvironments));
    let silent: BTreeSet<_> = unnamed(recipe);
    match reads {
        Some(reads) => lint.findings.extend(silent.difference(reads).cloned().map(Finding::Unread)),
        None => lint.unknown = silent,
    }
    lint.findings.extend(unvaried(recipe, &wanted).map(Finding::Unvaried));
    lint
}

type Values = BTreeMap<GroupName, BTreeMap<ConfigKey, ConfigSource>>;

/// What the fleet gives to the groups of the image.
fn values(recipe: &Recipe, files: &FleetFiles) -> Values {
    let ours = |group: &Group| group.image.name == recipe.name;
    let groups = files.fleet.groups.iter().filter(|(_, group)| ours(group));
    let schema = &recipe.manifest.config;
    groups.map(|(name, group)| (name.clone(), files.fleet.values_of(group, schema))).collect()
}

fn by_group(fleets: &[Values]) -> BTreeSet<ConfigKey> {
    let differing = fleets.iter().flat_map(|groups| {
        let keys: BTreeSet<_> = groups.values().flat_map(BTreeMap::keys).collect();
        keys.into_iter().filter(|key| {
            let mut all = groups.values().map(|values| values.get(*key));
            let first = all.next();
            all.any(|value| Some(value) != first)
        })
    });
    differing.cloned().collect()
}

fn by_environment(fleets: &[Values]) -> BTreeSet<ConfigKey> {
    let Some((base, environments)) = fleets.split_first() else { return BTreeSet::new() };
    let differing = environments.iter().flat_map(|groups| {
        groups.iter().flat_map(|(name, values)| {
            let before = base.get(name);
            let of = move |key: &ConfigKey| before.and_then(|before| before.get(key));
            values.iter().filter(move |(key, value)| of(key) != Some(*value)).map(|(key, _)| key)
        })
    });
    differing.cloned().collect()
}

/// Keys that no template and no variable names. Live keys are in neither.
fn unnamed(recipe: &Recipe) -> BTreeSet<ConfigKey> {
    let manifest = &recipe.manifest;
    let mut named: BTreeSet<ConfigKey> =
        manifest.templates.iter().flat_map(|template| keys_of_template(&template.content)).collect();
    named.extend(manifest.services.values().flat_map(|service| service.configured.values().cloned()));
    manifest.config.0.keys().filter(|key| !named.contains(*key)).cloned().collect()
}

/// Keys for which every configuration that is tested has the same value.
fn unvaried<'a>(recipe: &'a Recipe, fleets: &'a [Values]) -> impl Iterator<Item = ConfigKey> + 'a {
    let open = recipe.manifest.config.0.iter();
    let varied = move |key: &ConfigKey| {
        let literal = |value: &ConfigValue| ConfigSource::Literal(value.clone());
        let default = recipe.manifest.config.0.get(key).and_then(|spec| spec.default.as_ref()).map(literal);
        let matrix = recipe.suite.matrix.iter().map(|entry: &MatrixEntry| entry.config.get(key).map(literal));
        let groups = fleets.iter().flat_map(BTreeMap::values).map(|values| values.get(key).cloned());
        let mut tested = matrix.chain(groups).map(|value| value.or_else(|| default.clone()));
        let first = tested.next();
        tested.any(|value| Some(&value) != first.as_ref())
    };
    // Servers are tested with a live key's default; the matrix alone gives it another value.
    let live = |key: &ConfigKey| {
        let entries = recipe.suite.matrix.iter();
        entries
            .filter_map(|entry| entry.config.get(key))
            .any(|value| recipe.manifest.config.0.get(key).is_none_or(|spec| spec.default.as_ref() != Some(value)))
    };
    let seen = move |key: &ConfigKey, delivery| if delivery == Delivery::Live { live(key) } else { varied(key) };
    open.filter(move |(key, spec)| !seen(key, spec.delivery)).map(|(key, _)| key.clone())
}
