//! What a step leaves behind that is no part of an image: identities, caches, logs, temporary files and leftovers of
//! package tools. They differ between two runs of the same step, or are the host's, or are only for the build.

/// What happens to a path of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Keep,
    /// It does not become part of the layer.
    Drop,
    /// It stays as an empty file: the runtime mounts over it.
    Empty,
}

/// Mount points of the runtime: they exist in every image, and nothing below them does.
pub(crate) const MOUNT_DIRECTORIES: &[(&str, u32)] =
    &[("dev", 0o755), ("proc", 0o555), ("run", 0o755), ("sys", 0o555), ("tmp", 0o1777), ("var/tmp", 0o1777)];

/// Files of the runtime: they exist in every image, empty.
pub(crate) const MOUNT_FILES: &[&str] = &["etc/hostname", "etc/hosts", "etc/resolv.conf"];

/// Directories whose files are only for the build or the machine; the directories themselves stay.
pub(crate) const CONTENT: &[&str] =
    &["var/cache/apt", "var/lib/apt/lists", "var/log", "var/cache/ldconfig", "root/.cache"];

/// Single files.
pub(crate) const FILES: &[&str] = &[
    "etc/.pwd.lock",
    "etc/group-",
    "etc/gshadow-",
    "etc/machine-id",
    "etc/passwd-",
    "etc/shadow-",
    "etc/subgid-",
    "etc/subuid-",
    "root/.bash_history",
    "root/.lesshst",
    "root/.wget-hsts",
    "var/cache/debconf/config.dat-old",
    "var/cache/debconf/templates.dat-old",
    "var/lib/dbus/machine-id",
    "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/statoverride-old",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/triggers/Lock",
    "var/lib/systemd/random-seed",
];

/// What happens to this path; `directory` says whether it is one.
pub(crate) fn verdict(path: &[u8], directory: bool) -> Verdict {
    let Ok(text) = std::str::from_utf8(path) else { return Verdict::Keep };
    let below = |dir: &str| text.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
    if MOUNT_DIRECTORIES.iter().any(|(dir, _)| below(dir)) {
        return Verdict::Drop;
    }
    if directory {
        return Verdict::Keep;
    }
    if MOUNT_FILES.contains(&text) {
        return Verdict::Empty;
    }
    let host_key = text.starts_with("etc/ssh/ssh_host_") && !below("etc/ssh/ssh_host_");
    match FILES.contains(&text) || host_key || CONTENT.iter().any(|dir| below(dir)) {
        true => Verdict::Drop,
        false => Verdict::Keep,
    }
}

/// What happens to this path between two steps, of which the second one may want what the first one left: only what the sandbox
/// itself has there is left out.
pub(crate) fn between_steps(path: &[u8]) -> Verdict {
    let Ok(text) = std::str::from_utf8(path) else { return Verdict::Keep };
    let shown = ["dev", "proc", "run", "sys"];
    if shown.iter().any(|dir| text.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'))) {
        return Verdict::Drop;
    }
    if MOUNT_FILES.contains(&text) { Verdict::Empty } else { Verdict::Keep }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_noise_is_told_from_content() {
        for (path, directory, expected) in [
            ("etc/machine-id", false, Verdict::Drop),
            ("etc/ssh/ssh_host_ed25519_key", false, Verdict::Drop),
            ("etc/ssh/sshd_config", false, Verdict::Keep),
            ("var/log/nginx", true, Verdict::Keep),
            ("var/log/nginx/access.log", false, Verdict::Drop),
            ("var/logs", false, Verdict::Keep),
            ("tmp", true, Verdict::Keep),
            ("tmp/x", true, Verdict::Drop),
            ("etc/resolv.conf", false, Verdict::Empty),
            ("var/lib/dpkg/status", false, Verdict::Keep),
            ("var/lib/dpkg/status-old", false, Verdict::Drop),
        ] {
            assert_eq!(verdict(path.as_bytes(), directory), expected, "{path}");
        }
    }
}
