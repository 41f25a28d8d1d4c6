//! The launch path: from a berth to a server whose services are started.

use std::{
    collections::BTreeMap,
    fs::File,
    net::Ipv4Addr,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::net::UnixListener,
    },
    path::Path,
    sync::Arc,
};

use kiln_boot::spec::Packet;
use kiln_model::{GroupName, ImageManifest, ServerId, VerifiedRelease, fleet::Limits, trust::Purpose};
use kiln_sys::{cgroup, mount, pidfd};

use crate::{
    Inner,
    berth::{self, Berth},
    error::{OnFile as _, Result, RuntimeError},
    ground,
    network::{self, Mode},
    plan::{Descriptor, Input, Plan},
    record::{Files, Progress, Record, start_ticks},
    seed,
    server::Server,
};

/// What to launch, beside its release.
#[derive(Debug, Clone)]
pub struct Request {
    /// The server.
    pub server: ServerId,
    /// Counts the launches of this server.
    pub generation: u64,
    /// Its group; none for a test server.
    pub group: Option<GroupName>,
    /// The image's services and writable paths.
    pub manifest: Arc<ImageManifest>,
    /// Its limits.
    pub limits: Limits,
}

/// The steps of a launch, in order. Each is reported when it is done, for measuring and for fault injection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LaunchStep {
    /// A berth is taken.
    Berth,
    /// The record is on disk.
    Recorded,
    /// The limits hold.
    Limited,
    /// The image's root is mounted, as a descriptor.
    Root,
    /// The network is attached.
    Network,
    /// PID 1's files and sockets are open.
    Files,
    /// PID 1 has shaped the server and started the services.
    Started,
    /// The record says so.
    Done,
}

impl LaunchStep {
    /// All steps, in order.
    pub const ALL: [Self; 8] =
        [Self::Berth, Self::Recorded, Self::Limited, Self::Root, Self::Network, Self::Files, Self::Started, Self::Done];
}

/// Is told of steps of launches as they are done.
pub type Probe = Arc<dyn Fn(LaunchStep) + Send + Sync>;

/// Launches a server. On failure nothing is left of it.
pub(crate) fn launch(inner: &Inner, release: &VerifiedRelease, request: &Request) -> Result<Server> {
    let berth = inner.pool.take()?;
    inner.reached(LaunchStep::Berth);
    let files = Files::new(&inner.options.run_dir, &inner.options.state_dir, &request.server);
    let launching = Launching { inner, release, request, berth: &berth, files: &files };
    match launching.run() {
        Ok(record) => {
            let Berth { process, group, .. } = berth;
            Ok(Server::new(record, Some(process.pidfd), group, files))
        }
        Err(error) => {
            let slot = berth.slot;
            berth.discard()?;
            inner.detach(slot)?;
            files.remove()?;
            inner.pool.release(slot);
            Err(error)
        }
    }
}

struct Launching<'a> {
    inner: &'a Inner,
    release: &'a VerifiedRelease,
    request: &'a Request,
    berth: &'a Berth,
    files: &'a Files,
}

