//! URLs and addresses: enough to know that they name a host, in a normal form.

use std::net::Ipv6Addr;

/// A URL's normal form: scheme and host in lower case, the rest as written. None where it is no absolute URL with a host.
pub(super) fn url(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let letters = scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let good = scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && letters && scheme.len() <= 32;
    let plain = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
    if !good || text.len() > 2048 || !rest.chars().all(plain) {
        return None;
    }
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user, place) = authority.rsplit_once('@').map_or(("", authority), |(user, place)| (user, place));
    let at = if authority.contains('@') { "@" } else { "" };
    let (name, port) = match place.strip_prefix('[') {
        Some(inner) => {
            let (inner, port) = inner.split_once(']')?;
            (format!("[{}]", inner.parse::<Ipv6Addr>().ok()?), port)
        }
        None => {
            let (name, port) = place.split_at(place.find(':').unwrap_or(place.len()));
            (host(name)?, port)
        }
    };
    let port_is_good = port.is_empty() || port.strip_prefix(':').is_some_and(|port| self::port(port).is_some());
    port_is_good.then(|| format!("{}://{user}{at}{name}{port}{path}", scheme.to_ascii_lowercase()))
}

/// The normal form of `host:port`.
pub(super) fn address(text: &str) -> Option<String> {
    let (name, port) = text.rsplit_once(':')?;
    let port = self::port(port)?;
    let name = match name.strip_prefix('[') {
        Some(inner) => format!("[{}]", inner.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => host(name)?,
    };
    Some(format!("{name}:{port}"))
}

fn port(text: &str) -> Option<u16> {
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().filter(|port| *port > 0)
}

/// A host's name or IPv4 address, in lower case.
fn host(text: &str) -> Option<String> {
    let label = |part: &str| {
        let letters = part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&part.len()) && letters && !part.starts_with('-') && !part.ends_with('-')
    };
    let good = text.len() <= 253 && text.split('.').all(label);
    good.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_urls_need_a_host_and_get_a_normal_form() {
        for (text, normal) in [
            ("HTTPS://Api.Example:8443/V1?a=B#c", "https://api.example:8443/V1?a=B#c"),
            ("postgres://user:Pw@db/x", "postgres://user:Pw@db/x"),
            ("http://[::0001]:80/", "http://[::1]:80/"),
        ] {
            assert_eq!(url(text).as_deref(), Some(normal));
        }
        for text in ["", "api.example", "http://", "http:///x", "http://a b/", "http://a:0/", "1http://a", "http://a:b"]
        {
            assert_eq!(url(text), None, "{text}");
        }
    }

    #[test]
    fn unit_addresses_are_a_host_and_a_port() {
        for (text, normal) in
            [("DB.example:5432", "db.example:5432"), ("[FE80::1]:1", "[fe80::1]:1"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(address(text).as_deref(), Some(normal));
        }
        for text in ["db", ":1", "db:", "db:0", "db:70000", "::1:80", "[x]:1", "a b:1", "db:+1"] {
            assert_eq!(address(text), None, "{text}");
        }
    }
}
