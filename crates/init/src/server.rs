//! The server: one loop over children's ends, services' output, timers and the control socket.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use kiln_boot::{
    control::{Reply, ServiceState},
    spec::{BootSpec, Ending},
    spool::Stream,
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    fs::{Mode, OFlags},
    io::Errno,
    net::RecvFlags,
    process::{Pid, WaitOptions, WaitStatus},
    time::ClockId,
};

use crate::{
    Failure, Trying as _,
    control::{Asked, Connection, MAX_CONNECTIONS},
    kernel, lockdown,
    service::{self, Next, Service},
    spool::Spool,
};

/// Bytes read from a service's pipe at once.
const CHUNK: usize = 8 << 10;

/// Messages read from `/dev/log` in one turn: a flood of them keeps nobody waiting for long.
const MESSAGES: usize = 16;
/// At the end, so many are read that were sent before.
const LAST_MESSAGES: usize = 1024;
/// The place of the first pipe among the descriptors that are watched.
const PIPES: usize = 3;

/// A server that runs.
pub(crate) struct Server {
    services: Vec<Service>,
    spool: Spool,
    ending_file: OwnedFd,
    listener: OwnedFd,
    signals: OwnedFd,
    null: OwnedFd,
    /// What `/dev/log` leads to.
    log: OwnedFd,
    connections: Vec<Connection>,
    /// Why it ends, once it does.
    ending: Option<Ending>,
}

impl Server {
    /// Takes what it needs of the descriptors and gives up every right that is not needed from here on.
    pub(crate) fn new(boot: BootSpec, fds: Vec<OwnedFd>, log: Option<OwnedFd>) -> Result<Self, Failure> {
        let log = log.ok_or(Errno::BADF).trying(|| "find the socket of /dev/log".into())?;
        let filters: Vec<&OwnedFd> = boot.filters.iter().filter_map(|index| fds.get(*index)).collect();
        let signals = kernel::child_signals().trying(|| "listen for signals".into())?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .trying(|| "open /dev/null".into())?;
        lockdown::lock_down(&filters, boot.file_capabilities)?;
        let mut fds: Vec<Option<OwnedFd>> = fds.into_iter().map(Some).collect();
        let mut take = |index: usize| {
            fds.get_mut(index).and_then(Option::take).ok_or(Errno::BADF).trying(|| "find a descriptor".into())
        };
        let spool = Spool::new([take(boot.spool[0])?, take(boot.spool[1])?], boot.spool_bytes);
        Ok(Self {
            spool,
            ending_file: take(boot.ending)?,
            listener: take(boot.control)?,
            services: boot.services.into_iter().map(Service::new).collect::<Result<_, _>>()?,
            signals,
            null,
            log,
            connections: Vec::new(),
            ending: None,
        })
    }

    /// Starts every service.
    pub(crate) fn start(&mut self) {
        (0..self.services.len()).for_each(|index| self.start_service(index));
    }

    /// For the control socket.
    pub(crate) fn states(&self) -> Vec<ServiceState> {
        self.services.iter().map(Service::state).collect()
    }

    fn start_service(&mut self, index: usize) {
        let now = now();
        let service = &mut self.services[index];
        if let Err(failure) = service.start(&self.null, now) {
            let next = service.not_started(&failure, now);
            self.follow(index, next);
        }
    }

    fn follow(&mut self, index: usize, next: Next) {
        let service = &self.services[index];
        let (name, how) = (service.spec.name.clone(), service.last_exit().to_owned());
        let what = match next {
            Next::Rest => format!("ended: {how}"),
            Next::Restart if self.ending.is_some() => format!("ended: {how}"),
            Next::Restart => format!("ended: {how}; it is started again"),
            Next::Fail => format!("ended: {how}; the server ends"),
        };
        self.spool.write(&name, Stream::Init, what.as_bytes());
        if self.ending.is_some() {
            self.services[index].restart_at = None;
        } else if let Next::Fail = next {
            self.begin_end(Ending::Failed { service: name, how });
        }
    }

