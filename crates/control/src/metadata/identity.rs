//! What servers show to others to say who they are: tokens (JWT, EdDSA) and EC2's identity document, and the key set that
//! anybody verifies them with. The key is `keys/identity.pem` of the state directory.

use std::path::Path;

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ed25519_dalek::Signer as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use kiln_api::identity::{Jwk, JwkSet};
use kiln_model::evidence::{SigningKey, key_id};
use serde_json::{Value, json};
use sha2::Sha256;

use super::{
    resident::Resident,
    tree::{REGION, ZONE, ami},
};
use crate::keys::{KeysError, own_key};

/// Seconds that an identity token is good for.
pub const TOKEN_SECONDS: i64 = 300;
/// An audience is at most this many bytes.
const MAX_AUDIENCE: usize = 256;

/// Signs what servers say of themselves.
pub struct Identity {
    key: SigningKey,
    id: String,
}

impl Identity {
    /// Reads the key of a state directory, or makes it.
    pub fn open(state_dir: &Path) -> Result<Self, KeysError> {
        let key = own_key(&state_dir.join("keys/identity.pem"))?;
        Ok(Self { id: key_id(&key.verifying_key()), key })
    }

    /// Who issues the tokens: this state directory, by its key.
    pub fn issuer(&self) -> String {
        format!("kiln:{}", &self.id[..16])
    }

    /// A key for another purpose, which says nothing of this one.
    pub(super) fn derive(&self, purpose: &[u8]) -> [u8; 32] {
        let mut hash = Hmac::<Sha256>::new_from_slice(self.key.as_bytes()).expect("a key of any length will do");
        hash.update(purpose);
        hash.finalize().into_bytes().into()
    }

    /// The published keys.
    pub fn key_set(&self) -> JwkSet {
        let x = URL_SAFE_NO_PAD.encode(self.key.verifying_key().as_bytes());
        let [kty, crv, alg, usage] = ["OKP", "Ed25519", "EdDSA", "sig"].map(str::to_owned);
        JwkSet { keys: vec![Jwk { kty, crv, alg, usage, kid: self.id.clone(), x }] }
    }

    /// A token that says who a server is, for one audience. None for an audience that cannot be one.
    pub(super) fn token(&self, resident: &Resident, audience: &str, now_ms: i64) -> Option<String> {
        let good = !audience.is_empty()
            && audience.len() <= MAX_AUDIENCE
            && audience.bytes().all(|byte| byte.is_ascii_graphic());
        if !good {
            return None;
        }
        let now = now_ms / 1000;
        let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": self.id});
        let claims = json!({
            "iss": self.issuer(),
            "sub": resident.server,
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + TOKEN_SECONDS,
            "jti": format!("{:032x}", rand::random::<u128>()),
            "group": resident.group,
            "release": resident.release,
            "image": resident.image,
        });
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(signed.as_bytes()).to_bytes();
        Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// EC2's identity document.
    pub(super) fn document(resident: &Resident) -> String {
        let started = jiff::Timestamp::from_millisecond(resident.started_at_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let document = json!({
            "accountId": "kiln",
            "architecture": std::env::consts::ARCH,
            "availabilityZone": ZONE,
            "imageId": ami(resident),
            "instanceId": resident.server,
            "instanceType": "kiln",
            "pendingTime": started.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "privateIp": resident.address,
            "region": REGION,
            "version": "2017-09-30",
        });
        serde_json::to_string_pretty(&document).expect("plain data always serialises")
    }

    /// The document's signature: ed25519 over its bytes, in base64. The document begins with `{`, which no token does.
    pub(super) fn document_signature(&self, document: &str) -> String {
        STANDARD.encode(self.key.sign(document.as_bytes()).to_bytes())
    }
}
