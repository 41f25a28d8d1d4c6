//! The host's name servers, as far as servers and build steps reach them: not those on the host itself, neither on its
//! loopback nor on another address of its own, and none by IPv6. Where `/etc/resolv.conf` names only a local forwarder of
//! systemd, the servers that it asks are used.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
};

use kiln_sys::netlink::Connection;

const FILES: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// Content for a `resolv.conf` inside; nothing when the host names no server that is reached from there.
pub fn configuration() -> Option<String> {
    let own = own_addresses();
    FILES.iter().filter_map(|path| fs::read_to_string(path).ok()).find_map(|text| reachable(&text, &own))
}

/// The addresses of the name servers in [`configuration`].
pub fn name_servers() -> Vec<String> {
    configuration().unwrap_or_default().lines().filter_map(server).map(str::to_owned).collect()
}

fn own_addresses() -> Vec<Ipv4Addr> {
    let addresses = Connection::open().and_then(|mut route| route.addresses());
    addresses.unwrap_or_default().iter().map(|found| found.address).collect()
}

fn server(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("nameserver")).then(|| words.next().unwrap_or_default())
}

/// The text without name servers that cannot be reached; nothing when none is left.
fn reachable(text: &str, own: &[Ipv4Addr]) -> Option<String> {
    let outside = |address: &str| match address.parse() {
        Ok(IpAddr::V4(address)) => !address.is_loopback() && !own.contains(&address),
        _ => false,
    };
    let kept: Vec<&str> = text.lines().filter(|line| server(line).is_none_or(outside)).collect();
    kept.iter().any(|line| server(line).is_some()).then(|| kept.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_on_the_host_are_left_out() {
        let text =
            "search example.org\nnameserver 127.0.0.53\nnameserver 192.0.2.2\nnameserver 192.0.2.53\noptions edns0\n";
        let kept = reachable(text, &[Ipv4Addr::new(192, 0, 2, 2)]).unwrap();
        assert_eq!(kept, "search example.org\nnameserver 192.0.2.53\noptions edns0\n");
    }

    #[test]
    fn a_resolver_on_the_host_alone_is_not_usable() {
        assert_eq!(reachable("nameserver 127.0.0.53\noptions edns0 trust-ad\n", &[]), None);
        assert_eq!(reachable("nameserver ::1\n", &[]), None);
        assert_eq!(reachable("", &[]), None);
    }
}
