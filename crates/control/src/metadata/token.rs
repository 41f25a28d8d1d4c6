//! Session tokens. A token is its end and a keyed hash over that and the server it was given to, so nothing is remembered:
//! tokens stay valid when the daemon is started again, and one of another server is worth nothing.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use kiln_model::ServerId;
use sha2::Sha256;

/// Bytes of the end of a token's life, and of its hash.
const END: usize = 8;
const HASH: usize = 32;

/// Makes and checks tokens.
pub(super) struct Tokens([u8; 32]);

impl Tokens {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    fn hash(&self, server: &ServerId, generation: u64, end: [u8; END]) -> Hmac<Sha256> {
        let mut hash = Hmac::<Sha256>::new_from_slice(&self.0).expect("a key of any length will do");
        hash.update(b"kiln-metadata-token-v1\0");
        hash.update(server.as_str().as_bytes());
        hash.update(&[0]);
        hash.update(&generation.to_be_bytes());
        hash.update(&end);
        hash
    }

    /// A token for a server, good until then (Unix milliseconds).
    pub(super) fn make(&self, server: &ServerId, generation: u64, end_ms: i64) -> String {
        let end = end_ms.to_be_bytes();
        let hash = self.hash(server, generation, end).finalize().into_bytes();
        URL_SAFE_NO_PAD.encode([&end[..], &hash[..]].concat())
    }

    /// Whether a token is one of this server and still good.
    pub(super) fn holds(&self, token: &[u8], server: &ServerId, generation: u64, now_ms: i64) -> bool {
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((end, hash)) = bytes.split_first_chunk::<END>().filter(|(_, hash)| hash.len() == HASH) else {
            return false;
        };
        // The hash first, and in constant time.
        self.hash(server, generation, *end).verify_slice(hash).is_ok() && i64::from_be_bytes(*end) > now_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_a_token_is_good_for_its_server_and_its_time_only() {
        let tokens = Tokens::new([7; 32]);
        let (one, two): (ServerId, ServerId) = ("web-1".parse().unwrap(), "web-2".parse().unwrap());
        let token = tokens.make(&one, 1, 1000);
        let holds = |token: &str, server, generation, now| tokens.holds(token.as_bytes(), server, generation, now);
        assert!(holds(&token, &one, 1, 999));
        assert!(!holds(&token, &one, 1, 1000), "expired");
        assert!(!holds(&token, &two, 1, 999), "another server");
        assert!(!holds(&token, &one, 2, 999), "another launch");
        assert!(Tokens::new([7; 32]).holds(token.as_bytes(), &one, 1, 999), "after a restart");
        assert!(!Tokens::new([8; 32]).holds(token.as_bytes(), &one, 1, 999), "another state directory");
        for index in 0..token.len() {
            let mut forged = token.clone().into_bytes();
            forged[index] = if forged[index] == b'A' { b'B' } else { b'A' };
            assert!(!tokens.holds(&forged, &one, 1, 999), "{index}");
        }
        for wrong in ["", "A", "AAAA", &token[1..]] {
            assert!(!holds(wrong, &one, 1, 0), "{wrong}");
        }
    }
}
