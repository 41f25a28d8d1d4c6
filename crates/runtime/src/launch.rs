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

use kiln_boot::{
    setup::Operation,
    spec::{BootSpec, Packet},
};
use kiln_model::{
    GroupName, ImageManifest, ServerId, VerifiedRelease, config::Secrets, fleet::Limits, trust::Purpose,
    volume::Attachment,
};
use kiln_sys::{cgroup, mount, pidfd, shelf::Template};

use crate::{
    Inner, Observed,
    ahead::Ahead,
    berth::{self, Berth},
    error::{OnFile as _, Result, RuntimeError},
    fresh, ground,
    network::Mode,
    plan::{Descriptor, Input, Plan},
    record::{Files, Progress, Record, start_ticks},
    seed,
    server::{Phase, Server},
    times::Times,
    values::{self, Values},
    volume::Held,
    volumes,
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
    /// Its slot in the group, where that has volumes.
    pub slot: Option<u32>,
    /// The image's services and writable paths.
    pub manifest: Arc<ImageManifest>,
    /// Its limits.
    pub limits: Limits,
    /// The secrets of its configuration.
    pub secrets: Arc<Secrets>,
    /// The volumes it is given.
    pub volumes: Vec<Attachment>,
    /// The shared directories it is given.
    pub shared: Vec<kiln_model::shared::Attachment>,
    /// Where it is noted when which step was done.
    pub times: Times,
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
    /// The volumes are mounted, as descriptors. Only where there are some.
    Volumes,
    /// PID 1 has shaped the server and started the services.
    Started,
    /// The record says so.
    Done,
}

impl LaunchStep {
    /// All steps, in order.
    pub const ALL: [Self; 9] = [
        Self::Berth,
        Self::Recorded,
        Self::Limited,
        Self::Root,
        Self::Network,
        Self::Files,
        Self::Volumes,
        Self::Started,
        Self::Done,
    ];

    /// For people: what is done once it is reached.
    pub fn word(self) -> &'static str {
        match self {
            Self::Berth => "berth",
            Self::Recorded => "record",
            Self::Limited => "limits",
            Self::Root => "root",
            Self::Network => "network",
            Self::Files => "files",
            Self::Volumes => "volumes",
            Self::Started => "pid-1",
            Self::Done => "record-again",
        }
    }
}

/// Is told of steps of launches as they are done.
pub type Probe = Arc<dyn Fn(LaunchStep) + Send + Sync>;

/// Launches a server. On failure nothing is left of it.
pub(crate) fn launch(inner: &Inner, release: &VerifiedRelease, request: &Request) -> Result<Server> {
    if let Some(staged) = take_fresh(inner, release, request)? {
        return staged.hand_over(inner, release, request);
    }
    if !request.volumes.is_empty() {
        return stage(inner, release, request)?.hand_over(inner, release, request);
    }
    let launched = in_berth(inner, release, request);
    inner.pool.launched();
    let server = launched?;
    if let Some(process) = server.process() {
        inner.watch.add(&request.server, process)?;
    }
    Ok(server)
}

/// Starts the services of a server that is made ahead. On failure nothing is left of it.
pub(crate) fn warm(inner: &Inner, release: &VerifiedRelease, request: &Request) -> Result<Server> {
    let staged = take_fresh(inner, release, request)?;
    staged.map_or_else(|| stage(inner, release, request), Ok)?.warm(inner, release, request)
}

/// What was staged of a server, if nothing happened to it since. What is not fresh is removed: the launch makes another.
fn take_fresh(inner: &Inner, release: &VerifiedRelease, request: &Request) -> Result<Option<Staged>> {
    let Some(staged) = inner.take_staged(&request.server, request.generation)? else { return Ok(None) };
    match fresh::why_not(&staged.berth, &staged.record, &staged.print, release) {
        None => Ok(Some(staged)),
        Some(why) => {
            tracing::warn!(server = %request.server, %why, "what was made ahead is not used");
            staged.discard(inner)?;
            Ok(None)
        }
    }
}

