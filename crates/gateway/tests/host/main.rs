//! The gateway as a process, in front of real servers on loopback. Unprivileged.

mod control;

mod http;

mod support;
mod tcp;
