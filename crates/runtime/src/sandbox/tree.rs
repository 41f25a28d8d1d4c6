//! What a command sees as its files: the overlay and the small file systems on top, in a mount namespace made for it.
//!
//! Everything is mounted in a private mount namespace, so the host never sees any of it and all of it goes with the
//! namespace. The layers are attached there before the overlay is made of them, because kernels before 6.15 take only
//! layers that belong to the caller's mount namespace; they are named relative to the working directory, because the
//! kernel limits the option to 255 bytes.
//!
//! Below the tree's own layers lies one more: the directories and the file that other things are mounted over. Where
//! the tree has them, its own are seen; where it lacks them, they need not be made in it, and nothing stays behind.

use std::{
    ffi::{CStr, CString},
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::{ffi::OsStrExt, fs::PermissionsExt},
    },
    path::{Path, PathBuf},
};

use kiln_sys::{
    SysError, idmap,
    mount::{self, Attributes, Depth, Setting},
    namespace,
};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};

use super::{Bind, Job, Memory, SandboxError, SandboxRoot, Shown, Tmp, environment::Environment, failed, slot::Slot};

/// Settings of the kernel, readable only.
pub(super) const READ_ONLY: &[&CStr] = &[c"/proc/sys", c"/proc/sysrq-trigger", c"/proc/irq", c"/proc/bus"];
/// What would tell of the host, hidden.
const HIDDEN_DIRECTORIES: [&CStr; 3] = [c"/proc/acpi", c"/proc/scsi", c"/proc/asound"];
const HIDDEN_FILES: [&CStr; 5] =
    [c"/proc/kcore", c"/proc/keys", c"/proc/timer_list", c"/proc/latency_stats", c"/proc/sched_debug"];

const MOUNT_POINTS: [&str; 6] = ["dev", "etc", "proc", "run", "sys", "tmp"];
const DEVICES: [(&str, u32, u32); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];
const RESOLVER: &str = "etc/resolv.conf";

/// A tree ready for a command.
#[derive(Debug)]
pub(super) struct Tree {
    /// The mount namespace.
    pub(super) mounts: OwnedFd,
    /// Where the root is mounted in it.
    pub(super) root: CString,
    /// Mounts to put over parts of `/proc`.
    pub(super) covers: Vec<(&'static CStr, OwnedFd)>,
    /// The outer end of a terminal inside, for an interactive command.
    pub(super) terminal: Option<OwnedFd>,
    work: PathBuf,
}

impl Tree {
    /// Mounts everything.
    pub(super) fn make(
        job: &Job,
        slot: &Slot,
        users: BorrowedFd<'_>,
        environment: &Environment,
    ) -> Result<Self, SandboxError> {
        forget_unsynced(&job.root.work)?;
        let layers = Layers::copy(job, users)?;
        let mut outcome = Ok(None);
        let mounts = namespace::new_mounts(|| {
            outcome = assemble(job, &layers, slot, users, environment)
                .and_then(|root| job.interactive.then(|| open_terminal(root.as_fd())).transpose());
            Ok(())
        })?;
        let terminal = outcome?;
        let root = CString::new(slot.scratch().join("root").as_os_str().as_bytes());
        let root = root.map_err(|_| SandboxError::Job("a path holds a zero byte"))?;
        Ok(Self { mounts, root, covers: covers()?, terminal, work: job.root.work.clone() })
    }

    /// Lets go of the mounts; a running command keeps its own.
    pub(super) fn let_go(self) -> Work {
        Work(self.work)
    }
}

/// The work directory of an overlay.
#[derive(Debug)]
pub(super) struct Work(PathBuf);

impl Work {
    /// Makes it fit for another job, once the command is gone.
    pub(super) fn reuse(self) -> Result<(), SandboxError> {
        forget_unsynced(&self.0)
    }
}

/// The overlay does not sync (`volatile`): a step whose machine crashes is run again anyway. The kernel marks the work
/// directory and refuses to use it a second time while the mark is there.
fn forget_unsynced(work: &Path) -> Result<(), SandboxError> {
    let mark = work.join("work/incompat");
    match fs::remove_dir_all(&mark) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", &mark)(error)),
        _ => Ok(()),
    }
}

