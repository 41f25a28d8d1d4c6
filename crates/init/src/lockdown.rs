//! Giving up rights, in this order:
//!
//! 1. capabilities: the bounding set first (dropping from it needs SETPCAP), then everything this process holds;
//! 2. no new privileges: without it the filter would need SYS_ADMIN;
//! 3. the filter of system calls, last: it forbids what the steps before need.

use std::{fs::File, os::fd::OwnedFd};

use rustix::{
    io::Errno,
    process::DumpableBehavior,
    thread::{CapabilitySet, CapabilitySets},
};

use crate::{Failure, Trying as _, kernel};

/// What root inside a server may do: with its own files and processes, within its user namespace.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE);

/// No process without SYS_PTRACE may trace this one or look at its descriptors, and nobody inside has that.
pub(crate) fn hide_from_tracing() -> Result<(), Failure> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).trying(|| "hide from tracing".into())
}

/// Gives up everything a running server does not need.
pub(crate) fn lock_down(filters: &[&OwnedFd], file_capabilities: bool) -> Result<(), Failure> {
    let kept = if file_capabilities { KEPT.union(CapabilitySet::SETFCAP) } else { KEPT };
    let programs: Vec<Vec<u8>> = filters.iter().map(|file| read_all(file)).collect::<Result<_, _>>()?;
    drop_capabilities(kept)?;
    rustix::thread::set_no_new_privs(true).trying(|| "forbid new privileges".into())?;
    hide_from_tracing()?;
    for program in &programs {
        kernel::install_filter(program).trying(|| "install the filter of system calls".into())?;
    }
    Ok(())
}

fn drop_capabilities(kept: CapabilitySet) -> Result<(), Failure> {
    rustix::thread::clear_ambient_capability_set().trying(|| "clear ambient capabilities".into())?;
    for number in 0..64 {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // The first number this kernel does not know.
            Err(Errno::INVAL) => break,
            other => other.trying(|| format!("drop capability {number}"))?,
        }
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).trying(|| "drop capabilities".into())
}

/// Programs are shared by all servers, so they are read without moving the shared position.
fn read_all(file: &OwnedFd) -> Result<Vec<u8>, Failure> {
    use std::os::unix::fs::FileExt as _;
    let action = || "read the filter of system calls".to_owned();
    let file = File::from(file.try_clone().map_err(errno).trying(action)?);
    let mut bytes = vec![0; file.metadata().map_err(errno).trying(action)?.len() as usize];
    file.read_exact_at(&mut bytes, 0).map_err(errno).trying(action)?;
    Ok(bytes)
}

/// The errno of a standard library's error.
pub(crate) fn errno(error: std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)
}
