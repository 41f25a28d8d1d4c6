//! Plain HTTP through a proxy of the environment, as RFC 9112 (section 3.2.2) has it: the request names the whole address.
//!
//! The client asks every proxy for a tunnel, which proxies grant for TLS. For plain HTTP most of those that stand before
//! Debian's archives (Squid, apt-cacher-ng) refuse one, and could not keep what passes through it.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ureq::{
    Error, Proxy, ProxyProtocol,
    unversioned::transport::{
        Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, TcpConnector, Transport,
    },
};

/// Connects as the client does, but for plain HTTP through an HTTP proxy.
#[derive(Debug, Default)]
pub(crate) struct Connecting {
    usual: DefaultConnector,
}

impl Connector<()> for Connecting {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, before: Option<()>) -> Result<Option<Self::Out>, Error> {
        match plain(details) {
            Some(proxy) => through(proxy, details),
            None => self.usual.connect(details, before),
        }
    }
}

/// The proxy, where the request is to be sent to it as it is.
fn plain<'a>(details: &ConnectionDetails<'a>) -> Option<&'a Proxy> {
    let proxy = details.config.proxy()?;
    let fits = !details.needs_tls() && proxy.protocol() == ProxyProtocol::Http && !proxy.is_no_proxy(details.uri);
    fits.then_some(proxy)
}

fn through(proxy: &Proxy, details: &ConnectionDetails<'_>) -> Result<Option<Box<dyn Transport>>, Error> {
    let to_proxy = ConnectionDetails {
        uri: proxy.uri(),
        addrs: details.resolver.resolve(proxy.uri(), details.config, details.timeout)?,
        config: details.config,
        request_level: details.request_level,
        resolver: details.resolver,
        now: details.now,
        timeout: details.timeout,
        current_time: details.current_time.clone(),
        run_connector: details.run_connector.clone(),
        register_shutdown: details.register_shutdown.clone(),
    };
    let connected = Connector::<()>::connect(&TcpConnector::default(), &to_proxy, None)?;
    let origin = details.uri.authority().map(|authority| format!("http://{authority}")).unwrap_or_default();
    let login = proxy.username().map(|user| {
        let login = BASE64_STANDARD.encode(format!("{user}:{}", proxy.password().unwrap_or_default()));
        format!("Proxy-Authorization: Basic {login}\r\n")
    });
    let to_be_named = |inner| Named { inner, origin, login: login.unwrap_or_default(), head: true };
    Ok(connected.map(|connection| Box::new(to_be_named(connection.boxed())) as Box<dyn Transport>))
}

/// A connection to a proxy: the head of each request gets the address of the server it is for.
#[derive(Debug)]
struct Named {
    inner: Box<dyn Transport>,
    /// `http://server:port`.
    origin: String,
    /// A header line, or nothing.
    login: String,
    /// Whether the head of a request comes next.
    head: bool,
}

impl Transport for Named {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let added = match std::mem::take(&mut self.head) {
            true => named(self.inner.buffers().output(), amount, &self.origin, &self.login)?,
            false => 0,
        };
        self.inner.transmit_output(amount + added, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}

/// Puts the origin before the path of a request's head, and the login behind its first line. Answers how many bytes that
/// added.
fn named(buffer: &mut [u8], length: usize, origin: &str, login: &str) -> Result<usize, Error> {
    let head = &buffer[..length];
    let path = head.windows(2).position(|pair| pair == b" /").map(|at| at + 1);
    let line = head.windows(2).position(|pair| pair == b"\r\n").map(|at| at + 2);
    let (Some(path), Some(line)) = (path, line.filter(|line| path.is_some_and(|path| path < *line))) else {
        return Ok(0);
    };
    let whole = [&head[..path], origin.as_bytes(), &head[path..line], login.as_bytes(), &head[line..]].concat();
    match buffer.get_mut(..whole.len()) {
        Some(place) => place.copy_from_slice(&whole),
        None => return Err(Error::Io(std::io::Error::other("the request is too long for the proxy"))),
    }
    Ok(whole.len() - length)
}

#[cfg(test)]
mod tests {
    use super::named;

    fn sent(head: &str, login: &str) -> String {
        let mut buffer = [0; 200];
        buffer[..head.len()].copy_from_slice(head.as_bytes());
        let added = named(&mut buffer, head.len(), "http://deb.debian.org", login).unwrap();
        String::from_utf8(buffer[..head.len() + added].to_vec()).unwrap()
    }

    #[test]
    fn unit_a_request_to_a_proxy_names_the_server_and_shows_the_login_to_nobody_else() {
        let asked =
            sent("GET /debian/x HTTP/1.1\r\nHost: deb.debian.org\r\n\r\n", "Proxy-Authorization: Basic eA==\r\n");
        assert_eq!(
            asked,
            "GET http://deb.debian.org/debian/x HTTP/1.1\r\nProxy-Authorization: Basic eA==\r\nHost: deb.debian.org\r\n\r\n"
        );
        assert_eq!(sent("no request\r\nGET / HTTP/1.1\r\n", ""), "no request\r\nGET / HTTP/1.1\r\n");
    }

    #[test]
    fn unit_a_request_that_does_not_fit_is_refused() {
        let head = b"GET / HTTP/1.1\r\n\r\n";
        let mut buffer = *head;
        assert!(named(&mut buffer, head.len(), "http://deb.debian.org", "").is_err());
    }
}