/// Detached mounts of the layers, their owners shifted into the user namespace.
struct Layers {
    lower: Vec<OwnedFd>,
    /// The nearest directory that holds both `upper` and `work`, which must be of one mount.
    parent: OwnedFd,
    upper: PathBuf,
    work: PathBuf,
    /// Other trees, and where they are seen.
    shown: Vec<(String, OwnedFd)>,
}

impl Layers {
    fn copy(job: &Job, users: BorrowedFd<'_>) -> Result<Self, SandboxError> {
        let SandboxRoot { lower, upper, work } = &job.root;
        let shifted = |directory: BorrowedFd<'_>, path: &Path| -> Result<OwnedFd, SysError> {
            let copy = mount::clone_tree(directory, path, Depth::One)?;
            mount::map_owners(copy.as_fd(), users)?;
            Ok(copy)
        };
        let lower =
            lower.iter().map(|layer| layer.mount(users)).collect::<Result<_, _>>().map_err(SandboxError::Lower)?;
        let show = |shown: &Shown| Ok((shown.target.clone(), shown.tree.mount(users)?));
        let shown = job.trees.iter().map(show).collect::<Result<_, _>>().map_err(SandboxError::Lower)?;
        let absolute = |path: &Path| fs::canonicalize(path).map_err(failed("find", path));
        let (upper, work) = (absolute(upper)?, absolute(work)?);
        let parent = upper.ancestors().find(|parent| work.starts_with(parent)).unwrap_or(Path::new("/"));
        let inside = |path: &Path| path.strip_prefix(parent).unwrap_or(path).to_owned();
        Ok(Self { lower, parent: shifted(CWD, parent)?, upper: inside(&upper), work: inside(&work), shown })
    }
}

/// Runs in the new mount namespace, on a thread with a working directory of its own. Answers the root.
fn assemble(
    job: &Job,
    layers: &Layers,
    slot: &Slot,
    users: BorrowedFd<'_>,
    environment: &Environment,
) -> Result<OwnedFd, SandboxError> {
    let scratch = slot.scratch();
    attach(tmpfs("64k", "755", slot, Attributes::NONE)?.as_fd(), CWD, scratch)?;
    std::env::set_current_dir(scratch).map_err(failed("enter", scratch))?;
    idmap::act_on_files_as(slot.first_id())?;
    make_directory(Path::new("root"))?;
    let overlay = overlay(layers, &stand_ins(job, environment))?;
    attach(overlay.as_fd(), CWD, Path::new("root"))?;
    let root = open_directory(Path::new("root"))?;
    let kept = |name: &str| name == "tmp" && job.tmp == Tmp::Tree;
    for (name, mount) in small_file_systems(slot)?.into_iter().filter(|(name, _)| !kept(name)) {
        attach(mount.as_fd(), root.as_fd(), Path::new(name))?;
    }
    fill_dev(root.as_fd(), slot)?;
    show_trees(root.as_fd(), &layers.shown)?;
    show_memory(root.as_fd(), slot, job)?;
    show_binds(root.as_fd(), users, job.tmp, &environment.binds)?;
    if let Some(text) = &environment.resolver {
        show_resolver(root.as_fd(), text)?;
    }
    // Last, so that everything above could still write there.
    let sys = mount::open(root.as_fd(), c"sys")?;
    mount::restrict(sys.as_fd(), Depth::One, Attributes::READ_ONLY)?;
    Ok(root)
}

fn open_terminal(root: BorrowedFd<'_>) -> Result<OwnedFd, SandboxError> {
    let path = "dev/pts/ptmx";
    inside(root, path, OFlags::RDWR | OFlags::NOCTTY).map_err(|errno| failed("open", Path::new(path))(errno.into()))
}

