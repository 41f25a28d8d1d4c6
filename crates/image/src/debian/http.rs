//! Files over HTTP and HTTPS: bounded, hashed while they stream, retried, resumed.
//!
//! Nothing that a server does can hang, fill the disk or leave a wrong file: sizes are known before the transfer, a
//! connection that delivers less than [`MINIMUM`] bytes within [`Limits::stall`] is given up, and a file appears under
//! its name only when its hash fits. Proxies are taken from `http_proxy`, `https_proxy`, `all_proxy` and `no_proxy`;
//! certificates are trusted as this host trusts them.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::{Duration, Instant},
};

use kiln_model::Digest;
use sha2::{Digest as _, Sha256};
use ureq::{
    Agent, Body, Proxy, http,
    tls::{Certificate, RootCerts, TlsConfig},
    unversioned::resolver::DefaultResolver,
};

use crate::proxy::Connecting;

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// No connection: name not found, refused, unreachable, TLS.
    #[error("no connection for {url}")]
    Connect {
        /// Address.
        url: String,
        /// What failed.
        #[source]
        source: Box<ureq::Error>,
    },
    /// No answer, or none that moves on.
    #[error("{url} stalled for {seconds} s")]
    Stalled {
        /// Address.
        url: String,
        /// The limit that was reached.
        seconds: u64,
    },
    /// The connection broke, or ended early.
    #[error("the transfer of {url} broke off after {received} of {expected} bytes")]
    Broken {
        /// Address.
        url: String,
        /// Bytes that came.
        received: u64,
        /// Bytes expected.
        expected: u64,
        /// What failed, if anything said so.
        #[source]
        source: Option<io::Error>,
    },
    /// An answer other than 200.
    #[error("{url} answered {status}")]
    Status {
        /// Address.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// More bytes than expected or allowed.
    #[error("{url} is larger than {limit} bytes")]
    TooLarge {
        /// Address.
        url: String,
        /// The size expected, or the limit.
        limit: u64,
    },
    /// The content is not the expected one.
    #[error("{url} has the wrong content: expected {expected}, got {actual}")]
    WrongHash {
        /// Address.
        url: String,
        /// As the signed index says.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// File.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl HttpError {
    /// Whether this says that the network or the mirror is away, rather than that it serves something wrong.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Stalled { .. } | Self::Broken { .. })
            || matches!(self, Self::Status { status, .. } if *status >= 500)
    }
    /// Whether this says that the server has no such file. Stores of objects answer 403 for what is not there.
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Status { status: 403 | 404 | 410, .. })
    }
    /// Whether the same request may go better a little later.
    fn is_passing(&self) -> bool {
        self.is_away() || matches!(self, Self::Status { status: 408 | 425 | 429, .. })
    }
}

/// Time limits of transfers.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// To connect, TLS included.
    pub connect: Duration,
    /// Without progress: for the answer to begin, and for every [`MINIMUM`] bytes of it.
    pub stall: Duration,
    /// How often in all a request is tried when the failure may pass.
    pub attempts: u32,
    /// Pause before the second attempt; doubles each time.
    pub backoff: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(30),
            attempts: 4,
            backoff: Duration::from_millis(250),
        }
    }
}

/// Bytes that must come within every [`Limits::stall`].
pub const MINIMUM: u64 = 4096;

/// What a file must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// In bytes.
    pub size: u64,
    /// SHA-256.
    pub digest: Digest,
}

/// A client with its connections.
#[derive(Debug, Clone)]
pub struct Client {
    agent: Agent,
    limits: Limits,
}

impl Client {
    /// A client with these limits, the environment's proxies and the host's trusted certificates.
    pub fn new(limits: Limits) -> Self {
        Self { agent: agent(limits, host_certificates(), REDIRECTS), limits }
    }

    /// A small file, whole.
    pub fn get(&self, url: &str, limit: u64) -> Result<Vec<u8>, HttpError> {
        self.retry(|| {
            let mut body = Vec::new();
            let answer = self.request(url, 0)?;
            accept(url, &answer)?;
            let mut transfer = Transfer { url, limits: self.limits, received: 0, expected: limit };
            transfer.copy(answer.into_body(), &mut |bytes| {
                body.extend_from_slice(bytes);
                Ok(())
            })?;
            Ok(body)
        })
    }

