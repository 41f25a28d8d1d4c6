//! Berths: everything a server needs that does not depend on what it runs, made before anybody waits for it.
//!
//! A berth is a place on this host (its *slot*: user ids, control group, address) with PID 1 parked in it, in namespaces of
//! its own, its `/proc`, `/sys` and `/dev` ready. Making one takes milliseconds, most of them the kernel's: a network
//! namespace, and on version 1 control groups a grace period to move a process. Turning one into a server then takes
//! about one.
//!
//! A parked PID 1 ends by itself when the runtime does: its socket closes.

use std::{
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    time::Duration,
};

use kiln_boot::{
    render::TemplateFailure,
    spec::{Answer, Packet},
};
use kiln_sys::{
    Outcome, cgroup, fds, idmap, namespace, pidfd,
    spawn::{NewNamespaces, Spawn, Spawned, spawn},
};

use crate::{
    error::{OnFile as _, Result, RuntimeError},
    ground::{self, Ground},
    isolation,
    network::{Mode, Network},
};

/// PID 1 answers a packet within this time, or is given up.
const PATIENCE: Duration = Duration::from_secs(30);
/// A packet with a large environment is larger than the usual limit of a socket.
const SEND_BUFFER: usize = 8 << 20;

/// The host's user ids used by Kiln: 12 blocks of 1024 slots of 65536 ids, within what systemd leaves to containers.
const FIRST_ID: u32 = 0x4000_0000;
const BLOCKS: u32 = 12;
const SLOTS_PER_BLOCK: u32 = 1024;

/// Which ids of the host stand behind those of a slot. `block` tells state directories apart; two that share a block by
/// chance share ids, and nothing else.
pub fn map(block: u32, slot: u16) -> idmap::Map {
    let place = (block % BLOCKS) * SLOTS_PER_BLOCK + u32::from(slot) % SLOTS_PER_BLOCK;
    idmap::Map { base: FIRST_ID + place * idmap::IDS, count: idmap::IDS }
}

/// PID 1, parked.
#[derive(Debug)]
pub(crate) struct Berth {
    pub(crate) slot: u16,
    pub(crate) process: Spawned,
    pub(crate) users: OwnedFd,
    pub(crate) network: OwnedFd,
    pub(crate) group: cgroup::Group,
    /// Which network it is attached to already.
    pub(crate) attached: Option<Mode>,
    socket: OwnedFd,
}

impl Berth {
    /// Makes one. On failure nothing is left.
    pub(crate) fn prepare(ground: &Ground, block: u32, slot: u16) -> Result<Self> {
        let group = ground.group(slot);
        group.remove(Duration::from_secs(5))?;
        group.create()?;
        let prepared = park(ground, map(block, slot), slot, group.clone());
        if prepared.is_err() {
            group.remove(Duration::from_secs(5))?;
        }
        prepared
    }

    /// Attaches it to a network, in place of the one it is attached to.
    pub(crate) fn attach(&mut self, network: &Network, mode: Mode) -> Result<()> {
        if self.attached == Some(mode) {
            return Ok(());
        }
        if self.attached.take().is_some() {
            network.detach(self.slot)?;
        }
        network.attach(self.slot, self.network.as_fd(), mode)?;
        self.attached = Some(mode);
        Ok(())
    }

    /// Sends a packet and waits until PID 1 has done what it says.
    pub(crate) fn tell(&self, packet: &Packet, fds: &[BorrowedFd<'_>]) -> Result<()> {
        let bytes = serde_json::to_vec(packet).map_err(std::io::Error::from).on("send to", "PID 1")?;
        let sent = fds::send(self.socket.as_fd(), &bytes, fds);
        if !matches!(&sent, Err(error) if error.outcome == Outcome::Disconnected) {
            sent?;
        }
        self.answer()
    }

    fn answer(&self) -> Result<()> {
        let silent = || RuntimeError::Init { action: "answer".into(), source: Outcome::TimedOut };
        if !fds::wait_readable(self.socket.as_fd(), PATIENCE)? {
            return Err(silent());
        }
        let mut buffer = vec![0; 64 << 10];
        let (count, _) = fds::receive(self.socket.as_fd(), &mut buffer)?;
        match serde_json::from_slice(&buffer[..count]) {
            Ok(Answer::Done) => Ok(()),
            Ok(Answer::Failed { action, errno }) => {
                Err(RuntimeError::Init { action, source: Outcome::from_errno(errno) })
            }
            Ok(Answer::Template(TemplateFailure { template, line, message })) => {
                Err(RuntimeError::Template { number: template, name: String::new(), line, message })
            }
            Err(_) => Err(RuntimeError::Init { action: "answer".into(), source: Outcome::Gone }),
        }
    }

    /// Ends it and removes what it used.
    pub(crate) fn discard(self, network: Option<&Network>) -> Result<()> {
        end(self.process.pidfd.as_fd(), &self.group)?;
        if let Some(network) = network {
            network.detach(self.slot)?;
        }
        Ok(())
    }
}

/// Kills PID 1 and with it all processes of a server, and removes the control group.
pub(crate) fn end(process: BorrowedFd<'_>, group: &cgroup::Group) -> Result<()> {
    pidfd::kill(process)?;
    group.let_die()?;
    pidfd::wait(process, Duration::from_secs(10))?;
    pidfd::reap(process)?;
    Ok(group.remove(Duration::from_secs(10))?)
}

fn park(ground: &Ground, map: idmap::Map, slot: u16, group: cgroup::Group) -> Result<Berth> {
    let users = idmap::user_namespace(map)?;
    let (ours, theirs) = fds::message_pair()?;
    rustix::net::sockopt::set_socket_send_buffer_size_force(&ours, SEND_BUFFER).on("enlarge", "a socket")?;
    let entrance = group.entrance()?;
    let v1: Vec<_> = entrance.v1.iter().map(|file| file.as_fd()).collect();
    let null = ground.null.as_fd();
    let process = spawn(&Spawn {
        program: ground.init.as_fd(),
        arguments: &[c"kiln-init"],
        environment: &[],
        fds: &[null, null, null, theirs.as_fd()],
        cgroup: entrance.v2.as_ref().map(|directory| directory.as_fd()),
        cgroup_v1: &v1,
        mounts: Some(ground.mounts.as_fd()),
        users: Some(users.as_fd()),
        network: None,
        new: NewNamespaces::ALL,
    })?;
    let network = namespace::of_process(process.pid, namespace::Kind::Network);
    let berth = match network {
        Ok(network) => Berth { slot, process, users, network, group, attached: None, socket: ours },
        Err(error) => {
            end(process.pidfd.as_fd(), &group)?;
            return Err(error.into());
        }
    };
    let furnished = furnish(ground, &berth);
    if let Err(error) = furnished {
        berth.discard(None)?;
        return Err(error);
    }
    Ok(berth)
}

fn furnish(ground: &Ground, berth: &Berth) -> Result<()> {
    let devices = ground::mapped_copy(&ground.devices, "", &berth.users)?;
    berth.tell(&Packet { operations: isolation::common(), boot: None }, &[devices.as_fd()])?;
    Ok(())
}
