//! Requests to one repository: authentication, redirects, second attempts.
//!
//! Credentials and tokens go to the origin (scheme, host and port) they are for and nowhere else: a redirect or an upload
//! address on another host gets none. From TLS nothing leads to plain HTTP.

use std::{
    fs,
    io::{self, Read},
    sync::Mutex,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kiln_model::oci::OciReference;
use ureq::{
    Agent, Body, SendBody,
    http::{Method, Request, Response, StatusCode, Uri},
};

use super::{
    Registries, RegistryError,
    auth::{self, Challenge, Token},
    credentials::{self, Credentials},
    settings::Endpoint,
};
use crate::debian::http::{self, Limits};

/// Redirects of one request that are followed.
const MAX_REDIRECTS: u32 = 5;
/// A registry may ask for so long a pause, no longer.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A registry that has everything may take so many times longer to answer: it puts large blobs in their place.
const SETTLING: u32 = 4;
/// So many bytes of an error's body are read.
const MAX_MESSAGE: u64 = 64 << 10;

/// One repository of one registry, or of a mirror of it.
pub(crate) struct Repository {
    agent: Agent,
    pub(super) limits: Limits,
    pub(super) endpoint: Endpoint,
    pub(super) name: String,
    intent: Intent,
    registries: Registries,
    authorization: Mutex<Option<String>>,
}

/// What is meant to be done with a repository: the rights that are asked for at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Intent {
    Read,
    Write,
}

impl Intent {
    fn verb(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }
    fn rights(self) -> &'static str {
        match self {
            Self::Read => "pull",
            Self::Write => "pull,push",
        }
    }
}

/// What is sent.
#[derive(Clone)]
pub(super) struct Ask<'a> {
    method: Method,
    pub(super) url: String,
    headers: Vec<(&'static str, String)>,
    content: Content<'a>,
}

/// The body of a request, which can be sent again.
#[derive(Clone, Copy)]
enum Content<'a> {
    Nothing,
    Bytes(&'a [u8]),
    /// So many bytes of a reader that is opened for each attempt.
    Stream(u64, &'a dyn Fn() -> io::Result<Box<dyn Read + 'a>>),
}

impl<'a> Ask<'a> {
    pub(super) fn get(url: impl Into<String>) -> Self {
        Self { method: Method::GET, url: url.into(), headers: Vec::new(), content: Content::Nothing }
    }
    pub(super) fn head(url: impl Into<String>) -> Self {
        Self { method: Method::HEAD, ..Self::get(url) }
    }
    pub(super) fn post(url: impl Into<String>) -> Self {
        Self { method: Method::POST, content: Content::Bytes(&[]), ..Self::get(url) }
    }
    pub(super) fn put(url: impl Into<String>, bytes: &'a [u8]) -> Self {
        Self { method: Method::PUT, content: Content::Bytes(bytes), ..Self::get(url) }
    }
    pub(super) fn patch(
        url: impl Into<String>,
        length: u64,
        open: &'a dyn Fn() -> io::Result<Box<dyn Read + 'a>>,
    ) -> Self {
        Self { method: Method::PATCH, content: Content::Stream(length, open), ..Self::get(url) }
    }
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

impl Repository {
    /// The repository at each mirror, then at the registry itself.
    pub(crate) fn with_mirrors(
        reference: &OciReference,
        registries: &Registries,
        limits: Limits,
    ) -> Result<Vec<Self>, RegistryError> {
        let endpoints = registries.endpoints(&reference.registry);
        let at = |endpoint| Self::at(endpoint, &reference.repository, Intent::Read, registries, limits);
        endpoints.into_iter().map(at).collect()
    }

    /// The repository itself, to write to it.
    pub(crate) fn to_write(
        reference: &OciReference,
        registries: &Registries,
        limits: Limits,
    ) -> Result<Self, RegistryError> {
        let endpoint = registries.endpoint(&reference.registry);
        Self::at(endpoint, &reference.repository, Intent::Write, registries, limits)
    }

