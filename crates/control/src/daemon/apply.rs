//! `POST /v1/apply`: evidence for every group's release first, then the change, then the wait until it is done.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    path::Path,
    sync::Arc,
};

use futures::future::join_all;
use jiff::Timestamp;
use kiln_api::{
    ApiError, ErrorCode, Event,
    report::TestReport,
    request::{ApplyRequest, Loss},
};
use kiln_engine::EngineError;
use kiln_model::{
    ChannelName, Fleet, FrozenConfig, Group, GroupName, ImageDigest, ImageName,
    config::{ConfigKey, ConfigValue, Froze},
    evidence::{Report, Verdict},
    fleet::{ImageRef, Selector},
};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;

use super::{
    App,
    error::{Failure, IntoApi},
    loss::{self, Accepted},
    routes, sources,
    stream::{Ended, Sink},
};
use crate::{
    ControlError, Settled, Wanted,
    live::LiveError,
    moves::Move,
    releases::{ImageInfo, ReleasesError},
    reports::{Proof, blocking},
};

/// Carries out an apply and says how it ended.
pub(super) async fn apply(app: &Arc<App>, request: ApplyRequest, sink: &Sink) -> Ended {
    let mut reports = Vec::new();
    match try_apply(app, request, sink, &mut reports).await {
        Ok(ended) => Ended { reports, ..ended },
        Err(Failure(error)) => Ended { reports, ..Ended::failed(error) },
    }
}

async fn try_apply(
    app: &Arc<App>,
    mut request: ApplyRequest,
    sink: &Sink,
    reports: &mut Vec<TestReport>,
) -> Result<Ended, Failure> {
    room(&app.options.state_dir)?;
    shared_directories(app, &request.fleet).await?;
    let images = resolve(app, &request).await?;
    request.fleet.spread(|name| images.get(name).map(|image| &image.manifest.config));
    for logs in request.fleet.groups.values_mut().filter_map(|group| group.logs.as_mut()) {
        logs.below(&request.directory);
    }
    let frozen = freeze(app, &request, &images).await?;
    let (configs, lives): (Configs, Lives) =
        frozen.into_iter().map(|(name, froze)| ((name.clone(), froze.config), (name, froze.live))).unzip();
    let origins = if request.plan_only { BTreeMap::new() } else { sources::seal(app, &request).await? };
    let wanted = || Wanted {
        fleet: request.fleet.clone(),
        images: images.iter().map(|(group, image)| (group.clone(), image.digest)).collect(),
        configs: configs.clone(),
        origins: origins.clone(),
    };
    if request.plan_only {
        differences(app, &images, sink).await?;
        missing_evidence(app, &request.fleet, &images, &configs, sink).await?;
        app.control.plan_only(wanted()).await?.into_iter().for_each(|event| sink.send(event));
        if let Err(Failure(error)) = would_lose(app, wanted(), request.loss).await {
            sink.send(Event::Warning { message: error.message });
        }
        return Ok(Ended::default());
    }
    let lost = would_lose(app, wanted(), request.loss).await?;
    let proofs = prove(app, &request, &images, &configs, sink).await?;
    reports.extend(proofs.iter().map(|proof| TestReport::from(&proof.report)));
    if let Some(proof) = proofs.iter().find(|proof| !proof.passed()) {
        return Ok(Ended::failed(tests_failed(&proof.report)));
    }
    for (name, digest) in &request.baked {
        if let Some(image) = images.values().find(|image| image.name == *name && image.digest == *digest) {
            sink.tell(move_dev(app, image).await?);
        }
    }
    let applied = async {
        lost.record(app, "apply").await?;
        keep_live(app, &images, &lives).await?;
        let groups = app.control.apply(wanted()).await?;
        // A group that was just being taken away has taken them with it.
        keep_live(app, &images, &lives).await?;
        app.keepers.renew(&groups);
        Ok(groups)
    };
    Ok(follow(app, sink, applied, |groups| groups).await)
}

