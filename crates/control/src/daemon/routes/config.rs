//! `POST /v1/config/diff`, `POST /v1/live` and `GET /v1/live/{id}`.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, State},
};
use kiln_api::{
    ApiError, ErrorCode,
    config::{ConfigDiff, ConfigDiffRequest, LiveDetails, LiveKey, LiveRequest, Side, SideShown, ValueDiff},
};
use kiln_model::{
    FrozenConfig, GroupName, ImageDigest, Release,
    config::{Compared, ConfigValue, Frozen, compare},
};

use super::{
    super::{
        App,
        error::{Body, Failure},
    },
    Shared,
};
use crate::{live::LiveValues, releases::ImageInfo, reports::blocking};

pub(super) async fn diff(
    State(app): Shared,
    Body(request): Body<ConfigDiffRequest>,
) -> Result<Json<ConfigDiff>, Failure> {
    let (before, after) =
        (side(&app, &request.group, &request.from).await?, side(&app, &request.group, &request.to).await?);
    let values = compare(&before.1, &after.1).into_iter().map(value).collect();
    Ok(Json(ConfigDiff { group: request.group.to_string(), from: shown(&before), to: shown(&after), values }))
}

type Pair = (ImageDigest, FrozenConfig);

async fn side(app: &Arc<App>, group: &GroupName, side: &Side) -> Result<Pair, Failure> {
    match side {
        Side::Release(word) => release(app, group, word).await,
        Side::Fleet { fleet, directory } => {
            let mut fleet = fleet.as_ref().clone();
            let wanted = fleet.groups.get(group).ok_or_else(|| no_group(group))?;
            let (library, reference) = (app.library.clone(), wanted.image.clone());
            let image = blocking(move || library.resolve(&reference)).await?;
            fleet.spread(|name| (name == group).then_some(&image.manifest.config));
            let froze = app.freezer.preview(&fleet.groups[group], &image.manifest, directory).await?;
            Ok((image.digest, froze.config))
        }
    }
}

fn no_group(group: &GroupName) -> ApiError {
    ApiError::new(ErrorCode::NotFound, format!("the fleet has no group `{group}`"))
}

/// `running`, `previous`, or the first digits of an id.
async fn release(app: &Arc<App>, group: &GroupName, word: &str) -> Result<Pair, Failure> {
    let (current, releases) = app.control.releases(group).await?;
    let digits = word.strip_prefix("sha256:").unwrap_or(word);
    let mut fitting = releases.iter().filter(|release| match word {
        "running" => release.id() == current,
        _ => digits.len() >= 4 && release.id().0.hex().starts_with(digits),
    });
    let previous = || {
        let earlier = releases.iter().filter(|release| release.id() != current && release.settled.is_some());
        earlier.max_by_key(|release| release.settled)
    };
    let (found, more) = match word {
        "previous" => (previous(), None),
        _ => (fitting.next(), fitting.next()),
    };
    match (found, more) {
        (Some(release), None) => Ok((release.image, release.config.clone())),
        (Some(_), Some(_)) => {
            Err(ApiError::new(ErrorCode::Invalid, format!("`{word}` fits several releases of group `{group}`"))
                .help("write more of its digits")
                .into())
        }
        (None, _) => {
            let had: Vec<String> = releases.iter().map(|release| release.id().short()).collect();
            Err(ApiError::new(ErrorCode::NotFound, format!("group `{group}` has no release `{word}`"))
                .help(format!("write `running`, `previous`, or four digits or more of one of {}", had.join(", ")))
                .into())
        }
    }
}

fn shown((image, config): &Pair) -> SideShown {
    let release = Release { image: *image, config: config.digest() };
    SideShown { release: release.id().to_string(), image: image.to_string(), config: release.config.to_string() }
}

fn value(compared: Compared) -> ValueDiff {
    let change = match (&compared.before, &compared.after) {
        (None, _) => "added",
        (_, None) => "removed",
        _ if compared.changed() => "changed",
        _ => "same",
    };
    let secret = [&compared.before, &compared.after].into_iter().flatten().any(|value| value.secret().is_some());
    let open = |value: Option<Frozen>| match value {
        Some(Frozen::Value(value)) if !secret => Some(json(&value)),
        _ => None,
    };
    let (old, new) = (open(compared.before), open(compared.after));
    ValueDiff { key: compared.place, change: change.to_owned(), secret, old, new }
}

fn json(value: &ConfigValue) -> serde_json::Value {
    serde_json::to_value(value).expect("a value always serialises")
}

pub(super) async fn set(State(app): Shared, Body(request): Body<LiveRequest>) -> Result<Json<LiveDetails>, Failure> {
    let image = image(&app, &request.group).await?;
    let LiveRequest { group, key, value } = request;
    let values = app.control.live().set(&group, &image.manifest.config, &key, value.as_deref()).await?;
    tracing::info!(%group, %key, version = values.version, "a live key was set");
    Ok(Json(details(&group, &values)))
}

pub(super) async fn live(State(app): Shared, Path(group): Path<String>) -> Result<Json<LiveDetails>, Failure> {
    let group: GroupName =
        group.parse().map_err(|e: kiln_model::id::InvalidName| ApiError::new(ErrorCode::Invalid, e.to_string()))?;
    app.control.group_status(&group).await?;
    Ok(Json(details(&group, &app.control.live().of(&group))))
}

/// The image that a group is to have.
async fn image(app: &Arc<App>, group: &GroupName) -> Result<ImageInfo, Failure> {
    let (current, releases) = app.control.releases(group).await?;
    let release = releases.into_iter().find(|release| release.id() == current);
    let digest = release.ok_or_else(|| no_group(group))?.image;
    let library = app.library.clone();
    Ok(blocking(move || library.image(&digest)).await?)
}

fn details(group: &GroupName, values: &LiveValues) -> LiveDetails {
    let key = |(key, value): (&kiln_model::config::ConfigKey, &ConfigValue)| LiveKey {
        key: key.to_string(),
        value: json(value),
        fleet: values.fleet.get(key).map(json),
        set_at: values.set.get(key).map(|set| set.at.to_string()),
    };
    LiveDetails {
        group: group.to_string(),
        version: values.version,
        keys: values.seen().into_iter().map(key).collect(),
    }
}
