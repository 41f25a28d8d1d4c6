//! One server, as its group's shipper holds it: how far its spool is read, and how far its lines have arrived.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use kiln_model::{GroupName, ServerId};
use tokio::{
    sync::{Notify, oneshot},
    task::spawn_blocking,
    time::Instant,
};

use super::Ready;
use crate::logs::{
    Arrived, HandOver,
    hub::Followed,
    left::Left,
    lines::{Line, LineId, Lines, Place},
    message::Sender,
    news::News,
    spool::{Gap, Reader},
};

/// A server that has ended and hands over its lines.
#[derive(Debug)]
pub(super) struct Ending {
    pub until: Instant,
    /// Whether anybody has looked for what is left, with no collector there.
    pub looked: bool,
    pub answer: oneshot::Sender<HandOver>,
}

/// What a reading gave.
#[derive(Default)]
pub(super) struct Read {
    pub lines: Vec<Ready>,
    pub lost: u64,
}

pub(super) struct Follow {
    sender: Sender,
    followed: Followed,
    reader: Reader,
    lines: Lines,
    arrived: Arrived,
    /// Whether what has arrived is not written down.
    changed: bool,
    /// Lines read that have not arrived.
    under_way: usize,
    /// Something may have been written that was not read.
    news: Arc<AtomicBool>,
    /// What was read last was not the end.
    more: bool,
    /// Everything of a server that has ended is read.
    finished: bool,
    pub ending: Option<Ending>,
    /// Lines before this one were lost and counted.
    counted: u64,
    /// Follows the end of the spool while lines wait.
    tail: Option<Reader>,
    watch: Option<Watch>,
}

struct Watch(Arc<News>, i32);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.forget(self.1);
    }
}

impl Follow {
    pub fn new(group: GroupName, followed: Followed, news: Option<&Arc<News>>, tell: &Arc<Notify>) -> Self {
        let flag = Arc::new(AtomicBool::new(true));
        let watch = news.zip(followed.paths[0].parent()).and_then(|(news, directory)| {
            let watched = news.watch(directory, flag.clone(), tell.clone());
            watched.ok().map(|number| Watch(news.clone(), number))
        });
        let arrived = followed.arrived.clone();
        Self {
            sender: Sender::new(group, followed.server.clone(), followed.release.clone()),
            reader: Reader::new(followed.paths.clone(), arrived.place.begin()),
            lines: Lines::at(&arrived.place),
            followed,
            arrived,
            changed: false,
            under_way: 0,
            news: flag,
            more: false,
            finished: false,
            ending: None,
            counted: 0,
            tail: None,
            watch,
        }
    }

    pub fn server(&self) -> &ServerId {
        &self.followed.server
    }

    /// Whether the kernel does not tell of its lines: they are looked for.
    pub fn is_unwatched(&self) -> bool {
        self.watch.is_none()
    }

    pub fn has_news(&self) -> bool {
        !self.finished && (self.more || self.ending.is_some() || self.news.load(Ordering::Acquire))
    }

    /// Time has passed: where nobody tells of news there may be some.
    pub fn look(&mut self) {
        self.more |= self.is_unwatched();
    }

    /// Nothing of it is left.
    pub fn is_finished(&mut self) {
        self.finished = true;
    }

    pub fn end(&mut self, ending: Ending) {
        self.ending = Some(ending);
    }

    /// Whether its collector has its last line.
    pub fn is_handed_over(&self) -> bool {
        self.finished && self.under_way == 0
    }

    /// Goes back to what has arrived.
    pub fn rewind(&mut self) {
        self.reader = Reader::new(self.followed.paths.clone(), self.arrived.place.begin());
        self.lines = Lines::at(&self.arrived.place);
        (self.under_way, self.more, self.finished) = (0, true, false);
    }

    /// A line has arrived, and all before it.
    pub fn arrived(&mut self, id: LineId, place: Option<Place>) {
        self.under_way = self.under_way.saturating_sub(1);
        self.arrived.last = id;
        if let Some(place) = place {
            self.arrived.place = place;
        }
        if self.under_way == 0 {
            self.arrived.place = self.lines.place(self.reader.next());
        }
        self.changed = true;
    }

    pub fn take_changed(&mut self) -> Option<Arrived> {
        std::mem::take(&mut self.changed).then(|| self.arrived.clone())
    }