/// Refuses where the servers that would end have more than may be lost. The planner says which these are.
async fn would_lose(app: &Arc<App>, wanted: Wanted, accepted: Loss) -> Result<Accepted, Failure> {
    let known = app.control.groups().await;
    let groups: Vec<GroupName> = wanted.fleet.groups.keys().filter(|name| known.contains(*name)).cloned().collect();
    if !app.control.may_lose(&groups).await? {
        return Ok(Accepted::default());
    }
    let steps = app.control.plan_only(wanted).await?;
    let ending = |step: Event| match step {
        Event::Step { server, action, .. } if action == "stop" || action == "destroy" => server,
        _ => None,
    };
    let ending: BTreeSet<String> = steps.into_iter().filter_map(ending).collect();
    loss::weigh(app, &groups, |_, server| ending.contains(server.id.as_str()), accepted).await
}

/// The image of every group: the one just baked where it asks for channel `dev` of that name.
async fn resolve(app: &Arc<App>, request: &ApplyRequest) -> Result<BTreeMap<GroupName, ImageInfo>, ReleasesError> {
    let library = app.library.clone();
    let references: Vec<(GroupName, ImageRef)> =
        request.fleet.groups.iter().map(|(name, group)| (name.clone(), baked(&request.baked, group))).collect();
    blocking(move || references.into_iter().map(|(name, image)| Ok((name, library.resolve(&image)?))).collect()).await
}

/// What cannot be handed to servers is told before anything is tested or changed.
async fn shared_directories(app: &Arc<App>, fleet: &Fleet) -> Result<(), Failure> {
    let all = fleet.groups.iter().flat_map(|(group, spec)| spec.shared.iter().map(move |(name, to)| (group, name, to)));
    let checks = all.map(|(group, name, directory)| async move {
        let checked = match app.engine.shared() {
            Some(ability) => ability.check(directory).await,
            None => Err(EngineError::Unsupported { ability: "give servers directories that others see too" }),
        };
        checked.map_err(|error| {
            let reason = kiln_api::error::chain(&error);
            let message = format!("the shared directory `{name}` of group `{group}` cannot be used: {reason}");
            ApiError::new(ErrorCode::Invalid, message)
        })
    });
    Ok(futures::future::try_join_all(checks).await.map(drop)?)
}

fn baked(baked: &BTreeMap<ImageName, ImageDigest>, group: &Group) -> ImageRef {
    let image = &group.image;
    match (&image.selector, baked.get(&image.name)) {
        (Selector::Channel(channel), Some(digest)) if channel.as_str() == "dev" => {
            ImageRef { name: image.name.clone(), selector: Selector::Digest(*digest) }
        }
        _ => image.clone(),
    }
}

type Configs = BTreeMap<GroupName, FrozenConfig>;
type Lives = BTreeMap<GroupName, BTreeMap<ConfigKey, ConfigValue>>;

/// Live values are there before the first server that may ask for them.
async fn keep_live(app: &Arc<App>, images: &BTreeMap<GroupName, ImageInfo>, lives: &Lives) -> Result<(), LiveError> {
    for (name, values) in lives {
        let Some(image) = images.get(name) else { continue };
        app.control.live().apply(name, &image.manifest.config, values.clone()).await?;
    }
    Ok(())
}

/// The configurations that the groups' releases are tested and launched with: every source is asked once, here.
async fn freeze(
    app: &Arc<App>,
    request: &ApplyRequest,
    images: &BTreeMap<GroupName, ImageInfo>,
) -> Result<BTreeMap<GroupName, Froze>, Failure> {
    let groups = request.fleet.groups.iter().filter_map(|(name, group)| Some((name, group, images.get(name)?)));
    let frozen = groups.map(|(name, group, image)| async move {
        match app.freezer.freeze(group, &image.manifest, &request.directory).await {
            Ok(froze) => Ok((name.clone(), froze)),
            Err(error) => {
                let error = error.into_api();
                Err(Failure(ApiError { message: format!("group {name}: {}", error.message), ..error }))
            }
        }
    });
    join_all(frozen).await.into_iter().collect()
}

