//! Programs that ask from inside the network namespaces of servers, all in one thread of ours: each has a connection that was
//! opened there, and one question at a time. The thread sleeps until an answer comes or the next question is due, as a
//! client does: one that looked again and again kept a processor for itself, and whoever was woken there to answer waited
//! for the kernel's next tick, 4 ms.

use std::{
    fs::File,
    io::{ErrorKind, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use rustix::{
    event::epoll::{self, EventData, EventFlags},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use crate::Outcome;

/// An answer must be there within this time.
const LIMIT: Duration = Duration::from_secs(10);
/// From one question of a server to its next.
const INTERVAL: Duration = Duration::from_millis(100);

/// When the servers ask.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Each at its own, anywhere in the interval.
    Own,
    /// All at the same.
    Same,
}

/// A connection from a server.
pub struct Asker {
    stream: TcpStream,
    request: String,
    asked: Option<Instant>,
    answer: Vec<u8>,
}

impl Asker {
    /// Connects from the network namespace of a process. The calling thread stays in it.
    fn open(pid: u64, to: SocketAddr) -> Outcome<Self> {
        use std::os::fd::AsFd as _;
        let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
        let stream = TcpStream::connect_timeout(&to, LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LIMIT))?;
        Ok(Self { stream, request: String::new(), asked: None, answer: Vec::new() })
    }

    /// Asks and waits; the body of the answer.
    pub fn exchange(&mut self, request: &str) -> Outcome<String> {
        self.stream.write_all(request.as_bytes())?;
        while self.body().is_none() {
            self.read()?;
        }
        let body = self.body().map(<[u8]>::to_vec).unwrap_or_default();
        self.answer.clear();
        Ok(String::from_utf8(body)?)
    }

    fn ask(&mut self) -> Outcome {
        self.asked = Some(Instant::now());
        Ok(self.stream.write_all(self.request.as_bytes())?)
    }

    /// The time that a whole good answer took, if it is there now.
    fn answered(&mut self) -> Outcome<Option<Duration>> {
        match self.read() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            read => read?,
        }
        if self.body().is_none() {
            return Ok(None);
        }
        if !self.answer.starts_with(b"HTTP/1.1 200 ") {
            return Err(format!("not what was asked for: {}", String::from_utf8_lossy(&self.answer)).into());
        }
        self.answer.clear();
        Ok(self.asked.take().map(|asked| asked.elapsed()))
    }

    fn read(&mut self) -> std::io::Result<()> {
        let mut part = [0; 4096];
        match self.stream.read(&mut part)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            length => {
                self.answer.extend_from_slice(&part[..length]);
                Ok(())
            }
        }
    }

    /// The body, once all of it is there.
    fn body(&self) -> Option<&[u8]> {
        let head = self.answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
        let text = std::str::from_utf8(&self.answer[..head]).ok()?.to_ascii_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length: ")?.trim().parse::<usize>().ok())?;
        self.answer.get(head..head + length)
    }
}

/// All of them.
pub struct Askers {
    poll: std::os::fd::OwnedFd,
    all: Vec<Asker>,
}

impl Askers {
    /// One for each process, with the request that `prepare` makes of it.
    pub fn open(pids: &[u64], to: SocketAddr, prepare: impl Fn(&mut Asker) -> Outcome<String>) -> Outcome<Self> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut all = Vec::new();
        for (index, pid) in pids.iter().enumerate() {
            let mut asker = Asker::open(*pid, to)?;
            asker.request = prepare(&mut asker)?;
            asker.stream.set_nonblocking(true)?;
            epoll::add(&poll, &asker.stream, EventData::new_u64(index as u64), EventFlags::IN)?;
            all.push(asker);
        }
        Ok(Self { poll, all })
    }

    /// Each asks once; milliseconds that each answer took.
    pub fn round(&mut self, moment: Moment, seed: u64) -> Outcome<Vec<f64>> {
        let begin = Instant::now() + Duration::from_millis(1);
        let mut due: Vec<(Instant, usize)> =
            (0..self.all.len()).map(|index| (begin + offset(moment, seed, index), index)).collect();
        due.sort_unstable_by(|one, other| other.cmp(one));
        let mut times = Vec::new();
        while times.len() < self.all.len() {
            while let Some((_, index)) = due.pop_if(|(at, _)| *at <= Instant::now()) {
                self.all[index].ask()?;
            }
            let next = due.last().map_or(LIMIT, |(at, _)| at.saturating_duration_since(Instant::now()));
            self.take(next, &mut times)?;
            if begin.elapsed() > LIMIT {
                return Err(format!("{} of {} were answered", times.len(), self.all.len()).into());
            }
        }
        std::thread::sleep((begin + INTERVAL).saturating_duration_since(Instant::now()));
        Ok(times)
    }

    /// Takes the answers that come within this time, as soon as there is one.
    fn take(&mut self, within: Duration, times: &mut Vec<f64>) -> Outcome {
        let mut events = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 64];
        let within = rustix::event::Timespec::try_from(within)?;
        let ready = epoll::wait(&self.poll, &mut events, Some(&within))?;
        for event in &events[..ready] {
            let index = usize::try_from(event.data.u64())?;
            times.extend(self.all[index].answered()?.map(|time| time.as_secs_f64() * 1e3));
        }
        Ok(())
    }
}

/// Where in the interval a server asks: scattered, and the same for the same seed (SplitMix64).
fn offset(moment: Moment, seed: u64, index: usize) -> Duration {
    if moment == Moment::Same {
        return Duration::ZERO;
    }
    let mut mixed = (seed << 32 | index as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    INTERVAL.mul_f64((mixed >> 11) as f64 / (1_u64 << 53) as f64)
}
