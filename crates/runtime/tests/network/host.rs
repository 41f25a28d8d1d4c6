//! A host to test on: a network namespace with one interface that leads to an "outside" namespace. The test's own
//! thread moves into it.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    sync::atomic::{AtomicBool, Ordering},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kiln_runtime::network::{Network, NetworkError, NetworkOptions, Subnet};
use kiln_sys::{
    netlink::{Connection, address, link},
    nftables,
};

pub const PORT: u16 = 7;
const PATIENCE: Duration = Duration::from_millis(400);

/// A network namespace.
pub struct Namespace(OwnedFd);

/// How an attempt to connect ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    Answered,
    Silent,
}

/// A fresh network namespace with nothing but a loopback interface that is down.
pub fn namespace() -> Namespace {
    Namespace(kiln_sys::namespace::new_network().unwrap())
}

/// The Ethernet address that belongs to an IPv4 address.
pub fn mac(address: Ipv4Addr) -> [u8; 6] {
    Subnet::mac(address)
}

/// A listener that sends each caller its own address back.
pub struct Answering {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

/// Answers on [`PORT`] at an address of a namespace.
pub fn answer(at: &Namespace, address: Ipv4Addr) -> Answering {
    at.within(|| serve(address))
}

fn serve(address: Ipv4Addr) -> Answering {
    let listener = TcpListener::bind(SocketAddrV4::new(address, PORT)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let asked = Arc::clone(&stop);
    let thread = std::thread::spawn(move || {
        while !asked.load(Ordering::Relaxed) {
            match listener.accept() {
                Ok((mut stream, peer)) => {
                    stream.set_nonblocking(false).unwrap();
                    drop(stream.write_all(peer.ip().to_string().as_bytes()));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(2)),
                Err(error) => panic!("{error}"),
            }
        }
    });
    Answering { stop, thread: Some(thread) }
}

fn ask(from: Option<Ipv4Addr>, to: Ipv4Addr) -> Option<String> {
    ask_port(from, to, PORT)
}

fn ask_port(from: Option<Ipv4Addr>, to: Ipv4Addr, port: u16) -> Option<String> {
    use rustix::net;
    let socket = net::socket(net::AddressFamily::INET, net::SocketType::STREAM, None).unwrap();
    if let Some(from) = from {
        net::bind(&socket, &SocketAddrV4::new(from, 0)).unwrap();
    }
    net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Send, Some(PATIENCE)).unwrap();
    net::connect(&socket, &SocketAddrV4::new(to, port)).ok()?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn reach(from: Option<Ipv4Addr>, to: Ipv4Addr) -> Reach {
    match ask(from, to) {
        Some(_) => Reach::Answered,
        None => Reach::Silent,
    }
}

/// The address that a listener at `to` sees when `from` connects.
pub fn last_peer(_at: &Namespace, to: Ipv4Addr, from: &Namespace) -> Option<Ipv4Addr> {
    from.within(|| ask(None, to))?.parse().ok()
}

impl Namespace {
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        kiln_sys::namespace::in_network(self.fd(), || Ok(work())).unwrap()
    }

    pub fn reach(&self, to: Ipv4Addr) -> Reach {
        self.within(|| reach(None, to))
    }

    /// The address that whoever answers at the place of a cloud's metadata sees.
    pub fn ask_metadata(&self) -> Option<Ipv4Addr> {
        self.within(|| ask_port(None, kiln_runtime::network::METADATA, 80))?.parse().ok()
    }

    pub fn ask_metadata_from(&self, from: Ipv4Addr) -> Option<String> {
        self.within(|| ask_port(Some(from), kiln_runtime::network::METADATA, 80))
    }

    pub fn reach_from(&self, from: Ipv4Addr, to: Ipv4Addr) -> Reach {
        self.within(|| reach(Some(from), to))
    }

    pub fn add_address(&self, address: Ipv4Addr) {
        self.within(|| {
            let mut route = Connection::open().unwrap();
            let index = route.link("eth0").unwrap().unwrap().index;
            route.execute(vec![address::add_address(index, address, 32)]).unwrap();
        });
    }

    pub fn route_everything_to(&self, gateway: Ipv4Addr) {
        self.within(|| {
            let mut route = Connection::open().unwrap();
            let index = route.link("eth0").unwrap().unwrap().index;
            route.execute(vec![address::add_default_route(index, gateway)]).unwrap();
        });
    }

    /// Whether an ICMP echo request is answered.
    pub fn ping(&self, to: Ipv4Addr) -> bool {
        use rustix::net;
        self.within(|| {
            let socket = net::socket(net::AddressFamily::INET, net::SocketType::RAW, Some(net::ipproto::ICMP)).unwrap();
            net::sockopt::set_socket_timeout(&socket, net::sockopt::Timeout::Recv, Some(PATIENCE)).unwrap();
            net::connect(&socket, &SocketAddrV4::new(to, 0)).unwrap();
            // Echo request, checksum over the only word that is not zero.
            net::send(&socket, &[8, 0, 0xf7, 0xff, 0, 0, 0, 0], net::SendFlags::empty()).unwrap();
            let mut reply = [0; 64];
            net::recv(&socket, &mut reply, net::RecvFlags::empty()).is_ok()
        })
    }

    fn packet_socket(&self, protocol: u16) -> OwnedFd {
        self.within(|| {
            // SAFETY: plain system calls; the address is a local value of the size given.
            unsafe {
                let raw = libc::socket(libc::AF_PACKET, libc::SOCK_RAW, i32::from(protocol.to_be()));
                assert!(raw >= 0);
                let socket = OwnedFd::from_raw_fd(raw);
                let mut address: libc::sockaddr_ll = std::mem::zeroed();
                address.sll_family = libc::AF_PACKET as u16;
                address.sll_protocol = protocol.to_be();
                address.sll_ifindex = libc::if_nametoindex(c"eth0".as_ptr()) as i32;
                let length = size_of_val(&address) as u32;
                assert_eq!(libc::bind(raw, (&raw const address).cast(), length), 0);
                socket
            }
        })
    }

    pub fn send_frame(&self, frame: &[u8]) {
        let socket = self.packet_socket(0);
        rustix::net::send(&socket, frame, rustix::net::SendFlags::empty()).unwrap();
    }

    pub fn listen_to_frames(&self) -> Frames {
        Frames(self.packet_socket(libc::ETH_P_ALL as u16))
    }
}

/// Frames that arrive at a namespace.
pub struct Frames(OwnedFd);

impl Frames {
    /// Number of broadcast frames that came since the last call.
    pub fn count(&self) -> usize {
        let deadline = Instant::now() + Duration::from_millis(200);
        let mut count = 0;
        while Instant::now() < deadline {
            let mut frame = [0u8; 2048];
            match rustix::net::recv(&self.0, &mut frame, rustix::net::RecvFlags::DONTWAIT) {
                Ok((_, length)) if length >= 14 && frame[..6] == [0xff; 6] => count += 1,
                Ok(_) => {}
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        count
    }
}

/// A broadcast ARP answer that says: `ip` is at `inner`; the frame's own sender is `outer`.
pub fn arp_claim(outer: [u8; 6], inner: [u8; 6], ip: Ipv4Addr) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(outer);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2]);
    frame.extend(inner);
    frame.extend(ip.octets());
    frame.extend([0xff; 6]);
    frame.extend(ip.octets());
    frame
}

