//! Blobs and manifests on their way to a registry (distribution-spec 1.1, "Push").
//!
//! A blob that is there is not sent; one that another repository of the registry has is mounted from there. A transfer that
//! breaks off is gone on with from where the registry says it stands. The registry checks what it got against the digest,
//! and what it says it has is checked here.

use std::{
    io::{self, Read},
    time::Duration,
};

use kiln_model::Digest;
use ureq::{Body, http::Response};

use super::{
    RegistryError, auth,
    client::{Ask, Repository, passes},
};
use crate::debian::http::HttpError;

/// A registry may ask for so long a pause, no longer.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// A blob to be sent.
pub(crate) struct Blob<'a> {
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    /// Opens it from a byte on.
    pub(crate) open: &'a (dyn Fn(u64) -> io::Result<Box<dyn Read + 'a>> + Sync),
}

/// How a blob came to be in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    /// It was there.
    There,
    /// From another repository of the registry.
    Mounted,
    /// It was sent.
    Whole,
}

/// What came of asking for a blob of another repository.
enum Mount {
    Done,
    /// An upload has begun instead.
    Begun(String),
    Refused,
}

/// How a manifest was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The registry lists what refers to an image by itself.
    pub(crate) lists_referrers: bool,
}

impl Repository {
    /// Whether the repository has this blob.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        found(self.ask(&Ask::head(self.url(&format!("blobs/{digest}")))))
    }

    /// Whether the repository has this manifest under its digest.
    pub(crate) fn has_manifest(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let accept = crate::oci::foreign::accepted();
        found(self.ask(&Ask::head(self.url(&format!("manifests/{digest}"))).header("accept", accept)))
    }

    /// Brings a blob into the repository. `elsewhere` are repositories of the registry that may have it.
    pub(crate) fn send_blob(&self, blob: &Blob<'_>, elsewhere: &[String]) -> Result<Sent, RegistryError> {
        if self.has_blob(&blob.digest)? {
            return Ok(Sent::There);
        }
        let mut session = None;
        for other in elsewhere.iter().filter(|other| **other != self.name) {
            match self.mount(&blob.digest, other)? {
                Mount::Done => return Ok(Sent::Mounted),
                Mount::Begun(upload) => session = Some(upload),
                Mount::Refused => {}
            }
        }
        self.upload(blob, session)?;
        Ok(Sent::Whole)
    }

    fn mount(&self, digest: &Digest, from: &str) -> Result<Mount, RegistryError> {
        let url = self.url(&format!("blobs/uploads/?mount={digest}&from={}", auth::encoded(from)));
        match self.ask(&Ask::post(&url)) {
            Ok(answer) if answer.status() == 201 => Ok(Mount::Done),
            Ok(answer) => Ok(Mount::Begun(self.location(&url, &answer)?)),
            // Somebody else's repository, or a registry that cannot.
            Err(RegistryError::Unauthorized { .. } | RegistryError::NotFound { .. } | RegistryError::Answer { .. }) => {
                Ok(Mount::Refused)
            }
            Err(error) => Err(error),
        }
    }

    fn upload(&self, blob: &Blob<'_>, mut session: Option<String>) -> Result<(), RegistryError> {
        let (mut pause, mut begun) = (self.limits.backoff, false);
        for _ in 1..self.limits.attempts {
            let wait = match self.attempt(blob, &mut session, begun) {
                Err(RegistryError::Http(error)) if error.is_away() => {
                    tracing::debug!(%error, "going on with the upload");
                    pause
                }
                Err(RegistryError::Answer { status, pause: asked, .. }) if passes(status) => asked.unwrap_or(pause),
                done => return done,
            };
            begun = true;
            std::thread::sleep(wait.min(MAX_PAUSE));
            pause *= 2;
        }
        self.attempt(blob, &mut session, begun)
    }

    /// Sends what is missing. `begun`: an earlier attempt may have sent a part.
    fn attempt(&self, blob: &Blob<'_>, session: &mut Option<String>, begun: bool) -> Result<(), RegistryError> {
        let mut have = 0;
        if begun && let Some(at) = session.take() {
            // An upload that the registry has forgotten is begun anew.
            if let Ok((location, there)) = self.standing(&at) {
                *session = Some(location);
                have = there.min(blob.size);
            }
        }
        let location = match session.take() {
            Some(location) => location,
            None => self.begin()?,
        };
        *session = Some(location.clone());
        let location = if have < blob.size { self.patch(blob, &location, have)? } else { location };
        *session = Some(location.clone());
        let separator = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{separator}digest={}", blob.digest);
        let answer = self.ask_once(&Ask::put(&url, &[]).header("content-type", "application/octet-stream"))?;
        self.same(&blob.digest, &answer)
    }

    fn begin(&self) -> Result<String, RegistryError> {
        let url = self.url("blobs/uploads/");
        self.location(&url, &self.ask(&Ask::post(&url))?)
    }

    /// Where an upload goes on, and how many bytes of it are there.
    fn standing(&self, location: &str) -> Result<(String, u64), RegistryError> {
        let answer = self.ask_once(&Ask::get(location))?;
        let range = answer.headers().get("range").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let last = range.trim_start_matches("bytes=").strip_prefix("0-").and_then(|last| last.parse::<u64>().ok());
        // `0-0` is also what an empty upload is.
        let there = last.filter(|last| *last > 0).map_or(0, |last| last + 1);
        Ok((self.location(location, &answer)?, there))
    }

    fn patch(&self, blob: &Blob<'_>, location: &str, have: u64) -> Result<String, RegistryError> {
        let open = || (blob.open)(have);
        let mut ask = Ask::patch(location, blob.size - have, &open).header("content-type", "application/octet-stream");
        if have > 0 {
            ask = ask.header("content-range", format!("{have}-{}", blob.size - 1));
        }
        let answer = self.ask_once(&ask)?;
        self.location(location, &answer)
    }

    /// The address that an upload goes on at.
    fn location(&self, url: &str, answer: &Response<Body>) -> Result<String, RegistryError> {
        let location = answer.headers().get("location").and_then(|value| value.to_str().ok());
        let missing =
            || RegistryError::Protocol { url: url.to_owned(), reason: "it does not say where to go on".into() };
        let target = self.resolve(url, location.ok_or_else(missing)?)?;
        match url.starts_with("https:") && !target.starts_with("https:") {
            true => {
                let reason = "it leads from TLS to plain HTTP";
                Err(RegistryError::Redirect { url: url.to_owned(), target, reason })
            }
            false => Ok(target),
        }
    }

    /// Puts a manifest under a tag or its digest.
    pub(crate) fn send_manifest(&self, at: &str, media_type: &str, bytes: &[u8]) -> Result<Taken, RegistryError> {
        let url = self.url(&format!("manifests/{at}"));
        let answer = self.ask(&Ask::put(&url, bytes).header("content-type", media_type))?;
        self.same(&Digest::of(bytes), &answer)?;
        Ok(Taken { lists_referrers: answer.headers().contains_key("oci-subject") })
    }

    /// Sends a small blob.
    pub(crate) fn send_bytes(&self, bytes: &[u8]) -> Result<(), RegistryError> {
        let open = |from| {
            let mut reader = io::Cursor::new(bytes);
            reader.set_position(from);
            Ok(Box::new(reader) as Box<dyn Read>)
        };
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64, open: &open };
        self.send_blob(&blob, &[]).map(drop)
    }

    /// What the registry says it has must be what was sent.
    fn same(&self, expected: &Digest, answer: &Response<Body>) -> Result<(), RegistryError> {
        let said = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        match said {
            Some(found) if found != expected.to_string() => Err(RegistryError::Altered {
                registry: self.endpoint.account.clone(),
                expected: *expected,
                found: found.chars().take(100).collect::<String>().escape_debug().to_string(),
            }),
            _ => Ok(()),
        }
    }
}

fn found(answer: Result<Response<Body>, RegistryError>) -> Result<bool, RegistryError> {
    match answer {
        Ok(_) => Ok(true),
        Err(RegistryError::NotFound { .. }) => Ok(false),
        Err(RegistryError::Http(HttpError::Status { status: 404, .. })) => Ok(false),
        Err(error) => Err(error),
    }
}
