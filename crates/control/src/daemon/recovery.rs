//! Recovery drills, by hand and by the fleet's clock: servers of a group, the gateway's process, the daemon's own.
//!
//! What is destroyed is always something that comes back by itself: servers by healing, the gateway by this daemon, the daemon by
//! whoever starts it again ([`Revival`]); where nobody would, a drill of it is refused. What goes with servers is weighed as
//! for any other change that somebody asks for. Restore drills of volumes are another thing (`drill`).

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use kiln_api::{ApiError, ErrorCode, Event, recovery::Drill, request::Loss};
use kiln_gateway::client::Status as GatewayState;
use kiln_model::{
    GroupName,
    fleet::{Figures, Objectives, Toll},
};
use rustix::process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal};
use tokio::time::Instant;

use super::{App, error::Failure, gateway::failures, loss};
use crate::{
    ControlError,
    loss::ServerAtStake,
    recovery::{Rest, Target, named},
};

/// How often it is looked whether a drill is due.
const PAUSE: Duration = Duration::from_secs(30);
/// A gateway must be back within this time.
const BACK: Duration = Duration::from_secs(30);
/// Between two looks whether it is.
const LOOK: Duration = Duration::from_millis(2);
/// Whoever asked for the daemon's end reads what was said before it.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// What starts the daemon again when it was killed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Revival {
    /// Nothing, as far as it knows: somebody started it by hand.
    #[default]
    Nothing,
    /// A verb of `kiln` started it, and the next one starts another.
    Verbs,
    /// Whoever started it said that it is started again.
    Supervisor,
}

impl Revival {
    /// As `/v1/host` tells it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Verbs => "verbs",
            Self::Supervisor => "supervisor",
        }
    }
}

/// Begins the drills that are due, one after another. Goes on for ever.
pub(super) async fn keep_drilling(app: Arc<App>) {
    let mut refused = BTreeSet::new();
    loop {
        tokio::time::sleep(PAUSE).await;
        for (target, reason) in app.control.due_drills().await {
            match by_the_clock(&app, &target, &reason).await {
                Ok(_) => {
                    refused.remove(&target);
                }
                // Said once, and tried again until it may be.
                Err(Failure(error)) => {
                    if refused.insert(target.clone()) {
                        let message = format!("the drill of {target} is put off: {}", error.message);
                        app.control.announce(Event::Warning { message });
                    }
                }
            }
        }
    }
}

async fn by_the_clock(app: &Arc<App>, target: &Target, reason: &str) -> Result<Drill, Failure> {
    match target {
        Target::Group(group) => servers(app, group, None, Loss::Refuse, reason).await,
        Target::Gateway => gateway(app, reason).await,
        Target::Daemon if app.options.revival == Revival::Supervisor => daemon(app, reason).await,
        // The next verb would start another, and nobody knows when that is.
        Target::Daemon => Err(nothing_revives()),
    }
}

fn nothing_revives() -> Failure {
    let message = "nothing would start the daemon again by itself";
    Failure(ApiError::new(ErrorCode::Conflict, message).help(
        "end it (`kiln daemon --stop`) and let a verb start one (`kiln up DIR`), or say `kiln daemon --supervised` to what starts it again",
    ))
}

/// Destroys servers of a group.
pub(super) async fn servers(
    app: &Arc<App>,
    group: &GroupName,
    toll: Option<Toll>,
    accepted: Loss,
    reason: &str,
) -> Result<Drill, Failure> {
    let victims = app.control.choose_victims(group, toll).await?;
    let of = |_: &GroupName, server: &ServerAtStake| victims.contains(&server.id);
    let lost = loss::weigh(app, std::slice::from_ref(group), of, accepted).await?;
    lost.record(app, "drill").await?;
    Ok(app.control.drill(group, victims.clone(), reason).await?)
}

/// Every group, which must be at rest.
async fn at_rest(app: &App) -> Result<BTreeMap<GroupName, Rest>, Failure> {
    let groups = app.control.rest().await?;
    match groups.iter().find_map(|(group, rest)| Some((group.clone(), rest.unrest.clone()?))) {
        Some((group, why)) => Err(ControlError::NoDrill { group, why }.into()),
        None => Ok(groups),
    }
}