fn attach(mount: BorrowedFd<'_>, directory: BorrowedFd<'_>, path: &Path) -> Result<(), SandboxError> {
    Ok(mount::attach(mount, directory, path)?)
}

fn make_directory(path: &Path) -> Result<(), SandboxError> {
    fs::create_dir(path).map_err(failed("create", path))
}

fn open_directory(path: &Path) -> Result<OwnedFd, SandboxError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed("open", path)(errno.into()))
}

fn overlay(layers: &Layers, stand_ins: &[StandIn]) -> Result<OwnedFd, SandboxError> {
    make_directory(Path::new("u"))?;
    attach(layers.parent.as_fd(), CWD, Path::new("u"))?;
    let mut names = Vec::new();
    for (number, layer) in layers.lower.iter().enumerate() {
        let name = number.to_string();
        make_directory(Path::new(&name))?;
        attach(layer.as_fd(), CWD, Path::new(&name))?;
        names.push(name);
    }
    names.push(mount_points(stand_ins)?);
    let inside = |path: &Path| Path::new("u").join(path).to_string_lossy().into_owned();
    let settings = [
        Setting::Text("lowerdir", &names.join(":")),
        Setting::Text("upperdir", &inside(&layers.upper)),
        Setting::Text("workdir", &inside(&layers.work)),
        Setting::Text("redirect_dir", "nofollow"),
        Setting::Text("index", "off"),
        Setting::Text("metacopy", "off"),
        Setting::Flag("volatile"),
    ];
    Ok(mount::create("overlay", &settings, Attributes::NO_DEVICES)?)
}

fn tmpfs(size: &str, mode: &str, slot: &Slot, attributes: Attributes) -> Result<OwnedFd, SandboxError> {
    let owner = slot.first_id().to_string();
    let settings = [
        Setting::Text("size", size),
        Setting::Text("mode", mode),
        Setting::Text("uid", &owner),
        Setting::Text("gid", &owner),
    ];
    Ok(mount::create("tmpfs", &settings, attributes)?)
}

fn small_file_systems(slot: &Slot) -> Result<[(&'static str, OwnedFd); 4], SandboxError> {
    let files_only = Attributes::NO_SUID | Attributes::NO_DEVICES;
    Ok([
        ("dev", tmpfs("64m", "755", slot, Attributes::NO_SUID | Attributes::NO_EXECUTE)?),
        ("run", tmpfs("256m", "755", slot, files_only)?),
        ("sys", tmpfs("4k", "555", slot, files_only | Attributes::NO_EXECUTE)?),
        ("tmp", tmpfs("50%", "1777", slot, files_only)?),
    ])
}

/// The lowest layer.
fn mount_points(stand_ins: &[StandIn]) -> Result<String, SandboxError> {
    let layer = Path::new("b");
    make_directory(layer)?;
    MOUNT_POINTS.iter().try_for_each(|name| make_directory(&layer.join(name)))?;
    let tmp = layer.join("tmp");
    fs::set_permissions(&tmp, fs::Permissions::from_mode(0o1777)).map_err(failed("create", &tmp))?;
    for StandIn { path, directory } in stand_ins {
        let path = layer.join(path);
        let above = if *directory { Some(path.as_path()) } else { path.parent() };
        above.map_or(Ok(()), fs::create_dir_all).map_err(failed("create", &path))?;
        if !directory {
            File::create(&path).map_err(failed("create", &path))?;
        }
    }
    let resolver = layer.join(RESOLVER);
    File::create(&resolver).map_err(failed("create", &resolver))?;
    Ok("b".to_owned())
}

fn fill_dev(root: BorrowedFd<'_>, slot: &Slot) -> Result<(), SandboxError> {
    let problem = |name: &str| {
        let path = Path::new("/dev").join(name);
        move |errno: rustix::io::Errno| failed("create", &path)(errno.into())
    };
    let dev = inside(root, "dev", OFlags::PATH | OFlags::DIRECTORY).map_err(problem(""))?;
    for (name, major, minor) in DEVICES {
        let number = rustix::fs::makedev(major, minor);
        rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, Mode::empty(), number).map_err(problem(name))?;
        rustix::fs::chmodat(&dev, name, Mode::from_raw_mode(0o666), AtFlags::empty()).map_err(problem(name))?;
    }
    for (target, name) in DEVICE_LINKS {
        rustix::fs::symlinkat(target, &dev, name).map_err(problem(name))?;
    }
    for (name, mode) in [("pts", 0o755), ("shm", 0o1777)] {
        rustix::fs::mkdirat(&dev, name, Mode::empty()).map_err(problem(name))?;
        rustix::fs::chmodat(&dev, name, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(problem(name))?;
    }
    let tty_group = (slot.first_id() + 5).to_string();
    let settings = [
        Setting::Flag("newinstance"),
        Setting::Text("ptmxmode", "0666"),
        Setting::Text("mode", "0620"),
        Setting::Text("gid", &tty_group),
    ];
    let pts = mount::create("devpts", &settings, Attributes::NO_SUID | Attributes::NO_EXECUTE)?;
    attach(pts.as_fd(), dev.as_fd(), Path::new("pts"))
}

/// Opens a path of the tree without ever leaving it, whatever symbolic links it holds.
fn inside(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mode = if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(0o644) } else { Mode::empty() };
    kiln_sys::within::open(root, path, flags, mode)
}

