//! Where values of a configuration come from: files, commands, ZooKeeper, etcd.
//!
//! A source is asked when a fleet is applied, and what it says is frozen: nothing that is launched later asks again, so a
//! registry that is away stops no server, no launch and no healing. Every answer is bounded ([`MAX_BYTES`] of UTF-8) and every
//! wait is limited ([`LIMIT`]); each way to fail is a [`SourceError`] of its own.
//!
//! ```text
//! file, command     of this host
//! zookeeper, etcd   registries; `dial` tries their servers one after the other, `tls` encrypts
//! watch             tells again and again what a source says
//! keeper            the sources of one group: damped, and proposed as a new release
//! ```

mod command;
mod dial;
mod error;
mod etcd;
mod file;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
pub mod keeper;
pub(crate) mod tls;
mod watch;
mod zookeeper;

use std::{path::Path, time::Duration};

use kiln_model::config::{ConfigSource, Password, Registry};

pub use self::{
    error::{Fault, SourceError},
    watch::{Watched, watch},
};

/// A value is at most this long, in bytes.
pub const MAX_BYTES: usize = 64 << 10;
/// A source must have answered within this time.
pub const LIMIT: Duration = Duration::from_secs(10);

/// What a source says now; paths are relative to `directory`. None for a value that the fleet holds itself.
pub async fn ask(source: &ConfigSource, directory: &Path) -> Result<Option<String>, SourceError> {
    let answer = match source {
        ConfigSource::Literal(_) | ConfigSource::Env(_) => return Ok(None),
        ConfigSource::File(path) => file::read(&directory.join(path)).await,
        ConfigSource::Command(command) => command::run(command, directory, LIMIT).await,
        ConfigSource::Zookeeper(registry) => zookeeper::read(registry, directory, LIMIT).await,
        ConfigSource::Etcd(registry) => etcd::read(registry, directory, LIMIT).await,
    };
    answer.map(Some)
}

/// The source in words, without anything secret: `zookeeper 127.0.0.1:2181 for /app/greeting`.
pub fn described(source: &ConfigSource) -> String {
    let registry =
        |kind, registry: &Registry| format!("{kind} {} for {}", registry.address.servers(), registry.address.path());
    match source {
        ConfigSource::Literal(_) => "the fleet".to_owned(),
        ConfigSource::Env(name) => format!("the variable {name}"),
        ConfigSource::File(path) => format!("the file {path}"),
        ConfigSource::Command(command) => format!("the command {}", command.first().map_or("", String::as_str)),
        ConfigSource::Zookeeper(of) => registry("zookeeper", of),
        ConfigSource::Etcd(of) => registry("etcd", of),
    }
}

/// A value's text: UTF-8 within the limit, without one newline at its end.
fn text(what: &str, bytes: Vec<u8>) -> Result<String, SourceError> {
    if bytes.len() > MAX_BYTES {
        return Err(SourceError::TooLarge { what: what.to_owned(), bytes: bytes.len() as u64 });
    }
    let mut text = String::from_utf8(bytes)
        .map_err(|error| SourceError::NotText { what: what.to_owned(), at: error.utf8_error().valid_up_to() })?;
    if text.ends_with('\n') {
        text.pop();
        text.truncate(text.strip_suffix('\r').map_or(text.len(), str::len));
    }
    Ok(text)
}

async fn password(password: &Password, directory: &Path) -> Result<String, SourceError> {
    match password {
        Password::Text(text) => Ok(text.clone()),
        Password::Env(name) => Err(SourceError::Unset { name: name.clone() }),
        Password::File(path) => file::read(&directory.join(path)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_one_newline_is_left_out_and_bytes_that_are_no_text_are_refused() {
        assert_eq!(text("x", b"a\n\n".to_vec()).unwrap(), "a\n");
        assert_eq!(text("x", b"a\r\n".to_vec()).unwrap(), "a");
        assert_eq!(text("x", b" a ".to_vec()).unwrap(), " a ");
        assert!(matches!(text("x", b"ab\xff".to_vec()), Err(SourceError::NotText { at: 2, .. })));
        assert!(text("x", vec![b'a'; MAX_BYTES]).is_ok());
        assert!(matches!(text("x", vec![b'a'; MAX_BYTES + 1]), Err(SourceError::TooLarge { bytes: 65_537, .. })));
    }
}
