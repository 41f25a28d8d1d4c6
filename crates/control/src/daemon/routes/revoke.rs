//! `POST /v1/revoke`: the entry in the audit log, the line in the list of revoked images, and every group looks again.

use std::sync::Arc;

use axum::{Json, extract::State};
use jiff::Timestamp;
use kiln_api::{
    request::{RevokeRequest, Revoked, RevokedGroup},
    status::GroupStatus,
};
use kiln_model::{
    ImageDigest, ImageName,
    fleet::{ImageRef, Selector},
};
use serde_json::json;

use super::{
    super::{
        App,
        error::{Body, Failure},
    },
    Shared,
};
use crate::{releases::ReleasesError, reports::blocking};

pub(super) async fn revoke(State(app): Shared, Body(request): Body<RevokeRequest>) -> Result<Json<Revoked>, Failure> {
    let (name, image) = resolve(&app, request.image.clone()).await?;
    let inputs = json!({"image": image, "name": name});
    app.control.record("revoke", inputs, request.reason.as_str()).await?;
    let (keys, subject) = (app.keys.clone(), name.clone());
    let listed = move || keys.revoke_image(&image, &subject, &request.reason, Timestamp::now());
    let new = tokio::task::spawn_blocking(listed).await.expect("writing a list does not panic")?;
    app.control.look_again().await?;
    let status = app.control.status().await?;
    Ok(Json(Revoked {
        channels: channels(&app, &name, image).await?,
        name: name.to_string(),
        image: image.to_string(),
        already: !new,
        groups: status.groups.iter().filter_map(|group| holding(group, &image.to_string())).collect(),
    }))
}

/// What is meant. An image that is named by its digest need not be here: it may come yet.
async fn resolve(app: &Arc<App>, wanted: ImageRef) -> Result<(ImageName, ImageDigest), ReleasesError> {
    let library = app.library.clone();
    blocking(move || match (library.resolve(&wanted), &wanted.selector) {
        (Ok(image), _) => Ok((image.name, image.digest)),
        (Err(ReleasesError::NotFound { .. }), Selector::Digest(digest)) => Ok((wanted.name.clone(), *digest)),
        (Err(error), _) => Err(error),
    })
    .await
}

async fn channels(app: &Arc<App>, name: &ImageName, image: ImageDigest) -> Result<Vec<String>, ReleasesError> {
    let (library, name) = (app.library.clone(), name.clone());
    let all = blocking(move || library.channels(&name)).await?;
    Ok(all.into_iter().filter(|(_, digest)| *digest == image).map(|(channel, _)| channel.to_string()).collect())
}

fn holding(group: &GroupStatus, image: &str) -> Option<RevokedGroup> {
    let servers: Vec<_> = group.servers.iter().filter(|server| server.image == image).map(|s| s.id.clone()).collect();
    let goes_to = (group.image != image).then(|| group.release.clone());
    (!servers.is_empty()).then(|| RevokedGroup { group: group.name.clone(), servers, goes_to })
}
