//! Short pauses. The timers of the runtime that the daemon stands on tick once a millisecond, and a server that is up in
//! five should not be found out after seven: a pause is a timer of the kernel here.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use tokio::io::unix::AsyncFd;

use crate::descriptor::awaited;

/// A timer that is used again and again.
pub(crate) struct Pause(AsyncFd<OwnedFd>);

impl Pause {
    /// A timer. Fails where the process has no descriptors left.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
        awaited(timer).map(Self)
    }

    /// Waits for so long, which must not be nothing.
    pub async fn wait(&self, time: Duration) -> io::Result<()> {
        let once = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().max(1).into() };
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = Itimerspec { it_interval: never, it_value: once };
        rustix::time::timerfd_settime(self.0.get_ref(), TimerfdTimerFlags::empty(), &setting)?;
        let mut count = [0; 8];
        let read = |timer: &OwnedFd| Ok(rustix::io::read(timer, &mut count[..])?);
        self.0.async_io(tokio::io::Interest::READABLE, read).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::Pause;

    #[tokio::test]
    async fn unit_a_pause_is_as_long_as_it_should_be_and_can_be_repeated() {
        let (pause, start) = (Pause::new().unwrap(), Instant::now());
        for _ in 0..4 {
            pause.wait(Duration::from_micros(500)).await.unwrap();
        }
        assert!(start.elapsed() >= Duration::from_millis(2), "{:?}", start.elapsed());
    }
}