/// Makes a server up to the point where its services start, without its volumes. On failure nothing is left of it.
pub(crate) fn stage(inner: &Inner, release: &VerifiedRelease, request: &Request) -> Result<Staged> {
    let staged = take_berth(inner, release, request, |launching, berth| {
        let (record, plan, fds) = launching.make(berth)?;
        let told: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        berth.tell(&Packet { operations: plan.operations.clone(), boot: None }, &told)?;
        Ok((record, plan, fds))
    });
    inner.pool.launched();
    let (berth, files, (record, plan, fds)) = staged?;
    let (print, held) = (fresh::Print::of(record.pid, &plan), inner.hold(request));
    let staged = Staged { berth, files, record, plan, fds, print, held };
    match inner.watch.add(&request.server, &staged.berth.process.pidfd) {
        Ok(()) => Ok(staged),
        Err(error) => {
            staged.discard(inner)?;
            Err(error)
        }
    }
}

fn in_berth(inner: &Inner, release: &VerifiedRelease, request: &Request) -> Result<Server> {
    let (berth, files, record) = take_berth(inner, release, request, |launching, berth| launching.run(berth))?;
    Ok(server(berth, files, record, request))
}

/// Does something in a new berth. On failure nothing is left.
fn take_berth<T>(
    inner: &Inner,
    release: &VerifiedRelease,
    request: &Request,
    work: impl FnOnce(Launching<'_>, &mut Berth) -> Result<T>,
) -> Result<(Berth, Files, T)> {
    let mut berth = inner.pool.take(network_mode(release))?;
    let files = Files::new(&inner.options.run_dir, &inner.options.state_dir, &request.server);
    let launching = Launching { inner, release, request, files: &files };
    launching.reached(LaunchStep::Berth);
    match work(launching, &mut berth) {
        Ok(done) => Ok((berth, files, done)),
        Err(error) => {
            discard(inner, berth, &files)?;
            Err(error)
        }
    }
}

fn discard(inner: &Inner, berth: Berth, files: &Files) -> Result<()> {
    let slot = berth.slot;
    berth.discard(inner.network.as_deref())?;
    files.remove()?;
    inner.pool.release(slot);
    Ok(())
}

fn server(berth: Berth, files: Files, record: Record, request: &Request) -> Server {
    let Berth { process, group, .. } = berth;
    Server::new(record, Some(process.pidfd), group, files).with_secrets(Arc::clone(&request.secrets))
}

/// A server that is made up to the point where its services start, without its volumes. It ends when this process does.
#[derive(Debug)]
pub(crate) struct Staged {
    berth: Berth,
    files: Files,
    pub(crate) record: Record,
    plan: Plan,
    fds: Vec<OwnedFd>,
    /// What its writable places held then.
    print: fresh::Print,
    pub(crate) held: Vec<Held>,
}

impl Staged {
    /// What is seen of it.
    pub(crate) fn observed(&self) -> Result<Observed> {
        let ended = pidfd::has_ended(self.berth.process.pidfd.as_fd())?;
        let gone = || Phase::Exited { reason: "PID 1 ended before its services started".into(), killed: true };
        let phase = if ended { gone() } else { Phase::Staged };
        Ok(Observed { record: self.record.clone(), phase })
    }

    /// Gives it its volumes and starts its services. On failure nothing is left of it.
    fn hand_over(self, inner: &Inner, release: &VerifiedRelease, request: &Request) -> Result<Server> {
        self.finish(inner, release, request, |launching, record| launching.launched(record))
    }

    /// Starts its services, and it serves nobody yet. On failure nothing is left of it.
    fn warm(self, inner: &Inner, release: &VerifiedRelease, request: &Request) -> Result<Server> {
        let ahead = Ahead::Starting(fresh::places(&self.plan));
        Ok(self.finish(inner, release, request, |_, record| Ok(record))?.with_ahead(ahead))
    }

    fn finish(
        self,
        inner: &Inner,
        release: &VerifiedRelease,
        request: &Request,
        then: impl FnOnce(&Launching<'_>, Record) -> Result<Record>,
    ) -> Result<Server> {
        let Self { berth, files, record, plan, fds, print: _, held } = self;
        let launching = Launching { inner, release, request, files: &files };
        let finished = launching.finish(&berth, (record, plan, fds), held);
        match finished.and_then(|record| then(&launching, record)) {
            Ok(record) => Ok(server(berth, files, record, request)),
            Err(error) => {
                discard(inner, berth, &files)?;
                Err(error)
            }
        }
    }

    /// Removes it.
    pub(crate) fn discard(self, inner: &Inner) -> Result<()> {
        discard(inner, self.berth, &self.files)
    }
}

struct Launching<'a> {
    inner: &'a Inner,
    release: &'a VerifiedRelease,
    request: &'a Request,
    files: &'a Files,
}

impl Launching<'_> {
    fn reached(&self, step: LaunchStep) {
        self.request.times.note(step.word());
        self.inner.reached(step);
    }

    fn run(&self, berth: &mut Berth) -> Result<Record> {
        let (record, plan, fds) = self.make(berth)?;
        self.start(berth, plan.operations, plan.boot, &fds)?;
        self.launched(record)
    }

    /// All that does not need the server's volumes.
    fn make(&self, berth: &mut Berth) -> Result<(Record, Plan, Vec<OwnedFd>)> {
        let record = self.begin(berth)?;
        self.limit(berth)?;
        let (root, plan) = self.root_and_network(berth, record.address)?;
        let fds = self.open_files(berth, &plan, root)?;
        self.reached(LaunchStep::Files);
        Ok((record, plan, fds))
    }

    /// Gives a server that was made so far its volumes, and starts it.
    fn finish(&self, berth: &Berth, made: (Record, Plan, Vec<OwnedFd>), held: Vec<Held>) -> Result<Record> {
        let (mut record, plan, mut fds) = made;
        if !self.request.volumes.is_empty() {
            record.volumes = volumes::held(self.request);
            self.files.write(&record)?;
        }
        let given = self.inner.give(self.request, &berth.users, held)?;
        for (descriptor, fd) in plan.descriptors.iter().zip(&mut fds) {
            match descriptor {
                Descriptor::Volume(number) => *fd = duplicate(given[*number].as_fd())?,
                // PID 1 has it already, and nothing of it is to be passed on.
                Descriptor::Root | Descriptor::Etc(..) | Descriptor::Ephemeral { .. } | Descriptor::Shared(_) => {
                    *fd = duplicate(self.inner.ground.null.as_fd())?;
                }
                _ => {}
            }
        }
        drop(given);
        self.reached(LaunchStep::Volumes);
        self.start(berth, plan.volumes, plan.boot, &fds)?;
        Ok(record)
    }

    fn start(&self, berth: &Berth, operations: Vec<Operation>, boot: BootSpec, fds: &[OwnedFd]) -> Result<()> {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(|fd| fd.as_fd()).collect();
        let told = berth.tell(&Packet { operations, boot: Some(boot) }, &fds);
        told.map_err(|error| self.name_template(error))?;
        self.reached(LaunchStep::Started);
        Ok(())
    }

    /// From here on whoever takes the servers over keeps it.
    fn launched(&self, mut record: Record) -> Result<Record> {
        record.progress = Progress::Launched;
        self.files.write(&record)?;
        self.reached(LaunchStep::Done);
        Ok(record)
    }

    fn begin(&self, berth: &Berth) -> Result<Record> {
        let pid = berth.process.pid;
        let release = self.release.release();
        let record = Record {
            server: self.request.server.clone(),
            generation: self.request.generation,
            release: release.id(),
            image: release.image,
            group: self.request.group.clone(),
            slot: berth.slot,
            progress: Progress::Launching,
            pid,
            start_ticks: start_ticks(pid).ok_or_else(|| RuntimeError::NoAnswer(self.request.server.clone()))?,
            identity: pidfd::identity(berth.process.pidfd.as_fd())?,
            started_at_ms: unix_millis(),
            address: self.inner.network.as_ref().map(|network| network.subnet().address(berth.slot)),
            volumes: Vec::new(),
            config: self.release.config().clone(),
        };
        self.files.create()?;
        self.files.write(&record)?;
        self.reached(LaunchStep::Recorded);
        Ok(record)
    }

    fn limit(&self, berth: &Berth) -> Result<()> {
        let limits = &self.request.limits;
        berth.group.limit(&cgroup::Limits {
            memory: limits.memory.map(|size| size.as_bytes()),
            cpu_millis: limits.cpu_millis,
            pids: limits.pids,
        })?;
        self.reached(LaunchStep::Limited);
        Ok(())
    }

    /// A network that is not attached yet is attached while the root is mounted: both are waits for the kernel.
    fn root_and_network(&self, berth: &mut Berth, address: Option<Ipv4Addr>) -> Result<(OwnedFd, Plan)> {
        let image = self.release.release().image;
        let users = berth.users.try_clone().on("copy", "a descriptor")?;
        let root = || {
            let root = self.inner.roots.root(&image, users.as_fd());
            self.reached(LaunchStep::Root);
            root.map_err(|source| RuntimeError::Root { image, source })
        };
        let (mode, plan) = (network_mode(self.release), self.plan(address)?);
        let root = match &self.inner.network {
            Some(network) if berth.attached != Some(mode) => std::thread::scope(|scope| {
                let attached = scope.spawn(|| berth.attach(network, mode));
                let root = root();
                attached.join().unwrap_or_else(|_| Err(thread_failed()))?;
                root
            }),
            _ => root(),
        };
        self.reached(LaunchStep::Network);
        Ok((root?, plan))
    }

    fn plan(&self, address: Option<Ipv4Addr>) -> Result<Plan> {
        let no_resolvers = Vec::new();
        Plan::new(&Input {
            server: &self.request.server,
            group: self.request.group.as_ref(),
            slot: self.request.slot,
            release: self.release.release(),
            manifest: &self.request.manifest,
            values: &Values { config: self.release.config(), secrets: &self.request.secrets },
            address,
            resolvers: if network_mode(self.release) == Mode::Fleet { &self.inner.resolvers } else { &no_resolvers },
            volumes: &self.request.volumes,
            shared: &self.request.shared,
            spool_bytes: self.inner.options.spool_bytes,
            filters: (self.inner.ground.filters.len() - 1, 1),
        })
    }

    fn open_files(&self, berth: &Berth, plan: &Plan, root: OwnedFd) -> Result<Vec<OwnedFd>> {
        let etc = etc(plan)?;
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
                Descriptor::Etc(name, _) => etc_file(&etc, name, berth)?,
                Descriptor::Rendering(rendering) => {
                    let bytes = serde_json::to_vec(rendering).map_err(std::io::Error::from);
                    ground::memory_file("kiln-templates", &bytes.on("write", "the values of templates")?)?
                }
                // Its place, for when the server is given it.
                Descriptor::Volume(_) => duplicate(self.inner.ground.null.as_fd())?,
                Descriptor::Shared(number) => self.inner.shared.give(&self.request.shared[*number], &berth.users)?,
                Descriptor::Ephemeral { path, size } => seed::copy_of(root.as_fd(), path, *size)?,
            });
        }
        if let Some(index) = root_slot {
            fds[index] = root;
        }
        Ok(fds)
    }

    /// The child that renders knows templates by number, and must not repeat secrets.
    fn name_template(&self, error: RuntimeError) -> RuntimeError {
        let RuntimeError::Template { number, line, message, .. } = error else { return error };
        let template = self.request.manifest.templates.get(number);
        let name = template.map_or_else(|| "of the image".to_owned(), |template| template.source.clone());
        RuntimeError::Template { number, name, line, message: values::masked(message, &self.request.secrets) }
    }

    fn listen(&self) -> Result<OwnedFd> {
        let path = self.files.control();
        let listener = UnixListener::bind(&path).on("listen on", &path)?;
        listener.set_nonblocking(true).on("listen on", &path)?;
        Ok(listener.into())
    }
}

/// The server's own small files, on a memory file system of their own.
fn etc(plan: &Plan) -> Result<Template> {
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
    Ok(Template::new(tree)?)
}

/// One of them, which nobody inside can write. A process that another thread forks meanwhile holds the file open for
/// writing until it executes, and a mount that is being written cannot be restricted: the copy has no writers.
fn etc_file(etc: &Template, name: &str, berth: &Berth) -> Result<OwnedFd> {
    let file = ground::mapped_copy(etc, name, &berth.users)?;
    mount::restrict(file.as_fd(), mount::Depth::One, mount::Attributes::READ_ONLY)?;
    Ok(file)
}

fn network_mode(release: &VerifiedRelease) -> Mode {
    match release.purpose() {
        Purpose::Serve => Mode::Fleet,
        Purpose::Test => Mode::Isolated,
    }
}

fn thread_failed() -> RuntimeError {
    RuntimeError::Init { action: "attach the network".into(), source: kiln_sys::Outcome::Gone }
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
