//! A small hyper server. Its answer names the server and the request, so that a client can check it.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};

type Body = BoxBody<Bytes, Infallible>;

/// The server. Dropping it is killing it: its socket and its connections are gone.
pub struct Web {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub requests: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Web {
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, "127.0.0.1:0".parse().unwrap()).await
    }

    pub async fn start_at(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(accept(listener, name.to_owned(), connections.clone(), requests.clone()));
        Self { address, connections, requests, task }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

async fn accept(listener: TcpListener, name: String, connections: Arc<AtomicUsize>, requests: Arc<AtomicUsize>) {
    // Its end ends the connections.
    let mut tasks = JoinSet::new();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        connections.fetch_add(1, SeqCst);
        let counted = Counted(connections.clone());
        let (name, requests) = (name.clone(), requests.clone());
        let service = service_fn(move |request| {
            requests.fetch_add(1, SeqCst);
            let name = name.clone();
            async move { Ok::<_, Infallible>(answer(&name, request).await) }
        });
        tasks.spawn(async move {
            let _counted = counted;
            // A client may leave at any time.
            drop(http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades().await);
        });
    }
}

/// What the server says to a path: `NAME PATH`.
pub fn text(name: &str, path: &str) -> String {
    format!("{name} {path}")
}

async fn answer(name: &str, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let full = |text: Vec<u8>| Response::new(Full::new(Bytes::from(text)).boxed());
    match path.split('/').nth(1).unwrap_or_default() {
        "slow" => {
            let millis = path.rsplit('/').next().unwrap().parse().unwrap();
            tokio::time::sleep(Duration::from_millis(millis)).await;
            full(text(name, &path).into_bytes())
        }
        "echo" if *request.method() == Method::POST => {
            full(request.into_body().collect().await.unwrap().to_bytes().to_vec())
        }
        "headers" => full(format!("{:#?}", request.headers()).into_bytes()),
        "large" => full(vec![b'x'; 3 << 20]),
        "chunked" => chunked(),
        "status" => status(&path, request.method()),
        "upgrade" => upgrade(request),
        _ => full(text(name, &path).into_bytes()),
    }
}

fn chunked() -> Response<Body> {
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        for part in ["one ", "two ", "three"] {
            if sender.send(Bytes::from(part)).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    let frames =
        futures::stream::poll_fn(move |cx| receiver.poll_recv(cx).map(|part| part.map(|p| Ok(Frame::data(p)))));
    Response::new(StreamBody::new(frames).boxed())
}

fn status(path: &str, method: &Method) -> Response<Body> {
    let code: u16 = path.rsplit('/').next().unwrap().parse().unwrap();
    let text = if *method == Method::HEAD || code == 204 || code == 304 { "" } else { "a body" };
    let mut response = Response::new(Full::new(Bytes::from(text)).boxed());
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    if *method == Method::HEAD {
        response.headers_mut().insert("content-length", "6".parse().unwrap());
    }
    response.headers_mut().insert("connection", "x-hop".parse().unwrap());
    response.headers_mut().insert("x-hop", "1".parse().unwrap());
    response
}

/// Speaks `shout` after the switch: every byte comes back in capitals.
fn upgrade(mut request: Request<Incoming>) -> Response<Body> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "shout".parse().unwrap());
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = TokioIo::new(hyper::upgrade::on(&mut request).await.unwrap());
        let mut buffer = [0; 1024];
        while let Ok(length @ 1..) = stream.read(&mut buffer).await {
            buffer.make_ascii_uppercase();
            if stream.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    });
    response
}
