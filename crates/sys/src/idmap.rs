//! User namespaces that exist without a process in them, for idmapped mounts and for servers to be started in.

use std::os::fd::{AsFd, OwnedFd};

use crate::{
    error::{Attempt as _, Result},
    namespace, pidfd, spawn,
};

/// How many ids a server has: 0 to 65535.
pub const IDS: u32 = 65_536;

/// Which ids of the host stand behind the ids 0, 1, 2 … of a user namespace, for users and groups alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// The host's id behind id 0.
    pub base: u32,
    /// How many ids.
    pub count: u32,
}

/// Makes a user namespace with one map. It lives as long as the descriptor, or a process in it.
pub fn user_namespace(map: Map) -> Result<OwnedFd> {
    let parked = spawn::parked_in_new_user_namespace()?;
    let made = write_maps(parked.pid, map).and_then(|()| namespace::of_process(parked.pid, namespace::Kind::User));
    pidfd::kill(parked.pidfd.as_fd())?;
    pidfd::wait(parked.pidfd.as_fd(), std::time::Duration::from_secs(10))?;
    pidfd::reap(parked.pidfd.as_fd())?;
    made
}

fn write_maps(pid: u32, map: Map) -> Result<()> {
    let line = format!("0 {} {}\n", map.base, map.count);
    for file in ["uid_map", "gid_map"] {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, &line).attempt(|| format!("write {path}"))?;
    }
    Ok(())
}

/// Makes the calling thread do all it does with files as one id of the host, with its capabilities kept. For threads
/// that end soon: what an overlay writes to mapped layers on its own account (work directories, whiteouts) is done as
/// whoever mounted it, who must therefore be one of the mapped ids.
pub fn act_on_files_as(id: u32) -> Result<()> {
    let action = || format!("act as id {id}");
    // SAFETY: both take only integers and concern the calling thread alone.
    unsafe {
        libc::syscall(libc::SYS_setfsgid, id);
        libc::syscall(libc::SYS_setfsuid, id);
    }
    // The kernel has taken the capabilities over files out of the effective set.
    let mut sets = rustix::thread::capabilities(None).attempt(action)?;
    sets.effective = sets.permitted;
    rustix::thread::set_capabilities(None, sets).attempt(action)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn root_whoever_is_killed_while_making_one_leaves_no_process_that_holds_what_it_held() {
        for turn in 0..200_u64 {
            let (held, holding) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
            // SAFETY: the child makes user namespaces until it is killed; nothing of it is used here.
            let pid = unsafe { libc::fork() };
            if pid == 0 {
                loop {
                    drop(user_namespace(Map { base: 1_200_000_000, count: IDS }));
                }
            }
            drop(holding);
            std::thread::sleep(Duration::from_micros(1000 + turn * 7));
            // SAFETY: the process is our child; no memory is written.
            unsafe {
                libc::kill(pid, libc::SIGKILL);
                libc::waitpid(pid, std::ptr::null_mut(), 0);
            }
            let closed = crate::fds::wait_readable(held.as_fd(), Duration::from_secs(5)).unwrap();
            assert!(closed, "turn {turn}: a process lives on with the descriptors of the one that was killed");
        }
    }
}
