//! What one server is made of, from its manifest and configuration: pure, and describable before it is executed.

use std::net::Ipv4Addr;

use kiln_boot::{
    render::{self, Rendering, Source},
    setup::{Mount, NO_DEVICES, NO_SUID, Operation},
    spec::{BootSpec, Restart, ServiceSpec, VERSION},
};
use kiln_model::{
    GroupName, ImageManifest, Release, ServerId, SharedName, VolumeName,
    manifest::{self, Service, Template, Writable, WritableKind},
    shared,
    volume::Attachment,
};

use crate::{
    error::{Result, RuntimeError},
    isolation,
    values::{self, Values},
};

/// Memory file systems that every server has: path, mode, size. A declared writable path of the same name replaces it.
const ALWAYS: [(&str, u32, u64); 3] =
    [("/run", 0o755, 64 << 20), ("/tmp", 0o1777, 256 << 20), ("/var/tmp", 0o1777, 256 << 20)];

/// The variable of a service that has its server's slot, where the group has volumes.
const SLOT: &str = "KILN_SLOT";

/// A descriptor that PID 1 is given.
#[derive(Debug, Clone, PartialEq)]
pub enum Descriptor {
    /// The image's root.
    Root,
    /// The listening control socket.
    Control,
    /// A spool file, by number.
    Spool(usize),
    /// The file for PID 1's last word.
    Ending,
    /// A program of the system call filter, by number.
    Filter(usize),
    /// A small file of the server's own: name below `/etc`, content.
    Etc(&'static str, String),
    /// A volume, by number in the request. Only there when the server is given its volumes.
    Volume(usize),
    /// A shared directory, by number in the request.
    Shared(usize),
    /// A memory file with templates and what they can name; always the last.
    Rendering(Box<Rendering>),
    /// A memory file system of this size that starts as a copy of the image's directory.
    Ephemeral {
        /// The directory.
        path: String,
        /// Bytes.
        size: u64,
    },
}

/// A server, as it will be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// Executed by PID 1, in order.
    pub operations: Vec<Operation>,
    /// Executed by PID 1 when the server is given its volumes, before its services are started.
    pub volumes: Vec<Operation>,
    /// Told to PID 1.
    pub boot: BootSpec,
    /// What the numbers of descriptors in the operations and the boot spec stand for.
    pub descriptors: Vec<Descriptor>,
}

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// The server: its host name too.
    pub server: &'a ServerId,
    /// Its group; none for a test server.
    pub group: Option<&'a GroupName>,
    /// Its slot in the group, where that has volumes.
    pub slot: Option<u32>,
    /// Its release.
    pub release: Release,
    /// The image's services, writable paths and templates.
    pub manifest: &'a ImageManifest,
    /// Its configuration.
    pub values: &'a Values<'a>,
    /// The server's address.
    pub address: Option<Ipv4Addr>,
    /// Name servers, for servers that have a way out.
    pub resolvers: &'a [String],
    /// The volumes that the server gets.
    pub volumes: &'a [Attachment],
    /// The shared directories that the server gets.
    pub shared: &'a [shared::Attachment],
    /// Each of the two spool files is at most this many bytes.
    pub spool_bytes: u64,
    /// How many programs the filter of system calls has, and how many more where a directory is shared.
    pub filters: (usize, usize),
}

impl Plan {
    /// Makes the plan. Fails where the manifest asks for what cannot be had.
    pub fn new(input: &Input<'_>) -> Result<Self> {
        let given = input.volumes.iter().map(|volume| volume.name.clone()).collect();
        let shared: Vec<SharedName> = input.shared.iter().map(|shared| shared.name.clone()).collect();
        let filters = if shared.is_empty() { input.filters.0 } else { input.filters.0 + input.filters.1 };
        let file_capabilities = shared.is_empty();
        let mut builder = Builder { given, shared, ..Builder::default() };
        let root = builder.descriptor(Descriptor::Root);
        builder.operations.extend(isolation::enter(root));
        builder.writable(&input.manifest.writable)?;
        for (name, content) in etc_files(input) {
            let descriptor = builder.descriptor(Descriptor::Etc(name, content));
            builder.operations.push(Operation::Attach { descriptor, path: format!("/etc/{name}"), optional: true });
        }
        builder.operations.push(Operation::Hostname { name: input.server.to_string() });
        let boot = BootSpec {
            version: VERSION,
            services: services(input)?,
            control: builder.descriptor(Descriptor::Control),
            spool: [builder.descriptor(Descriptor::Spool(0)), builder.descriptor(Descriptor::Spool(1))],
            spool_bytes: input.spool_bytes,
            ending: builder.descriptor(Descriptor::Ending),
            filters: (0..filters).map(|number| builder.descriptor(Descriptor::Filter(number))).collect(),
            file_capabilities,
            files: files(input, &mut builder)?,
        };
        Ok(Self { operations: builder.operations, volumes: builder.volumes, boot, descriptors: builder.descriptors })
    }