    fn at(
        endpoint: Endpoint,
        name: &str,
        intent: Intent,
        registries: &Registries,
        limits: Limits,
    ) -> Result<Self, RegistryError> {
        let mut trusted = http::host_certificates();
        if let Some(path) = &endpoint.ca {
            let failed = |source| RegistryError::Settings { path: path.clone(), source };
            let pem = fs::read(path).map_err(failed)?;
            let found = ureq::tls::parse_pem(&pem).filter_map(|item| match item {
                Ok(ureq::tls::PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let before = trusted.len();
            trusted.extend(found);
            if trusted.len() == before {
                return Err(failed(std::io::Error::other("it holds no certificate in PEM form")));
            }
        }
        // Redirects are followed here, where it is known which host may see what.
        let agent = http::agent(limits, trusted, 0);
        let (authorization, registries) = (Mutex::default(), registries.clone());
        Ok(Self { agent, limits, endpoint, name: name.to_owned(), intent, registries, authorization })
    }

    /// The address of something of the repository.
    pub(super) fn url(&self, rest: &str) -> String {
        format!("{}/v2/{}/{rest}", self.endpoint.origin, self.name)
    }

    /// An address that the registry gave, absolute or relative.
    pub(super) fn resolve(&self, base: &str, location: &str) -> Result<String, RegistryError> {
        let location = location.trim();
        if location.starts_with("http://") || location.starts_with("https://") {
            return Ok(location.to_owned());
        }
        match (location.starts_with('/') && !location.starts_with("//"), origin(base)) {
            (true, Some(origin)) => Ok(format!("{origin}{location}")),
            _ => Err(RegistryError::Protocol { url: base.to_owned(), reason: "it leads to what is no address".into() }),
        }
    }

    /// Asks, with second attempts where the failure may pass. Answers of 400 and above are errors.
    pub(super) fn ask(&self, ask: &Ask<'_>) -> Result<Response<Body>, RegistryError> {
        self.good(ask, self.patiently(ask)?)
    }

    /// Asks once: a second attempt is the caller's.
    pub(super) fn ask_once(&self, ask: &Ask<'_>) -> Result<Response<Body>, RegistryError> {
        self.good(ask, self.authorized(ask)?)
    }

    fn good(&self, ask: &Ask<'_>, answer: Response<Body>) -> Result<Response<Body>, RegistryError> {
        let status = answer.status();
        match status.as_u16() {
            200..=399 => Ok(answer),
            404 => Err(RegistryError::NotFound { registry: self.endpoint.account.clone(), what: self.what(&ask.url) }),
            401 | 403 => Err(self.unauthorized(status)),
            status => {
                let pause = retry_after(&answer);
                Err(RegistryError::Answer { url: ask.url.clone(), status, message: message(answer), pause })
            }
        }
    }

    fn what(&self, url: &str) -> String {
        let start = format!("{}/v2/", self.endpoint.origin);
        url.strip_prefix(&start).unwrap_or(url).replacen("/manifests/", " ", 1).replacen("/blobs/", " ", 1)
    }

    fn unauthorized(&self, status: StatusCode) -> RegistryError {
        let why = match self.credentials() {
            Ok(Some(_)) if status == StatusCode::FORBIDDEN => "the account has no right to".to_owned(),
            Ok(Some(_)) => "it does not accept the credentials".to_owned(),
            _ => match &self.registries.credentials {
                Some(path) => format!("{} has no credentials for it; `docker login` writes some", path.display()),
                None => "there are no credentials for it".to_owned(),
            },
        };
        let (registry, repository) = (self.endpoint.account.clone(), self.name.clone());
        RegistryError::Unauthorized { registry, repository, action: self.intent.verb(), why }
    }

    /// Tries again what may pass: no connection, 408, 425, 429 and 5xx, with the pause that the registry asks for.
    fn patiently(&self, ask: &Ask<'_>) -> Result<Response<Body>, RegistryError> {
        let mut pause = self.limits.backoff;
        for _ in 1..self.limits.attempts {
            let wait = match self.authorized(ask) {
                Ok(answer) if passes(answer.status().as_u16()) => retry_after(&answer).unwrap_or(pause),
                Err(RegistryError::Http(error)) if error.is_away() => pause,
                done => return done,
            };
            std::thread::sleep(wait.min(MAX_PAUSE));
            pause *= 2;
        }
        self.authorized(ask)
    }

    /// Asks; where the registry wants to know who asks, tells it and asks again.
    fn authorized(&self, ask: &Ask<'_>) -> Result<Response<Body>, RegistryError> {
        let known = self.authorization.lock().expect("no holder panics").clone();
        let answer = self.following(ask, known.as_deref())?;
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let header = |value: &ureq::http::HeaderValue| value.to_str().ok().and_then(auth::challenge);
        let Some(challenge) = answer.headers().get_all("www-authenticate").iter().find_map(header) else {
            return Ok(answer);
        };
        let Some(authorization) = self.answer(&challenge)? else { return Ok(answer) };
        self.authorization.lock().expect("no holder panics").replace(authorization.clone());
        self.following(ask, Some(&authorization))
    }

    fn credentials(&self) -> Result<Option<Credentials>, RegistryError> {
        credentials::find(self.registries.credentials.as_deref(), &self.endpoint.account)
    }

    /// What to show for a challenge; none if there is nothing to show.
    fn answer(&self, challenge: &Challenge) -> Result<Option<String>, RegistryError> {
        let credentials = self.credentials()?;
        match (challenge, credentials) {
            (Challenge::Basic, Some(Credentials::Password { user, password })) => Ok(Some(basic(&user, &password))),
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service, scope }, credentials) => {
                let scopes = self.scopes(scope.as_deref());
                self.token(realm, service.as_deref(), &scopes, credentials).map(Some)
            }
        }
    }

    /// What a token is asked for: the rights of the intent, and those on other repositories that the registry names.
    fn scopes(&self, asked: Option<&str>) -> Vec<String> {
        let (own, rights) = (format!("repository:{}:", self.name), self.intent.rights());
        let asked = asked.unwrap_or_default().split(' ').filter(|scope| !scope.is_empty() && !scope.starts_with(&own));
        [format!("{own}{rights}")].into_iter().chain(asked.map(str::to_owned)).collect()
    }

    /// Fetches a token. The address comes from the registry, for whom the credentials are; it must be as safe as that.
    fn token(
        &self,
        realm: &str,
        service: Option<&str>,
        scopes: &[String],
        credentials: Option<Credentials>,
    ) -> Result<String, RegistryError> {
        let wrong = |reason: &str| RegistryError::Protocol { url: realm.to_owned(), reason: reason.to_owned() };
        if origin(realm).is_none() || (self.endpoint.origin.starts_with("https:") && !realm.starts_with("https:")) {
            return Err(wrong("the address for tokens is no HTTPS address"));
        }
        let service = service.map(|service| format!("&service={}", auth::encoded(service))).unwrap_or_default();
        let asked: Vec<_> = scopes.iter().map(|scope| format!("scope={}", auth::encoded(scope))).collect();
        // One query field for each; a form has one field with spaces (RFC 6749 §3.3).
        let (query, form) = (asked.join("&"), format!("scope={}", auth::encoded(&scopes.join(" "))));
        let (query, form) = (format!("{query}{service}"), format!("{form}{service}"));
        let wrong_address = |_| wrong("it is no address");
        let sent = match credentials {
            Some(Credentials::Identity(token)) => {
                let form =
                    format!("grant_type=refresh_token&client_id=kiln&{form}&refresh_token={}", auth::encoded(&token));
                let request = Request::post(realm).header("content-type", "application/x-www-form-urlencoded");
                self.agent.run(request.body(form.as_bytes()).map_err(wrong_address)?)
            }
            credentials => {
                let separator = if realm.contains('?') { '&' } else { '?' };
                let mut request = Request::get(format!("{realm}{separator}{query}"));
                if let Some(Credentials::Password { user, password }) = credentials {
                    request = request.header("authorization", basic(&user, &password));
                }
                self.agent.run(request.body(()).map_err(wrong_address)?)
            }
        };
        let answer = sent.map_err(|e| self.failed(realm, e))?;
        match answer.status().as_u16() {
            200 => {}
            401 | 403 => return Err(self.unauthorized(answer.status())),
            status => {
                let url = realm.to_owned();
                return Err(RegistryError::Answer { url, status, message: message(answer), pause: None });
            }
        }
        let mut bytes = Vec::new();
        let body = answer.into_body().into_reader();
        body.take(MAX_MESSAGE).read_to_end(&mut bytes).map_err(|_| wrong("its answer broke off"))?;
        let token: Token = serde_json::from_slice(&bytes).map_err(|_| wrong("its answer is no token"))?;
        token.text().map(|token| format!("Bearer {token}")).ok_or_else(|| wrong("its answer has no token"))
    }

    /// Sends the request and follows where it leads.
    fn following(&self, ask: &Ask<'_>, authorization: Option<&str>) -> Result<Response<Body>, RegistryError> {
        let mut url = ask.url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.send(ask, &url, authorization)?;
            let status = answer.status().as_u16();
            let redirect = matches!(status, 301 | 302 | 303 | 307 | 308);
            let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
            let (true, Some(location)) = (redirect, location) else { return Ok(answer) };
            let target = self.resolve(&url, location)?;
            if !matches!((&ask.method, status), (&Method::GET | &Method::HEAD, _) | (_, 307 | 308)) {
                let reason = "what is sent cannot be sent elsewhere in this way";
                return Err(RegistryError::Redirect { url, target, reason });
            }
            if url.starts_with("https:") && !target.starts_with("https:") {
                let reason = "it leads from TLS to plain HTTP";
                return Err(RegistryError::Redirect { url, target, reason });
            }
            url = target;
        }
        Err(RegistryError::Redirect { url: ask.url.clone(), target: url, reason: "there are too many redirects" })
    }

