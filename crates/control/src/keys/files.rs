//! Key files: read with their rights checked, written whole or not at all.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use ed25519_dalek::pkcs8::{
    DecodePrivateKey as _, DecodePublicKey as _, EncodePrivateKey as _, EncodePublicKey as _,
    spki::der::pem::LineEnding,
};
use kiln_model::evidence::{SigningKey, VerifyingKey, key_id};

use super::KeysError;

/// A key file or a list is at most this long, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A private key that only this state directory uses, made at first use.
pub(crate) fn own_key(path: &Path) -> Result<SigningKey, KeysError> {
    match read_private(path)? {
        Some(key) => Ok(key),
        None => make(path),
    }
}

/// A private key in a file of somebody's own, PKCS#8 PEM, which nobody else can read.
pub fn private_key(path: &Path) -> Result<SigningKey, KeysError> {
    read_private(path)?.ok_or_else(|| io_error("read", path, io::ErrorKind::NotFound.into()))
}

/// Makes a private key in a file that is not there yet, readable for its owner alone. Its public half, in PEM form.
pub fn make_key(path: &Path) -> Result<String, KeysError> {
    if path.exists() {
        return Err(io_error("create", path, io::ErrorKind::AlreadyExists.into()));
    }
    public_pem(&make(path)?.verifying_key(), path)
}

pub(super) fn io_error(action: &'static str, path: &Path, source: io::Error) -> KeysError {
    KeysError::Io { action, path: path.to_owned(), source }
}

pub(super) fn read(path: &Path) -> Result<Option<String>, KeysError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("open", path, source)),
    };
    let mut text = String::new();
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    read.map_err(|source| io_error("read", path, source))?;
    match text.len() as u64 <= MAX_FILE {
        true => Ok(Some(text)),
        false => Err(io_error("read", path, io::Error::other(format!("it is longer than {MAX_FILE} bytes")))),
    }
}

pub(super) fn read_private(path: &Path) -> Result<Option<SigningKey>, KeysError> {
    let Some(text) = read(path)? else { return Ok(None) };
    let mode = fs::metadata(path).map_err(|source| io_error("look at", path, source))?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(KeysError::Exposed { path: path.to_owned(), mode });
    }
    let key = SigningKey::from_pkcs8_pem(&text);
    key.map(Some).map_err(|e| KeysError::NotAKey { path: path.to_owned(), reason: e.to_string() })
}

pub(super) fn read_public(path: &Path) -> Result<VerifyingKey, KeysError> {
    let text = read(path)?.unwrap_or_default();
    VerifyingKey::from_public_key_pem(&text)
        .map_err(|e| KeysError::NotAKey { path: path.to_owned(), reason: e.to_string() })
}

/// A public key as a PEM text; `path` is where it will stand, for messages.
pub(super) fn public_pem(key: &VerifyingKey, path: &Path) -> Result<String, KeysError> {
    let pem = key.to_public_key_pem(LineEnding::LF);
    pem.map_err(|e| KeysError::NotAKey { path: path.to_owned(), reason: e.to_string() })
}

/// The files `*.pem` of a directory, sorted.
pub(super) fn pem_files(dir: &Path) -> Result<Vec<PathBuf>, KeysError> {
    let entries = fs::read_dir(dir).map_err(|source| io_error("list", dir, source))?;
    let mut paths: Vec<PathBuf> = entries
        .map(|entry| Ok(entry.map_err(|source| io_error("list", dir, source))?.path()))
        .collect::<Result<_, KeysError>>()?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "pem"));
    paths.sort();
    Ok(paths)
}

/// Makes a key and writes it, in place of one that is there.
pub(super) fn make(path: &Path) -> Result<SigningKey, KeysError> {
    let mut seed = [0; 32];
    let mut filled = 0;
    while filled < seed.len() {
        let flags = rustix::rand::GetRandomFlags::empty();
        filled += rustix::rand::getrandom(&mut seed[filled..], flags)
            .map_err(|e| io_error("draw random bytes for", path, e.into()))?;
    }
    let key = SigningKey::from_bytes(&seed);
    let pem = key
        .to_pkcs8_pem(LineEnding::LF)
        .map_err(|e| KeysError::NotAKey { path: path.to_owned(), reason: e.to_string() })?;
    write_new(path, pem.as_bytes(), 0o600)?;
    tracing::info!(key = key_id(&key.verifying_key()), path = %path.display(), "made a key");
    Ok(key)
}

/// Writes a file, whole or not at all; it is on disk when this returns.
pub(super) fn write_new(path: &Path, content: &[u8], mode: u32) -> Result<(), KeysError> {
    let partial = path.with_extension("partial");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(&partial)
        .map_err(|source| io_error("create", &partial, source))?;
    file.write_all(content).and_then(|()| file.sync_all()).map_err(|source| io_error("write", &partial, source))?;
    rename(&partial, path)
}

/// Gives a file another name; that is on disk when this returns.
pub(super) fn rename(from: &Path, to: &Path) -> Result<(), KeysError> {
    fs::rename(from, to).map_err(|source| io_error("name", to, source))?;
    let directory = to.parent().expect("key files are in a directory");
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let synced = File::open(directory).and_then(|directory| directory.sync_all());
    synced.map_err(|source| io_error("write", directory, source))
}