async fn prove(
    app: &Arc<App>,
    request: &ApplyRequest,
    images: &BTreeMap<GroupName, ImageInfo>,
    configs: &Configs,
    sink: &Sink,
) -> Result<Vec<Proof>, Failure> {
    let events = |event| sink.tell(event);
    let releases = releases(images, configs);
    let proofs = releases
        .iter()
        .map(|(image, config)| app.prover.prove(image, config, request.fleet.evidence, request.fresh, &events));
    let proofs: Result<Vec<Proof>, _> = join_all(proofs).await.into_iter().collect();
    let proofs = proofs?;
    for proof in &proofs {
        record_proof(app, proof, "test", PROVEN).await?;
    }
    Ok(proofs)
}

/// Why a release is tested.
pub(super) const PROVEN: &str = "a release must be proven before it is launched";

/// The audit log's entry of a suite that was run, or of a report that stood for it.
pub(super) async fn record_proof(
    app: &App,
    proof: &Proof,
    action: &'static str,
    reason: &str,
) -> Result<(), ControlError> {
    let report = &proof.report;
    let inputs = json!({
        "image": report.image,
        "config": report.config,
        "suite": report.suite,
        "verdict": report.verdict,
        "finished_at": report.finished_at.to_string(),
    });
    app.control.record(action, inputs, reason).await
}

/// Every release of the fleet once.
fn releases(images: &BTreeMap<GroupName, ImageInfo>, configs: &Configs) -> Vec<(ImageInfo, FrozenConfig)> {
    let all = configs.iter().filter_map(|(name, config)| Some((images.get(name)?.clone(), config.clone())));
    let mut once = BTreeMap::new();
    for (image, config) in all {
        once.entry((image.digest, config.digest())).or_insert((image, config));
    }
    once.into_values().collect()
}

/// So many files of a difference are told with a plan.
const FILES_OF_A_PLAN: usize = 100;

