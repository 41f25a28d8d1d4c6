//! A host: a state directory, and the program as it is called there.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use kiln_model::evidence::SigningKey;
use serde_json::Value;

use crate::docker::tool;

/// A host. Everything it started is gone when the value is.
pub struct Host {
    directory: tempfile::TempDir,
}

/// How a call ended.
pub struct Said {
    pub code: i32,
    /// Every line of standard output.
    pub lines: Vec<Value>,
    pub errors: String,
}

impl Host {
    pub fn new() -> Self {
        Self { directory: tempfile::Builder::new().prefix("kiln-h").tempdir().expect("a directory") }
    }
    pub fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn run(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kiln"))
            .arg("--state")
            .arg(self.state())
            .args(arguments)
            .current_dir(self.directory.path())
            .env_remove("KILN_STATE")
            .env("HOME", self.directory.path())
            .env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", self.path("bin").display()))
            .env_remove("DOCKER_CONFIG")
            .env_remove("REGISTRY_AUTH_FILE")
            .output()
            .expect("the program starts")
    }

    /// Calls the program with `--json`.
    pub fn kiln(&self, arguments: &[&str]) -> Said {
        let output = self.run(&[arguments, &["--json"]].concat());
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")));
        Said {
            code: output.status.code().unwrap_or(-1),
            lines: lines.collect(),
            errors: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Calls the program, which must succeed, and returns the last line.
    pub fn good(&self, arguments: &[&str]) -> Value {
        let said = self.kiln(arguments);
        assert_eq!(said.code, 0, "{arguments:?}: {:?} {}", said.lines, said.errors);
        said.lines.last().cloned().unwrap_or_default()
    }

    /// What the program, which must succeed, says to people.
    pub fn text(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The key that reports are signed with here.
    pub fn signing_key(&self) -> SigningKey {
        let keys = kiln_control::keys::Keys::open(&self.state()).expect("keys");
        keys.signing().expect("a key")
    }

    pub fn store(&self) -> kiln_image::Store {
        kiln_image::Store::open(&self.state().join("store")).expect("a store")
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    }

    /// Writes the host's trust policy.
    pub fn trust(&self, text: &str) {
        self.write("state/trust.toml", text);
    }

    /// The public key of another host, under a name.
    pub fn believe(&self, name: &str, other: &Self) {
        let pem = other.good(&["key", "export"])["pem"].as_str().expect("a key").to_owned();
        let file = format!("{name}.pem");
        self.write(&file, &pem);
        self.good(&["key", "add", name, &file]);
    }

    /// Writes the project `shop`: a page served by busybox.
    pub fn project(&self, page: &str) {
        let project = self.path("shop");
        if !project.join("layout").exists() {
            layout(&project, &self.path("root"));
        }
        self.write("shop/page/index.html", page);
        self.write("shop/image.toml", RECIPE);
        self.write("shop/fleet.toml", &fleet("shop", ""));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if self.state().join("kiln.db").exists() {
            let ended = self.run(&["down", "--purge", "--accept-loss"]);
            println!("{}", String::from_utf8_lossy(&ended.stderr));
        }
    }
}

/// A fleet of two servers.
pub fn fleet(image: &str, environment: &str) -> String {
    format!(
        "[group.web]\nimage = \"{image}\"\ncount = 2\nenvironment = {{ {environment} }}\n\
         publish = [{{ listen = 0, port = 8080, protocol = \"http\" }}]\n"
    )
}

const RECIPE: &str = r#"name = "shop"

[base]
oci = "oci:layout:small"

[[step]]
copy = "page/"
to = "/www/"

[service.web]
command = ["/bin/httpd", "-f", "-p", "8080", "-h", "/www"]
ports = [{ port = 8080, protocol = "http" }]
readiness = { http = "/", within = "10s" }
stop = { signal = "SIGTERM", grace = "2s" }

[[test]]
name = "the page is served"
http = "/"
body = { contains = "page" }
"#;

/// An OCI layout with busybox and little else.
fn layout(project: &Path, root: &Path) {
    kiln_testkit::busybox::tree(root, &[]).expect("a tree");
    fs::create_dir_all(project).expect("a directory");
    let at = project.join("layout").display().to_string();
    let image = format!("{at}:small");
    tool("umoci", &["init", "--layout", &at]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["insert", "--image", &image, root.to_str().expect("UTF-8"), "/"]);
}

/// What a server behind an endpoint answers.
pub fn page(endpoint: &str) -> String {
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("connected");
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("set");
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}