    /// A file of known size and hash, to `path`. An unfinished earlier transfer (`path` with `.part` added) is gone on
    /// with; two processes that want the same file wait for each other. `progress` gets the number of new bytes.
    pub fn download(
        &self,
        url: &str,
        path: &Path,
        expected: Expected,
        progress: &dyn Fn(u64),
    ) -> Result<(), HttpError> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let failed = |source| HttpError::Write { path: part.clone(), source };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&part);
        let mut file = file.map_err(failed)?;
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        if path.exists() {
            return Ok(());
        }
        let resumed = file.metadata().map_err(failed)?.len() > 0;
        let mut outcome = self.retry(|| self.fill(url, &part, &mut file, expected, progress));
        if resumed && matches!(outcome, Err(HttpError::WrongHash { .. })) {
            outcome = self.retry(|| self.fill(url, &part, &mut file, expected, progress));
        }
        match outcome {
            Ok(()) => std::fs::rename(&part, path).map_err(failed),
            Err(error) => {
                discard_unless_resumable(&part, &error).map_err(failed)?;
                Err(error)
            }
        }
    }

    /// Brings the file to its full length, from what is there, and checks its hash. Empties it if that is wrong.
    fn fill(
        &self,
        url: &str,
        part: &Path,
        file: &mut File,
        expected: Expected,
        progress: &dyn Fn(u64),
    ) -> Result<(), HttpError> {
        Filling { url, part, expected, limits: self.limits }.fill(file, progress, |have| self.request(url, have))
    }

    fn request(&self, url: &str, from: u64) -> Result<http::Response<Body>, HttpError> {
        let mut request = self.agent.get(url);
        if from > 0 {
            request = request.header("range", format!("bytes={from}-"));
        }
        request.call().map_err(|error| failed(url, error, self.limits))
    }

    fn retry<T>(&self, mut attempt: impl FnMut() -> Result<T, HttpError>) -> Result<T, HttpError> {
        let mut pause = self.limits.backoff;
        for _ in 1..self.limits.attempts {
            match attempt() {
                Err(error) if error.is_passing() => tracing::debug!(%error, "trying again"),
                outcome => return outcome,
            }
            std::thread::sleep(pause);
            pause *= 2;
        }
        attempt()
    }
}

/// Redirects of one request that are followed.
const REDIRECTS: u32 = 10;

/// A client's connections, with the proxies of the environment.
pub(crate) fn agent(limits: Limits, trusted: Vec<Certificate<'static>>, redirects: u32) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::from(trusted)).build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(limits.connect))
        .timeout_resolve(Some(limits.connect))
        .timeout_recv_response(Some(limits.stall))
        .timeout_per_read(Some(limits.stall))
        .timeout_per_write(Some(limits.stall))
        .max_redirects(redirects)
        .max_idle_connections_per_host(16)
        .max_idle_connections(16)
        .proxy(Proxy::try_from_env())
        .tls_config(tls)
        .build();
    Agent::with_parts(config, Connecting::default(), DefaultResolver::default())
}

/// Why a request got no answer.
pub(crate) fn failed(url: &str, error: ureq::Error, limits: Limits) -> HttpError {
    match error {
        ureq::Error::Timeout(limit) if !matches!(limit, ureq::Timeout::Connect | ureq::Timeout::Resolve) => {
            HttpError::Stalled { url: url.to_owned(), seconds: limits.stall.as_secs() }
        }
        source => HttpError::Connect { url: url.to_owned(), source: Box::new(source) },
    }
}

/// What this host trusts; read once, for it is some hundred certificates.
pub(crate) fn host_certificates() -> Vec<Certificate<'static>> {
    static CERTIFICATES: OnceLock<Vec<Certificate<'static>>> = OnceLock::new();
    let read = || {
        let found = rustls_native_certs::load_native_certs();
        found.certs.iter().map(|der| Certificate::from_der(der).to_owned()).collect()
    };
    CERTIFICATES.get_or_init(read).clone()
}

pub(crate) fn accept(url: &str, answer: &http::Response<Body>) -> Result<(), HttpError> {
    match answer.status().as_u16() {
        200 | 206 => Ok(()),
        status => Err(HttpError::Status { url: url.to_owned(), status }),
    }
}

/// Whether the answer goes on where the file ends.
pub(crate) fn continues(answer: &http::Response<Body>, from: u64) -> bool {
    let range = answer.headers().get("content-range").and_then(|value| value.to_str().ok()).unwrap_or_default();
    answer.status() == 206 && range.starts_with(&format!("bytes {from}-"))
}

