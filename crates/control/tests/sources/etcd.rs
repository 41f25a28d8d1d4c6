//! What etcd says, and everything it may say instead.

use std::path::Path;

use kiln_control::sources::{SourceError, ask};
use kiln_model::config::{ConfigSource, Registry, RegistryTls};

use crate::{
    certificates,
    registry::{Etcd, login, tls},
};

async fn read(source: &ConfigSource) -> Result<String, SourceError> {
    ask(source, Path::new("/")).await.map(Option::unwrap)
}

#[tokio::test]
async fn host_etcd_values_are_read_and_every_refusal_has_its_name() {
    let mut etcd = Etcd::new();
    etcd.control(&["put", "/app/greeting", "hello"]);
    etcd.control(&["put", "/app/empty", ""]);
    etcd.put_file("/app/binary", b"a\xff");
    etcd.put_file("/app/large", &vec![b'x'; (2 << 20) - 256]);
    etcd.put_file("/app/just", &vec![b'y'; 64 << 10]);
    assert_eq!(read(&etcd.source("/app/greeting")).await.unwrap(), "hello");
    assert_eq!(read(&etcd.source("/app/empty")).await.unwrap(), "");
    assert_eq!(read(&etcd.source("/app/just")).await.unwrap().len(), 64 << 10);
    let missing = read(&etcd.source("/app")).await.unwrap_err();
    assert!(matches!(missing, SourceError::Missing { .. }), "{missing}");
    let binary = read(&etcd.source("/app/binary")).await.unwrap_err();
    assert!(matches!(binary, SourceError::NotText { at: 1, .. }), "{binary}");
    let large = read(&etcd.source("/app/large")).await.unwrap_err();
    assert!(matches!(large, SourceError::TooLarge { .. }), "{large}");

    for command in [
        &["user", "add", "root:top"][..],
        &["user", "add", "kiln:right"],
        &["role", "add", "reader"],
        &["role", "grant-permission", "reader", "read", "/app/greeting"],
        &["user", "grant-role", "kiln", "reader"],
        &["auth", "enable"],
    ] {
        etcd.control(command);
    }
    let with = |user: &str, password: &str, key: &str| {
        ConfigSource::Etcd(Registry { login: login(user, password), ..etcd.registry(key) })
    };
    assert_eq!(read(&with("kiln", "right", "/app/greeting")).await.unwrap(), "hello");
    let refused = [
        with("kiln", "wrong", "/app/greeting"),
        with("nobody", "right", "/app/greeting"),
        with("kiln", "right", "/app/just"),
        etcd.source("/app/greeting"),
    ];
    for source in refused {
        let error = read(&source).await.unwrap_err();
        assert!(matches!(error, SourceError::Unauthorised { .. }), "{source:?}: {error}");
    }
    etcd.process.kill();
    let down = read(&etcd.source("/app/greeting")).await.unwrap_err();
    assert!(matches!(down, SourceError::Down { .. }), "{down}");
}

#[tokio::test]
async fn host_etcd_over_tls_is_believed_only_with_its_own_authority_and_wants_ours() {
    let etcd = Etcd::with_tls();
    etcd.control(&["put", "/a", "over tls"]);
    let here = etcd.directory.path();
    certificates::make(here, "other");
    let source = |tls| ConfigSource::Etcd(Registry { tls, ..etcd.registry("/a") });
    let shows = |ca: &str, name: &str| {
        Some(RegistryTls { ca: Some(ca.to_owned()), identity: Some((format!("{name}.pem"), format!("{name}.key"))) })
    };
    assert_eq!(ask(&source(shows("server-ca.pem", "server")), here).await.unwrap().as_deref(), Some("over tls"));
    let wrong = ask(&source(shows("other-ca.pem", "server")), here).await.unwrap_err();
    assert!(matches!(&wrong, SourceError::Tls { reason, .. } if reason.contains("UnknownIssuer")), "{wrong}");
    // TLS 1.3 tells a client of its certificate's refusal only after the handshake.
    for tls in [shows("server-ca.pem", "other"), tls("server-ca.pem")] {
        let error = ask(&source(tls), here).await.unwrap_err();
        assert!(matches!(error, SourceError::Tls { .. } | SourceError::Down { .. }), "{error}");
    }
}