    /// The plan in words, one line per operation and service.
    pub fn describe(&self) -> Vec<String> {
        let services =
            self.boot.services.iter().map(|service| format!("start {}: {}", service.name, service.command.join(" ")));
        let files = self.boot.files.iter().flat_map(|files| &files.files);
        let files = files.map(|file| format!("render {} for {}, mode {:04o}", file.path, file.user, file.mode));
        self.operations.iter().chain(&self.volumes).map(ToString::to_string).chain(files).chain(services).collect()
    }
}

#[derive(Default)]
struct Builder {
    operations: Vec<Operation>,
    volumes: Vec<Operation>,
    descriptors: Vec<Descriptor>,
    /// The names of the volumes that the server gets, in the order of the request.
    given: Vec<VolumeName>,
    /// The names of the shared directories that the server gets, in the order of the request.
    shared: Vec<SharedName>,
    /// Memory file systems so far: below them, mount points are made.
    memory: Vec<String>,
}

impl Builder {
    fn descriptor(&mut self, descriptor: Descriptor) -> usize {
        self.descriptors.push(descriptor);
        self.descriptors.len() - 1
    }

    fn writable(&mut self, declared: &[Writable]) -> Result<()> {
        let usual = ALWAYS.iter().filter(|(path, ..)| declared.iter().all(|writable| writable.path != *path));
        for (path, mode, size) in usual {
            self.memory_at(path, *mode, *size, None);
        }
        let mut declared: Vec<&Writable> = declared.iter().collect();
        // A path above another is mounted first, or it would hide it.
        declared.sort_by_key(|writable| writable.path.matches('/').count());
        declared.into_iter().try_for_each(|writable| self.declared(writable))
    }

    fn declared(&mut self, writable: &Writable) -> Result<()> {
        self.mount_point(&writable.path);
        match &writable.kind {
            WritableKind::Tmpfs { size } => {
                self.memory_at(&writable.path, writable.mode, size.as_bytes(), Some(writable.user.clone()));
            }
            WritableKind::Ephemeral { size } => {
                let (path, size) = (writable.path.clone(), size.as_bytes());
                let descriptor = self.descriptor(Descriptor::Ephemeral { path: path.clone(), size });
                self.operations.push(Operation::Attach { descriptor, path, optional: false });
            }
            WritableKind::Volume { name, .. } => self.volume(name, writable)?,
            WritableKind::Shared { name } => self.shared(name, writable)?,
        }
        Ok(())
    }

    fn volume(&mut self, name: &VolumeName, writable: &Writable) -> Result<()> {
        let number = self.given.iter().position(|given| given == name).ok_or_else(|| RuntimeError::Manifest {
            what: format!("the volume {name} at {}", writable.path),
            why: "it was not given when it was launched",
        })?;
        let descriptor = self.descriptor(Descriptor::Volume(number));
        let (path, owner, mode) = (writable.path.clone(), writable.user.clone(), writable.mode);
        self.volumes.push(Operation::Attach { descriptor, path: path.clone(), optional: false });
        self.volumes.push(Operation::Own { path, owner, mode });
        Ok(())
    }

    /// Whose it is, and its mode, are the host's matter.
    fn shared(&mut self, name: &SharedName, writable: &Writable) -> Result<()> {
        let number = self.shared.iter().position(|given| given == name).ok_or_else(|| RuntimeError::Manifest {
            what: format!("the shared directory {name} at {}", writable.path),
            why: "it was not given when it was launched",
        })?;
        let descriptor = self.descriptor(Descriptor::Shared(number));
        self.operations.push(Operation::Attach { descriptor, path: writable.path.clone(), optional: false });
        Ok(())
    }

