//! What ZooKeeper says, and everything it may say instead.

use std::path::Path;

use kiln_control::sources::{Fault, SourceError, ask};
use kiln_model::config::{ConfigSource, Password, Registry};

use crate::{
    certificates,
    registry::{ZooKeeper, free_port, login, tls},
};

async fn read(source: &ConfigSource) -> Result<String, SourceError> {
    ask(source, Path::new("/")).await.map(Option::unwrap)
}

#[tokio::test]
async fn host_zookeeper_values_are_read_and_every_refusal_has_its_name() {
    let zookeeper = ZooKeeper::new();
    zookeeper.kazoo(
        "zk.create('/chroot/app/greeting', b'hello\\n', makepath=True)\n\
         zk.create('/empty', b'')\n\
         zk.create('/binary', b'a\\xff')\n\
         zk.create('/large', b'x' * (2 << 20))\n\
         zk.create('/just', b'y' * (64 << 10))\n\
         zk.create('/secret', b's3cret', acl=[make_digest_acl('kiln', 'right', read=True)])",
    );
    assert_eq!(read(&zookeeper.source("/chroot/app/greeting")).await.unwrap(), "hello");
    assert_eq!(read(&zookeeper.source("/empty")).await.unwrap(), "");
    assert_eq!(read(&zookeeper.source("/just")).await.unwrap().len(), 64 << 10);
    let binary = read(&zookeeper.source("/binary")).await.unwrap_err();
    assert!(matches!(binary, SourceError::NotText { at: 1, .. }), "{binary}");
    assert_eq!(binary.fault(), Fault::Value);
    let large = read(&zookeeper.source("/large")).await.unwrap_err();
    assert!(matches!(large, SourceError::TooLarge { bytes, .. } if bytes >= 2 << 20), "{large}");
    let missing = read(&zookeeper.source("/chroot/app/none")).await.unwrap_err();
    assert!(matches!(missing, SourceError::Missing { .. }), "{missing}");
    assert!(missing.to_string().contains("/chroot/app/none") && missing.help().contains("chroot"));

    let with = |user: &str, password: &str| {
        ConfigSource::Zookeeper(Registry { login: login(user, password), ..zookeeper.registry("/secret") })
    };
    assert_eq!(read(&with("kiln", "right")).await.unwrap(), "s3cret");
    for source in [with("kiln", "wrong"), with("other", "right"), zookeeper.source("/secret")] {
        let error = read(&source).await.unwrap_err();
        assert!(matches!(error, SourceError::Unauthorised { .. }), "{error}");
        assert!(!format!("{error:?}{error}{source:?}").contains("right"), "a password is shown");
    }

    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("password"), "right\n").unwrap();
    let mut registry = Registry { login: login("kiln", ""), ..zookeeper.registry("/secret") };
    registry.login.as_mut().unwrap().password = Password::File("password".to_owned());
    let source = ConfigSource::Zookeeper(registry);
    assert_eq!(ask(&source, directory.path()).await.unwrap().as_deref(), Some("s3cret"));
}

#[tokio::test]
async fn host_zookeeper_of_several_servers_is_read_while_one_of_them_answers() {
    let mut zookeeper = ZooKeeper::new();
    zookeeper.kazoo("zk.create('/a', b'1')");
    let dead = free_port();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().port();
    let address = format!("127.0.0.1:{dead},127.0.0.1:{silent},127.0.0.1:{}/a", zookeeper.port);
    let source = ConfigSource::Zookeeper(Registry::open(address.parse().unwrap()));
    assert_eq!(read(&source).await.unwrap(), "1");
    zookeeper.process.kill();
    let down = read(&zookeeper.source("/a")).await.unwrap_err();
    assert!(matches!(&down, SourceError::Down { reason, .. } if reason.contains("refused")), "{down}");
    assert_eq!(down.fault(), Fault::Registry);
}

#[tokio::test]
async fn host_zookeeper_over_tls_is_believed_only_with_its_own_authority() {
    let zookeeper = ZooKeeper::with_tls();
    zookeeper.kazoo("zk.create('/a', b'over tls')");
    let here = zookeeper.directory.path();
    certificates::make(here, "other");
    let source = |tls| {
        let address = format!("127.0.0.1:{}/a", zookeeper.secure_port).parse().unwrap();
        ConfigSource::Zookeeper(Registry { tls, ..Registry::open(address) })
    };
    assert_eq!(ask(&source(tls("server-ca.pem")), here).await.unwrap().as_deref(), Some("over tls"));
    let wrong = ask(&source(tls("other-ca.pem")), here).await.unwrap_err();
    assert!(matches!(&wrong, SourceError::Tls { reason, .. } if reason.contains("UnknownIssuer")), "{wrong}");
    let absent = ask(&source(tls("none.pem")), here).await.unwrap_err();
    assert!(matches!(&absent, SourceError::File { path, .. } if path.ends_with("none.pem")), "{absent}");
    let garbage = ask(&source(tls("server.csr")), here).await.unwrap_err();
    assert!(matches!(&garbage, SourceError::Tls { .. }), "{garbage}");

    // A plain question at the encrypted port, and the reverse.
    let plain = ask(&source(None), here).await.unwrap_err();
    assert!(matches!(plain, SourceError::Down { .. } | SourceError::Silent { .. }), "{plain}");
    let registry = Registry { tls: tls("server-ca.pem"), ..zookeeper.registry("/a") };
    let reverse = ask(&ConfigSource::Zookeeper(registry), here).await.unwrap_err();
    assert!(matches!(reverse, SourceError::Tls { .. } | SourceError::Silent { .. }), "{reverse}");
}