fn show_trees(root: BorrowedFd<'_>, trees: &[(String, OwnedFd)]) -> Result<(), SandboxError> {
    for (target, tree) in trees {
        let problem = |errno: rustix::io::Errno| failed("show a tree at", Path::new(target))(errno.into());
        let attributes = Attributes::NO_SUID | Attributes::NO_DEVICES | Attributes::READ_ONLY;
        mount::restrict(tree.as_fd(), Depth::One, attributes)?;
        let place = make_place(root, target.trim_start_matches('/'), true).map_err(problem)?;
        attach(tree.as_fd(), place.as_fd(), Path::new(""))?;
    }
    Ok(())
}

/// What stands in the lowest layer for a place that something is shown at.
struct StandIn {
    path: String,
    directory: bool,
}

/// Those that are not made in memory: see [`in_memory`].
fn stand_ins(job: &Job, environment: &Environment) -> Vec<StandIn> {
    let binds = environment.binds.iter().map(|bind| (&bind.target, bind.source.is_dir()));
    let all = binds.chain(job.memory.iter().map(|memory| (&memory.target, true)));
    all.filter(|(target, _)| !in_memory(target, job.tmp))
        .map(|(target, directory)| StandIn { path: target.trim_start_matches('/').to_owned(), directory })
        .collect()
}

/// Whether a path lies below one that is empty memory for every command.
fn in_memory(target: &str, tmp: Tmp) -> bool {
    target.starts_with("/run/") || (target.starts_with("/tmp/") && tmp == Tmp::Memory)
}

/// Where something is to be attached.
fn place(root: BorrowedFd<'_>, target: &str, tmp: Tmp, directory: bool) -> rustix::io::Result<OwnedFd> {
    let path = target.trim_start_matches('/');
    if in_memory(target, tmp) { make_place(root, path, directory) } else { inside(root, path, OFlags::PATH) }
}

fn show_memory(root: BorrowedFd<'_>, slot: &Slot, job: &Job) -> Result<(), SandboxError> {
    for Memory { target, size } in &job.memory {
        let size = size.map_or_else(|| "50%".to_owned(), |size| size.to_string());
        let mount = tmpfs(&size, "1777", slot, Attributes::NO_SUID | Attributes::NO_DEVICES)?;
        let problem = |errno: rustix::io::Errno| failed("show memory at", Path::new(target))(errno.into());
        let place = place(root, target, job.tmp, true).map_err(problem)?;
        attach(mount.as_fd(), place.as_fd(), Path::new(""))?;
    }
    Ok(())
}

