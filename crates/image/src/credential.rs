//! Private keys and tokens in the bytes of a file: what they look like.

use memchr::memmem;

/// A credential that was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Credential {
    /// A private key, of any kind.
    PrivateKey,
    /// A token, in words: `a GitHub token`.
    Token(&'static str),
}

/// What starts a token, how long what follows is at least, and what it is.
const TOKENS: [(&[u8], usize, &str); 6] = [
    (b"AKIA", 16, "an AWS access key"),
    (b"ghp_", 36, "a GitHub token"),
    (b"github_pat_", 40, "a GitHub token"),
    (b"glpat-", 20, "a GitLab token"),
    (b"xoxb-", 20, "a Slack token"),
    (b"AGE-SECRET-KEY-1", 40, "an age key"),
];

impl Credential {
    /// The first one in these bytes.
    pub(crate) fn held(bytes: &[u8]) -> Option<Self> {
        if private_key(bytes) { Some(Self::PrivateKey) } else { token(bytes).map(Self::Token) }
    }

    /// In words.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::PrivateKey => "a private key",
            Self::Token(words) => words,
        }
    }
}

fn token(bytes: &[u8]) -> Option<&'static str> {
    let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-".contains(byte);
    TOKENS.iter().find_map(|(start, length, what)| {
        let holds = memmem::find_iter(bytes, start).any(|at| {
            let before = at.checked_sub(1).is_none_or(|before| !word(&bytes[before]));
            before && bytes[at + start.len()..].iter().take_while(|b| word(b)).count() >= *length
        });
        holds.then_some(*what)
    })
}

/// `-----BEGIN RSA PRIVATE KEY-----` at the beginning of a line, with something in it: programs hold the words alone.
fn private_key(bytes: &[u8]) -> bool {
    memmem::find_iter(bytes, b"-----BEGIN ").any(|at| {
        let line_begins = at == 0 || bytes[at - 1] == b'\n';
        let rest = &bytes[at..bytes.len().min(at + 100)];
        let line = rest.split(|b| *b == b'\n').next().unwrap_or_default();
        let (line, after) = (line.trim_ascii_end(), &bytes[bytes.len().min(at + line.len() + 1)..]);
        let key = line.ends_with(b"PRIVATE KEY-----") || line.ends_with(b"PRIVATE KEY BLOCK-----");
        line_begins && key && after.iter().filter(|b| b.is_ascii_alphanumeric()).take(64).count() == 64
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_credentials_are_told_from_words() {
        let held = |text: &str| Credential::held(text.as_bytes()).map(Credential::words);
        let key = |kind: &str| format!("-----BEGIN {kind}PRIVATE KEY-----\n{}\n-----END", "b3BlbnNz".repeat(10));
        for kind in ["", "RSA ", "OPENSSH ", "ENCRYPTED "] {
            assert_eq!(held(&key(kind)), Some("a private key"), "{kind}");
        }
        assert_eq!(held("if text.startswith('-----BEGIN PRIVATE KEY-----'):"), None);
        assert_eq!(held("-----BEGIN PRIVATE KEY-----\n"), None);
        assert_eq!(held("-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"), None);
        assert_eq!(held("key = AKIAIOSFODNN7EXAMPLE\n"), Some("an AWS access key"));
        assert_eq!(held("MAKIAIOSFODNN7EXAMPLE"), None);
        assert_eq!(held(&format!("token: ghp_{}", "a1".repeat(18))), Some("a GitHub token"));
    }
}
