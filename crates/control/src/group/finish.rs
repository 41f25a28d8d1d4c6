//! What actions that ended, and new servers that became ready or did not, mean.

use std::{path::PathBuf, sync::Arc, time::Duration};

use kiln_api::error::chain;
use kiln_engine::{Observed, Phase};
use kiln_model::{ServerId, ServerState, plan::Failure};
use serde_json::json;
use tokio::time::Instant;

use super::{Ended, GroupTask, Place, TrafficChange, Turn};
use crate::{db::IntentionId, logs::Origin, observer::Part, routes::Routed};

/// An engine may take this long until `observe` shows a server that it launched.
const SHOWS_WITHIN: Duration = Duration::from_secs(5);
/// Failures are kept this long, and at most this many of them.
const FAILURES_KEPT: (Duration, usize) = (Duration::from_secs(900), 256);

/// What is left of a server that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Something of it runs on.
    Running,
    /// Nothing: it ended by itself.
    Gone,
    /// Nothing: somebody outside ended it.
    Killed,
    /// Nothing, and nobody saw why: the host was started anew, for example. It says nothing about servers or release.
    Unseen,
}

impl GroupTask {
    pub(super) fn ended(&mut self, ended: Ended) {
        match ended {
            Ended::Launched { server, intention, prepared, turn, times, result } => {
                self.story.launched(&server, turn.begun.into_std(), &times);
                let outcome = result.as_ref().map_or_else(|error| chain(error), |_| "ok".to_owned());
                if !self.close(&server, intention, &outcome) {
                    return;
                }
                if !prepared {
                    self.volumes_not_prepared(&server);
                }
                match result {
                    Ok(seen) => {
                        self.volumes_given(&server);
                        self.launched(&server, &seen, turn);
                    }
                    Err(error) => self.fail(&server, format!("it could not be launched: {}", chain(&error)), End::Gone),
                }
            }
            Ended::Staged { server, intention, result } => {
                let outcome = result.as_ref().map_or_else(|error| chain(error), |_| "ok".to_owned());
                if !self.close(&server, intention, &outcome) {
                    return;
                }
                match result {
                    Ok(seen) => self.staged(&server, &seen),
                    // Its services may run; whether they do or not, it is removed.
                    Err(error) => self.fail(&server, format!("it could not be made: {}", chain(&error)), End::Gone),
                }
            }
            Ended::Readiness { server, result } => match result {
                Ok(after) => self.ready(&server, after),
                Err(reason) => self.fail(&server, reason, End::Running),
            },
            Ended::Unhealthy { server, reason } => self.unhealthy(&server, reason),
            Ended::Routed { changes, result } => self.routed(changes, result),
            Ended::Drained { server, intention, cut } => {
                if self.close(&server, intention, &format!("{cut} cut")) {
                    self.drained(&server);
                }
            }
            Ended::Stopped { server, intention, result } => {
                let outcome = result.map_or_else(|error| chain(&error), |outcome| format!("{outcome:?}"));
                if self.close(&server, intention, &outcome) {
                    // Whatever went wrong, `destroy` removes a server that runs as well.
                    self.note_end(&server);
                    self.volumes_free(&server);
                    self.step_to(&server, ServerState::Stopped);
                }
            }
            Ended::Destroyed { server, intention } => {
                if self.close(&server, intention, "ok") {
                    self.gone(&server);
                }
            }
        }
    }

    /// Closes an intention. False if the server has moved on meanwhile, and the answer means nothing any more.
    fn close(&mut self, id: &ServerId, intention: IntentionId, outcome: &str) -> bool {
        self.batch.close(intention, self.shared.now(), outcome);
        self.story.closed(intention, outcome);
        let Some(server) = self.servers.get_mut(id).filter(|server| server.busy == Some(intention)) else {
            return false;
        };
        server.busy = None;
        true
    }

    fn launched(&mut self, id: &ServerId, seen: &Observed, turn: Turn) {
        if let Some(server) = self.servers.get_mut(id) {
            (server.row.address, server.row.pid) = (seen.address, seen.pid);
            (server.launched, server.known_since) = (turn.begun, Instant::now());
        }
        self.follow_logs(id, Origin::Launched);
        self.step_to(id, ServerState::Starting);
        self.watch(id, Some(turn));
        // It may have ended before its launch was answered; what was seen then is not told twice.
        let ended = self.seen.servers.get(id).filter(|seen| matches!(seen.phase, Phase::Exited { .. })).cloned();
        if let Some(ended) = ended {
            self.see_one(id, &ended);
        }
    }