/// For `plan_only`: how the image of each group differs from the one it would get.
async fn differences(app: &Arc<App>, images: &BTreeMap<GroupName, ImageInfo>, sink: &Sink) -> Result<(), Failure> {
    let status = app.control.status().await?;
    for (name, image) in images {
        let running = status.groups.iter().find(|group| group.name == name.as_str());
        let Some(before) = running.and_then(|group| group.image.parse::<ImageDigest>().ok()) else { continue };
        let (library, after) = (app.library.clone(), image.digest);
        match blocking(move || library.difference(&before, &after, FILES_OF_A_PLAN)).await {
            Ok(_) if before == after => {}
            Ok(difference) => sink.send(Event::Difference { group: name.to_string(), difference }),
            // Its image was removed: there is nothing to compare with.
            Err(ReleasesError::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// For `plan_only`: the releases that would be tested first.
async fn missing_evidence(
    app: &Arc<App>,
    fleet: &Fleet,
    images: &BTreeMap<GroupName, ImageInfo>,
    configs: &Configs,
    sink: &Sink,
) -> Result<(), Failure> {
    for (name, config) in configs {
        let Some(image) = images.get(name) else { continue };
        let Err(refusal) = app.prover.valid(image, config, fleet.evidence).await? else { continue };
        let (action, reason) = match app.prover.may_test(image).await? {
            true => {
                ("test", format!("{} {} has no valid report with this configuration", image.name, image.digest.short()))
            }
            false => ("refuse", refusal.to_string()),
        };
        sink.send(Event::Step { group: name.to_string(), server: None, action: action.to_owned(), reason });
    }
    Ok(())
}

/// The error for a report that did not pass.
pub(super) fn tests_failed(report: &Report) -> ApiError {
    let failed = report.names(Verdict::Failed);
    let message =
        format!("{} of {} tests of {} failed: {}", failed.len(), report.count(), report.name, failed.join(", "));
    ApiError::new(ErrorCode::TestsFailed, message)
        .help("nothing was launched or changed; `kiln test` shows what each test expected and saw")
}

/// Points channel `dev` of the image's name at it. That it passed its tests is the only rule there.
pub(super) async fn move_dev(app: &Arc<App>, image: &ImageInfo) -> Result<Event, Failure> {
    let dev: ChannelName = "dev".parse().expect("`dev` is a valid channel name");
    let (library, name, channel) = (app.library.clone(), image.name.clone(), dev.clone());
    let before = blocking(move || library.channel(&name, &channel)).await?;
    if before == Some(image.digest) {
        return Ok(routes::moved(image, &dev));
    }
    let moved = Move {
        at: Timestamp::now(),
        name: image.name.clone(),
        channel: dev,
        image: image.digest,
        before,
        who: "the daemon".to_owned(),
        how: "test".to_owned(),
        reason: "it was baked here and passed its tests".to_owned(),
        evidence: json!({"suite": image.suite}),
        difference: serde_json::Value::Null,
    };
    routes::move_channel(app, image, moved).await
}

/// So much must be free in the state directory for a change to begin, in bytes: the journal and the spools of new servers
/// must have room, or the change would stop half way until somebody makes some.
const ROOM: u64 = 8 << 20;

/// Refuses to begin where the state directory is full.
pub(super) fn room(state_dir: &Path) -> Result<(), ApiError> {
    let shown = state_dir.display();
    let free = match rustix::fs::statvfs(state_dir) {
        Ok(status) => status.f_bavail.saturating_mul(status.f_frsize),
        Err(errno) => return Err(ApiError::new(ErrorCode::Host, format!("could not look at {shown}: {errno}"))),
    };
    if free >= ROOM {
        return Ok(());
    }
    let message = format!("the file system of {shown} is full: {} KiB are free, nothing was changed", free >> 10);
    Err(ApiError::new(ErrorCode::Host, message).help("make room; `kiln gc` frees what no image needs"))
}

/// Starts a change, passes on what happens to its groups, and waits until each is done.
pub(super) async fn follow<T>(
    app: &Arc<App>,
    sink: &Sink,
    change: impl Future<Output = Result<T, Failure>>,
    groups: impl FnOnce(T) -> Vec<GroupName>,
) -> Ended {
    if let Err(error) = room(&app.options.state_dir) {
        return Ended::failed(error);
    }
    let settled = with_events(app, sink, async {
        let groups = groups(change.await?);
        Ok(app.control.settle(&groups).await?)
    });
    match settled.await {
        Ok(settled) => sum_up(settled),
        Err(Failure(error)) => Ended::failed(error),
    }
}

/// Does something while passing on everything that happens.
pub(super) async fn with_events<T>(app: &Arc<App>, sink: &Sink, work: impl Future<Output = T>) -> T {
    let mut events = app.control.subscribe();
    tokio::pin!(work);
    loop {
        tokio::select! {
            biased;
            event = events.recv() => match event {
                Ok(event) => sink.send(event),
                Err(RecvError::Lagged(missed)) => {
                    sink.send(Event::Warning { message: format!("{missed} events were left out") });
                }
                Err(RecvError::Closed) => return work.await,
            },
            done = &mut work => {
                while let Ok(event) = events.try_recv() {
                    sink.send(event);
                }
                return done;
            }
        }
    }
}

fn sum_up(settled: Vec<Settled>) -> Ended {
    let endpoints = settled.iter().flat_map(|group| group.endpoints.clone()).collect();
    let failed = settled.into_iter().filter_map(|settled| Some((settled.group, settled.outcome.err()?)));
    let mut errors: Vec<ApiError> = failed
        .map(|(group, why)| {
            let error = why.into_api();
            ApiError { message: format!("group {group}: {}", error.message), ..error }
        })
        .collect();
    let error = match errors.len() {
        0 => None,
        1 => errors.pop(),
        _ => Some(ApiError {
            message: errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; "),
            ..errors.swap_remove(0)
        }),
    };
    Ended { endpoints, error, reports: Vec::new() }
}