    fn send(&self, ask: &Ask<'_>, url: &str, authorization: Option<&str>) -> Result<Response<Body>, RegistryError> {
        let mut request = Request::builder().method(ask.method.clone()).uri(url);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some(authorization) = authorization.filter(|_| self.is_ours(url)) {
            request = request.header("authorization", authorization);
        }
        let wrong = |_| RegistryError::Protocol { url: url.to_owned(), reason: "it is no address".into() };
        let sent = match ask.content {
            Content::Nothing => self.agent.run(request.body(()).map_err(wrong)?),
            Content::Bytes(bytes) => {
                let request = self.agent.configure_request(request.body(bytes).map_err(wrong)?);
                self.agent.run(request.timeout_recv_response(Some(self.limits.stall * SETTLING)).build())
            }
            Content::Stream(length, open) => {
                let mut reader = open().map_err(|source| RegistryError::Source { source })?;
                let request = request.header("content-length", length);
                self.agent.run(request.body(SendBody::from_reader(&mut reader)).map_err(wrong)?)
            }
        };
        sent.map_err(|error| self.failed(url, error))
    }

    /// Whether an address is at the endpoint itself.
    pub(super) fn is_ours(&self, url: &str) -> bool {
        origin(url).is_some_and(|found| origin(&self.endpoint.origin).is_some_and(|own| own == found))
    }