    fn memory_at(&mut self, path: &str, mode: u32, size: u64, owner: Option<String>) {
        self.memory.push(path.to_owned());
        self.operations.push(Operation::Mount(Mount {
            filesystem: "tmpfs".into(),
            settings: vec![("mode".into(), Some(format!("{mode:04o}"))), ("size".into(), Some(size.to_string()))],
            attributes: NO_SUID | NO_DEVICES,
            path: path.to_owned(),
            // An image without /var/tmp does not need one; a declared path must be there.
            optional: owner.is_none(),
            owner,
        }));
    }

    /// The image has the mount points of declared paths, except where a memory file system hides them.
    fn mount_point(&mut self, path: &str) {
        let below = |memory: &&String| path.strip_prefix(memory.as_str()).is_some_and(|rest| rest.starts_with('/'));
        let Some(memory) = self.memory.iter().filter(below).max_by_key(|memory| memory.len()).cloned() else { return };
        let mut directory = memory.clone();
        for part in path[memory.len() + 1..].split('/') {
            directory = format!("{directory}/{part}");
            let made = Operation::Directory { path: directory.clone(), mode: 0o755 };
            if !self.operations.contains(&made) {
                self.operations.push(made);
            }
        }
    }
}

fn etc_files(input: &Input<'_>) -> [(&'static str, String); 3] {
    let own = input.address.map(|address| format!("{address} {}\n", input.server)).unwrap_or_default();
    let resolvers: String = input.resolvers.iter().map(|server| format!("nameserver {server}\n")).collect();
    [
        ("hosts", format!("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n{own}")),
        ("hostname", format!("{}\n", input.server)),
        ("resolv.conf", resolvers),
    ]
}

/// None for an image without templates: nothing is forked then.
fn files(input: &Input<'_>, builder: &mut Builder) -> Result<Option<render::Files>> {
    let templates = &input.manifest.templates;
    if templates.is_empty() {
        return Ok(None);
    }
    let source = |template: &Template| Source { name: template.source.clone(), content: template.content.clone() };
    let target = |template: &Template| render::Target {
        path: template.path.clone(),
        user: template.user.clone(),
        mode: template.mode,
    };
    let rendering = Rendering { context: values::context(input)?, templates: templates.iter().map(source).collect() };
    let source = builder.descriptor(Descriptor::Rendering(Box::new(rendering)));
    Ok(Some(render::Files { source, files: templates.iter().map(target).collect() }))
}

fn services(input: &Input<'_>) -> Result<Vec<ServiceSpec>> {
    let service = |name: &str, service: &Service| {
        let mut environment = input.values.binding_variables(&input.manifest.bindings)?;
        environment.extend(service.environment.clone());
        for (name, key) in &service.configured {
            environment.extend(input.values.text(key)?.map(|text| (name.clone(), text)));
        }
        environment.extend(input.values.config.environment.clone());
        environment.extend(input.slot.map(|slot| (SLOT.to_owned(), slot.to_string())));
        Ok(ServiceSpec {
            name: name.to_owned(),
            command: service.command.clone(),
            user: service.user.clone(),
            environment: environment.into_iter().collect(),
            directory: service.working_directory.clone(),
            stop_signal: signal_number(&service.stop.signal).ok_or_else(|| RuntimeError::Manifest {
                what: format!("the stop signal {}", service.stop.signal),
                why: "is not one of Linux's",
            })?,
            grace_ms: u64::try_from(service.stop.grace.as_millis()).unwrap_or(u64::MAX / 2),
            restart: match service.restart {
                manifest::Restart::Never => Restart::Never,
                manifest::Restart::OnFailure => Restart::OnFailure,
                manifest::Restart::Once => Restart::Once,
            },
        })
    };
    input.manifest.services.iter().map(|(name, declared)| service(name.as_str(), declared)).collect()
}

/// Signals by name, with their numbers on x86-64 (signal(7)).
const SIGNALS: [(&str, i32); 30] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
];

/// The number of a signal named as in `SIGTERM`. Real-time signals are `SIGRTMIN+n`, as systemd's programs want.
pub fn signal_number(name: &str) -> Option<i32> {
    let name = name.strip_prefix("SIG")?;
    if let Some(offset) = name.strip_prefix("RTMIN+") {
        return offset.parse::<i32>().ok().map(|offset| 34 + offset).filter(|number| (34..=64).contains(number));
    }
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number)
}