pub fn foreign_ethertype(from: [u8; 6]) -> Vec<u8> {
    let mut frame = vec![0xff; 6];
    frame.extend(from);
    frame.extend([0x88, 0xb5]);
    frame.extend([0; 46]);
    frame
}

/// What Kiln may change on a host's network.
#[derive(Debug, PartialEq, Eq)]
pub struct Snapshot {
    links: Vec<link::Link>,
    rules: Vec<Vec<u8>>,
    settings: Vec<(String, String)>,
    files: Vec<String>,
}

/// The test's own host.
pub struct Host {
    pub outside: Namespace,
    directory: tempfile::TempDir,
}

impl Host {
    pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
    const OUTSIDE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    /// Moves this thread into a network namespace of its own.
    pub fn new() -> Self {
        kiln_sys::namespace::leave_network().unwrap();
        let outside = namespace();
        let mut route = Connection::open().unwrap();
        let veth = link::Veth {
            name: "uplink0",
            bridge: 0,
            group: 0,
            mtu: 1500,
            peer_name: "eth0",
            peer_address: [2, 0, 0, 0, 0, 1],
            peer_namespace: outside.fd(),
        };
        route.execute(vec![link::create_veth(&veth)]).unwrap();
        let uplink = route.link("uplink0").unwrap().unwrap().index;
        route
            .execute(vec![
                link::set_up(1),
                link::set_up(uplink),
                address::add_address(uplink, Self::ADDRESS, 24),
                address::add_default_route(uplink, Self::OUTSIDE),
            ])
            .unwrap();
        outside.within(|| {
            let mut route = Connection::open().unwrap();
            let index = route.link("eth0").unwrap().unwrap().index;
            route
                .execute(vec![link::set_up(1), link::set_up(index), address::add_address(index, Self::OUTSIDE, 24)])
                .unwrap();
        });
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        Self { outside, directory: tempfile::tempdir().unwrap() }
    }

