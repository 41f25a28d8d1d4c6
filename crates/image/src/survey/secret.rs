//! What must not be copied from a machine into a recipe.

use serde::Serialize;

use crate::credential::Credential;

/// Of a file that is looked into, so many bytes.
pub(super) const LOOKED_AT: usize = 256 << 10;

/// Why a file's content is not to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Secret {
    /// Not everybody on the machine may read it.
    NotForEverybody,
    /// It holds a private key.
    PrivateKey,
    /// It sets a password, a token or the like.
    Password,
}

impl Secret {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::NotForEverybody => "not everybody may read it",
            Self::PrivateKey => "it holds a private key",
            Self::Password => "it sets a password or a token",
        }
    }

    /// Looks at the mode and the beginning of a file.
    pub(super) fn of(mode: u32, beginning: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(beginning);
        // What is in doubt is not copied: the words alone are enough here.
        let names_a_key = text.contains("-----BEGIN ") && text.contains("PRIVATE KEY");
        match Credential::held(beginning) {
            Some(Credential::PrivateKey) => Some(Self::PrivateKey),
            _ if names_a_key => Some(Self::PrivateKey),
            Some(Credential::Token(_)) => Some(Self::Password),
            None if text.lines().any(sets_a_password) => Some(Self::Password),
            None => (mode & 0o004 == 0).then_some(Self::NotForEverybody),
        }
    }
}

/// `db_password = "…"`, `"api_key": "…"`, `export TOKEN=…`; not a comment, not without a value, and not `nsswitch.conf(5)`'s.
fn sets_a_password(line: &str) -> bool {
    const WORDS: [&str; 7] = ["password", "passwd", "passphrase", "secret", "token", "api_key", "apikey"];
    let line = line.trim().to_ascii_lowercase();
    if line.starts_with(['#', ';']) || line.starts_with("//") || line.len() > 4096 {
        return false;
    }
    let Some((name, value)) = line.split_once(['=', ':']).filter(|_| !line.starts_with("passwd:")) else {
        return false;
    };
    let name = name.trim().trim_matches(['"', '\'']);
    let name = name.rsplit([' ', '\t', '.']).next().unwrap_or(name);
    let value = value.trim().trim_matches(['"', '\'', ',']);
    let blank = ["", "yes", "no", "true", "false", "none", "null", "x", "*"].contains(&value)
        || value.starts_with(['$', '<', '%', '/', '[']);
    WORDS.iter().any(|word| name.ends_with(word)) && !blank
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_what_must_not_be_copied_is_seen() {
        let key = format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{}\n", "b3BlbnNz".repeat(10));
        let cases: [(u32, &str, Option<Secret>); 12] = [
            (0o644, "-----BEGIN PRIVATE KEY-----\ncut\n", Some(Secret::PrivateKey)),
            (0o644, &key, Some(Secret::PrivateKey)),
            (0o644, "id AKIAIOSFODNN7EXAMPLE\n", Some(Secret::Password)),
            (0o644, "-----BEGIN CERTIFICATE-----\n", None),
            (0o640, "plain\n", Some(Secret::NotForEverybody)),
            (0o644, "a = 1\ndb_password = \"hunter2\"\n", Some(Secret::Password)),
            (0o644, "export API_TOKEN=abc\n", Some(Secret::Password)),
            (0o644, "  \"client_secret\": \"abc\",\n", Some(Secret::Password)),
            (0o644, "# password = example\n", None),
            (0o644, "PermitEmptyPasswords: no\npassword=\n", None),
            (0o644, "password = ${DB_PASSWORD}\n", None),
            (0o644, "passwd:         files systemd\n", None),
        ];
        for (mode, text, expected) in cases {
            assert_eq!(Secret::of(mode, text.as_bytes()), expected, "{text}");
        }
    }
}
