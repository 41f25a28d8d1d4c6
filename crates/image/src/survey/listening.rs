//! Which ports a running machine listens on: of this host only, from `/proc`.

use std::{collections::BTreeMap, fs, net::IpAddr};

use serde::Serialize;

/// `TCP_LISTEN`, and the state of a UDP socket that is bound (`include/net/tcp_states.h`).
const LISTENING: [(&str, &str); 4] = [("tcp", "0A"), ("tcp6", "0A"), ("udp", "07"), ("udp6", "07")];

/// A port that is listened on.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Listening {
    /// `tcp` or `udp`.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
    /// At this address.
    pub address: IpAddr,
    /// The program's path, where that can be seen.
    pub program: Option<String>,
}

/// Every port that something on this host listens on, in this process's network namespace.
pub fn listening() -> Vec<Listening> {
    let programs = programs();
    let mut all = Vec::new();
    for (table, state) in LISTENING {
        let text = fs::read_to_string(format!("/proc/self/net/{table}")).unwrap_or_default();
        let protocol = if table.starts_with("tcp") { "tcp" } else { "udp" };
        let sockets = text.lines().skip(1).filter_map(|line| socket(line, state));
        all.extend(sockets.map(|(address, port, inode)| Listening {
            protocol,
            port,
            address,
            program: programs.get(&inode).cloned(),
        }));
    }
    all.sort();
    all.dedup();
    all
}

/// Address, port and inode of a line in this state (`proc_net_tcp.rst`): words of 32 bits in the machine's order.
fn socket(line: &str, state: &str) -> Option<(IpAddr, u16, u64)> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (local, inode) = (fields.get(1)?, fields.get(9)?);
    if fields.get(3) != Some(&state) {
        return None;
    }
    let (address, port) = local.split_once(':')?;
    let bytes = hex::decode(address).ok()?;
    let words: Vec<u8> = bytes
        .chunks_exact(4)
        .flat_map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]]).to_ne_bytes())
        .collect();
    let address = match <[u8; 4]>::try_from(words.as_slice()) {
        Ok(four) => IpAddr::from(four),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(words.as_slice()).ok()?),
    };
    Some((address, u16::from_str_radix(port, 16).ok()?, inode.parse().ok()?))
}

/// Socket inode → program.
fn programs() -> BTreeMap<u64, String> {
    let mut programs = BTreeMap::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()) {
        let Ok(program) = fs::read_link(process.path().join("exe")) else { continue };
        for descriptor in fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten() {
            let target = fs::read_link(descriptor.path()).unwrap_or_default();
            let inode =
                target.to_string_lossy().strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')?.parse().ok());
            if let Some(inode) = inode {
                programs.entry(inode).or_insert_with(|| program.display().to_string());
            }
        }
    }
    programs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_a_port_of_this_process_is_seen_with_its_program() {
        for local in ["127.0.0.1:0", "[::1]:0"] {
            let socket = std::net::TcpListener::bind(local).unwrap();
            let at = socket.local_addr().unwrap();
            let found = listening()
                .into_iter()
                .find(|found| found.port == at.port() && found.address == at.ip())
                .expect("seen");
            assert_eq!(found.protocol, "tcp");
            assert_eq!(found.program, Some(std::env::current_exe().unwrap().display().to_string()));
        }
    }
}
