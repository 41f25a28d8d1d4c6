//! A gateway process, servers to put behind it, and clients that look at every byte.

pub mod load;
pub mod nginx;
pub mod web;
pub mod wire;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kiln_gateway::{
    client::{GatewayClient, Listeners},
    table::{Backend, Bound, Route, Routes},
};
use kiln_model::manifest::Protocol;
use tempfile::TempDir;

/// A gateway process with its own state directory. Killed when dropped.
pub struct Gateway {
    pub dir: TempDir,
    pub child: Child,
    pub client: GatewayClient,
}

impl Gateway {
    /// Started, and answering.
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let child = spawn(dir.path());
        let client = GatewayClient::connect(dir.path()).await.unwrap();
        Self { dir, child, client }
    }

    /// A further process on the same state directory, which takes over.
    pub async fn succeed(&mut self) -> Child {
        let new = spawn(self.dir.path());
        let old = std::mem::replace(&mut self.child, new);
        let pid = self.child.id();
        eventually("the new process answers", async || self.client.status().await.unwrap().pid == pid).await;
        old
    }

    /// Killed without a chance to say goodbye.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Started again with the sockets that were kept.
    pub fn start_with(&mut self, listeners: &Listeners) {
        let mut command = command(self.dir.path());
        command.arg("--inherit");
        self.child = kiln_gateway::client::start(command, listeners).unwrap();
    }

    /// Routes one port to these servers.
    pub async fn route(&self, version: u64, protocol: Protocol, servers: &[(&str, SocketAddr)]) -> u16 {
        self.bind(version, vec![route("web", 0, protocol, servers)]).await[0].bound
    }

    pub async fn bind(&self, version: u64, routes: Vec<Route>) -> Vec<Bound> {
        self.client.set_routes(version, Routes { routes }).await.unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-gateway"));
    command.arg(dir).args(["--workers", "2"]);
    command
}

pub fn spawn(dir: &Path) -> Child {
    command(dir).stdin(Stdio::null()).spawn().unwrap()
}

pub fn route(group: &str, listen: u16, protocol: Protocol, servers: &[(&str, SocketAddr)]) -> Route {
    let backends = servers
        .iter()
        .map(|(server, address)| Backend { server: server.parse().unwrap(), address: *address, draining: false })
        .collect();
    Route { group: group.parse().unwrap(), port: 80, listen, protocol, backends, hold_ms: None }
}

/// Waits for something to become true, at most 10 s.
pub async fn eventually(what: &str, mut is_true: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !is_true().await {
        assert!(start.elapsed() < Duration::from_secs(10), "not within 10 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// An address nobody listens on.
pub fn nobody() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}