    pub fn run_dir(&self, id: &str) -> PathBuf {
        self.directory.path().join(id)
    }

    pub fn shared_dir(&self) -> &Path {
        self.directory.path()
    }

    fn options(&self, id: &str) -> NetworkOptions {
        NetworkOptions {
            id: id.to_owned(),
            run_dir: self.run_dir(id),
            shared_dir: self.shared_dir().to_owned(),
            subnet: None,
            offered_ports: vec![],
        }
    }

    pub fn open(&self, id: &str) -> Network {
        Network::open(self.options(id)).unwrap()
    }

    pub fn open_offering(&self, id: &str, ports: &[u16]) -> Network {
        Network::open(NetworkOptions { offered_ports: ports.to_vec(), ..self.options(id) }).unwrap()
    }

    pub fn try_open(&self, id: &str, subnet: Option<Subnet>) -> Result<Network, NetworkError> {
        Network::open(NetworkOptions { subnet, ..self.options(id) })
    }

    pub fn reach(&self, to: Ipv4Addr) -> Reach {
        reach(None, to)
    }

    pub fn answer(&self, address: Ipv4Addr) -> Answering {
        serve(address)
    }

    /// An address of the outside that everybody there may be asked for.
    pub fn give_outside(&self, address: Ipv4Addr) {
        self.outside.add_address(address);
    }

    pub fn set_forwarding(&self, value: &str) {
        fs::write("/proc/sys/net/ipv4/ip_forward", value).unwrap();
    }

    pub fn drop_forwarded_packets(&self) {
        let output = std::process::Command::new("nft")
            .args(["add table ip foreign; add chain ip foreign forward { type filter hook forward priority 0; policy drop; }"])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    /// Everything that Kiln may change on a host's network.
    pub fn snapshot(&self) -> Snapshot {
        let mut route = Connection::open().unwrap();
        let rules = nftables::dump(&mut Connection::open_netfilter().unwrap()).unwrap();
        let shared = || fs::read_dir(self.shared_dir()).unwrap().map(|entry| entry.unwrap().path());
        let inner = shared().flat_map(|path| fs::read_dir(path).into_iter().flatten());
        let inner = inner.map(|entry| entry.unwrap().path());
        let mut files: Vec<String> =
            shared().chain(inner).filter(|path| path.is_file()).map(|path| path.display().to_string()).collect();
        files.sort();
        Snapshot { links: route.links().unwrap(), rules, settings: settings(), files }
    }
}

fn settings() -> Vec<(String, String)> {
    let read = |path: &str| (path.to_owned(), fs::read_to_string(path).unwrap());
    ["ip_forward", "conf/all/forwarding", "conf/default/forwarding", "conf/uplink0/forwarding"]
        .map(|name| read(&format!("/proc/sys/net/ipv4/{name}")))
        .to_vec()
}
