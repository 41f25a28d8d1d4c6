//! Whether the external services that a new server needs answer: part of its readiness.
//!
//! They are asked from this host, which servers' traffic leaves through: a service that is down, or an address that leads
//! nowhere, is found here. What only a server's own place in the network could see is the services' own readiness to find.

use std::{
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use kiln_model::{
    FrozenConfig, ImageManifest,
    config::{ConfigValue, Frozen},
};
use tokio::time::{Instant, sleep};

use crate::throwaway::{Kind, answers};

/// A bound service must answer within this time after a server's own services are ready.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// One attempt.
const ATTEMPT: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(200);

/// A service that must answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Bound {
    name: String,
    kind: Option<Kind>,
    place: Result<(String, u16), &'static str>,
}

/// The bindings of an image whose answer is waited for, and where this configuration leads them.
pub(crate) fn needed(manifest: &ImageManifest, config: Option<&FrozenConfig>) -> Vec<Bound> {
    let wanted = manifest.bindings.iter().filter(|(_, binding)| binding.wait);
    let bound = wanted.map(|(name, binding)| {
        let fields = config.and_then(|config| config.bindings.get(name));
        let field = |wanted: &str| fields?.iter().find(|(key, _)| key.as_str() == wanted).map(|(_, value)| value);
        let kind = Kind::named(&binding.kind);
        let place = match (field("host"), field("port")) {
            (Some(Frozen::Value(ConfigValue::Text(host))), Some(Frozen::Value(ConfigValue::Integer(port)))) => {
                u16::try_from(*port).map(|port| (host.clone(), port)).map_err(|_| "its port is not one")
            }
            _ => Err("its configuration has no host and port"),
        };
        Bound { name: name.to_string(), kind, place }
    });
    bound.collect()
}

/// Waits until every one has answered once, or says which has not.
pub(crate) async fn wait(all: &[Bound], within: Duration) -> Result<(), String> {
    futures::future::try_join_all(all.iter().map(|bound| wait_for(bound, within))).await.map(drop)
}

async fn wait_for(bound: &Bound, within: Duration) -> Result<(), String> {
    let failed = |seen: &str| format!("the service that `{}` is bound to does not answer: {seen}", bound.name);
    let (host, port) = bound.place.clone().map_err(failed)?;
    let end = Instant::now() + within;
    loop {
        let (kind, host) = (bound.kind, host.clone());
        let asked = tokio::task::spawn_blocking(move || ask(kind, &host, port)).await;
        let Err(seen) = asked.unwrap_or_else(|panic| Err(panic.to_string())) else { return Ok(()) };
        if Instant::now() + PAUSE > end {
            let within = kiln_model::duration::format(within);
            return Err(failed(&format!("{seen} (tried for {within}); see whether it runs and the address is right")));
        }
        sleep(PAUSE).await;
    }
}

/// In the service's protocol where that is known, else that a connection is accepted.
fn ask(kind: Option<Kind>, host: &str, port: u16) -> Result<(), String> {
    let plain = |address: &SocketAddr| match kind {
        Some(kind) => answers(kind, *address, ATTEMPT),
        None => TcpStream::connect_timeout(address, ATTEMPT).map(drop).map_err(|error| format!("{address}: {error}")),
    };
    let addresses = (host, port).to_socket_addrs().map_err(|error| format!("{host}: {error}"))?;
    let name = host.parse::<IpAddr>().is_err();
    let addresses: Vec<_> = addresses.take(4).collect();
    if name && addresses.iter().any(|address| address.ip().is_loopback()) {
        return Err(format!("{host} leads to the loopback, which inside a server is the server itself"));
    }
    let mut seen = format!("{host} has no address");
    for address in addresses {
        match plain(&address) {
            Ok(()) => return Ok(()),
            Err(error) => seen = error,
        }
    }
    Err(seen)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, net::TcpListener};

    use kiln_model::{
        config::ConfigSchema,
        manifest::{Binding, BindingTest},
    };

    use super::*;

    fn bound(kind: &str, host: &str, port: u16, wait: bool) -> Vec<Bound> {
        let mut manifest = ImageManifest::new("web".parse().unwrap(), BTreeMap::new());
        let (fields, test) = (ConfigSchema::default(), BindingTest::Bound);
        manifest.bindings.insert("db".parse().unwrap(), Binding { kind: kind.to_owned(), fields, wait, test });
        let fields = BTreeMap::from([
            ("host".parse().unwrap(), Frozen::Value(ConfigValue::Text(host.to_owned()))),
            ("port".parse().unwrap(), Frozen::Value(ConfigValue::Integer(port.into()))),
        ]);
        let mut config = FrozenConfig::default();
        config.bindings.insert("db".parse().unwrap(), fields);
        needed(&manifest, Some(&config))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn host_a_server_waits_for_its_bound_services() {
        let limit = Duration::from_millis(600);
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = silent.local_addr().unwrap().port();
        assert_eq!(wait(&bound("smtp", "127.0.0.1", port, true), limit).await, Ok(()), "a connection is enough");
        drop(silent);
        let down = wait(&bound("postgresql", "127.0.0.1", port, true), limit).await.unwrap_err();
        assert!(down.contains("`db`") && down.contains("refused") && down.contains("tried for 600ms"), "{down}");
        assert_eq!(wait(&bound("postgresql", "127.0.0.1", port, false), limit).await, Ok(()), "nobody waits");
        let loops = wait(&bound("smtp", "localhost", port, true), limit).await.unwrap_err();
        assert!(loops.contains("localhost leads to the loopback"), "{loops}");
        let nameless = wait(&bound("redis", "no such host", 1, true), limit).await;
        assert!(nameless.is_err());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn host_a_bound_service_may_come_late() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let waiting = tokio::spawn(async move { wait(&bound("redis", "127.0.0.1", port, true), WITHIN).await });
        sleep(Duration::from_millis(500)).await;
        assert!(!waiting.is_finished());
        let child = std::process::Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .stdout(std::process::Stdio::null())
            .spawn();
        let mut child = child.unwrap();
        let answered = waiting.await.unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(answered, Ok(()));
    }
}
