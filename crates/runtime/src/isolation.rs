//! The order in which a server is cut off from the host, and why that order.
//!
//! [`Step`] is the list; [`common`] turns the part that is the same for every server into operations, executed before
//! anybody waits for a server. What differs between servers is in [`crate::plan`].

use kiln_boot::setup::{Mount, NO_DEVICES, NO_EXECUTE, NO_SUID, Operation, READ_ONLY};

/// How a server is cut off, in the order it happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Limits of memory, processes and processor hold from the first instruction: a process that is moved into a control
    /// group later has used memory that is not counted, and moving waits for a grace period of the kernel.
    ControlGroup,
    /// The host's mounts are left for a namespace that holds only an empty directory, `/proc` and `/sys` (the kernel
    /// wants to see both before a user namespace may mount them): if anything after this fails, no file of the host is in
    /// reach, and a host with many mounts makes no launch slower.
    EmptyMounts,
    /// Root inside becomes an unprivileged user of the host, other than that of every other server. Before the other
    /// namespaces, so that they belong to it.
    UserNamespace,
    /// Processes, mounts, network, System V, host name and control groups of its own.
    OtherNamespaces,
    /// PID 1 is executed by descriptor with exactly the descriptors it needs. Its file belongs to a user that does not
    /// exist inside.
    Execute,
    /// No user namespace can be made inside: each would bring a full set of capabilities over itself.
    ForbidNamespaces,
    /// `/proc`, `/sys` and `/dev`, with what tells of or reaches the host hidden. Before the image is there, so that no
    /// symbolic link of an image can lead a mount astray.
    SystemTrees,
    /// The image, read-only by the mount, becomes the root, and the old root is let go of.
    Pivot,
    /// Memory file systems at the declared paths only. After the pivot, so that every path means what it means inside.
    Writable,
    /// Rights over mounts and the network end here: they were needed until now, and nothing of the image has run.
    Capabilities,
    /// Set-user-id programs and file capabilities give nothing. After the capabilities, before the filter, which may
    /// otherwise not be installed without SYS_ADMIN.
    NoNewPrivileges,
    /// The filter of system calls comes last: it forbids most of the above. Then the services start.
    Filter,
}

/// Kernel interfaces that tell of the host or reach it, and have no use inside.
const MASKED: [&str; 13] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/sysrq-trigger",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Kernel settings: to be read, not to be written.
const READ_ONLY_PATHS: [&str; 4] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"];

/// Where the trees are put together before the image is there.
const STAGE: &str = "/stage";

fn staged(path: &str) -> String {
    format!("{STAGE}{path}")
}

fn mount(filesystem: &str, path: &str, attributes: u32, settings: &[(&str, &str)]) -> Operation {
    Operation::Mount(Mount {
        filesystem: filesystem.into(),
        settings: settings.iter().map(|(key, value)| ((*key).into(), Some((*value).into()))).collect(),
        attributes,
        path: staged(path),
        owner: None,
        optional: false,
    })
}

/// What every server has, as operations. Descriptor 0 is the tree of devices.
pub fn common() -> Vec<Operation> {
    let data = NO_SUID | NO_DEVICES | NO_EXECUTE;
    let mut operations = vec![
        Operation::Loopback,
        mount("proc", "/proc", data, &[]),
        Operation::ForbidNamespaces,
        mount("sysfs", "/sys", data | READ_ONLY, &[]),
        Operation::Attach { descriptor: 0, path: staged("/dev"), optional: false },
        mount("devpts", "/dev/pts", NO_SUID | NO_EXECUTE, &[("mode", "0620"), ("ptmxmode", "0666"), ("gid", "5")]),
        mount("mqueue", "/dev/mqueue", data, &[]),
        mount("tmpfs", "/dev/shm", data, &[("mode", "1777"), ("size", "64m")]),
        Operation::LogSocket { path: staged("/dev/log"), via: staged("/dev/shm/log") },
    ];
    operations.extend(READ_ONLY_PATHS.map(|path| Operation::ReadOnly { path: staged(path) }));
    operations.extend(MASKED.map(|path| Operation::Mask { path: staged(path), null: staged("/dev/null") }));
    operations
}

/// Puts the prepared trees into the image and makes it the root. Descriptor `root` is the image.
pub fn enter(root: usize) -> Vec<Operation> {
    let into = |path: &str| format!("{}{path}", kiln_boot::setup::NEW_ROOT);
    let mut operations = vec![Operation::Attach { descriptor: root, path: into(""), optional: false }];
    operations.extend(["/proc", "/sys", "/dev"].map(|path| Operation::Move {
        from: staged(path),
        to: into(path),
        optional: false,
    }));
    operations.push(Operation::Pivot);
    operations
}