impl Launching<'_> {
    fn run(&self) -> Result<Record> {
        let mut record = self.begin()?;
        self.limit()?;
        let (root, plan) = self.root_and_network(record.address)?;
        let fds = self.open_files(&plan, root)?;
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        self.inner.reached(LaunchStep::Files);
        self.berth.tell(&Packet { operations: plan.operations, boot: Some(plan.boot) }, &fds)?;
        self.inner.reached(LaunchStep::Started);
        record.progress = Progress::Launched;
        self.files.write(&record)?;
        self.inner.reached(LaunchStep::Done);
        Ok(record)
    }

    fn begin(&self) -> Result<Record> {
        let pid = self.berth.process.pid;
        let release = self.release.release();
        let record = Record {
            server: self.request.server.clone(),
            generation: self.request.generation,
            release: release.id(),
            image: release.image,
            group: self.request.group.clone(),
            slot: self.berth.slot,
            progress: Progress::Launching,
            pid,
            start_ticks: start_ticks(pid).ok_or_else(|| RuntimeError::NoAnswer(self.request.server.clone()))?,
            identity: pidfd::identity(self.berth.process.pidfd.as_fd())?,
            started_at_ms: unix_millis(),
            address: self.inner.network.as_ref().map(|network| network.subnet().address(self.berth.slot)),
        };
        self.files.create()?;
        self.files.write(&record)?;
        self.inner.reached(LaunchStep::Recorded);
        Ok(record)
    }

    fn limit(&self) -> Result<()> {
        let limits = &self.request.limits;
        self.berth.group.limit(&cgroup::Limits {
            memory: limits.memory.map(|size| size.as_bytes()),
            cpu_millis: limits.cpu_millis,
            pids: limits.pids,
        })?;
        self.inner.reached(LaunchStep::Limited);
        Ok(())
    }

    /// The network is attached while the root is mounted: both are waits for the kernel.
    fn root_and_network(&self, address: Option<Ipv4Addr>) -> Result<(OwnedFd, Plan)> {
        let image = self.release.release().image;
        std::thread::scope(|scope| {
            let network = scope.spawn(|| self.attach());
            let root = self.inner.roots.root(&image, self.berth.users.as_fd());
            let root = root.map_err(|source| RuntimeError::Root { image, source });
            self.inner.reached(LaunchStep::Root);
            let plan = self.plan(address);
            let attached = network.join().unwrap_or_else(|_| {
                Err(RuntimeError::Init { action: "attach the network".into(), source: kiln_sys::Outcome::Gone })
            });
            self.inner.reached(LaunchStep::Network);
            attached?;
            Ok((root?, plan?))
        })
    }

    fn attach(&self) -> Result<()> {
        let Some(network) = &self.inner.network else { return Ok(()) };
        network.attach(self.berth.slot, self.berth.network.as_fd(), self.mode())?;
        Ok(())
    }

    fn mode(&self) -> Mode {
        match self.release.purpose() {
            Purpose::Serve => network::Mode::Fleet,
            Purpose::Test => network::Mode::Isolated,
        }
    }

    fn plan(&self, address: Option<Ipv4Addr>) -> Result<Plan> {
        let no_resolvers = Vec::new();
        Plan::new(&Input {
            server: &self.request.server,
            manifest: &self.request.manifest,
            environment: &self.release.config().environment,
            address,
            resolvers: if self.mode() == Mode::Fleet { &self.inner.resolvers } else { &no_resolvers },
            spool_bytes: self.inner.options.spool_bytes,
            filters: self.inner.ground.filters.len(),
        })
    }

    fn open_files(&self, plan: &Plan, root: OwnedFd) -> Result<Vec<OwnedFd>> {
        let etc = self.etc(plan)?;
        let mut root_slot = None;
        let mut fds = Vec::with_capacity(plan.descriptors.len());
        for descriptor in &plan.descriptors {
            fds.push(match descriptor {
                // Its place; the root itself is put there at the end, after all others have read from it.
                Descriptor::Root => {
                    root_slot = Some(fds.len());
                    duplicate(root.as_fd())?
                }
                Descriptor::Control => self.listen()?,
                Descriptor::Spool(number) => create(&self.files.spool()[*number])?,
                Descriptor::Ending => create(&self.files.ending())?,
                Descriptor::Filter(number) => duplicate(self.inner.ground.filters[*number].as_fd())?,
                Descriptor::Etc(name, _) => mount::clone_tree(etc.as_fd(), Path::new(name), mount::Depth::One)?,
                Descriptor::Ephemeral { path, size } => seed::copy_of(root.as_fd(), path, *size)?,
            });
        }
        if let Some(index) = root_slot {
            fds[index] = root;
        }
        Ok(fds)
    }

    fn listen(&self) -> Result<OwnedFd> {
        let path = self.files.control();
        let listener = UnixListener::bind(&path).on("listen on", &path)?;
        listener.set_nonblocking(true).on("listen on", &path)?;
        Ok(listener.into())
    }

    /// The server's own small files, on a memory file system of their own that nobody inside can write.
    fn etc(&self, plan: &Plan) -> Result<OwnedFd> {
        use rustix::fs::{Mode, OFlags};
        let data = mount::Attributes::NO_SUID | mount::Attributes::NO_DEVICES | mount::Attributes::NO_EXECUTE;
        let tree = ground::tmpfs("64k", "0755", data)?;
        let files: BTreeMap<_, _> = plan
            .descriptors
            .iter()
            .filter_map(|descriptor| match descriptor {
                Descriptor::Etc(name, content) => Some((*name, content)),
                _ => None,
            })
            .collect();
        for (name, content) in files {
            let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&tree, name, flags, Mode::from_raw_mode(0o644)).on("create", name)?;
            std::io::Write::write_all(&mut File::from(file), content.as_bytes()).on("write", name)?;
        }
        mount::restrict(tree.as_fd(), mount::Depth::One, mount::Attributes::READ_ONLY)?;
        mount::map_owners(tree.as_fd(), self.berth.users.as_fd())?;
        Ok(tree)
    }
}

fn duplicate(fd: BorrowedFd<'_>) -> Result<OwnedFd> {
    fd.try_clone_to_owned().on("copy", "a descriptor")
}

fn create(path: &Path) -> Result<OwnedFd> {
    let file = File::options().create(true).truncate(true).write(true).open(path).on("create", path)?;
    Ok(file.into())
}

fn unix_millis() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Removes what a launch that did not finish, or a server that is no longer wanted, has left on this host.
pub(crate) fn sweep(inner: &Inner, slot: u16, files: &Files) -> Result<()> {
    inner.ground.group(slot).remove(std::time::Duration::from_secs(10))?;
    inner.detach(slot)?;
    files.remove()
}

/// The user ids of a server's slot.
pub(crate) fn first_id(inner: &Inner, slot: u16) -> u32 {
    berth::map(inner.block, slot).base
}
