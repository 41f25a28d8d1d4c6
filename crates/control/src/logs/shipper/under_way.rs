//! Lines under way: given to the kernel, and taken as arrived when the transport says so.

use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::{FIRST_PAUSE, Flight, Heard, OUT, Ready, Shipper, WINDOW, WRITE_AFTER, relp};

impl Shipper {
    pub(super) fn put_under_way(&mut self) {
        let Some(link) = &self.link else { return };
        let acknowledges = link.acknowledges();
        let window = if acknowledges { WINDOW } else { usize::MAX };
        if self.flights.is_empty() {
            self.moved = Instant::now();
        }
        let mut count = 0;
        while self.flights.len() < window && self.out.len() - self.out_at < OUT {
            let Some(Ready { server, id, place, message }) = self.queue.pop_front() else { break };
            self.txnr = relp::after(self.txnr);
            let before = self.out.len();
            link.frame(&mut self.out, self.txnr, &message);
            let length = self.out.len() - before;
            self.lengths.push_back(length);
            self.flights.push_back(Flight { server, id, place, txnr: self.txnr, left: length, arrived: false });
            count += 1;
        }
        self.counts.sent.fetch_add(count, Ordering::Relaxed);
        self.flush |= count > 0;
    }

    pub(super) fn heard(&mut self, heard: Heard) {
        self.moved = Instant::now();
        match heard {
            Heard::Written(count) => self.written(count),
            Heard::Flushed => self.flush = false,
            Heard::Answers(answers) => answers.into_iter().for_each(|(txnr, good)| self.answered(txnr, good)),
        }
        while self.flights.front().is_some_and(|flight| flight.arrived) {
            let Some(flight) = self.flights.pop_front() else { break };
            // A collector that takes lines is there: the next time it is away it is called soon.
            self.pause = FIRST_PAUSE;
            self.counts.arrived.fetch_add(1, Ordering::Relaxed);
            self.unwritten += 1;
            if let Some(follow) = self.servers.get_mut(&flight.server) {
                follow.arrived(flight.id, flight.place);
            }
        }
        if self.unwritten > 0 {
            self.write_at.get_or_insert_with(|| Instant::now() + WRITE_AFTER);
        }
    }

    fn written(&mut self, count: usize) {
        self.out_at += count;
        if self.out_at == self.out.len() || self.out_at > OUT {
            self.out.drain(..self.out_at);
            self.out_at = 0;
        }
        let written_is_all = self.link.as_ref().is_some_and(|link| !link.acknowledges());
        let mut left = count;
        while let Some(first) = self.lengths.front_mut().filter(|_| left > 0) {
            let now = left.min(*first);
            (*first, left) = (*first - now, left - now);
            if *first > 0 {
                break;
            }
            self.lengths.pop_front();
        }
        if !written_is_all {
            return;
        }
        let mut left = count;
        for flight in &mut self.flights {
            let now = left.min(flight.left);
            (flight.left, left) = (flight.left - now, left - now);
            flight.arrived = flight.left == 0;
            if left == 0 {
                break;
            }
        }
    }

    /// A line that the collector refuses would be refused again: it counts as lost.
    fn answered(&mut self, txnr: u32, good: bool) {
        let Some(flight) = self.flights.iter_mut().find(|flight| flight.txnr == txnr) else { return };
        flight.arrived = true;
        if !good {
            let server = flight.server.clone();
            self.note_loss(&server, 1);
        }
    }
}
