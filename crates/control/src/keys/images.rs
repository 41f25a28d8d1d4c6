//! Images that are never launched again.
//!
//! The list only grows. A line is added by writing the whole list anew and renaming it over the old one, so that whoever reads it
//! sees all of one of the two.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kiln_model::{ImageDigest, ImageName, Reason};

use super::{
    Keys, KeysError,
    files::{read, write_new},
};

/// What is said of an image where nobody gave a reason.
const UNSAID: &str = "nobody wrote down why";

impl Keys {
    /// Launches an image never again on this host. False if it was revoked already: the first reason stands.
    pub fn revoke_image(
        &self,
        image: &ImageDigest,
        name: &ImageName,
        reason: &Reason,
        now: Timestamp,
    ) -> Result<bool, KeysError> {
        let _lock = self.lock()?;
        if self.revoked_images()?.contains_key(image) {
            return Ok(false);
        }
        let path = self.dir.join("revoked");
        let mut text = read(&path)?.unwrap_or_default();
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text += &format!("{image} # {name}, {}: {reason}\n", now.strftime("%Y-%m-%dT%H:%M:%SZ"));
        write_new(&path, text.as_bytes(), 0o644)?;
        tracing::warn!(%image, %name, %reason, "the image was revoked");
        Ok(true)
    }

    /// The images that are never launched again, and why.
    pub fn revoked_images(&self) -> Result<BTreeMap<ImageDigest, String>, KeysError> {
        let path = self.dir.join("revoked");
        let Some(text) = read(&path)? else { return Ok(BTreeMap::new()) };
        let mut revoked = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let (digest, why) = line.split_once('#').unwrap_or((line, ""));
            if digest.trim().is_empty() {
                continue;
            }
            let wrong = |error: kiln_model::digest::InvalidDigest| KeysError::NotADigest {
                path: path.clone(),
                line: number + 1,
                reason: error.to_string(),
            };
            let why = if why.trim().is_empty() { UNSAID } else { why.trim() };
            revoked.entry(digest.trim().parse().map_err(wrong)?).or_insert_with(|| why.to_owned());
        }
        Ok(revoked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_a_revoked_image_stays_revoked_for_the_first_reason() {
        let dir = tempfile::tempdir().unwrap();
        let keys = Keys::open(dir.path()).unwrap();
        let image = |n: u8| ImageDigest(kiln_model::Digest::of(&[n]));
        let revoke = |n, why: &str| {
            let (name, reason) = ("shop".parse().unwrap(), why.parse().unwrap());
            keys.revoke_image(&image(n), &name, &reason, Timestamp::UNIX_EPOCH).unwrap()
        };
        std::fs::write(dir.path().join("keys/revoked"), image(9).to_string()).unwrap();
        assert!(revoke(1, "a hole # and more"));
        assert!(!revoke(1, "another reason"));
        assert!(revoke(2, "a wrong price"));
        let revoked = keys.revoked_images().unwrap();
        assert_eq!(revoked[&image(1)], "shop, 1970-01-01T00:00:00Z: a hole # and more");
        assert_eq!(revoked[&image(2)], "shop, 1970-01-01T00:00:00Z: a wrong price");
        assert_eq!(revoked[&image(9)], UNSAID);
        assert!(!dir.path().join("keys/revoked.partial").exists());
    }
}