    fn begin_end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
        let now = now();
        self.services.iter_mut().for_each(|service| service.stop(now));
    }

    /// Runs until every service is at rest, and ends this process.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        while !self.services.iter().all(Service::at_rest) {
            let ready = self.wait()?;
            self.reap()?;
            self.read_output(&ready);
            if ready.get(2) == Some(&true) {
                self.read_messages(MESSAGES);
            }
            self.serve_control(&ready);
            self.fire_timers();
        }
        self.finish()
    }

    /// Waits until something is to be done. Answers which descriptors are ready, in the order of `watched`.
    fn wait(&self) -> Result<Vec<bool>, Failure> {
        let mut polled: Vec<PollFd<'_>> =
            self.watched().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let timeout = self.next_timer().map(|at| {
            let left = at.saturating_sub(now());
            Timespec { tv_sec: (left / 1000) as i64, tv_nsec: (left % 1000 * 1_000_000) as i64 }
        });
        match rustix::event::poll(&mut polled, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(polled.iter().map(|fd| !fd.revents().is_empty()).collect()),
            Err(errno) => Err(errno).trying(|| "wait".into()),
        }
    }

    fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let pipes = self.services.iter().flat_map(|service| &service.pipes).map(|pipe| pipe.reader.as_fd());
        let connections = self.connections.iter().map(|connection| connection.socket.as_fd());
        [self.signals.as_fd(), self.listener.as_fd(), self.log.as_fd()].into_iter().chain(pipes).chain(connections)
    }

    fn next_timer(&self) -> Option<u64> {
        self.services.iter().flat_map(|service| [service.restart_at, service.kill_at]).flatten().min()
    }

    fn reap(&mut self) -> Result<(), Failure> {
        let mut signals = [0; 128];
        // The descriptor only wakes the loop; what ended is asked from the kernel.
        match rustix::io::read(&self.signals, &mut signals) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(errno).trying(|| "read signals".into()),
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.ended(pid, status),
                Ok(None) | Err(Errno::CHILD) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).trying(|| "reap".into()),
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        if let Some(index) = self.services.iter().position(|service| service.pid == Some(pid)) {
            let next = self.services[index].ended(status, now());
            self.follow(index, next);
        } else if let Some(index) = self.connections.iter().position(|connection| connection.command == Some(pid)) {
            let mut connection = self.connections.swap_remove(index);
            connection.command = None;
            connection.reply(&Reply::Ended { exit: service::exit_number(status) }, &[]);
        }
    }

    /// At most one piece of each pipe, so that no service keeps the others waiting.
    fn read_output(&mut self, ready: &[bool]) {
        let mut buffer = [0; CHUNK];
        for (index, service) in self.services.iter().enumerate() {
            for (pipe, stream) in [Stream::Stdout, Stream::Stderr].into_iter().enumerate() {
                if ready.get(PIPES + 2 * index + pipe).copied().unwrap_or(true)
                    && let Ok(count) = rustix::io::read(&service.pipes[pipe].reader, &mut buffer)
                    && count > 0
                {
                    self.spool.write(&service.spec.name, stream, &buffer[..count]);
                }
            }
        }
    }

    /// What is longer than a piece is cut by the kernel.
    fn read_messages(&mut self, most: usize) {
        let mut buffer = [0; CHUNK];
        for _ in 0..most {
            match rustix::net::recv(&self.log, &mut buffer, RecvFlags::DONTWAIT) {
                Ok((0, _)) => {}
                Ok((count, _)) => self.spool.write("", Stream::Syslog, &buffer[..count]),
                Err(_) => return,
            }
        }
    }

    fn serve_control(&mut self, ready: &[bool]) {
        let first = PIPES + 2 * self.services.len();
        // Connections that ended while reaping have moved others: every one is asked, and none blocks.
        let any = ready.len() > first && ready[first..].contains(&true);
        let mut index = self.connections.len();
        while any && index > 0 {
            index -= 1;
            let mut connection = self.connections.swap_remove(index);
            if self.serve(&mut connection) {
                self.connections.push(connection);
            }
        }
        if ready.get(1) == Some(&true) {
            self.accept();
        }
    }

    fn accept(&mut self) {
        if let Ok(connection) = Connection::accept(&self.listener)
            && self.connections.len() < MAX_CONNECTIONS
        {
            self.connections.push(connection);
        }
    }

    /// Answers whether the connection stays.
    fn serve(&mut self, connection: &mut Connection) -> bool {
        match connection.receive() {
            Asked::Nothing => true,
            Asked::Closed => {
                connection.abandon();
                false
            }
            Asked::Status => {
                connection.reply(&Reply::Status { services: self.states() }, &[]);
                false
            }
            Asked::Stop => {
                self.begin_end(Ending::Stopped { killed: Vec::new() });
                connection.reply(&Reply::Stopping, &[])
            }
            Asked::Signal { service, signal } => {
                let pid = self.services.iter().find(|known| known.spec.name == service).and_then(|known| known.pid);
                connection.signal(pid, signal);
                false
            }
            Asked::Exec(exec, fds) => connection.exec(&exec, &fds),
            Asked::Refused(reason) => {
                connection.reply(&Reply::Refused { reason }, &[]);
                false
            }
        }
    }

    fn fire_timers(&mut self) {
        let now = now();
        for index in 0..self.services.len() {
            let service = &mut self.services[index];
            if service.kill_at.is_some_and(|at| at <= now) {
                service.kill();
            }
            if service.restart_at.is_some_and(|at| at <= now) {
                self.start_service(index);
            }
        }
    }

    /// Keeps the last output and says why it ends. What still runs inside is killed by the kernel with PID 1.
    fn finish(&mut self) -> Result<(), Failure> {
        self.read_output(&[]);
        self.read_messages(LAST_MESSAGES);
        let killed = self.services.iter().filter(|service| service.killed).map(|service| service.spec.name.clone());
        let ending = match self.ending.take() {
            Some(Ending::Stopped { .. }) => Ending::Stopped { killed: killed.collect() },
            Some(ending) => ending,
            None => Ending::Finished,
        };
        let text = serde_json::to_vec(&ending).unwrap_or_default();
        rustix::io::pwrite(&self.ending_file, &text, 0).trying(|| "write the ending".into())?;
        Ok(())
    }
}

/// Milliseconds of the monotonic clock.
fn now() -> u64 {
    let now = rustix::time::clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}
