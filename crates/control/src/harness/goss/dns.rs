//! Names looked up from inside a server's network: one question to one name server, the answer bounded by DNS itself (64 KiB).

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use kiln_model::goss::Value;
use simple_dns::{CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, ResourceRecord, TYPE, rdata::RData};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{Eyes, Seen, network, nothing};

/// A name server of `/etc/resolv.conf` answers within this time.
const LIMIT: Duration = Duration::from_secs(5);

impl Eyes<'_> {
    pub(super) async fn dns(self, (kind, name): (Option<&str>, &str), server: Option<&str>, limit: Duration) -> Seen {
        let found = match server {
            Some(server) => {
                let asked = tokio::time::timeout(limit, self.ask_all(server, kind, name)).await;
                asked.unwrap_or_else(|_| {
                    Err(format!("{server} did not answer within {}", kiln_model::duration::format(limit)))
                })
            }
            None => {
                self.resolve(name).await.map(|all| all.iter().map(ToString::to_string).collect()).or(Ok(Vec::new()))
            }
        };
        match found {
            Err(reason) => nothing(&["resolvable", "addrs"], &reason),
            Ok(mut addresses) => {
                addresses.sort();
                let resolvable = Value::Bool(!addresses.is_empty());
                Seen::from([("resolvable", Ok(resolvable)), ("addrs", Ok(Value::Texts(addresses)))])
            }
        }
    }

    /// The addresses of a name, from the name servers of `/etc/resolv.conf`.
    pub(super) async fn look_up(self, host: &str) -> Result<Vec<IpAddr>, String> {
        let resolv = self.text("/etc/resolv.conf").await?;
        let servers = resolv.lines().filter_map(|line| line.strip_prefix("nameserver")).map(str::trim);
        let mut last = format!("`{host}` is not in /etc/hosts, and /etc/resolv.conf has no name server");
        for server in servers.take(3) {
            match tokio::time::timeout(LIMIT, self.ask_all(server, None, host)).await {
                Ok(Ok(found)) => return Ok(found.iter().filter_map(|address| address.parse().ok()).collect()),
                Ok(Err(reason)) => last = reason,
                Err(_) => last = format!("{server} did not answer"),
            }
        }
        Err(last)
    }

    /// The records of a type; without one, addresses of both families.
    async fn ask_all(self, server: &str, kind: Option<&str>, name: &str) -> Result<Vec<String>, String> {
        let to = self.name_server(server).await?;
        let (kinds, name): (&[TYPE], String) = match kind {
            Some("A") => (&[TYPE::A], name.to_owned()),
            Some("AAAA") => (&[TYPE::AAAA], name.to_owned()),
            Some("PTR") => (&[TYPE::PTR], reverse(name)?),
            Some("CNAME") => (&[TYPE::CNAME], name.to_owned()),
            Some("MX") => (&[TYPE::MX], name.to_owned()),
            Some("NS") => (&[TYPE::NS], name.to_owned()),
            Some("SRV") => (&[TYPE::SRV], name.to_owned()),
            Some("TXT") => (&[TYPE::TXT], name.to_owned()),
            Some("CAA") => (&[TYPE::CAA], name.to_owned()),
            _ => (&[TYPE::A, TYPE::AAAA], name.to_owned()),
        };
        let mut all = Vec::new();
        for kind in kinds {
            let asked = self.ask(to, &name, *kind).await;
            // Without a type, one family is enough.
            match (asked, kinds.len()) {
                (Ok(found), _) => all.extend(found),
                (Err(reason), 1) => return Err(reason),
                (Err(_), _) => {}
            }
        }
        Ok(all)
    }

    async fn name_server(self, server: &str) -> Result<SocketAddr, String> {
        let (host, port) = match server.parse::<IpAddr>() {
            Ok(_) => (server.to_owned(), 53),
            Err(_) => network::split(server).unwrap_or_else(|| (server.to_owned(), 53)),
        };
        if let Ok(address) = host.parse() {
            return Ok(SocketAddr::new(address, port));
        }
        let found = Box::pin(self.resolve(&host)).await?;
        found.first().map(|ip| SocketAddr::new(*ip, port)).ok_or_else(|| format!("`{host}` has no address"))
    }

    async fn ask(self, to: SocketAddr, name: &str, kind: TYPE) -> Result<Vec<String>, String> {
        let id = rand::random();
        let question = question(id, name, kind)?;
        let words = |error: std::io::Error| format!("{to}: {error}");
        let socket = self.udp(to, None).await?;
        socket.send(&question).await.map_err(words)?;
        let mut bytes = vec![0; 1 << 16];
        let length = socket.recv(&mut bytes).await.map_err(words)?;
        match records(id, kind, &bytes[..length])? {
            Some(found) => Ok(found),
            None => self.ask_stream(to, (id, kind), &question).await,
        }
    }

    /// An answer that is too long for a datagram.
    async fn ask_stream(self, to: SocketAddr, (id, kind): (u16, TYPE), question: &[u8]) -> Result<Vec<String>, String> {
        let words = |error: std::io::Error| format!("{to}: {error}");
        let mut stream = self.tcp(to, None).await?;
        stream.write_all(&(question.len() as u16).to_be_bytes()).await.map_err(words)?;
        stream.write_all(question).await.map_err(words)?;
        let length = stream.read_u16().await.map_err(words)?;
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.map_err(words)?;
        records(id, kind, &bytes)?.ok_or_else(|| format!("{to} cut its answer"))
    }
}