pub(crate) fn hash_so_far(file: &mut File, size: u64) -> io::Result<(Sha256, u64)> {
    let mut hash = Sha256::new();
    file.rewind()?;
    if file.metadata()?.len() > size {
        file.set_len(0)?;
    }
    let mut buffer = vec![0; 64 << 10];
    let mut have = 0;
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((hash, have));
        }
        hash.update(&buffer[..count]);
        have += count as u64;
    }
}

/// A broken-off transfer is worth keeping; anything else is not.
pub(crate) fn discard_unless_resumable(part: &Path, error: &HttpError) -> io::Result<()> {
    let empty = std::fs::metadata(part)?.len() == 0;
    if empty || !error.is_away() { std::fs::remove_file(part) } else { Ok(()) }
}

/// A file on its way here: what is there of it is gone on with.
pub(crate) struct Filling<'a> {
    pub(crate) url: &'a str,
    pub(crate) part: &'a Path,
    pub(crate) expected: Expected,
    pub(crate) limits: Limits,
}

impl Filling<'_> {
    /// Brings the file to its full length with an answer for what is missing from a byte on, and checks its hash. Empties it if
    /// that is wrong.
    pub(crate) fn fill<E: From<HttpError>>(
        &self,
        file: &mut File,
        progress: &dyn Fn(u64),
        ask: impl FnOnce(u64) -> Result<http::Response<Body>, E>,
    ) -> Result<(), E> {
        let Self { url, part, expected, limits } = *self;
        let failed = |source| HttpError::Write { path: part.to_owned(), source };
        let (mut hash, mut have) = hash_so_far(file, expected.size).map_err(failed)?;
        if have < expected.size {
            let answer = ask(have)?;
            if have > 0 && !continues(&answer, have) {
                (hash, have) = (Sha256::new(), 0);
                file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
            }
            accept(url, &answer)?;
            let mut transfer = Transfer { url, limits, received: have, expected: expected.size };
            transfer.copy(answer.into_body(), &mut |bytes| {
                hash.update(bytes);
                progress(bytes.len() as u64);
                file.write_all(bytes).map_err(failed)
            })?;
            transfer.finish()?;
        }
        let actual = Digest::from_bytes(hash.finalize().into());
        if actual == expected.digest {
            return Ok(());
        }
        file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
        Err(HttpError::WrongHash { url: url.to_owned(), expected: expected.digest, actual }.into())
    }
}

/// One answer on its way.
pub(crate) struct Transfer<'a> {
    pub(crate) url: &'a str,
    pub(crate) limits: Limits,
    pub(crate) received: u64,
    pub(crate) expected: u64,
}

impl Transfer<'_> {
    pub(crate) fn copy(
        &mut self,
        body: Body,
        sink: &mut dyn FnMut(&[u8]) -> Result<(), HttpError>,
    ) -> Result<(), HttpError> {
        let mut reader = body.into_reader();
        let mut buffer = vec![0; 64 << 10];
        let (mut since, mut moved) = (Instant::now(), 0);
        loop {
            let count = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.broken(error)),
            };
            self.received += count as u64;
            if self.received > self.expected {
                return Err(HttpError::TooLarge { url: self.url.to_owned(), limit: self.expected });
            }
            sink(&buffer[..count])?;
            moved += count as u64;
            if moved >= MINIMUM {
                (since, moved) = (Instant::now(), 0);
            } else if since.elapsed() > self.limits.stall {
                return Err(self.stalled());
            }
        }
    }

    pub(crate) fn finish(&self) -> Result<(), HttpError> {
        if self.received == self.expected {
            return Ok(());
        }
        let (url, received, expected) = (self.url.to_owned(), self.received, self.expected);
        Err(HttpError::Broken { url, received, expected, source: None })
    }

    fn stalled(&self) -> HttpError {
        HttpError::Stalled { url: self.url.to_owned(), seconds: self.limits.stall.as_secs() }
    }

    fn broken(&self, error: io::Error) -> HttpError {
        let timed_out = error.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>());
        if error.kind() == io::ErrorKind::TimedOut || matches!(timed_out, Some(ureq::Error::Timeout(_))) {
            return self.stalled();
        }
        let (url, received, expected) = (self.url.to_owned(), self.received, self.expected);
        HttpError::Broken { url, received, expected, source: Some(error) }
    }
}