    /// It waits for its services to be started.
    fn staged(&mut self, id: &ServerId, seen: &Observed) {
        if let Some(server) = self.servers.get_mut(id) {
            server.known_since = Instant::now();
        }
        // What was seen of it before its answer came is not told twice.
        let seen = self.seen.servers.get(id).cloned().unwrap_or_else(|| seen.clone());
        self.see_held(id, &seen);
        self.tell_spare(id);
    }

    /// Its lines go where the group's go.
    pub(super) fn follow_logs(&self, id: &ServerId, origin: Origin) {
        let paths = self.shared.engine.inside().and_then(|inside| inside.spool(id));
        let paths: Option<[PathBuf; 2]> = paths.and_then(|paths| paths.try_into().ok());
        if let (Some(paths), Some(server)) = (paths, self.servers.get(id)) {
            self.shared.logs.follow(&self.row.name, id, &server.row.release, paths, origin);
        }
    }

    fn ready(&mut self, id: &ServerId, after: Duration) {
        let now = self.shared.now();
        let Some(server) = self.servers.get_mut(id).filter(|s| s.row.state == ServerState::Starting) else { return };
        server.row.ready_at = Some(now);
        // As exact as it is kept on disk.
        server.row.ready = Some(Duration::from_micros(after.as_micros() as u64));
        server.watch = None;
        self.note_hand_over(id);
        self.note_replacement(id);
        self.story.ready(id);
        self.step_to(id, ServerState::Ready);
        self.watch_over(id);
    }

    /// A server on its way out is not asked any more, but an answer may have been on its way as well.
    fn unhealthy(&mut self, id: &ServerId, reason: String) {
        if self.servers.get(id).is_some_and(|server| server.row.state == ServerState::Ready) {
            self.fail(id, reason, End::Running);
        }
    }

    fn routed(&mut self, changes: Vec<(TrafficChange, ServerId, IntentionId)>, result: Routed) {
        self.routing = self.routing.saturating_sub(1);
        let (outcome, bound) = match result {
            Ok(bound) => ("ok".to_owned(), Some(bound)),
            Err(why) => {
                self.blocked = Some(why.clone());
                (why, None)
            }
        };
        let said = |port| port == 0 || self.row.spec.publish.iter().any(|publish| publish.listen == port);
        let chosen: Vec<_> = bound.iter().flatten().filter(|bound| !said(bound.bound)).cloned().collect();
        for bound in chosen {
            if self.row.ports.insert(bound.published, bound.bound) != Some(bound.bound) {
                self.batch.group(&self.row);
            }
        }
        for (change, id, intention) in changes {
            if self.close(&id, intention, &outcome) {
                self.placed(&id, change, bound.is_some());
            }
        }
    }

    /// A server's place in the table is in force, or could not be put there.
    fn placed(&mut self, id: &ServerId, change: TrafficChange, in_force: bool) {
        let Some(server) = self.servers.get_mut(id) else { return };
        match (change, server.place) {
            (TrafficChange::Remove, _) => server.row.in_traffic = false,
            (_, Place::In) if in_force => server.row.in_traffic = true,
            (_, Place::In) => server.place = Place::Out,
            (TrafficChange::Switch, Place::Draining) if in_force => {
                return self.step_to(id, ServerState::Draining);
            }
            (TrafficChange::Switch, Place::Draining) => server.place = Place::In,
            (_, Place::Out | Place::Draining) => {}
        }
        self.batch.server(&server.row);
    }

    fn drained(&mut self, id: &ServerId) {
        if let Some(server) = self.servers.get_mut(id) {
            (server.row.in_traffic, server.place) = (false, Place::Out);
        }
        self.routes_changed = true;
        self.step_to(id, ServerState::Drained);
    }

    fn note_end(&mut self, id: &ServerId) {
        if let Some(server) = self.servers.get_mut(id) {
            server.running = false;
            server.watch.take().inspect(tokio::task::AbortHandle::abort);
        }
    }

    fn gone(&mut self, id: &ServerId) {
        self.volumes_free(id);
        if let Some(mut server) = self.servers.remove(id) {
            server.row.state = ServerState::Gone;
            self.batch.forget_server(id);
            let event = self.server_event(&server);
            self.shared.emit(event);
        }
    }

