//! The gateway as a process, in front of real servers on loopback. Unprivileged.

mod asleep;
mod control;
mod faults;
mod http;
mod load;
mod succession;
mod support;
mod tcp;