fn question(id: u16, name: &str, kind: TYPE) -> Result<Vec<u8>, String> {
    let wrong = |error: simple_dns::SimpleDnsError| format!("`{name}` cannot be asked for: {error}");
    let mut packet = Packet::new_query(id);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name.trim_end_matches('.')).map_err(wrong)?;
    packet.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
    packet.build_bytes_vec().map_err(wrong)
}

/// The records of the type that was asked for, as goss writes them; none if the answer was cut.
fn records(id: u16, kind: TYPE, bytes: &[u8]) -> Result<Option<Vec<String>>, String> {
    let packet = Packet::parse(bytes).map_err(|error| format!("the answer is not DNS: {error}"))?;
    if packet.id() != id {
        return Err("the answer is to another question".to_owned());
    }
    if packet.has_flags(PacketFlag::TRUNCATION) {
        return Ok(None);
    }
    Ok(Some(packet.answers.iter().flat_map(|record| written(kind, record)).collect()))
}

/// A record as goss writes it (goss, `system/dns.go`); nothing for one of another type.
fn written(kind: TYPE, record: &ResourceRecord<'_>) -> Vec<String> {
    let dotted = |name: &Name<'_>| format!("{name}.");
    match (kind, &record.rdata) {
        (TYPE::A, RData::A(a)) => vec![std::net::Ipv4Addr::from(a.address).to_string()],
        (TYPE::AAAA, RData::AAAA(a)) => vec![std::net::Ipv6Addr::from(a.address).to_string()],
        (TYPE::CNAME, RData::CNAME(name)) => vec![dotted(&name.0)],
        (TYPE::NS, RData::NS(name)) => vec![dotted(&name.0)],
        (TYPE::PTR, RData::PTR(name)) => vec![dotted(&name.0)],
        (TYPE::MX, RData::MX(mx)) => vec![format!("{} {}", mx.preference, dotted(&mx.exchange))],
        (TYPE::SRV, RData::SRV(srv)) => {
            vec![format!("{} {} {} {}", srv.priority, srv.weight, srv.port, dotted(&srv.target))]
        }
        (TYPE::TXT, RData::TXT(txt)) => txt.iter_raw().map(text).collect(),
        (TYPE::CAA, RData::CAA(caa)) => {
            vec![format!("{} {} {}", caa.flag, caa.tag, String::from_utf8_lossy(&caa.value))]
        }
        _ => Vec::new(),
    }
}

fn text((key, value): (&[u8], Option<&[u8]>)) -> String {
    let key = String::from_utf8_lossy(key);
    value.map_or_else(|| key.to_string(), |value| format!("{key}={}", String::from_utf8_lossy(value)))
}

/// The name that stands for an address.
fn reverse(address: &str) -> Result<String, String> {
    match address.parse() {
        Ok(IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            Ok(format!("{d}.{c}.{b}.{a}.in-addr.arpa"))
        }
        Ok(IpAddr::V6(ip)) => {
            let nibbles = ip.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            Ok(format!("{}.ip6.arpa", nibbles.map(|nibble| format!("{nibble:x}")).collect::<Vec<_>>().join(".")))
        }
        Err(_) => Err(format!("`{address}` is not an address, and PTR asks for one")),
    }
}