    /// A server ended by itself, could not be launched, or was not ready in time.
    pub(super) fn fail(&mut self, id: &ServerId, reason: String, end: End) {
        let now = self.shared.now();
        let Some(server) = self.servers.get_mut(id).filter(|s| s.row.state.may_become(ServerState::Failed)) else {
            return;
        };
        server.running = end == End::Running;
        server.busy = None;
        server.place = Place::Out;
        // One that was on its way into the table may be in it.
        self.routes_changed |= !server.row.in_traffic;
        server.watch.take().inspect(tokio::task::AbortHandle::abort);
        server.waiting = None;
        let (drill, spare, unready) = (server.drill, server.row.spare, server.row.ready_at.is_none());
        let reason = if drill { format!("a recovery drill killed it ({reason})") } else { reason };
        server.row.reason = Some(reason.clone());
        let (release, launched_at) = (server.row.release, server.taken_at.unwrap_or(server.row.launched_at));
        if !drill && !spare && self.row.progress.as_ref().is_none_or(|p| p.to == release) {
            self.last_failure = Some(reason.clone());
        }
        let inputs = if spare { json!({"release": release, "spare": true}) } else { json!({"release": release}) };
        self.record(if drill { "drilled" } else { "failed" }, Some(id), inputs, reason.clone());
        self.trace_failure(id, &reason, now);
        self.step_to(id, ServerState::Failed);
        if end != End::Unseen {
            let killed = end == End::Killed;
            self.note_failure(Failure { release, at: now, launched_at, killed, unready, drill, spare });
        }
        self.batch.group(&self.row);
    }

    fn note_failure(&mut self, failure: Failure) {
        let now = failure.at;
        self.row.failures.push(failure);
        let healing = self.row.spec.healing;
        // The brake must be able to see more failures than it heals.
        let (age, most) = FAILURES_KEPT;
        let (age, most) = (age.max(healing.within), most.max(healing.limit(self.row.spec.count) as usize * 2));
        let old = |failure: &Failure| Duration::try_from(now.duration_since(failure.at)).is_ok_and(|d| d > age);
        let surplus = self.row.failures.len().saturating_sub(most);
        self.row.failures.drain(..surplus);
        self.row.failures.retain(|failure| !old(failure));
    }

    /// What the engine saw of the group's servers, when it was looked at then.
    pub(super) fn see(&mut self, begun: Instant, part: Arc<Part>) {
        let ids: Vec<ServerId> = self.servers.keys().cloned().collect();
        for id in ids {
            match part.servers.get(&id) {
                Some(seen) => self.see_one(&id, seen),
                None => self.miss(&id, part.gone.get(&id).copied().unwrap_or(begun)),
            }
        }
        let unknown = part.servers.values().filter(|seen| !self.servers.contains_key(&seen.server));
        let unknown: Vec<Observed> = unknown.cloned().collect();
        unknown.into_iter().for_each(|seen| self.destroy_unknown(seen));
        self.seen = part;
    }

    fn see_one(&mut self, id: &ServerId, seen: &Observed) {
        let Some(server) = self.servers.get_mut(id) else { return };
        if server.row.state == ServerState::Launching {
            return self.see_held(id, seen);
        }
        let ended = matches!(seen.phase, Phase::Exited { .. });
        server.running &= !ended;
        if let (Phase::Exited { reason, killed }, true) = (&seen.phase, expects_life(server.row.state)) {
            let (how, end) = if *killed { ("was ended", End::Killed) } else { ("ended by itself", End::Gone) };
            self.fail(id, format!("it {how}: {reason}"), end);
        }
    }

    fn miss(&mut self, id: &ServerId, begun: Instant) {
        let server = &self.servers[id];
        let old_news = begun < server.known_since + SHOWS_WITHIN;
        if (expects_life(server.row.state) || server.is_held()) && !old_news {
            self.fail(id, "the engine does not know it any more".to_owned(), End::Gone);
        }
    }

    /// A server of this group that nobody here asked for any more: a launch whose answer was lost, or one that came back.
    fn destroy_unknown(&mut self, seen: Observed) {
        let text = "found running without being wanted, and destroyed".to_owned();
        self.batch.audit(self.shared.now(), Some(&self.row.name), Some(&seen.server), text);
        let shared = self.shared.clone();
        self.shared.spawn(async move {
            super::begin::destroy(&shared, &seen.server, seen.generation).await;
        });
    }
}

/// Whether a server in this state is expected to run.
fn expects_life(state: ServerState) -> bool {
    matches!(state, ServerState::Starting | ServerState::Ready | ServerState::Draining | ServerState::Drained)
}
