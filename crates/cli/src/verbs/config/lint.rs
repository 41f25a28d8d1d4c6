//! `kiln config lint`: what is doubtful about the configuration of an image and its fleet.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use kiln_control::{Releases as _, keys::Keys, library::StoreLibrary};
use kiln_image::Store;
use kiln_model::{
    EnvironmentName, ImageName, Recipe,
    config::{ConfigKey, Delivery, Lint, lint},
    evidence,
    fleet::{EvidencePolicy, FleetFiles, ImageRef, Selector},
};
use serde_json::{Value, json};

use super::super::Context;
use crate::{
    cli::ConfigLint,
    exit::Exit,
    failure::Failure,
    parts::host::HostPlaces,
    project,
    ui::{bad, good},
};

const READING: &str = "read the reports of the image";

pub(super) fn run(context: &Context<'_>, arguments: &ConfigLint) -> Result<Exit, Failure> {
    let recipe = project::recipe(&arguments.directory)?;
    let fleets = fleets(&arguments.directory)?;
    let reads = reads(&context.state, &recipe.name)?;
    let found = lint(&recipe, &fleets, reads.as_ref());
    context.ui.result(&to_json(&recipe, &found, reads.as_ref()), || text(&recipe, &found));
    Ok(if found.findings.is_empty() { Exit::Ok } else { Exit::Failed })
}

/// The fleet, and the fleet of every environment that has a file beside it.
fn fleets(directory: &Path) -> Result<Vec<FleetFiles>, Failure> {
    let Some(base) = project::fleet_if_any(directory, None)? else { return Ok(Vec::new()) };
    let environments = project::environments(directory)?;
    let named = environments.iter().map(|environment: &EnvironmentName| project::fleet(directory, Some(environment)));
    [Ok(base)].into_iter().chain(named).collect()
}

/// The keys that test servers of the image which `dev` names asked for, as signed reports say; none without such a report.
fn reads(state: &Path, name: &ImageName) -> Result<Option<BTreeSet<ConfigKey>>, Failure> {
    if !state.exists() {
        return Ok(None);
    }
    let store = HostPlaces::of(state)?.store();
    let keys = Keys::open(state).map_err(|error| Failure::host(READING, error))?;
    let library = StoreLibrary::new(Store::open(&store)?, Arc::new(keys));
    let dev = Selector::Channel("dev".parse().expect("`dev` is a channel's name"));
    let Ok(image) = library.resolve(&ImageRef { name: name.clone(), selector: dev }) else { return Ok(None) };
    let trusted = library.policy(EvidencePolicy::default()).map_err(|error| Failure::host(READING, error))?.keys;
    let reports = library.reports(&image.digest).map_err(|error| Failure::host(READING, error))?;
    let opened: Vec<_> = reports.iter().filter_map(|envelope| evidence::open(envelope, &trusted).ok()).collect();
    Ok((!opened.is_empty()).then(|| opened.into_iter().flat_map(|opened| opened.report.reads).collect()))
}

fn to_json(recipe: &Recipe, found: &Lint, reads: Option<&BTreeSet<ConfigKey>>) -> Value {
    let keys = &recipe.manifest.config;
    let live = keys.0.values().filter(|spec| spec.delivery == Delivery::Live).count();
    let findings: Vec<_> = found
        .findings
        .iter()
        .map(|finding| json!({ "finding": finding.word(), "key": finding.key(), "message": finding.to_string() }))
        .collect();
    json!({
        "image": recipe.name,
        "keys": keys.0.len(),
        "required": keys.required().count(),
        "live": live,
        "per_server": 0,
        "by_group": found.by_group,
        "by_environment": found.by_environment,
        "read_by_metadata": reads,
        "not_known_to_be_read": found.unknown,
        "findings": findings,
    })
}

fn text(recipe: &Recipe, found: &Lint) -> String {
    let keys = &recipe.manifest.config;
    let mut lines = vec![format!(
        "{} keys, {} of them must be given; {} differ between groups, {} between environments, none between servers of a group",
        keys.0.len(),
        keys.required().count(),
        found.by_group.len(),
        found.by_environment.len(),
    )];
    if !found.unknown.is_empty() {
        let names: Vec<_> = found.unknown.iter().map(|key| format!("`{key}`")).collect();
        let names = names.join(", ");
        lines.push(format!("no test was run here that tells whether metadata requests read {names}: run `kiln test`"));
    }
    lines.extend(found.findings.iter().map(|finding| format!("{} {finding}", bad())));
    if found.findings.is_empty() {
        lines.push(format!("{} nothing to say against it", good()));
    }
    lines.join("\n")
}
