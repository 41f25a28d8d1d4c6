//! Encrypted connections from inside a server: what is believed are the certificates that the server itself believes.

use std::sync::Arc;

use kiln_model::goss::Http;
use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::Eyes;

/// Where distributions keep the certificates that are believed (Go, `crypto/x509/root_linux.go`).
const ROOTS: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

impl Eyes<'_> {
    pub(super) async fn encrypt(
        self,
        request: &Http,
        host: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, String> {
        let config = self.config(request).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| format!("`{host}`: {error}"))?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await.map_err(|error| error.to_string())
    }

    async fn config(self, request: &Http) -> Result<ClientConfig, String> {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match request.insecure {
            true => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anybody(provider))),
            false => builder.with_root_certificates(self.roots(request.ca_file.as_deref()).await?),
        };
        let Some((certificate, key)) = &request.client else { return Ok(builder.with_no_client_auth()) };
        let certificates = certificates(certificate, &self.pem(certificate).await?)?;
        let key = PrivateKeyDer::from_pem_slice(&self.pem(key).await?).map_err(|error| format!("{key}: {error}"))?;
        builder.with_client_auth_cert(certificates, key).map_err(|error| format!("{certificate}: {error}"))
    }

    async fn pem(self, path: &str) -> Result<Vec<u8>, String> {
        self.read(path, super::MAX_BYTES).await?.ok_or_else(|| format!("{path} is absent"))
    }

    async fn roots(self, file: Option<&str>) -> Result<RootCertStore, String> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = file {
            roots.add_parsable_certificates(certificates(path, &self.pem(path).await?)?);
            return Ok(roots);
        }
        for path in ROOTS {
            if let Some(bytes) = self.read(path, super::MAX_BYTES).await? {
                roots.add_parsable_certificates(certificates(path, &bytes)?);
                break;
            }
        }
        Ok(roots)
    }
}

fn certificates(path: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    all.map_err(|error| format!("{path}: {error}"))
}

/// `allow-insecure`: whoever answers is believed.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
