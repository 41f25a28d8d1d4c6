//! What would happen from here on if everything went well: for `apply --plan`.

use std::slice::from_ref;

use jiff::Timestamp;

use super::{
    plan,
    types::{Action, GroupDesired, GroupObserved, PlannedAction, RolloutProgress, ServerView},
};
use crate::{
    digest::ReleaseId,
    id::{GroupName, ServerId},
    server::ServerState,
};

/// A forecast stops after this many rounds.
const MAX_ROUNDS: usize = 10_000;

/// Every step from here to the end, in order, if each action succeeds and each server becomes ready at once.
pub fn forecast(
    desired: &GroupDesired,
    observed: &GroupObserved,
    progress: Option<&RolloutProgress>,
    now: Timestamp,
) -> Vec<PlannedAction> {
    let (mut observed, mut progress, mut now) = (observed.clone(), progress.cloned(), now);
    let mut steps = Vec::new();
    let mut launched = 0;
    for server in &mut observed.servers {
        server.busy = false;
        finish(server, now);
    }
    for _ in 0..MAX_ROUNDS {
        let next = plan(desired, &observed, progress.as_ref(), now);
        for step in &next.steps {
            carry_out(&desired.group, &mut observed.servers, &step.action, &mut launched, now);
        }
        observed.servers.retain(|s| s.state != ServerState::Gone);
        let idle = next.steps.is_empty();
        steps.extend(next.steps);
        let over = next.rollout.is_over();
        progress = Some(next.rollout);
        match next.wake_at {
            _ if !idle => {}
            Some(wake) if !over => now = wake,
            _ => break,
        }
    }
    steps
}

/// What was under way comes to its good end.
fn finish(server: &mut ServerView, now: Timestamp) {
    match server.state {
        ServerState::Launching if server.staged => {}
        ServerState::Launching if server.spare => server.staged = true,
        ServerState::Launching | ServerState::Starting => {
            (server.state, server.ready_at) = (ServerState::Ready, Some(now));
        }
        ServerState::Draining => server.state = ServerState::Drained,
        ServerState::Stopping => server.state = ServerState::Stopped,
        _ => {}
    }
}

fn carry_out(group: &GroupName, servers: &mut Vec<ServerView>, action: &Action, launched: &mut usize, now: Timestamp) {
    match action {
        Action::Launch { release, servers: count } => {
            let first = *launched;
            *launched += *count as usize;
            servers.extend((first..*launched).map(|n| ready_server(group, *release, n + 1, now)));
        }
        Action::LaunchIn { release, slot } | Action::Stage { release, slot } => {
            *launched += 1;
            let server = ready_server(group, *release, *launched, now);
            let staged = matches!(action, Action::Stage { .. });
            let state = if staged { ServerState::Launching } else { ServerState::Ready };
            servers.push(ServerView { slot: Some(*slot), staged, state, ..server });
        }
        Action::Spare { release, servers: count } => {
            let first = *launched;
            *launched += *count as usize;
            let spare = |n| {
                let server = ready_server(group, *release, n + 1, now);
                ServerView { spare: true, staged: true, state: ServerState::Launching, ready_at: None, ..server }
            };
            servers.extend((first..*launched).map(spare));
        }
        Action::Take { server } => {
            each(servers, from_ref(server), |s| {
                (s.state, s.staged, s.spare, s.ready_at) = (ServerState::Ready, false, false, Some(now))
            });
        }
        Action::HandOver { server } => {
            each(servers, from_ref(server), |s| {
                (s.state, s.staged, s.ready_at) = (ServerState::Ready, false, Some(now))
            });
        }
        Action::AddToTraffic { server } => each(servers, from_ref(server), |s| s.in_traffic = true),
        Action::RemoveFromTraffic { server } => each(servers, from_ref(server), |s| s.in_traffic = false),
        Action::SwitchTraffic { to, from } => {
            each(servers, to, |s| s.in_traffic = true);
            each(servers, from, |s| s.state = ServerState::Draining);
        }
        Action::Drain { server } => {
            each(servers, from_ref(server), |s| (s.state, s.in_traffic) = (ServerState::Drained, false));
        }
        Action::Stop { server } => each(servers, from_ref(server), |s| s.state = ServerState::Stopped),
        Action::Destroy { server } => each(servers, from_ref(server), |s| s.state = ServerState::Gone),
        Action::MarkRolloutDone | Action::MarkRolloutFailed | Action::Revert { .. } => {}
    }
}

fn each(servers: &mut [ServerView], ids: &[ServerId], change: impl Fn(&mut ServerView)) {
    servers.iter_mut().filter(|s| ids.contains(&s.id)).for_each(change);
}

fn ready_server(group: &GroupName, release: ReleaseId, number: usize, now: Timestamp) -> ServerView {
    let group: String = group.as_str().chars().take(40).collect();
    ServerView {
        id: format!("{group}-new{number}").parse().expect("a group name and a suffix is a valid id"),
        release,
        state: ServerState::Ready,
        launched_at: now,
        ready_at: Some(now),
        in_traffic: false,
        busy: false,
        running: true,
        slot: None,
        staged: false,
        replace: false,
        spare: false,
    }
}
