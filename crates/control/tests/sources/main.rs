//! Sources against real servers: Debian's `zookeeper` and `etcd-server`, started by the tests on free loopback ports and written
//! to by other people's clients (kazoo, etcdctl); and against peers that no registry would be.
#![allow(missing_docs)]

mod certificates;
mod etcd;
mod keeping;
mod peers;
mod registry;
mod watching;
mod zookeeper;
