//! Mounts that are kept to be copied again and again.
//!
//! Since Linux 6.15 a detached mount can be copied and be a layer of an overlay. Before that, only what is mounted
//! somewhere can: such kernels get a *shelf*, a mount namespace of this process's own with nothing in it but the mounts
//! that are kept, and a thread that lives there and does what must be done inside. Nothing of it is seen on the host,
//! and all vanishes with the process.

use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{LazyLock, OnceLock, mpsc},
};

use rustix::fs::{AtFlags, CWD, Mode};

use crate::{
    error::{Attempt as _, Outcome, Result, SysError},
    mount::{self, Attributes, Depth, Setting},
    namespace,
};

/// A mount that can be copied. It is let go of when dropped; copies stay.
#[derive(Debug)]
pub struct Template {
    mount: OwnedFd,
    place: Option<Place>,
}

impl Template {
    /// Takes a detached mount.
    pub fn new(mount: OwnedFd) -> Result<Self> {
        if detached_can_be_copied() { Ok(Self { mount, place: None }) } else { Self::on_shelf(mount) }
    }

    fn on_shelf(mount: OwnedFd) -> Result<Self> {
        let attached = mount.try_clone().attempt(|| "copy a descriptor".into())?;
        let place = in_shelf(move |shelf| shelf.put(attached.as_fd()))?;
        Ok(Self { mount, place: Some(place) })
    }

    /// A detached copy of the mount at a path inside, or of the whole one where the path is empty.
    pub fn copy(&self, path: &Path) -> Result<OwnedFd> {
        match self.place {
            None => mount::clone_tree(self.mount.as_fd(), path, Depth::One),
            Some(_) => {
                let (mount, path) = (self.mount.try_clone().attempt(|| "copy a descriptor".into())?, path.to_owned());
                in_shelf(move |_| mount::clone_tree(mount.as_fd(), &path, Depth::One))
            }
        }
    }
}

impl AsFd for Template {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.mount.as_fd()
    }
}

/// Makes a read-only overlay: `lower`, a detached mount, has the names; `data`, a directory, the content behind them.
pub fn overlay(lower: OwnedFd, data: BorrowedFd<'_>, settings: &[(&'static str, String)]) -> Result<OwnedFd> {
    if detached_can_be_copied() {
        let layers = [Setting::File("lowerdir+", lower.as_fd()), Setting::File("datadir+", data)];
        return made(settings, layers);
    }
    let data = mount::clone_tree(data, Path::new(""), Depth::One)?;
    overlay_on_shelf(lower, data, settings.to_vec())
}

fn overlay_on_shelf(lower: OwnedFd, data: OwnedFd, settings: Vec<(&'static str, String)>) -> Result<OwnedFd> {
    in_shelf(move |shelf| {
        let (lower, data) = (shelf.put(lower.as_fd())?, shelf.put(data.as_fd())?);
        let path = |place: &Place| place.0.to_string_lossy().into_owned();
        made(&settings, [Setting::Text("lowerdir+", &path(&lower)), Setting::Text("datadir+", &path(&data))])
    })
}

fn made(settings: &[(&'static str, String)], layers: [Setting<'_>; 2]) -> Result<OwnedFd> {
    let settings = settings.iter().map(|(key, value)| Setting::Text(key, value));
    let all: Vec<Setting<'_>> = settings.chain(layers).collect();
    mount::create("overlay", &all, Attributes::READ_ONLY)
}

/// Whether this kernel copies detached mounts.
fn detached_can_be_copied() -> bool {
    static CAN: LazyLock<bool> = LazyLock::new(|| {
        let made = mount::create("tmpfs", &[Setting::Text("size", "4k")], Attributes::READ_ONLY);
        // Where not even that is allowed, the first mount that is wanted says why.
        made.is_ok_and(|mount| mount::clone_tree(mount.as_fd(), Path::new(""), Depth::One).is_ok())
    });
    *CAN
}

/// A directory of the shelf with a mount on it.
#[derive(Debug)]
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.0);
        let clear = move || {
            // A mount that cannot be taken down goes with the process.
            if mount::detach(&path).is_ok() {
                rustix::fs::unlinkat(CWD, &path, AtFlags::REMOVEDIR).unwrap_or(());
            }
        };
        if on_shelf() { clear() } else { send(Box::new(move |_| clear())).unwrap_or(()) }
    }
}

/// What the thread knows.
#[derive(Debug, Default)]
struct Shelf {
    places: u64,
}

