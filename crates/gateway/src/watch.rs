//! Time limits of client connections, without a timer per request.
//!
//! A connection notes its phase and when it last moved, on a clock that ticks every 250 ms; once per tick each worker
//! looks at its connections and ends those that broke a limit. So limits are kept to a tick, and a request costs a
//! few stores to memory that only its own worker touches.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::AtomicWaker;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    task::AbortHandle,
};

use crate::{gateway::Stage, options::Limits};

/// How often limits are looked at.
pub const TICK: Duration = Duration::from_millis(250);

/// Ticks since the worker's start.
pub type Clock = Arc<AtomicU32>;

/// What a client connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// A request's head is arriving, or the first is awaited.
    Head = 0,
    /// Between requests.
    Idle = 1,
    /// A server works on the request.
    Request = 2,
    /// A response is being passed on.
    Response = 3,
    /// Bytes in both directions, for as long as both sides want.
    Tunnel = 4,
}

impl Phase {
    fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Head,
            1 => Self::Idle,
            2 => Self::Request,
            3 => Self::Response,
            _ => Self::Tunnel,
        }
    }
}

/// One client connection's phase and last movement.
pub struct Watch {
    clock: Clock,
    phase: AtomicU8,
    since: AtomicU32,
    expired: AtomicBool,
    waker: AtomicWaker,
    task: OnceLock<AbortHandle>,
}

impl Watch {
    pub fn new(clock: &Clock) -> Arc<Self> {
        Arc::new(Self {
            clock: clock.clone(),
            phase: AtomicU8::new(Phase::Head as u8),
            since: AtomicU32::new(clock.load(Relaxed)),
            expired: AtomicBool::new(false),
            waker: AtomicWaker::new(),
            task: OnceLock::new(),
        })
    }

    /// Names the task that ends when a limit is broken.
    pub fn guards(&self, task: AbortHandle) {
        self.task.get_or_init(|| task);
    }

    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Relaxed);
        self.moved();
    }

    fn phase(&self) -> Phase {
        Phase::from_byte(self.phase.load(Relaxed))
    }

    fn moved(&self) {
        self.since.store(self.clock.load(Relaxed), Relaxed);
    }

    fn read_something(&self) {
        match self.phase() {
            Phase::Idle => self.enter(Phase::Head),
            // A head that arrives byte by byte does not get more time.
            Phase::Head => {}
            _ => self.moved(),
        }
    }

    /// Ready when the server took too long; the connection itself goes on.
    pub fn poll_expired(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.expired.swap(false, Relaxed) { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Ends or wakes the connection when it broke a limit.
    pub fn check(&self, limits: &Limits, stage: Stage) {
        let now = self.clock.load(Relaxed);
        let age = TICK * now.wrapping_sub(self.since.load(Relaxed));
        let phase = self.phase();
        let limit = match phase {
            Phase::Head => limits.header_timeout,
            Phase::Idle => match stage {
                Stage::Serving => limits.idle_timeout,
                Stage::Retiring => limits.retire_idle.min(limits.idle_timeout),
                Stage::Stopping => Duration::ZERO,
            },
            Phase::Request => limits.response_timeout,
            Phase::Response => limits.stall_timeout,
            Phase::Tunnel => return,
        };
        if age > limit {
            self.end(phase);
        }
    }

    fn end(&self, phase: Phase) {
        if phase == Phase::Request {
            self.expired.store(true, Relaxed);
            self.waker.wake();
        } else if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// A stream whose movements are noted.
pub struct Watched<S> {
    stream: S,
    watch: Arc<Watch>,
}

impl<S> Watched<S> {
    pub fn new(stream: S, watch: Arc<Watch>) -> Self {
        Self { stream, watch }
    }

    fn note<T>(&self, result: &Poll<io::Result<T>>) {
        if matches!(result, Poll::Ready(Ok(_))) {
            self.watch.moved();
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let result = Pin::new(&mut self.stream).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.watch.read_something();
        }
        result
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.note(&result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.note(&result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ended(phase: Phase, ticks: u32) -> bool {
        let clock = Clock::default();
        let watch = Watch::new(&clock);
        let task = tokio::spawn(std::future::pending::<()>());
        watch.guards(task.abort_handle());
        watch.enter(phase);
        clock.store(ticks, Relaxed);
        let limits = Limits { header_timeout: TICK * 4, idle_timeout: TICK * 8, ..Limits::default() };
        watch.check(&limits, Stage::Serving);
        tokio::task::yield_now().await;
        let ended = task.is_finished();
        task.abort();
        ended
    }

    #[tokio::test]
    async fn each_phase_has_its_limit() {
        assert!(!ended(Phase::Head, 4).await);
        assert!(ended(Phase::Head, 5).await);
        assert!(!ended(Phase::Idle, 5).await);
        assert!(ended(Phase::Idle, 9).await);
        assert!(!ended(Phase::Tunnel, u32::MAX / 2).await);
    }

    #[test]
    fn a_slow_head_gets_no_more_time() {
        let clock = Clock::default();
        let watch = Watch::new(&clock);
        watch.enter(Phase::Idle);
        watch.read_something();
        clock.store(3, Relaxed);
        watch.read_something();
        assert_eq!((watch.phase(), watch.since.load(Relaxed)), (Phase::Head, 0));
    }
}
