//! `POST /v1/promote`: the rules of the channel are checked, the move is written into the history, and only then is it made.

use std::sync::Arc;

use axum::{Json, extract::State};
use jiff::Timestamp;
use kiln_api::{
    ApiError, ErrorCode, Event,
    difference::Difference,
    request::{PromoteRequest, Promoted},
};
use kiln_model::{
    ChannelName, ImageDigest,
    fleet::EvidencePolicy,
    promotion::{self, Case, Granted, Unmet},
};
use serde_json::{Value, json};

use super::{
    super::{
        App,
        error::{Body, Failure},
    },
    Shared,
};
use crate::{
    moves::{Move, Moves},
    releases::{ImageInfo, ReleasesError},
    reports::blocking,
};

/// So many files of a difference are kept in the history.
const FILES: usize = 200;
/// Who promotes where nobody says so.
const UNSAID: &str = "somebody who may ask the daemon";

pub(super) async fn promote(
    State(app): Shared,
    Body(request): Body<PromoteRequest>,
) -> Result<Json<Promoted>, Failure> {
    let (library, reference) = (app.library.clone(), request.image.clone());
    let image = blocking(move || library.resolve(&reference)).await?;
    let granted = match check(&app, &image, &request).await? {
        Ok(granted) => granted,
        Err(unmet) => return Err(refused(&app, &image, &request, &unmet).await?.into()),
    };
    let before = current(&app, &image, &request.to).await?;
    let difference = difference(&app, before, image.digest).await?;
    let moves = !request.check_only && before != Some(image.digest);
    let evidence = json!(granted);
    if moves {
        let said = request.who.as_ref().map_or(UNSAID, |who| who.as_str());
        let moved = Move {
            at: Timestamp::now(),
            name: image.name.clone(),
            channel: request.to.clone(),
            image: image.digest,
            before,
            who: granted.promoter.as_ref().map_or(said, |key| key.as_str()).to_owned(),
            how: "promote".to_owned(),
            reason: request.reason.as_ref().map_or("its rules hold", |reason| reason.as_str()).to_owned(),
            evidence: evidence.clone(),
            difference: difference.as_ref().map_or(Value::Null, |difference| json!(difference)),
        };
        app.control.announce(move_channel(&app, &image, moved).await?);
    }
    Ok(Json(Promoted {
        name: image.name.to_string(),
        channel: request.to.to_string(),
        image: image.digest.to_string(),
        before: before.map(|digest| digest.to_string()),
        moved: moves,
        evidence,
        difference,
    }))
}

async fn check(
    app: &Arc<App>,
    image: &ImageInfo,
    request: &PromoteRequest,
) -> Result<Result<Granted, Vec<Unmet>>, Failure> {
    let (keys, state_dir) = (app.keys.clone(), app.options.state_dir.clone());
    let (name, digest) = (image.name.clone(), image.digest);
    let read = move || {
        let channels = keys.channels().map_err(|error| ReleasesError::Trust(Box::new(error)))?;
        let stays = Moves::open(&state_dir).and_then(|moves| moves.stays(&name, &digest));
        Ok((channels, stays.map_err(|error| ReleasesError::Store(Box::new(error)))?))
    };
    let (channels, stays) = blocking(read).await?;
    let library = app.library.clone();
    let signed = move || {
        let policy = library.policy(EvidencePolicy::default())?;
        Ok((library.reports(&digest)?, library.approvals(&digest)?, policy))
    };
    let (reports, approvals, policy) = blocking(signed).await?;
    let case = Case {
        image: digest,
        name: &image.name,
        suite: image.suite,
        channel: &request.to,
        reports: &reports,
        approvals: &approvals,
        stays: &stays,
        promotion: request.signed.as_ref(),
        policy: &policy,
        now: Timestamp::now(),
    };
    Ok(promotion::check(&channels, &case))
}

/// Every rule that does not hold, for the caller and for the audit log.
async fn refused(
    app: &Arc<App>,
    image: &ImageInfo,
    request: &PromoteRequest,
    unmet: &[Unmet],
) -> Result<ApiError, Failure> {
    let reasons: Vec<_> = unmet.iter().map(ToString::to_string).collect();
    let codes: Vec<_> = unmet.iter().map(Unmet::code).collect();
    let inputs = json!({"image": image.digest, "name": image.name, "channel": request.to, "unmet": codes});
    app.control.record("promote-refused", inputs, &reasons.join("; ")).await?;
    let (name, short, to) = (&image.name, image.digest.short(), &request.to);
    let reasons = match reasons.as_slice() {
        [only] => only.clone(),
        many => {
            many.iter().enumerate().map(|(n, reason)| format!("({}) {reason}", n + 1)).collect::<Vec<_>>().join("; ")
        }
    };
    let message = format!("{name} {short} is not promoted to {to}: {reasons}");
    Ok(ApiError::new(ErrorCode::Refused, message).help("nothing was moved; `kiln promote --check` asks again"))
}

async fn current(
    app: &Arc<App>,
    image: &ImageInfo,
    channel: &ChannelName,
) -> Result<Option<ImageDigest>, ReleasesError> {
    let (library, name, channel) = (app.library.clone(), image.name.clone(), channel.clone());
    blocking(move || library.channel(&name, &channel)).await
}

/// What differs from the image before. One that was removed meanwhile cannot be compared.
async fn difference(
    app: &Arc<App>,
    before: Option<ImageDigest>,
    after: ImageDigest,
) -> Result<Option<Difference>, ReleasesError> {
    let Some(before) = before.filter(|before| *before != after) else { return Ok(None) };
    let library = app.library.clone();
    match blocking(move || library.difference(&before, &after, FILES)).await {
        Ok(difference) => Ok(Some(difference)),
        Err(ReleasesError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a move into the history and the audit log, and makes it.
pub(in super::super) async fn move_channel(app: &Arc<App>, image: &ImageInfo, moved: Move) -> Result<Event, Failure> {
    let channel = moved.channel.clone();
    app.control.move_channel(moved).await?;
    let (library, name, digest, to) = (app.library.clone(), image.name.clone(), image.digest, channel.clone());
    blocking(move || library.set_channel(&name, &to, &digest)).await?;
    Ok(self::moved(image, &channel))
}

/// Told when a channel was moved.
pub(in super::super) fn moved(image: &ImageInfo, channel: &ChannelName) -> Event {
    Event::Channel { name: image.name.to_string(), channel: channel.to_string(), image: image.digest.to_string() }
}
