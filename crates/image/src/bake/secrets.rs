//! Secrets that a step left in the image, where everybody who has the image has them.
//!
//! Looked for where a recipe's own words made the layer, not in packages of an archive, which are public. What is found is
//! named, never shown.

use std::{fs, io::Read as _};

use memchr::memmem;

use crate::layer::{Content, Kind, Layer};

/// So much of a file (bytes) is looked at: keys are small files, and tokens stand in configuration.
const LOOKED_AT: u64 = 1 << 20;
/// So many are named.
const NAMED: usize = 20;

/// What starts a secret, how long what follows is at least, and what it is.
const TOKENS: [(&[u8], usize, &str); 6] = [
    (b"AKIA", 16, "an AWS access key"),
    (b"ghp_", 36, "a GitHub token"),
    (b"github_pat_", 40, "a GitHub token"),
    (b"glpat-", 20, "a GitLab token"),
    (b"xoxb-", 20, "a Slack token"),
    (b"AGE-SECRET-KEY-1", 40, "an age key"),
];

/// A warning for each file with a secret in it.
pub(super) fn found(layer: &Layer) -> Vec<String> {
    let warning = |(path, what): (&[u8], &str)| {
        let path = String::from_utf8_lossy(path);
        format!("/{path} holds {what}: everybody who has the image has it. A fleet's secrets reach servers at launch")
    };
    let files = layer.entries().iter().filter_map(|entry| match &entry.kind {
        Kind::File(content) => Some((entry.path.as_slice(), secret(&beginning(content))?)),
        _ => None,
    });
    files.take(NAMED).map(warning).collect()
}

fn beginning(content: &Content) -> Vec<u8> {
    match content {
        Content::Bytes(bytes) => bytes.clone(),
        Content::Path { path, .. } => {
            let mut bytes = Vec::new();
            // A file that cannot be read cannot be stored either, which is said then.
            let read = fs::File::open(path).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut bytes));
            read.map(|_| bytes).unwrap_or_default()
        }
    }
}

fn secret(bytes: &[u8]) -> Option<&'static str> {
    if private_key(bytes) {
        return Some("a private key");
    }
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
    fn unit_secrets_are_told_from_words() {
        let key = |kind: &str| format!("-----BEGIN {kind}PRIVATE KEY-----\n{}\n-----END", "b3BlbnNz".repeat(10));
        for kind in ["", "RSA ", "OPENSSH ", "ENCRYPTED "] {
            assert_eq!(secret(key(kind).as_bytes()), Some("a private key"), "{kind}");
        }
        assert_eq!(secret(b"if text.startswith('-----BEGIN PRIVATE KEY-----'):"), None);
        assert_eq!(secret(b"-----BEGIN PRIVATE KEY-----\n"), None);
        assert_eq!(secret(b"-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEA"), None);
        assert_eq!(secret(b"key = AKIAIOSFODNN7EXAMPLE\n"), Some("an AWS access key"));
        assert_eq!(secret(b"MAKIAIOSFODNN7EXAMPLE"), None);
        assert_eq!(secret(format!("token: ghp_{}", "a1".repeat(18)).as_bytes()), Some("a GitHub token"));
    }
}
