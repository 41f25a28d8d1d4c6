//! A number that an endpoint tells: asked from the host, over plain HTTP, within a time and a size.
//!
//! Redirects are not followed: whoever is asked is who the fleet names. An answer that is not one number that a load can be is
//! an error in words, and nothing is taken away for it.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use jiff::Timestamp;
use kiln_model::{
    exposition::{self, NoNumber},
    fleet::{Endpoint, Metric},
};
use tokio::{net::lookup_host, time::timeout};

use crate::http::{self, Answer, Ask, HttpError, MAX_BODY};

/// Name, connection, answer: all within this time.
const LIMIT: Duration = Duration::from_secs(2);
/// So many addresses of a name are tried.
const ADDRESSES: usize = 4;

/// Why an endpoint told no number.
#[derive(Debug, thiserror::Error)]
pub(super) enum Untold {
    #[error("{0} did not answer within {limit} s", limit = LIMIT.as_secs())]
    Silent(Endpoint),
    #[error("the name in {endpoint} cannot be looked up")]
    NoAddress {
        endpoint: Endpoint,
        #[source]
        source: std::io::Error,
    },
    #[error("the name in {0} has no address")]
    Nowhere(Endpoint),
    #[error("{endpoint} cannot be asked")]
    Http {
        endpoint: Endpoint,
        #[source]
        source: HttpError,
    },
    #[error("{endpoint} answered status {status}, and redirects are not followed")]
    Redirect { endpoint: Endpoint, status: u16 },
    #[error("{endpoint} answered status {status}")]
    Status { endpoint: Endpoint, status: u16 },
    #[error("the answer of {0} is too long: less than {limit} MiB is read", limit = MAX_BODY >> 20)]
    TooLong(Endpoint),
    #[error("the answer of {0} is not text")]
    NotText(Endpoint),
    #[error("{endpoint}")]
    NoNumber {
        endpoint: Endpoint,
        #[source]
        source: NoNumber,
    },
}

/// What the endpoint says now.
pub(super) async fn ask(metric: &Metric, now: Timestamp) -> Result<f64, Untold> {
    let endpoint = &metric.url;
    let answer = timeout(LIMIT, get(endpoint)).await.map_err(|_| Untold::Silent(endpoint.clone()))??;
    let text = text(endpoint, answer)?;
    let read = match &metric.metric {
        Some(selector) => exposition::sum(&text, selector, now),
        None => exposition::bare(&text),
    };
    read.map_err(|source| Untold::NoNumber { endpoint: endpoint.clone(), source })
}

async fn get(endpoint: &Endpoint) -> Result<Answer, Untold> {
    let looked = lookup_host((endpoint.host.as_str(), endpoint.port)).await;
    let found = looked.map_err(|source| Untold::NoAddress { endpoint: endpoint.clone(), source })?;
    let mut last = Untold::Nowhere(endpoint.clone());
    for address in found.take(ADDRESSES) {
        match get_at(endpoint, address).await {
            Err(source @ HttpError::Connect { .. }) => last = Untold::Http { endpoint: endpoint.clone(), source },
            Err(source) => return Err(Untold::Http { endpoint: endpoint.clone(), source }),
            Ok(answer) => return Ok(answer),
        }
    }
    Err(last)
}

async fn get_at(endpoint: &Endpoint, address: SocketAddr) -> Result<Answer, HttpError> {
    let host = match endpoint.host.contains(':') {
        true => format!("[{}]:{}", endpoint.host, endpoint.port),
        false => format!("{}:{}", endpoint.host, endpoint.port),
    };
    let accept = "text/plain;version=0.0.4, text/plain;q=0.9, */*;q=0.1".to_owned();
    let headers = BTreeMap::from([("host".to_owned(), host), ("accept".to_owned(), accept)]);
    http::ask(Ask { address, method: "GET", path: &endpoint.path, headers: &headers }).await
}

fn text(endpoint: &Endpoint, answer: Answer) -> Result<String, Untold> {
    let Answer { status, body, .. } = answer;
    let endpoint = endpoint.clone();
    match status {
        200 if body.len() >= MAX_BODY => Err(Untold::TooLong(endpoint)),
        200 => String::from_utf8(body).map_err(|_| Untold::NotText(endpoint)),
        300..=399 => Err(Untold::Redirect { endpoint, status }),
        status => Err(Untold::Status { endpoint, status }),
    }
}
