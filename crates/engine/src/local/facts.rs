//! What a program inside a server would see.

use std::{net::IpAddr, os::fd::OwnedFd};

use kiln_model::ServerId;
use kiln_runtime::Socket;

use super::LocalEngine;
use crate::{EngineError, Facts, FileStatus, Interface, Transport};

#[async_trait::async_trait]
impl Facts for LocalEngine {
    async fn link(&self, server: &ServerId, path: &str) -> Result<Option<(FileStatus, Option<String>)>, EngineError> {
        let (id, inside) = (server.clone(), path.to_owned());
        let found = self.blocking(|| format!("look at {path}"), move |runtime| runtime.link(&id, &inside)).await?;
        Ok(found.map(|(file, target)| {
            (FileStatus { mode: file.mode, uid: file.uid, gid: file.gid, size: file.size }, target)
        }))
    }

    async fn usage(&self, server: &ServerId, path: &str) -> Result<Option<u32>, EngineError> {
        let (id, inside) = (server.clone(), path.to_owned());
        self.blocking(|| format!("see how full {path} is"), move |runtime| runtime.usage(&id, &inside)).await
    }

    async fn kernel_parameter(&self, server: &ServerId, name: &str) -> Result<Option<String>, EngineError> {
        let (id, wanted) = (server.clone(), name.to_owned());
        let action = || format!("read the kernel parameter {name}");
        self.blocking(action, move |runtime| runtime.kernel_parameter(&id, &wanted)).await
    }

    async fn interfaces(&self, server: &ServerId) -> Result<Vec<Interface>, EngineError> {
        let id = server.clone();
        let action = || format!("list the interfaces of {server}");
        let found = self.blocking(action, move |runtime| runtime.interfaces(&id)).await?;
        let interface =
            |found: kiln_runtime::Interface| Interface { name: found.name, mtu: found.mtu, addresses: found.addresses };
        Ok(found.into_iter().map(interface).collect())
    }

    async fn socket(&self, server: &ServerId, family: IpAddr, transport: Transport) -> Result<OwnedFd, EngineError> {
        let id = server.clone();
        let kind = match transport {
            Transport::Tcp => Socket::Tcp,
            Transport::Udp => Socket::Udp,
        };
        let action = || format!("make a socket in the network of {server}");
        self.blocking(action, move |runtime| runtime.socket(&id, family, kind)).await
    }
}
