//! What the fuzz targets call of the registry's parsers.

use super::{Registries, auth, credentials, pages, referrers};

/// A list of what refers to an image, kept under a tag.
pub(crate) fn referrers(bytes: &[u8]) {
    drop(referrers::listed_in(bytes));
}

/// A challenge, where the next page is, a token server's answer, the two files of settings, and the name of an image.
pub(crate) fn settings(text: &str) {
    drop(auth::challenge(text));
    pages::next_in(text);
    drop(serde_json::from_str::<auth::Token>(text).map(auth::Token::text));
    drop(toml::from_str::<Registries>(text).map(|registries| registries.endpoints("docker.io")));
    credentials::read_all(text);
    if let Ok(source) = text.parse::<kiln_model::oci::OciSource>() {
        assert_eq!(source.to_string().parse(), Ok(source));
    }
}
