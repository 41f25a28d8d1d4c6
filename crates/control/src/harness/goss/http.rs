//! Requests from inside a server's network, as goss sends them (goss, `system/http.go`): redirects are followed, ten at most.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Bytes, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use kiln_model::goss::{Http, Value};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Eyes, MAX_BYTES, Seen, nothing};
use crate::http::AbortOnDrop;

const ALL: [&str; 3] = ["status", "Headers", "Body"];
/// So many answers are looked at until one is no redirect.
const MAX_HOPS: usize = 10;

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Vec<u8>,
}

/// A request on its way through redirects.
struct Hop {
    url: Uri,
    method: Method,
    body: Bytes,
}

impl Eyes<'_> {
    pub(super) async fn http(self, request: &Http) -> Seen {
        let limit = kiln_model::duration::format(request.timeout);
        let asked = tokio::time::timeout(request.timeout, self.follow(request)).await;
        match asked.unwrap_or_else(|_| Err(format!("there was no answer within {limit}"))) {
            Err(reason) => nothing(&ALL, &reason),
            Ok(answer) => Seen::from([
                ("status", Ok(Value::Int(answer.status.as_u16().into()))),
                ("Headers", Ok(Value::Text(headers(&answer.headers)))),
                ("Body", Ok(Value::Text(String::from_utf8_lossy(&answer.body).into_owned()))),
            ]),
        }
    }

    async fn follow(self, request: &Http) -> Result<Answer, String> {
        let method = request.method.parse().map_err(|_| format!("`{}` is not a method", request.method))?;
        let mut hop = Hop { url: url(&request.url)?, method, body: Bytes::from(request.body.clone()) };
        for _ in 0..MAX_HOPS {
            let answer = self.send(request, &hop).await?;
            let location = answer.headers.get(header::LOCATION).and_then(|value| value.to_str().ok());
            match location.filter(|_| answer.status.is_redirection() && !request.no_redirects) {
                None => return Ok(answer),
                Some(location) => hop = next(&hop, answer.status, location)?,
            }
        }
        Err(format!("it was redirected more than {MAX_HOPS} times"))
    }

    async fn send(self, request: &Http, hop: &Hop) -> Result<Answer, String> {
        let host = hop.url.host().ok_or_else(|| format!("`{}` names no host", hop.url))?;
        let encrypted = hop.url.scheme_str() == Some("https");
        let port = hop.url.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let (to, at) = match &request.proxy {
            None => (host.to_owned(), port),
            Some(proxy) => proxy_of(proxy)?,
        };
        let mut stream = self.connect(&to, at).await?;
        if encrypted && request.proxy.is_some() {
            tunnel(&mut stream, host, port).await?;
        }
        let whole = request.proxy.is_some() && !encrypted;
        let message = message(request, hop, whole)?;
        match encrypted {
            true => {
                let name = host.trim_start_matches('[').trim_end_matches(']');
                exchange(self.encrypt(request, name, stream).await?, message).await
            }
            false => exchange(stream, message).await,
        }
    }
}

fn url(text: &str) -> Result<Uri, String> {
    let url: Uri = text.parse().map_err(|_| format!("`{text}` is not an address"))?;
    match url.scheme_str() {
        Some("http" | "https") => Ok(url),
        _ => Err(format!("`{text}` begins with neither http:// nor https://")),
    }
}

fn proxy_of(text: &str) -> Result<(String, u16), String> {
    let url = url(text)?;
    let host = url.host().filter(|_| url.scheme_str() == Some("http"));
    let host = host.ok_or_else(|| format!("`{text}` is not the address of a proxy: it begins with http://"))?;
    Ok((host.to_owned(), url.port_u16().unwrap_or(80)))
}

/// Asks a proxy for a way through (RFC 9110, section 9.3.6).
async fn tunnel(stream: &mut tokio::net::TcpStream, host: &str, port: u16) -> Result<(), String> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let words = |error: std::io::Error| format!("the proxy: {error}");
    let ask = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n");
    stream.write_all(ask.as_bytes()).await.map_err(words)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > 8 << 10 {
            return Err("the proxy's answer does not end".to_owned());
        }
        head.push(stream.read_u8().await.map_err(words)?);
    }
    let line = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    if line.split(' ').nth(1) == Some("200") { Ok(()) } else { Err(format!("the proxy says: {line}")) }
}