fn show_binds(root: BorrowedFd<'_>, users: BorrowedFd<'_>, tmp: Tmp, binds: &[Bind]) -> Result<(), SandboxError> {
    for bind in binds {
        let problem = |errno: rustix::io::Errno| failed("show", &bind.source)(errno.into());
        let copy = mount::clone_tree(CWD, &bind.source, Depth::One)?;
        // A file system that cannot shift owners shows its files as nobody's, which is enough for public ones.
        match mount::map_owners(copy.as_fd(), users) {
            Err(error) if error.outcome != kiln_sys::Outcome::Invalid => return Err(error.into()),
            _ => {}
        }
        let mut attributes = Attributes::NO_SUID | Attributes::NO_DEVICES;
        if !bind.writable {
            attributes = attributes | Attributes::READ_ONLY;
        }
        mount::restrict(copy.as_fd(), Depth::One, attributes)?;
        let place = place(root, &bind.target, tmp, bind.source.is_dir()).map_err(problem)?;
        attach(copy.as_fd(), place.as_fd(), Path::new(""))?;
    }
    Ok(())
}

/// Makes a directory or file below `/run` or `/tmp`, and the directories above it. What is shown there already may hold symbolic
/// links of an earlier command; none leads out of the tree.
fn make_place(root: BorrowedFd<'_>, target: &str, directory: bool) -> rustix::io::Result<OwnedFd> {
    let ends = target.match_indices('/').map(|(end, _)| end).skip(1);
    let parents = ends.map(|end| &target[..end]).chain(directory.then_some(target));
    for path in parents.filter(|path| path.contains('/')) {
        let (above, name) = path.rsplit_once('/').unwrap_or_default();
        let above = inside(root, above, OFlags::PATH | OFlags::DIRECTORY)?;
        match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o755)) {
            Err(errno) if errno != rustix::io::Errno::EXIST => return Err(errno),
            _ => {}
        }
    }
    if !directory {
        drop(inside(root, target, OFlags::CREATE | OFlags::WRONLY)?);
    }
    inside(root, target, OFlags::PATH)
}

/// The resolver's configuration goes over the tree's, whatever that is: a file, or a symbolic link, which usually leads
/// below /run, where nothing is yet.
fn show_resolver(root: BorrowedFd<'_>, text: &str) -> Result<(), SandboxError> {
    let problem = |errno: rustix::io::Errno| failed("show", Path::new("/etc/resolv.conf"))(errno.into());
    let place = match inside(root, RESOLVER, OFlags::PATH) {
        Err(rustix::io::Errno::NOENT) => make_linked_resolver(root),
        other => other,
    };
    let path = Path::new("resolv.conf");
    let mut file = File::create(path).map_err(failed("create", path))?;
    file.write_all(text.as_bytes()).map_err(failed("write", path))?;
    let copy = mount::clone_tree(CWD, path, Depth::One)?;
    mount::restrict(copy.as_fd(), Depth::One, Attributes::READ_ONLY)?;
    attach(copy.as_fd(), place.map_err(problem)?.as_fd(), Path::new(""))
}

fn make_linked_resolver(root: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    let link = rustix::fs::readlinkat(root, RESOLVER, Vec::new())?.to_string_lossy().into_owned();
    let target = link.trim_start_matches("../").trim_start_matches('/');
    match target.starts_with("run/") {
        true => make_place(root, target, false),
        false => Err(rustix::io::Errno::NOENT),
    }
}

fn covers() -> Result<Vec<(&'static CStr, OwnedFd)>, SandboxError> {
    let mut covers = Vec::new();
    for path in HIDDEN_DIRECTORIES {
        let nothing = [Setting::Text("size", "4k"), Setting::Text("mode", "555")];
        covers.push((path, mount::create("tmpfs", &nothing, Attributes::READ_ONLY)?));
    }
    for path in HIDDEN_FILES {
        covers.push((path, mount::clone_tree(CWD, Path::new("/dev/null"), Depth::One)?));
    }
    Ok(covers)
}
