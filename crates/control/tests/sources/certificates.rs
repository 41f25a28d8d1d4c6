//! An authority, a server's certificate and a client's, made by openssl.

use std::{path::Path, process::Command};

/// Makes `NAME-ca.pem`, `NAME.pem`, `NAME.key` and `NAME.p12` (password `changeit`), good for 127.0.0.1.
pub fn make(directory: &Path, name: &str) {
    let script = format!(
        "set -e; cd {}; \
         openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority-{name} -keyout {name}-ca.key -out {name}-ca.pem; \
         openssl req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr; \
         printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\nbasicConstraints=CA:FALSE\\n' > {name}.ext; \
         openssl x509 -req -in {name}.csr -CA {name}-ca.pem -CAkey {name}-ca.key -CAcreateserial -days 2 -extfile {name}.ext \
             -out {name}.pem; \
         openssl pkcs12 -export -in {name}.pem -inkey {name}.key -passout pass:changeit -out {name}.p12",
        directory.display()
    );
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
