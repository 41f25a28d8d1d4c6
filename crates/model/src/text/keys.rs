//! The keys a table may have, and what somebody probably meant who wrote another one.

/// The keys a table may have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Keys {
    /// What the table is, in words: `a service`.
    pub of: &'static str,
    /// Every key, in the order in which documentation shows them.
    pub valid: &'static [&'static str],
}

/// What other tools call our keys. The first valid one is suggested.
const OTHER_WORDS: &[(&str, &[&str])] = &[
    ("add", &["copy"]),
    ("apt", &["packages"]),
    ("args", &["arguments"]),
    ("argv", &["command"]),
    ("chmod", &["mode"]),
    ("chown", &["owner"]),
    ("cmd", &["command", "run"]),
    ("code", &["exit", "status"]),
    ("cpus", &["cpu"]),
    ("cwd", &["working_directory"]),
    ("deadline", &["progress_deadline", "within"]),
    ("dest", &["to"]),
    ("destination", &["to"]),
    ("distribution", &["debian"]),
    ("entrypoint", &["command"]),
    ("env", &["environment"]),
    ("exec", &["command", "run"]),
    ("exit_code", &["exit"]),
    ("expect_status", &["status"]),
    ("expose", &["ports"]),
    ("from", &["base", "copy", "image"]),
    ("group", &["owner", "user"]),
    ("health", &["readiness", "liveness"]),
    ("health_check", &["readiness", "liveness"]),
    ("healthcheck", &["readiness", "liveness"]),
    ("instances", &["count"]),
    ("key", &["keyring"]),
    ("keys", &["keyring"]),
    ("listen_port", &["listen"]),
    ("mem", &["memory"]),
    ("name", &["image"]),
    ("net", &["network"]),
    ("owner", &["user"]),
    ("path", &["to", "http"]),
    ("ports", &["publish", "port"]),
    ("processes", &["pids"]),
    ("replicas", &["count"]),
    ("rm", &["remove"]),
    ("run", &["command"]),
    ("security", &["security_mirror"]),
    ("shell", &["run"]),
    ("src", &["copy"]),
    ("source", &["copy", "mirror"]),
    ("suite", &["debian"]),
    ("surge", &["max_surge"]),
    ("target", &["to"]),
    ("target_port", &["port"]),
    ("timeout", &["within", "time_limit", "progress_deadline", "grace"]),
    ("unavailable", &["max_unavailable"]),
    ("update", &["rollout"]),
    ("url", &["mirror", "http"]),
    ("volume", &["writable"]),
    ("volumes", &["writable"]),
    ("workdir", &["working_directory"]),
];

/// The valid word that was probably meant.
pub(crate) fn suggest<'a>(written: &str, valid: &[&'a str]) -> Option<&'a str> {
    let lower = written.to_lowercase().replace('-', "_");
    let other = OTHER_WORDS.iter().filter(|(word, _)| *word == lower).flat_map(|(_, ours)| *ours);
    let known = other.filter_map(|ours| valid.iter().find(|v| *v == ours)).next().copied();
    let near = || valid.iter().map(|v| (distance(&lower, v), *v)).filter(|(d, v)| *d <= 1.max(v.len() / 3)).min();
    known.or_else(|| near().map(|(_, v)| v))
}

/// A list of words for a sentence: `a`, `b`, `c`.
pub(crate) fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Insertions, deletions, replacements and swaps of neighbours (optimal string alignment). Long words are not compared.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(40).collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let swapped = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            let swap = if swapped { rows[i - 2][j - 2] + 1 } else { usize::MAX };
            rows[i][j] = (rows[i - 1][j] + 1).min(rows[i][j - 1] + 1).min(replaced).min(swap);
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_what_was_meant() {
        let valid = ["packages", "mirror", "environment", "copy", "to"];
        for (written, meant) in [
            ("pakages", Some("packages")),
            ("Packages", Some("packages")),
            ("miror", Some("mirror")),
            ("mirrro", Some("mirror")),
            ("env", Some("environment")),
            ("dest", Some("to")),
            ("something", None),
            ("", None),
        ] {
            assert_eq!(suggest(written, &valid), meant, "{written}");
        }
    }
}
