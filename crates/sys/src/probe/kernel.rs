//! The kernel: version, rights, file systems, namespaces, control groups, system call filters.

use std::{fs, os::fd::AsFd};

use rustix::mount::FsOpenFlags;

use super::{Check, State};
use crate::{
    cgroup, idmap,
    mount::{self, Attributes},
};

const OLDEST: (u32, u32) = (6, 12);
const NEED_ROOT: &str = "run Kiln as root of the host, not inside a container without the right to mount";

pub(super) fn checks() -> Vec<Check> {
    vec![version(), rights(), overlay(), erofs(), users(), owners(), control_groups(), filters()]
}

fn version() -> Check {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= OLDEST {
        return Check::found("kernel", release);
    }
    let effect = "Kiln needs Linux 6.12 or later; older kernels cannot mount an image from files";
    Check::lacking(
        "kernel",
        State::Missing,
        release,
        effect,
        "use Linux 6.12 or later (Debian 13, RHEL 10, Ubuntu 25.04 and newer have it)",
    )
}

fn rights() -> Check {
    let has_admin = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_ADMIN));
    if rustix::process::geteuid().is_root() && has_admin {
        return Check::found("rights", "root");
    }
    let found = format!("user {}, without the right to administer", rustix::process::geteuid());
    Check::lacking("rights", State::Missing, found, "nothing can be mounted or launched", NEED_ROOT)
}

fn filesystem(name: &str) -> rustix::io::Result<()> {
    rustix::mount::fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).map(drop)
}

fn overlay() -> Check {
    let effect = "nothing can be baked, and servers have no writable directories on disk";
    Check::tried("overlayfs", filesystem("overlay"), State::Missing, effect, "load the kernel module overlay")
}

fn erofs() -> Check {
    let help = "load the kernel module erofs, or use a kernel with CONFIG_EROFS_FS";
    Check::tried("erofs", filesystem("erofs"), State::Missing, "images cannot be mounted", help)
}

fn users() -> Check {
    let effect = "servers and build steps cannot be kept apart from the host's users";
    let help = "raise user.max_user_namespaces, and see that no security module forbids user namespaces";
    let tried = idmap::user_namespace(idmap::Map { base: 0x7ff0_0000, count: 1 });
    Check::tried("user namespaces", tried, State::Missing, effect, help)
}

fn owners() -> Check {
    let tried = idmap::user_namespace(idmap::Map { base: 0x7ff0_0000, count: 1 }).and_then(|users| {
        let mount = mount::create("tmpfs", &[], Attributes::NONE)?;
        mount::map_owners(mount.as_fd(), users.as_fd())
    });
    let effect = "images cannot be shown to servers with the right owners";
    Check::tried("idmapped mounts", tried, State::Missing, effect, NEED_ROOT)
}

fn control_groups() -> Check {
    let name = "control groups";
    let help = "mount cgroup2 on /sys/fs/cgroup with the controllers memory, pids and cpu";
    let host = match cgroup::Host::detect() {
        Ok(host) => host,
        Err(error) => {
            return Check::lacking(name, State::Missing, super::words(&error), "servers cannot be limited", help);
        }
    };
    let controllers = host.controllers();
    let version = match host.limits {
        cgroup::Version::V1 => "version 1",
        cgroup::Version::V2 => "version 2",
    };
    let found = format!("{version}: {}", controllers.join(" "));
    match ["memory", "pids", "cpu"].iter().all(|needed| controllers.iter().any(|found| found == needed)) {
        true => Check::found(name, found),
        false => Check::lacking(name, State::Degraded, found, "some limits of servers have no effect", help),
    }
}

fn filters() -> Check {
    let path = "/proc/sys/kernel/seccomp/actions_avail";
    let effect = "servers and build steps could make system calls that they must not";
    Check::tried("seccomp", fs::read(path), State::Missing, effect, "use a kernel with CONFIG_SECCOMP_FILTER")
}
