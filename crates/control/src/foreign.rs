//! Programs of others that the daemon starts on the host: tests, commands that give values, servers of throwaway data.

/// Takes from a program that was started what protects the daemon where the host has no memory left.
pub(crate) fn expose(pid: u32) {
    if let Err(error) = kiln_sys::oom::expose(pid) {
        tracing::warn!(pid, %error, "a program is as protected from a lack of memory as the daemon");
    }
}