    /// Reads a piece. A spool that cannot be read is as good as one that is not there.
    pub async fn read(mut self) -> (Self, Read) {
        self.news.store(false, Ordering::Release);
        let done = spawn_blocking(move || {
            let mut read = Read::default();
            self.more = self.read_piece(&mut read);
            if !self.more && self.ending.is_some() {
                let mut lines = std::mem::take(&mut self.lines);
                lines.flush(|line| self.take(&line, &mut read));
                self.lines = lines;
                self.finished = true;
            }
            self.under_way += read.lines.len();
            if self.under_way == 0 {
                self.arrived.place = self.lines.place(self.reader.next());
            }
            (self, read)
        });
        done.await.expect("reading a spool does not panic")
    }

    /// Whether there may be more.
    fn read_piece(&mut self, read: &mut Read) -> bool {
        let mut reader = std::mem::replace(&mut self.reader, Reader::new(self.followed.paths.clone(), None));
        let mut lines = std::mem::take(&mut self.lines);
        let batch = reader.read(|gap, frame| {
            if let Some(gap) = gap {
                lines.flush(|line| self.take(&line, read));
                self.note(gap, lines.from(), read);
            }
            let before = read.lines.len();
            lines.feed(frame, |line| self.take(&line, read));
            if read.lines.len() > before
                && let Some(last) = read.lines.last_mut()
            {
                last.place = Some(lines.place(Some(frame.sequence + frame.lines())));
            }
        });
        (self.reader, self.lines) = (reader, lines);
        match batch {
            Ok(batch) => !batch.end,
            Err(error) => {
                tracing::warn!(server = %self.followed.server, %error, "could not read the log");
                false
            }
        }
    }

    /// Lines that are gone count once, however often reading begins anew.
    fn note(&mut self, gap: Gap, from: u64, read: &mut Read) {
        let from = gap.from.max(from).max(self.counted);
        read.lost += gap.to.saturating_sub(from);
        self.counted = self.counted.max(gap.to);
    }

    fn take(&mut self, line: &Line<'_>, read: &mut Read) {
        if line.id > self.arrived.last {
            let (server, message) = (self.followed.server.clone(), self.sender.message(line));
            read.lines.push(Ready { server, id: line.id, place: None, message });
        }
    }

    /// The lines that have not arrived, exactly: those in the spool, and those that are gone and not counted yet.
    pub async fn count_left(&mut self) -> u64 {
        let (paths, arrived, counted) = (self.followed.paths.clone(), self.arrived.clone(), self.counted);
        let counting = spawn_blocking(move || {
            let mut reader = Reader::new(paths, arrived.place.begin());
            let mut lines = Lines::at(&arrived.place);
            let (mut left, mut lost) = (0, 0);
            loop {
                let batch = reader.read(|gap, frame| {
                    let mut count = |line: Line<'_>| left += u64::from(line.id > arrived.last);
                    if let Some(gap) = gap {
                        lines.flush(&mut count);
                        lost += gap.to.saturating_sub(gap.from.max(lines.from()).max(counted));
                    }
                    lines.feed(frame, count);
                });
                if batch.is_ok_and(|batch| !batch.end) {
                    continue;
                }
                lines.flush(|line| left += u64::from(line.id > arrived.last));
                return left + lost;
            }
        });
        counting.await.expect("counting lines does not panic")
    }

    /// The lines in the spool that have not arrived, up to one of them or to the last. A line that has no end yet is none: the
    /// server that ends ends it.
    pub fn left(&self, up_to: Option<LineId>) -> impl Future<Output = Left> + use<> {
        let (paths, arrived) = (self.followed.paths.clone(), self.arrived.clone());
        let counting = spawn_blocking(move || {
            let mut reader = Reader::new(paths, arrived.place.begin());
            let mut lines = Lines::at(&arrived.place);
            let mut left = Left { lines: 0, end: arrived.last };
            let wanted = |id: LineId| id > arrived.last && up_to.is_none_or(|up_to| id <= up_to);
            while reader
                .read(|_, frame| {
                    lines.feed(frame, |line| {
                        left.lines += u64::from(wanted(line.id));
                        left.end = left.end.max(line.id);
                    });
                })
                .is_ok_and(|batch| !batch.end)
            {}
            left
        });
        async move { counting.await.expect("counting lines does not panic") }
    }

    /// About how many lines wait in the spool.
    pub async fn behind(mut self) -> (Self, u64) {
        let counting = spawn_blocking(move || {
            let begin = self.arrived.place.next;
            let mut tail = self.tail.take().unwrap_or_else(|| Reader::new(self.followed.paths.clone(), begin));
            while tail.read(|_, _| ()).is_ok_and(|batch| !batch.end) {}
            let behind = tail.next().zip(begin).map_or(0, |(end, begin)| end.saturating_sub(begin));
            self.tail = Some(tail);
            (self, behind)
        });
        counting.await.expect("counting lines does not panic")
    }
}
