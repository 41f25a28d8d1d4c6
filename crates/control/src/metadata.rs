//! The metadata service: what a server is told about itself, at 169.254.169.254, as EC2's IMDSv2 tells it.
//!
//! ```text
//! resident   who asks: a server is known by its address, which the packet filter does not let it change
//! token      session tokens: bound to the server, good for a time, valid over restarts of the daemon
//! tree       EC2's tree: meta-data, user-data, dynamic
//! own        Kiln's tree: /kiln/v1/
//! live       live keys of that tree, with a long poll
//! identity   signed identity documents and tokens, and the key set that verifies them
//! limits     how much one server may ask
//! listen     connections
//! ```
//!
//! It has a thread of its own, so that work of the daemon does not delay answers. A server sees nothing of another: every
//! answer is made from the facts of the address that the connection came from, and a token is bound to that server.

pub mod identity;
mod limits;
mod listen;
mod live;
mod own;
mod resident;
mod respond;
mod token;
mod tree;

use std::{net::Ipv4Addr, sync::Arc};

pub use self::{
    identity::Identity,
    listen::{ListenError, Listener},
    resident::{LocalResidents, Resident, Residents},
};
use crate::Control;

/// What the service answers from.
pub struct Metadata {
    residents: resident::Known,
    tokens: token::Tokens,
    identity: Arc<Identity>,
    limits: limits::Limits,
    control: Control,
    /// Told of every configuration key that a test server reads.
    reads: Reads,
    gateway: Ipv4Addr,
}

/// Is told which configuration key of which image a test server has read.
pub type Reads = Arc<dyn Fn(&Resident, &str) + Send + Sync>;

/// Where the service runs; dropping it ends the service.
pub struct Running {
    ending: tokio::sync::watch::Sender<bool>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Metadata {
    /// Answers on a listener until the result is dropped.
    pub fn start(
        listener: Listener,
        residents: Arc<dyn Residents>,
        identity: Arc<Identity>,
        control: Control,
        reads: Reads,
    ) -> std::io::Result<Running> {
        let metadata = Arc::new(Self {
            residents: resident::Known::new(residents),
            tokens: token::Tokens::new(identity.derive(b"metadata tokens")),
            identity,
            limits: limits::Limits::default(),
            control,
            reads,
            gateway: listener.gateway,
        });
        let (ending, ended) = tokio::sync::watch::channel(false);
        let threads = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("metadata".to_owned()).spawn(move || {
            threads.block_on(listen::serve(metadata, listener, ended));
        })?;
        Ok(Running { ending, thread: Some(thread) })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.ending.send_replace(true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("the metadata service ended in a panic");
        }
    }
}
