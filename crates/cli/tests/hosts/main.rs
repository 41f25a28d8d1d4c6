//! Two hosts: two state directories with daemons of their own, and a real registry between them.

mod audited;
mod closed;
mod debian;
#[path = "../../../image/src/registry/docker.rs"]
mod docker;
mod drilling;
mod ending;
mod host;
mod pipeline;
mod promoting;
mod rebasing;
mod revoking;
mod said;
mod two;
mod ubuntu;