    fn failed(&self, url: &str, error: ureq::Error) -> RegistryError {
        http::failed(url, error, self.limits).into()
    }
}

/// Scheme, host and port, as far as they decide who is spoken to.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let (scheme, authority) = (uri.scheme_str()?.to_owned(), uri.authority()?);
    let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    // A name and password in an address would be somebody's idea of credentials.
    let plain = !authority.as_str().contains('@') && matches!(scheme.as_str(), "http" | "https");
    plain.then(|| format!("{scheme}://{}:{port}", authority.host().to_ascii_lowercase()))
}

fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))
}

/// Whether the same request may go better a little later.
pub(super) fn passes(status: u16) -> bool {
    matches!(status, 408 | 425 | 429 | 500..=599)
}

/// Seconds; the other form, a date, is as good as nothing (RFC 9110 §10.2.3).
fn retry_after(answer: &Response<Body>) -> Option<Duration> {
    let seconds = answer.headers().get("retry-after")?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// The first message of an error's body, for people.
fn message(answer: Response<Body>) -> String {
    let mut bytes = Vec::new();
    if answer.into_body().into_reader().take(MAX_MESSAGE).read_to_end(&mut bytes).is_err() {
        return String::new();
    }
    let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let text = value["errors"][0]["message"].as_str().unwrap_or_default();
    text.chars().take(200).collect::<String>().escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| origin(a).is_some() && origin(a) == origin(b);
        assert!(same("https://Reg.example/v2/", "https://reg.example:443/x?y"));
        assert!(same("http://127.0.0.1:5000/a", "http://127.0.0.1:5000/b"));
        for (a, b) in [
            ("https://reg.example", "http://reg.example"),
            ("https://reg.example", "https://reg.example:444"),
            ("https://reg.example", "https://reg.example.evil"),
            ("https://reg.example", "https://reg.example@evil"),
            ("https://evil", "https://reg.example:443@evil"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
    }
}
