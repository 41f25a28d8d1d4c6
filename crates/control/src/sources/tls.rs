//! Encrypted connections to registries: rustls with ring; the certificate must be good for the host's name.

use std::{path::Path, sync::Arc};

use kiln_model::config::RegistryTls;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::SourceError;

/// A file of certificates is at most this long, in bytes.
const MAX_PEM: u64 = 1 << 20;

/// What a connection needs. Files are read each time: certificates are renewed while a daemon runs.
pub(crate) async fn config(tls: &RegistryTls, directory: &Path) -> Result<Arc<ClientConfig>, SourceError> {
    let (tls, directory) = (tls.clone(), directory.to_owned());
    let made = tokio::task::spawn_blocking(move || make(&tls, &directory)).await;
    made.unwrap_or_else(|panic| Err(failed("the certificates", panic))).map(Arc::new)
}

fn failed(what: &str, reason: impl ToString) -> SourceError {
    SourceError::Tls { what: what.to_owned(), reason: reason.to_string() }
}

fn make(tls: &RegistryTls, directory: &Path) -> Result<ClientConfig, SourceError> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed("TLS", error))?
        .with_root_certificates(roots(tls, directory)?);
    let Some((certificate, key)) = &tls.identity else { return Ok(builder.with_no_client_auth()) };
    let pem = read(directory, key)?;
    let private = PrivateKeyDer::from_pem_slice(&pem).map_err(|error| failed(key, error))?;
    builder
        .with_client_auth_cert(certificates(directory, certificate)?, private)
        .map_err(|error| failed(certificate, error))
}

fn roots(tls: &RegistryTls, directory: &Path) -> Result<RootCertStore, SourceError> {
    let mut roots = RootCertStore::empty();
    match &tls.ca {
        Some(path) => {
            for certificate in certificates(directory, path)? {
                roots.add(certificate).map_err(|error| failed(path, error))?;
            }
        }
        None => {
            // One bad certificate of the host is no reason to believe none.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if roots.is_empty() {
        return Err(failed("the host's certificates", "there are none: name the registry's authority with `tls.ca`"));
    }
    Ok(roots)
}

fn certificates(directory: &Path, path: &str) -> Result<Vec<CertificateDer<'static>>, SourceError> {
    let pem = read(directory, path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let all = all.map_err(|error| failed(path, error))?;
    if all.is_empty() { Err(failed(path, "there is no certificate (PEM) in it")) } else { Ok(all) }
}

fn read(directory: &Path, path: &str) -> Result<Vec<u8>, SourceError> {
    use std::io::Read as _;
    let at = directory.join(path);
    let wrong = |error: std::io::Error| SourceError::File { path: at.display().to_string(), reason: error.to_string() };
    let file = std::fs::File::open(&at).map_err(wrong)?;
    if !file.metadata().map_err(wrong)?.is_file() {
        return Err(wrong(std::io::Error::other("it is not a plain file")));
    }
    let mut bytes = Vec::new();
    file.take(MAX_PEM).read_to_end(&mut bytes).map_err(wrong)?;
    Ok(bytes)
}

/// Encrypts a connection to a host.
pub(crate) async fn encrypt(
    config: Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    TlsConnector::from(config).connect(name, stream).await
}