/// `whole`: a proxy is told the whole address.
fn message(request: &Http, hop: &Hop, whole: bool) -> Result<Request<Full<Bytes>>, String> {
    let path = hop.url.path_and_query().map_or("/", |path| path.as_str());
    let target = if whole { hop.url.to_string() } else { path.to_owned() };
    let mut builder = Request::builder().method(hop.method.clone()).uri(target).header(header::CONNECTION, "close");
    let given = |name: &str| request.headers.iter().any(|(there, _)| there.eq_ignore_ascii_case(name));
    if !given("host") {
        builder = builder.header(header::HOST, hop.url.authority().map_or("", |authority| authority.as_str()));
    }
    if !given("user-agent") {
        builder = builder.header(header::USER_AGENT, concat!("kiln/", env!("CARGO_PKG_VERSION")));
    }
    for (name, value) in &request.headers {
        builder = builder.header(name, value);
    }
    if let Some((user, password)) = &request.login {
        let login = STANDARD.encode(format!("{user}:{password}"));
        builder = builder.header(header::AUTHORIZATION, format!("Basic {login}"));
    }
    builder.body(Full::new(hop.body.clone())).map_err(|error| error.to_string())
}

/// Go's `net/http`: 301, 302 and 303 are asked for with GET, 307 and 308 as before.
fn next(hop: &Hop, status: StatusCode, location: &str) -> Result<Hop, String> {
    let scheme = hop.url.scheme_str().unwrap_or("http");
    let host = hop.url.authority().map_or("", |authority| authority.as_str());
    let address = match location {
        _ if location.contains("://") => location.to_owned(),
        _ if location.starts_with("//") => format!("{scheme}:{location}"),
        _ if location.starts_with('/') => format!("{scheme}://{host}{location}"),
        _ => {
            let directory = hop.url.path().rsplit_once('/').map_or("", |(directory, _)| directory);
            format!("{scheme}://{host}{directory}/{location}")
        }
    };
    let again = matches!(status.as_u16(), 307 | 308);
    let method = if again || hop.method == Method::HEAD { hop.method.clone() } else { Method::GET };
    let body = if again { hop.body.clone() } else { Bytes::new() };
    Ok(Hop { url: url(&address)?, method, body })
}

async fn exchange<S>(stream: S, message: Request<Full<Bytes>>) -> Result<Answer, String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: hyper::Error| format!("the answer broke off or is not HTTP: {error}");
    let (mut sender, connection) = hyper::client::conn::http1::Builder::new()
        .title_case_headers(true)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let task = AbortOnDrop(tokio::spawn(connection));
    let answer = read(sender.send_request(message).await.map_err(broken)?).await.map_err(broken);
    drop(task);
    answer
}

async fn read(response: Response<Incoming>) -> Result<Answer, hyper::Error> {
    let (head, mut incoming) = response.into_parts();
    let mut body = Vec::new();
    while body.len() < MAX_BYTES {
        let Some(frame) = incoming.frame().await else { break };
        body.extend_from_slice(frame?.data_ref().map_or(&[][..], |data| data));
    }
    body.truncate(MAX_BYTES);
    Ok(Answer { status: head.status, headers: head.headers, body })
}

/// A line for each value, names as Go writes them, sorted.
fn headers(headers: &HeaderMap) -> String {
    let line = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        format!("{}: {}", canonical(name.as_str()), String::from_utf8_lossy(value.as_bytes()))
    };
    // Go keeps `Content-Length` and `Transfer-Encoding` out of this, the latter always.
    let mut lines: Vec<String> =
        headers.iter().filter(|(name, _)| *name != header::TRANSFER_ENCODING).map(line).collect();
    lines.sort();
    lines.join("\n")
}

/// Go's `textproto.CanonicalMIMEHeaderKey`: `Content-Type`.
fn canonical(name: &str) -> String {
    let mut upper = true;
    name.chars()
        .map(|c| {
            let out = if upper { c.to_ascii_uppercase() } else { c };
            upper = c == '-';
            out
        })
        .collect()
}
