//! Whom the kernel ends where the host has no memory left (`oom_score_adj`, proc(5)): who serves and heals comes last, and
//! what it starts for others comes as it would without.

use std::{
    fs, io,
    sync::atomic::{AtomicI16, Ordering},
};

use crate::error::{Attempt as _, Result};

/// Not -1000: a process that alone fills the host is still ended.
const PROTECTED: i16 = -900;
/// What is added for others where this process has no right to lower its own: as if each took half of the memory.
const RAISED: i16 = 500;
const HIGHEST: i16 = 1000;
const OWN: &str = "/proc/self/oom_score_adj";

/// What processes started for others get, once this one is [protected](protect); [`NONE`] before.
static ORDINARY: AtomicI16 = AtomicI16::new(NONE);
const NONE: i16 = i16::MIN;

/// Makes this process, and those that it starts, ones that are ended after servers, which [`spawn`](crate::spawn) starts from
/// now on without the protection. Without CAP_SYS_RESOURCE servers are made ones that are ended before all others.
pub fn protect() -> Result<()> {
    let text = fs::read_to_string(OWN).attempt(|| format!("read {OWN}"))?;
    let before: i16 = text.trim().parse().unwrap_or_default();
    // First, so that another thread starts nothing that is protected.
    ORDINARY.store(before.max(0), Ordering::SeqCst);
    if before <= PROTECTED {
        return Ok(());
    }
    match fs::write(OWN, PROTECTED.to_string()) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            ORDINARY.store((before + RAISED).min(HIGHEST), Ordering::SeqCst);
            Ok(())
        }
        lowered => lowered.attempt(|| format!("write {OWN}")),
    }
}

/// Takes the protection from a program that was started, for example somebody's script.
pub fn expose(pid: u32) -> Result<()> {
    let Some(ordinary) = ordinary() else { return Ok(()) };
    let path = format!("/proc/{pid}/oom_score_adj");
    fs::write(&path, ordinary.to_string()).attempt(|| format!("write {path}"))
}

/// What a process that is not protected gets, where this one is.
pub(crate) fn ordinary() -> Option<i16> {
    Some(ORDINARY.load(Ordering::SeqCst)).filter(|ordinary| *ordinary != NONE)
}
