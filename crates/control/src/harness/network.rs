//! `http` and `tcp` tests: from the host, over the test server's address.

use std::net::SocketAddr;

use kiln_api::error::chain;
use kiln_engine::Observed;
use kiln_model::suite::{TestKind, TextMatch};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::expect::Expect;
use crate::http::{self, Ask};

fn address(server: &Observed, port: u16) -> Result<SocketAddr, String> {
    let address = server.address.ok_or("the server has no address")?;
    Ok(SocketAddr::from((address, port)))
}

pub(super) async fn http(server: &Observed, expect: Expect<'_>, test: &TestKind) -> Result<(), String> {
    let TestKind::Http { port, path, method, request_headers, status, headers, body } = test else {
        return Err("this is not an http test".to_owned());
    };
    let ask = Ask { address: address(server, *port)?, method, path, headers: request_headers };
    let answer = http::ask(ask).await.map_err(|e| chain(&e))?;
    if answer.status != *status {
        let seen = expect.shown(&String::from_utf8_lossy(&answer.body));
        return Err(format!("expected {method} {path} to answer status {status}, saw {} with {seen}", answer.status));
    }
    for (name, expected) in headers {
        let seen = answer.headers.get(name).ok_or_else(|| format!("expected a header `{name}`, saw none"))?;
        expect.text(&format!("header `{name}`"), seen.as_bytes(), expected)?;
    }
    expect.texts("the body", &answer.body, body)
}

pub(super) async fn tcp(
    (server, expect): (&Observed, Expect<'_>),
    port: u16,
    send: Option<&str>,
    expected: Option<&TextMatch>,
) -> Result<(), String> {
    let address = address(server, port)?;
    let failed = |what: &str, e: std::io::Error| format!("could not {what} {address}: {e}");
    let mut stream = TcpStream::connect(address).await.map_err(|e| failed("connect to", e))?;
    stream.write_all(send.unwrap_or_default().as_bytes()).await.map_err(|e| failed("send to", e))?;
    let Some(expected) = expected else { return Ok(()) };
    let mut seen = Vec::new();
    let mut part = vec![0; 16 << 10];
    loop {
        let read = stream.read(&mut part).await.map_err(|e| failed("read from", e))?;
        seen.extend_from_slice(&part[..read]);
        let checked = expect.text("the answer", &seen, expected);
        if checked.is_ok() || read == 0 || seen.len() >= http::MAX_BODY {
            return checked;
        }
    }
}
