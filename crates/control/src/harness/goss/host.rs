//! Processes, ports, interfaces, kernel parameters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use kiln_model::goss::Value;

use super::{Eyes, Seen, nothing, said};

/// Linux cuts the name of a process after so many bytes.
const COMM: usize = 15;

impl Eyes<'_> {
    pub(super) async fn process(self, name: &str) -> Seen {
        let running = self.inside.processes(self.server).await.map_err(said).map(|all| {
            let is = |program: &str| {
                program == name || (name.len() == COMM && program.len() > COMM && program.starts_with(name))
            };
            Value::Bool(all.iter().any(|process| is(&process.program)))
        });
        Seen::from([("running", running)])
    }

    pub(super) async fn port(self, network: &str, port: &str) -> Seen {
        let bound = match network {
            "tcp" | "tcp6" => self.inside.listening(self.server).await.map_err(said),
            "udp" | "udp6" => self.text(&format!("/proc/1/net/{network}")).await.map(|table| bound(&table)),
            _ => Ok(Vec::new()),
        };
        let six = network.ends_with('6');
        match bound {
            Err(reason) => nothing(&["listening", "ip"], &reason),
            Ok(bound) => {
                let here = bound.iter().filter(|at| at.is_ipv6() == six && at.port().to_string() == port);
                let here: Vec<String> = here.map(|at| at.ip().to_string()).collect();
                Seen::from([("listening", Ok(Value::Bool(!here.is_empty()))), ("ip", Ok(Value::Texts(here)))])
            }
        }
    }

    pub(super) async fn interface(self, name: &str) -> Seen {
        let all = ["exists", "addrs", "mtu"];
        let interfaces = match self.facts.interfaces(self.server).await {
            Ok(interfaces) => interfaces,
            Err(error) => return nothing(&all, &said(error)),
        };
        let Some(interface) = interfaces.into_iter().find(|interface| interface.name == name) else {
            let mut seen = nothing(&all, &format!("there is no interface `{name}`"));
            seen.insert("exists", Ok(Value::Bool(false)));
            return seen;
        };
        let addresses = interface.addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect();
        Seen::from([
            ("exists", Ok(Value::Bool(true))),
            ("addrs", Ok(Value::Texts(addresses))),
            ("mtu", Ok(Value::Int(interface.mtu.into()))),
        ])
    }

    pub(super) async fn kernel_parameter(self, name: &str) -> Seen {
        let value = match self.facts.kernel_parameter(self.server, name).await {
            Ok(value) => value.map(Value::Text).ok_or_else(|| format!("there is no kernel parameter `{name}`")),
            Err(error) => Err(said(error)),
        };
        Seen::from([("value", value)])
    }
}

/// Local addresses of `/proc/net/udp` and the like (proc_pid_net(5)).
fn bound(table: &str) -> Vec<SocketAddr> {
    let local = |line: &str| {
        let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
        Some(SocketAddr::new(self::address(address)?, u16::from_str_radix(port, 16).ok()?))
    };
    table.lines().skip(1).filter_map(local).collect()
}

/// Words of 32 bits as the processor has them.
fn address(hex: &str) -> Option<IpAddr> {
    let word = |index: usize| {
        let digits = hex.get(index * 8..index * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    match hex.len() {
        8 => Some(Ipv4Addr::from(word(0)?).into()),
        32 => {
            let mut octets = [0; 16];
            for index in 0..4 {
                octets[index * 4..index * 4 + 4].copy_from_slice(&word(index)?);
            }
            Some(Ipv6Addr::from(octets).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_a_table_of_sockets_is_read() {
        let table = "  sl  local_address rem_address\n\
                     0: 0100007F:1F90 00000000:0000 07 00000000:00000000 00:00000000 00000000    33        0 1 1 0 100 0 0 10 0\n\
                     1: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 07 x\n  2: nothing\n";
        assert_eq!(bound(table), ["127.0.0.1:8080", "[::1]:80"].map(|at| at.parse().unwrap()));
    }
}