impl Shelf {
    fn put(&mut self, mount: BorrowedFd<'_>) -> Result<Place> {
        self.places += 1;
        let path = PathBuf::from(format!("/{}", self.places));
        rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)).attempt(|| "make a mount point".into())?;
        mount::attach(mount, CWD, &path)?;
        Ok(Place(path))
    }
}

type Job = Box<dyn FnOnce(&mut Shelf) + Send>;

static JOBS: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
const THREAD: &str = "kiln-shelf";

fn on_shelf() -> bool {
    std::thread::current().name() == Some(THREAD)
}

fn gone() -> SysError {
    SysError { action: "work on kept mounts".into(), outcome: Outcome::Gone }
}

fn send(job: Job) -> Result<()> {
    JOBS.get().ok_or_else(gone)?.send(job).map_err(|_| gone())
}

fn in_shelf<T: Send + 'static>(work: impl FnOnce(&mut Shelf) -> Result<T> + Send + 'static) -> Result<T> {
    open()?;
    let (answer, answered) = mpsc::sync_channel(1);
    // Whoever asked waits below.
    send(Box::new(move |shelf| answer.send(work(shelf)).unwrap_or(())))?;
    answered.recv().map_err(|_| gone())?
}

/// Starts the thread, once.
fn open() -> Result<()> {
    static OPENING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = OPENING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if JOBS.get().is_some() {
        return Ok(());
    }
    let (jobs, queue) = mpsc::channel::<Job>();
    let (ready, is_ready) = mpsc::sync_channel(1);
    let work = move || {
        let entered = enter();
        let well = entered.is_ok();
        // Whoever opens waits below.
        ready.send(entered).unwrap_or(());
        let mut shelf = Shelf::default();
        while well && let Ok(job) = queue.recv() {
            job(&mut shelf);
        }
    };
    let thread = std::thread::Builder::new().name(THREAD.into()).spawn(work);
    thread.map_err(|_| SysError { action: "start a thread".into(), outcome: Outcome::Exhausted })?;
    is_ready.recv().map_err(|_| gone())??;
    JOBS.get_or_init(|| jobs);
    Ok(())
}

/// Leaves the host's mounts for a namespace with an empty memory file system.
fn enter() -> Result<()> {
    namespace::leave_mounts()?;
    let settings = [Setting::Text("size", "1m"), Setting::Text("mode", "0700")];
    let empty = mount::create("tmpfs", &settings, Attributes::NONE)?;
    // Every host has it, and it is covered in this namespace only.
    let anywhere = Path::new("/proc");
    mount::attach(empty.as_fd(), CWD, anywhere)?;
    mount::pivot(anywhere)
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _, os::fd::AsRawFd as _, path::Path};

    use rustix::fs::{Mode, OFlags, openat};

    use super::{Template, overlay_on_shelf};
    use crate::mount::{self, Attributes, Depth, Setting, clone_tree};

    fn tree(text: &str) -> rustix::fd::OwnedFd {
        let tree = mount::create("tmpfs", &[Setting::Text("size", "64k")], Attributes::NONE).unwrap();
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = openat(&tree, "file", flags, Mode::from_raw_mode(0o644)).unwrap();
        rustix::io::write(&file, text.as_bytes()).unwrap();
        tree
    }

    fn read(tree: impl rustix::fd::AsFd, path: &str) -> String {
        let mut text = String::new();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        File::from(openat(tree, path, flags, Mode::empty()).unwrap()).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn root_kept_mounts_are_copied_whole_and_in_part_and_seen_nowhere() {
        let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        for template in [Template::new(tree("kept")).unwrap(), Template::on_shelf(tree("kept")).unwrap()] {
            assert_eq!(read(template.copy(Path::new("")).unwrap(), "file"), "kept");
            let part = template.copy(Path::new("file")).unwrap();
            drop(template);
            let text = std::fs::read_to_string(format!("/proc/self/fd/{}", part.as_raw_fd())).unwrap();
            assert_eq!(text, "kept");
        }
        assert_eq!(std::fs::read_to_string("/proc/self/mountinfo").unwrap(), before);
    }

    #[test]
    fn root_an_overlay_is_made_on_the_shelf() {
        let (lower, data) = (tree("lower"), tree("data"));
        let settings = vec![("metacopy", "on".to_owned()), ("redirect_dir", "on".to_owned())];
        let overlay = overlay_on_shelf(lower, data, settings).unwrap();
        assert_eq!(read(&overlay, "file"), "lower");
        // A copy of what is mounted somewhere needs no shelf.
        clone_tree(rustix::fs::CWD, Path::new("/proc"), Depth::One).unwrap();
    }
}
