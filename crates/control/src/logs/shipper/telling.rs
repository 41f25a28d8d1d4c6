//! What a shipper tells others: that its collector is away or there again, and what is lost.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, atomic::Ordering},
};

use kiln_api::Event;
use kiln_model::ServerId;
use rand::RngExt as _;
use tokio::{sync::oneshot, time::Instant};

use super::{LONGEST_PAUSE, Link, Shipper, TELL_AGAIN};
use crate::logs::left::{Left, UpTo};

impl Shipper {
    /// Counts what has not arrived, while sending goes on.
    pub(super) fn tell_left(&self, up_to: &UpTo, answer: oneshot::Sender<BTreeMap<ServerId, Left>>) {
        let counting = self.servers.iter().map(|(id, follow)| {
            let (id, left) = (id.clone(), follow.left(up_to.get(id).copied()));
            async move { (id, left.await) }
        });
        let counting: Vec<_> = counting.collect();
        tokio::spawn(async move {
            let left = futures::future::join_all(counting).await;
            // Whoever asked may have left.
            answer.send(left.into_iter().collect()).ok();
        });
    }

    pub(super) fn connected(&mut self, link: Link) {
        self.connecting = None;
        self.link = Some(link);
        (self.txnr, self.moved) = (1, Instant::now());
        let mut away = self.counts.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.take().is_some() {
            tracing::info!(group = %self.group, to = %self.policy.to, "the log collector answers again");
            self.tell_of_collector("connected", None);
        }
    }

    /// The connection is gone, or there is none.
    pub(super) fn away(&mut self, reason: String) {
        self.disconnect();
        let jitter = rand::rng().random_range(0.5..1.0);
        self.retry_at = Instant::now() + self.pause.mul_f64(jitter);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        let mut away = self.counts.away.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, said)) = away.as_mut() {
            *said = reason;
            return;
        }
        tracing::warn!(group = %self.group, to = %self.policy.to, reason, "the log collector is away");
        self.tell_of_collector("away", Some(reason.clone()));
        *away = Some(((self.outside.clock)(), reason));
    }

    fn tell_of_collector(&self, state: &str, reason: Option<String>) {
        let (group, to) = (self.group.to_string(), self.policy.to.to_string());
        // Nobody need be listening.
        self.outside.events.send(Event::Collector { group, to, state: state.to_owned(), reason }).ok();
    }

    pub(super) fn note_loss(&mut self, server: &ServerId, lines: u64) {
        if lines > 0 {
            self.counts.lost.fetch_add(lines, Ordering::Relaxed);
            *self.untold.entry(server.clone()).or_default() += lines;
        }
        self.tell_losses(false);
    }

    pub(super) fn tell_losses(&mut self, now: bool) {
        let due = now || self.told.is_none_or(|told| told.elapsed() >= TELL_AGAIN);
        if !due || self.untold.is_empty() {
            return;
        }
        self.told = Some(Instant::now());
        for (server, lines) in std::mem::take(&mut self.untold) {
            tracing::warn!(group = %self.group, %server, lines, "log lines are lost: they were overwritten before they were sent");
            let reason = "they were overwritten before the collector had them".to_owned();
            let event = Event::LogsLost { group: self.group.to_string(), server: server.to_string(), lines, reason };
            // Nobody need be listening.
            self.outside.events.send(event).ok();
        }
    }
}
