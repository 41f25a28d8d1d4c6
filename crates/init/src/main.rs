//! `kiln-init`: PID 1 inside a server.
//!
//! Started by the runtime in namespaces of its own, with one inherited socket ([`kiln_boot::spec::SOCKET`]). It shapes the
//! server's mounts as it is told, gives up every right it no longer needs, starts the services, and from then on is one
//! loop without threads: it reaps, restarts, writes output to the spool, and answers on the control socket. What runs
//! inside can neither reach that socket nor trace or signal this process.
//!
//! It is small on purpose: one of it runs in every server.

mod child;
mod control;
mod kernel;
mod lockdown;
mod render;
mod server;
mod service;
mod setup;
mod spool;

use std::os::fd::{AsFd as _, OwnedFd};

use kiln_boot::spec::{Answer, BootSpec, Packet};
use render::NotRendered;
use rustix::io::Errno;

/// What could not be done, as the end of "could not …", and why.
pub(crate) struct Failure {
    action: String,
    errno: Errno,
}

/// Adds what was tried to an errno.
pub(crate) trait Trying<T> {
    fn trying(self, action: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> Trying<T> for Result<T, Errno> {
    fn trying(self, action: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|errno| Failure { action: action(), errno })
    }
}

fn main() {
    // A program started by hand has no such socket, and ends here.
    let Some(socket) = kernel::inherited_socket() else { std::process::exit(2) };
    let (answer, server) = match prepare(&socket) {
        Ok(None) => return,
        Ok(Some(server)) => (Answer::Done, Some(server)),
        Err(NotRendered::Kernel(Failure { action, errno })) => {
            (Answer::Failed { action, errno: errno.raw_os_error() }, None)
        }
        Err(NotRendered::Template(failure)) => (Answer::Template(failure), None),
    };
    // The runtime may be gone: a server lives without it, and a failure needs nobody's ear then.
    answer_to(&socket, &answer).unwrap_or(());
    drop(socket);
    let ended_well = server.is_some_and(|mut server| server.run().is_ok());
    std::process::exit(i32::from(!ended_well));
}

/// Executes packets until one makes this a server. None when the socket is closed before.
fn prepare(socket: &OwnedFd) -> Result<Option<server::Server>, NotRendered> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    rustix::thread::set_name(c"kiln-init").trying(|| "take a name".into())?;
    lockdown::hide_from_tracing()?;
    let mut log = None;
    while let Some((bytes, fds)) = control::receive_packet(socket.as_fd()).trying(|| "receive a packet".into())? {
        let packet: Packet = serde_json::from_slice(&bytes)
            .map_err(|_| Failure { action: "understand a packet".into(), errno: Errno::PROTO })?;
        drop(bytes);
        log = setup::execute(&packet.operations, &fds)?.or(log);
        if let Some(boot) = packet.boot {
            return boot_server(boot, fds, log).map(Some);
        }
        answer_to(socket, &Answer::Done).trying(|| "answer".into())?;
    }
    Ok(None)
}

/// Files are rendered after every right is given up, and before anything of the image runs.
fn boot_server(mut boot: BootSpec, mut fds: Vec<OwnedFd>, log: Option<OwnedFd>) -> Result<server::Server, NotRendered> {
    let files = boot.files.take();
    let source = match &files {
        // The last descriptor, so that the numbers of the others stay what they are.
        Some(files) if files.source + 1 == fds.len() => fds.pop(),
        Some(_) => Err(Errno::BADF).trying(|| "find a descriptor".into())?,
        None => None,
    };
    let mut server = server::Server::new(boot, fds, log)?;
    if let (Some(files), Some(source)) = (files, source) {
        render::render(&files, source)?;
    }
    server.start();
    Ok(server)
}

fn answer_to(socket: &OwnedFd, answer: &Answer) -> Result<(), Errno> {
    let bytes = serde_json::to_vec(answer).unwrap_or_default();
    rustix::net::send(socket, &bytes, rustix::net::SendFlags::NOSIGNAL).map(|_| ())
}
