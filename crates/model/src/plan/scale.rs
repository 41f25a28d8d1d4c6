//! How many servers a group has that follows its load: target tracking, pure, from one reading to the next.
//!
//! The load of the whole group divided by what one server is to carry is what is wished for. A group grows to that at once,
//! a step at a time; it shrinks only to the most that was wished for during the whole time it must wait. Within a tenth of
//! the target nothing happens, in either direction, so that a group that has just changed does not change back. Where the
//! load is not known the group keeps what it has: nothing is taken away in the dark. A group that may have no server keeps one
//! as long as anything is asked of it, and gets one at once when a request waits.

use std::collections::{BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::backoff::later;
use crate::fleet::{Pace, Scaling};

/// Within this share of the target nothing changes.
const TOLERANCE: f64 = 0.1;
/// Readings are further apart than this where more would be kept than anybody reads.
const KEPT: usize = 4096;

/// The load of a group at one time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// When it was read.
    pub at: Timestamp,
    /// Of all servers together, in the target's unit; or why it is not known.
    pub total: Result<f64, String>,
    /// What the gateway was asked for.
    #[serde(default, skip_serializing_if = "Asked::is_nothing")]
    pub asked: Asked,
}

/// What the gateway was asked for since the reading before. It matters where a group may have no server at all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// Nothing.
    #[default]
    Nothing,
    /// Requests were answered, or are under way.
    Something,
    /// So many requests wait for a server.
    Waiting(u64),
}

impl Asked {
    fn is_nothing(&self) -> bool {
        *self == Self::Nothing
    }
}

/// What was decided, and what that rests on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleMemory {
    /// The last change.
    changed_at: Option<Timestamp>,
    /// From when on every reading is remembered that counts.
    since: Option<Timestamp>,
    /// What was wished for, oldest first.
    wishes: VecDeque<(Timestamp, u32)>,
}

/// How many servers there are to be, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleDecision {
    /// So many.
    pub count: u32,
    /// In words for people.
    pub why: String,
}

/// Decides on one reading for a group of `count` servers. The same readings in the same order give the same decisions.
pub fn scale(rules: &Scaling, memory: &mut ScaleMemory, count: u32, load: &Load) -> ScaleDecision {
    memory.begin(load.at);
    let (least, most) = (rules.floor(load.at).max(u32::from(!load.asked.is_nothing())), rules.max);
    let (wish, seen) = wish(rules, count, load);
    let wish = wish.clamp(least, most);
    memory.remember(load.at, wish, rules.scale_in);
    if let (0, Asked::Waiting(waiting)) = (count, load.asked) {
        memory.changed_at = Some(load.at);
        return wake(waiting, wish.min(rules.scale_out.step).max(least));
    }
    let (count_to, why) = if count < least {
        (least, format!("at least {least} at this time"))
    } else if count > most {
        (most, format!("at most {most}"))
    } else if wish > count {
        memory.grow(rules.scale_out, count, wish, load.at)
    } else {
        memory.shrink(rules.scale_in, count, load.at)
    };
    if count_to != count {
        memory.changed_at = Some(load.at);
    }
    ScaleDecision { count: count_to, why: format!("{seen}; {why}") }
}

/// Nothing is waited for and nothing else is asked: somebody waits.
fn wake(waiting: u64, count: u32) -> ScaleDecision {
    let requests = if waiting == 1 { "1 request waits".to_owned() } else { format!("{waiting} requests wait") };
    ScaleDecision { count, why: format!("{requests} for a server; from 0 to {count} servers") }
}

/// How many servers the load asks for, and what was seen.
fn wish(rules: &Scaling, count: u32, load: &Load) -> (u32, String) {
    let (each, unit) = (rules.target.each(), rules.target.unit());
    let total = match &load.total {
        Ok(total) if total.is_finite() && *total >= 0.0 => *total,
        Ok(total) => return (count, format!("{total} {unit} is no load, so nothing changes")),
        Err(why) => return (count, format!("the load is not known ({why}), so nothing changes")),
    };
    let for_load = |each: f64| (total / each).ceil().min(f64::from(u32::MAX)) as u32;
    let seen = format!("{total:.1} {unit}, of which each server is to carry {each}");
    let wish = match (for_load(each * (1.0 + TOLERANCE)), for_load(each * (1.0 - TOLERANCE))) {
        (more, _) if more > count => for_load(each),
        (_, fewer) if fewer < count => fewer,
        _ => count,
    };
    (wish, seen)
}

impl ScaleMemory {
    /// A clock that was put back makes what is remembered worthless.
    fn begin(&mut self, now: Timestamp) {
        if self.wishes.back().is_some_and(|(at, _)| *at > now) {
            self.wishes.clear();
            self.since = None;
        }
        self.changed_at = self.changed_at.map(|at| at.min(now));
        self.since.get_or_insert(now);
    }

    /// The least of it from which the next decision comes out the same: a wish that was followed by one as high decides nothing.
    /// Of those that do, the one after says until when.
    pub fn essence(&self) -> Self {
        let first = self.wishes.len().saturating_sub(KEPT - 1);
        let (mut kept, mut most) = (BTreeSet::new(), None);
        for (index, (_, wish)) in self.wishes.iter().enumerate().skip(first).rev() {
            if most.is_none_or(|most| most < *wish) {
                most = Some(*wish);
                kept.extend([index, index + 1]);
            }
        }
        let wishes = kept.into_iter().filter_map(|index| self.wishes.get(index).copied()).collect();
        Self { wishes, ..*self }
    }

    /// Keeps what is still to be looked at, and of equal wishes in a row the first and the last.
    fn remember(&mut self, now: Timestamp, wish: u32, pace: Pace) {
        while self.wishes.get(1).is_some_and(|(at, _)| later(*at, pace.wait) <= now) || self.wishes.len() >= KEPT {
            self.wishes.pop_front();
        }
        let last = self.wishes.len().wrapping_sub(1);
        let repeated = |index: usize| self.wishes.get(index).is_some_and(|(_, earlier)| *earlier == wish);
        if repeated(last) && repeated(last.wrapping_sub(1)) {
            self.wishes[last].0 = now;
        } else {
            self.wishes.push_back((now, wish));
        }
    }

    fn grow(&self, pace: Pace, count: u32, wish: u32, now: Timestamp) -> (u32, String) {
        let from = self.changed_at.map_or(now, |at| later(at, pace.wait));
        if from > now {
            return (count, format!("{wish} are wished for, and the last change was less than {} ago", shown(pace)));
        }
        let to = wish.min(count.saturating_add(pace.step));
        let step = if to < wish { format!(" of {wish} that are wished for") } else { String::new() };
        (to, format!("from {count} to {to} servers{step}"))
    }

    fn shrink(&self, pace: Pace, count: u32, now: Timestamp) -> (u32, String) {
        let most = self.wishes.iter().map(|(_, wish)| *wish).max().unwrap_or(count);
        if most >= count {
            return (count, "the number is right".to_owned());
        }
        let from = self.since.into_iter().chain(self.changed_at).max().map_or(now, |at| later(at, pace.wait));
        if from > now {
            return (count, format!("{most} would do; fewer only after {} of less load", shown(pace)));
        }
        let to = most.max(count.saturating_sub(pace.step));
        (to, format!("from {count} to {to} servers after {} of less load", shown(pace)))
    }
}

fn shown(pace: Pace) -> String {
    crate::duration::format(pace.wait)
}
