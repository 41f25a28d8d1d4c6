//! Processes, ports, interfaces, kernel parameters.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

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
        let table = match network {
            "tcp" | "tcp6" | "udp" | "udp6" => self.text(&format!("/proc/1/net/{network}")).await,
            _ => Ok(String::new()),
        };
        match table {
            Err(reason) => nothing(&["listening", "ip"], &reason),
            Ok(table) => {
                let any_state = network.starts_with("udp");
                let local = table.lines().skip(1).filter_map(|line| local(line, any_state));
                let here: Vec<String> =
                    local.filter(|(_, found)| found.to_string() == port).map(|(ip, _)| ip.to_string()).collect();
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

/// Local address and port of a line of `/proc/net/tcp` and the like (proc_pid_net(5)): state 0A is LISTEN.
fn local(line: &str, any_state: bool) -> Option<(IpAddr, u16)> {
    let mut fields = line.split_whitespace();
    let (address, port) = fields.nth(1)?.split_once(':')?;
    let state = fields.nth(1)?;
    (any_state || state == "0A").then_some((self::address(address)?, u16::from_str_radix(port, 16).ok()?))
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
    fn unit_a_line_of_a_table_of_sockets_is_read() {
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000    33        0 1 1 0 100 0 0 10 0";
        assert_eq!(local(line, false), Some(("127.0.0.1".parse().unwrap(), 8080)));
        let six = "   0: 00000000000000000000000001000000:0050 00000000000000000000000000000000:0000 0A x";
        assert_eq!(local(six, false), Some(("::1".parse().unwrap(), 80)));
        assert_eq!(local(&six.replace("0A", "01"), false), None);
    }
}
