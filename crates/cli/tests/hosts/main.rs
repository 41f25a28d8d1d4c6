//! Two hosts: two state directories with daemons of their own, and a real registry between them.

mod closed;
#[path = "../../../image/src/registry/docker.rs"]
mod docker;
mod host;
mod revoking;
mod two;
