//! A registry with TLS of an authority of its own, which wants to know who asks.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use crate::{
    docker::{DockerRegistry, Wanted, tool},
    host::Host,
};

/// An authority, and a certificate of it for 127.0.0.1.
fn certificates(directory: &Path) {
    let path = |name: &str| directory.join(name).display().to_string();
    let (ca, ca_key, key, request, made) =
        (path("ca.pem"), path("ca.key"), path("registry.key"), path("registry.csr"), path("registry.pem"));
    let new = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    let authority = ["-x509", "-days", "2", "-subj", "/CN=kiln test authority", "-keyout", &ca_key, "-out", &ca];
    tool("openssl", &[&new[..], &authority].concat());
    tool("openssl", &[&new[..], &["-subj", "/CN=registry", "-keyout", &key, "-out", &request]].concat());
    let names = path("names");
    fs::write(&names, "subjectAltName=IP:127.0.0.1\n").expect("written");
    let sign = ["x509", "-req", "-days", "2", "-CAcreateserial", "-in", &request, "-CA", &ca, "-CAkey", &ca_key];
    tool("openssl", &[&sign[..], &["-extfile", &names, "-out", &made]].concat());
}

#[test]
fn root_a_registry_with_its_own_authority_and_a_credential_helper() {
    let (host, certificate) = (Host::new(), tempfile::tempdir().expect("a directory"));
    certificates(certificate.path());
    let users = tool("htpasswd", &["-Bbn", "me", "secret"]);
    let tls = (certificate.path().join("registry.pem"), certificate.path().join("registry.key"));
    let registry = DockerRegistry::with(Wanted { htpasswd: Some(&users), tls: Some((&tls.0, &tls.1)) });
    host.project("page one\n");
    let image = format!("shop@{}", host.good(&["bake", "shop"])["image"].as_str().expect("a digest"));
    let at = format!("{}/shop:v1", registry.address);
    let refused = |words: &str| {
        let said = host.kiln(&["push", &image, &at]);
        assert_eq!(said.code, 4, "{:?}", said.lines);
        let message = said.lines[0]["error"]["message"].as_str().expect("a message").to_owned();
        assert!(message.contains(words), "{message}");
    };
    let settings = format!("[registry.\"{}\"]\nhttp = false\n", registry.address);
    host.write("state/registries.toml", &settings);
    refused("UnknownIssuer");
    let ca = certificate.path().join("ca.pem").display().to_string();
    host.write("state/registries.toml", &format!("{settings}ca = \"{ca}\"\n"));
    refused("there are no credentials for it; `docker login` writes some".trim_start_matches("there are "));
    host.write(
        "bin/docker-credential-kiln-test",
        "#!/bin/sh\ncat > asked\necho '{\"Username\": \"me\", \"Secret\": \"wrong\"}'\n",
    );
    let helper = host.path("bin/docker-credential-kiln-test");
    fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("executable");
    host.write(".docker/config.json", &format!("{{\"credHelpers\": {{\"{}\": \"kiln-test\"}}}}", registry.address));
    refused("it does not accept the credentials");
    let script = fs::read_to_string(&helper).expect("read").replace("wrong", "secret");
    host.write("bin/docker-credential-kiln-test", &script);
    host.good(&["push", &image, &at]);
    assert_eq!(fs::read_to_string(host.path("asked")).expect("the helper was asked").trim(), registry.address);
    let pulled = host.good(&["pull", &at]);
    assert_eq!(pulled["new_layers"].as_u64(), Some(0), "{pulled}");
}
