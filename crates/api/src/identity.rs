//! `GET /v1/jwks`: the keys that verify what servers show to others to say who they are.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Keys that verify identity tokens (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JwkSet {
    /// The keys.
    pub keys: Vec<Jwk>,
}

/// A public Ed25519 key (RFC 8037).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Jwk {
    /// `OKP`.
    pub kty: String,
    /// `Ed25519`.
    pub crv: String,
    /// `EdDSA`.
    pub alg: String,
    /// `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// The key's id, as in a token's header.
    pub kid: String,
    /// The key, 32 bytes in base64url.
    pub x: String,
}
