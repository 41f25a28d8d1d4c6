//! Tells that servers have written something, without ever looking by the clock: the kernel tells of writes to the spool
//! directories that are watched (inotify(7)). A server that writes nothing costs nothing.

use std::{
    collections::BTreeMap,
    mem::MaybeUninit,
    os::fd::OwnedFd,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::inotify::{self, CreateFlags, WatchFlags},
    io::Errno,
};
use tokio::{io::unix::AsyncFd, sync::Notify};

/// Writes within this time are told once: a server that writes all the time wakes nobody more often.
const TOGETHER: Duration = Duration::from_millis(10);

/// Whether a server has written something since its flag was taken down.
pub(super) type Flag = Arc<AtomicBool>;

/// Watches spool directories.
pub(super) struct News {
    descriptor: AsyncFd<OwnedFd>,
    watched: Mutex<BTreeMap<i32, (Flag, Arc<Notify>)>>,
}

impl News {
    /// Must be called in a tokio runtime.
    pub fn new() -> std::io::Result<Self> {
        let descriptor = inotify::init(CreateFlags::NONBLOCK | CreateFlags::CLOEXEC)?;
        let descriptor = crate::descriptor::awaited(descriptor)?;
        Ok(Self { descriptor, watched: Mutex::default() })
    }

    fn watched(&self) -> MutexGuard<'_, BTreeMap<i32, (Flag, Arc<Notify>)>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts up the flag and tells whenever something is written in a directory. Answers with the watch's number.
    pub fn watch(&self, directory: &Path, flag: Flag, tell: Arc<Notify>) -> std::io::Result<i32> {
        let mut watched = self.watched();
        let number =
            inotify::add_watch(self.descriptor.get_ref(), directory, WatchFlags::MODIFY | WatchFlags::ONLYDIR)?;
        watched.insert(number, (flag, tell));
        Ok(number)
    }

    /// Watches no more. The kernel may have let go of a directory that is gone.
    pub fn forget(&self, number: i32) {
        if self.watched().remove(&number).is_some() {
            inotify::remove_watch(self.descriptor.get_ref(), number).unwrap_or_default();
        }
    }

    /// Goes on for ever.
    pub async fn tell(&self) {
        loop {
            let Ok(mut ready) = self.descriptor.readable().await else { return };
            tokio::time::sleep(TOGETHER).await;
            self.take();
            ready.clear_ready();
        }
    }

    fn take(&self) {
        let mut buffer = [MaybeUninit::uninit(); 8192];
        let mut events = inotify::Reader::new(self.descriptor.get_ref(), &mut buffer);
        let watched = self.watched();
        let put_up = |(flag, tell): &(Flag, Arc<Notify>)| {
            flag.store(true, Ordering::Release);
            tell.notify_one();
        };
        loop {
            match events.next() {
                Ok(event) if event.events().contains(inotify::ReadFlags::QUEUE_OVERFLOW) => {
                    watched.values().for_each(put_up);
                }
                Ok(event) => watched.get(&event.wd()).into_iter().for_each(put_up),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }
}