/// Kills the gateway's process, and waits until another one has all its ports.
pub(super) async fn gateway(app: &Arc<App>, reason: &str) -> Result<Drill, Failure> {
    let groups = at_rest(app).await?;
    let gone = || ApiError::new(ErrorCode::Conflict, "no gateway answers: there is none to be killed");
    let gateway = app.gateway.clone().ok_or_else(gone)?;
    let first = gateway.state().await.ok_or_else(gone)?;
    let row = app.control.begin_drill(&Target::Gateway, reason).await?;
    let before = gateway.state().await.unwrap_or(first);
    let begun = Instant::now();
    if let Err(error) = kill(before.pid) {
        let broken = Some(error.message);
        return Ok(app.control.end_drill(&Target::Gateway, row, Figures::default(), Vec::new(), broken).await?);
    }
    let mut after = None;
    while after.is_none() && begun.elapsed() < BACK {
        tokio::time::sleep(LOOK).await;
        after = gateway.state().await.filter(|state| state.pid != before.pid && has_all(state, &before));
    }
    let ready = after.is_some().then(|| begun.elapsed());
    let counted = after.as_ref().map(failures).unwrap_or_default();
    let (mut failed, mut missed) = (0, Vec::new());
    for (group, rest) in groups.iter().filter(|(_, rest)| rest.published) {
        // What was under way went with the process; what came after was counted by the next one.
        let of = cut(&before, group) + counted.failed.get(group).copied().unwrap_or(0);
        failed += of;
        let objectives = Objectives { lost: None, ..rest.objectives };
        missed.extend(named(group, &objectives, &Figures { ready, failed: Some(of), lost: Some(0) }, true));
    }
    let broken = ready.is_none().then(|| format!("no gateway had its ports within {} s", BACK.as_secs()));
    let figures = Figures { ready, failed: Some(failed), lost: Some(0) };
    Ok(app.control.end_drill(&Target::Gateway, row, figures, missed, broken).await?)
}

/// Kills a process that answered just now, and no other that got its number.
fn kill(pid: u32) -> Result<(), ApiError> {
    let failed = |errno| ApiError::new(ErrorCode::Host, format!("could not kill the gateway (pid {pid}): {errno}"));
    let process = Pid::from_raw(pid.cast_signed()).ok_or_else(|| failed(rustix::io::Errno::SRCH))?;
    let process = pidfd_open(process, PidfdFlags::empty()).map_err(failed)?;
    pidfd_send_signal(&process, Signal::KILL).map_err(failed)
}

/// Whether every port that was bound is bound again.
fn has_all(now: &GatewayState, before: &GatewayState) -> bool {
    let bound = |state: &GatewayState| -> BTreeSet<u16> {
        state.routes.iter().map(|route| route.bound.bound).filter(|port| *port != 0).collect()
    };
    bound(now).is_superset(&bound(before))
}

/// Requests and connections of a group that were under way.
fn cut(state: &GatewayState, group: &GroupName) -> u64 {
    let routes = state.routes.iter().filter(|route| route.bound.group == *group);
    routes.flat_map(|route| &route.backends).map(|backend| backend.in_flight as u64).sum()
}

/// Kills this process. Does not return where that is done: the next daemon finds the drill and ends it.
pub(super) async fn daemon(app: &Arc<App>, reason: &str) -> Result<Drill, Failure> {
    at_rest(app).await?;
    if app.options.revival == Revival::Nothing {
        return Err(nothing_revives());
    }
    // Before the time is taken, so that it does not count.
    tokio::time::sleep(LAST_WORDS).await;
    app.control.begin_drill(&Target::Daemon, reason).await?;
    let killed = kill_process(getpid(), Signal::KILL);
    let errno = killed.err().map_or_else(|| "it lives".to_owned(), |errno| errno.to_string());
    Err(Failure(ApiError::new(ErrorCode::Host, format!("the daemon could not kill itself: {errno}"))))
}
