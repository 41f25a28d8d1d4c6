//! What an NFS server exports, mounted by the kernel alone: no program of the host is needed.
//!
//! The options are chosen so that nothing waits for ever (`softerr`: what the server does not answer within the fleet's `timeout`
//! fails with ETIMEDOUT), and mounting itself is done by a process that is killed when its time is over.

use std::{
    ffi::CString,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    os::fd::OwnedFd,
    sync::mpsc,
    time::Duration,
};

use kiln_model::shared::{Nfs, NfsVersion};
use kiln_sys::{
    mount::Attributes,
    remote::{self, Answer, Reason, Remote, Step},
};

use super::SharedError;

const PORT: u16 = 2049;
/// What a name server takes at most.
const NAMED_WITHIN: Duration = Duration::from_secs(5);
/// Beyond the server's own time, for the kernel.
const SLACK: Duration = Duration::from_secs(2);

/// A detached mount that this user can use.
pub(super) fn mount(nfs: &Nfs, attributes: Attributes, user: (u32, bool)) -> Result<OwnedFd, SharedError> {
    let address = address(nfs.export.server())?;
    let waited = nfs.timeout + SLACK;
    match remote::mount(&request(nfs, address, attributes, user), waited)? {
        Answer::Mounted(mounted) => Ok(mounted),
        Answer::Silent => Err(SharedError::Silent { export: nfs.export.clone(), waited }),
        Answer::Refused { step, reason, said } => Err(refused(nfs, user.1, (step, reason, said))),
    }
}

fn request(nfs: &Nfs, address: IpAddr, attributes: Attributes, user: (u32, bool)) -> Remote {
    // Asked once more after the first time, and waited for twice as long: three parts.
    let part = (nfs.timeout.as_millis() / 300).max(1);
    let settings = [
        ("source", Some(nfs.export.to_string())),
        ("vers", Some(nfs.version.word().to_owned())),
        ("proto", Some(if address.is_ipv6() { "tcp6" } else { "tcp" }.to_owned())),
        ("addr", Some(address.to_string())),
        ("clientaddr", our_address(address).filter(|_| nfs.version == NfsVersion::V4_2)),
        ("softerr", None),
        ("timeo", Some(part.to_string())),
        ("retrans", Some("1".to_owned())),
    ];
    let settings = settings.into_iter().filter(|(key, value)| *key != "clientaddr" || value.is_some());
    let text = |text: &str| CString::new(text).expect("an export has no control characters, and numbers have none");
    Remote {
        filesystem: text(if nfs.version == NfsVersion::V4_2 { "nfs4" } else { "nfs" }),
        settings: settings.map(|(key, value)| (text(key), value.as_deref().map(text))).collect(),
        attributes,
        user,
    }
}

/// Name servers may be away as well: who asks waits so long, and the thread for as long as it takes.
fn address(server: &str) -> Result<IpAddr, SharedError> {
    let (told, answer) = mpsc::channel();
    let name = server.to_owned();
    std::thread::spawn(move || {
        let found = (name.as_str(), PORT).to_socket_addrs().map_err(|error| error.to_string());
        // Who asked may have given up.
        told.send(found.map(|mut all| all.next())).unwrap_or(());
    });
    let why = match answer.recv_timeout(NAMED_WITHIN) {
        Ok(Ok(Some(found))) => return Ok(found.ip()),
        Ok(Ok(None)) => "the name has no address".to_owned(),
        Ok(Err(error)) => error,
        Err(_) => format!("no name server answered within {}", kiln_model::duration::format(NAMED_WITHIN)),
    };
    Err(SharedError::NoAddress { server: server.to_owned(), why })
}

/// The address that this host has on the way to the server, which version 4 tells it. Nothing is sent to find it.
fn our_address(server: IpAddr) -> Option<String> {
    let any: IpAddr = if server.is_ipv6() { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).ok()?;
    socket.connect(SocketAddr::new(server, PORT)).ok()?;
    Some(socket.local_addr().ok()?.ip().to_string())
}

fn refused(nfs: &Nfs, writes: bool, (step, reason, said): (Step, Reason, String)) -> SharedError {
    let (export, version) = (nfs.export.clone(), nfs.version.word());
    let module = if nfs.version == NfsVersion::V4_2 { "nfsv4" } else { "nfsv3" };
    match (step, reason) {
        (Step::Kind, Reason::Unknown) => SharedError::NoClient { version, module: "nfs" },
        // Where the server is meant, it was reached.
        (_, Reason::Version) if !has_module(module) => SharedError::NoClient { version, module },
        (Step::Connect, Reason::Unanswered) => SharedError::Silent { export, waited: nfs.timeout },
        (Step::Use, Reason::NotPermitted) => SharedError::NotTheirs { export, writes },
        (_, reason) => {
            let known = match reason {
                Reason::NoService => "nothing listens on its port there".to_owned(),
                Reason::NotPermitted => "it is not exported to this host".to_owned(),
                Reason::Absent => "there is no such export".to_owned(),
                Reason::Version => format!("it does not speak NFS {version}"),
                Reason::Other(errno) => std::io::Error::from_raw_os_error(errno).to_string(),
                other => format!("{other:?}"),
            };
            let why = if said.is_empty() { known } else { format!("{known} ({said})") };
            SharedError::Refused { export, why }
        }
    }
}

/// A module that is loaded or built in.
fn has_module(name: &str) -> bool {
    std::path::Path::new("/sys/module").join(name).exists()
}
