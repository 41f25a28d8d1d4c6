//! Credentials as Docker keeps them: `auths`, `credHelpers` and `credsStore` of `config.json`.
//!
//! A helper is a program `docker-credential-NAME` that gets the registry on its standard input
//! (docker-credential-helpers, `get`). It has half a minute; what it says is kept in memory only.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use kiln_model::oci::DEFAULT_REGISTRY;
use serde::Deserialize;

use super::{RegistryError, settings};

/// How Docker Hub is called in `config.json`.
const HUB: &str = "https://index.docker.io/v1/";
/// A helper that asks somebody must not ask for ever.
const PATIENCE: Duration = Duration::from_secs(30);
const MAX_ANSWER: u64 = 64 << 10;

/// Who asks. Never shown: `Debug` says only which kind it is.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Credentials {
    Password {
        user: String,
        password: String,
    },
    /// For the token server.
    Identity(String),
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password",
            Self::Identity(_) => "Identity",
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ConfigFile {
    auths: BTreeMap<String, Auth>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

/// The credentials for a registry, if there are any.
pub(super) fn find(file: Option<&Path>, registry: &str) -> Result<Option<Credentials>, RegistryError> {
    let wrong = |reason: String| RegistryError::Credentials { registry: registry.to_owned(), reason };
    let Some(path) = file else { return Ok(None) };
    let text = settings::read_small(path).map_err(|e| wrong(format!("{}: {e}", path.display())))?;
    let Some(text) = text else { return Ok(None) };
    // The text is not shown: it holds passwords.
    let config: ConfigFile = serde_json::from_str(&text)
        .map_err(|e| wrong(format!("{} line {} is not as Docker writes it", path.display(), e.line())))?;
    let names = names(registry);
    let helper = names.iter().find_map(|name| config.helpers.get(name));
    if let Some(helper) = helper.or(config.store.as_ref()) {
        let asked = if registry == DEFAULT_REGISTRY { HUB } else { registry };
        if let Some(found) = ask(helper, asked).map_err(wrong)? {
            return Ok(Some(found));
        }
    }
    let found = names.iter().find_map(|name| config.auths.get(name));
    found.map_or(Ok(None), |auth| written(auth).map_err(wrong))
}

/// The names under which a registry is written in the file.
fn names(registry: &str) -> Vec<String> {
    let mut names = vec![registry.to_owned(), format!("https://{registry}"), format!("http://{registry}")];
    names.extend([format!("https://{registry}/v1/"), format!("https://{registry}/v2/")]);
    if registry == DEFAULT_REGISTRY {
        names.extend([HUB.to_owned(), "index.docker.io".to_owned()]);
    }
    names
}

fn written(auth: &Auth) -> Result<Option<Credentials>, String> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(token) = text(&auth.identitytoken) {
        return Ok(Some(Credentials::Identity(token)));
    }
    if let (Some(user), Some(password)) = (text(&auth.username), text(&auth.password)) {
        return Ok(Some(Credentials::Password { user, password }));
    }
    let Some(auth) = text(&auth.auth) else { return Ok(None) };
    let bytes = BASE64_STANDARD.decode(auth.trim()).map_err(|_| "`auth` is not base64".to_owned())?;
    let pair = String::from_utf8(bytes).map_err(|_| "`auth` is not UTF-8".to_owned())?;
    let (user, password) = pair.trim_end_matches('\0').split_once(':').ok_or("`auth` is not `user:password`")?;
    Ok(Some(Credentials::Password { user: user.to_owned(), password: password.to_owned() }))
}

/// Reads every account of a file; no helper is asked.
#[cfg(any(test, fuzzing))]
pub(super) fn read_all(text: &str) {
    if let Ok(config) = serde_json::from_str::<ConfigFile>(text) {
        config.auths.values().for_each(|auth| drop(written(auth)));
    }
}

/// Asks a helper; none if it knows nothing.
fn ask(helper: &str, registry: &str) -> Result<Option<Credentials>, String> {
    if helper.is_empty() || !helper.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err("the name of the credential helper is not made of letters, digits, `-`, `_` and `.`".to_owned());
    }
    let program = format!("docker-credential-{helper}");
    let failed = |e: std::io::Error| format!("`{program}` cannot be run: {e}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    let answer = converse(&mut child, registry);
    let ended = ended(&mut child);
    let (answer, good) = (answer.map_err(failed)?, ended.ok_or(format!("`{program}` did not answer within 30 s"))?);
    if !good {
        // It says so in words on standard output, and leaves with 1.
        return Ok(None);
    }
    let said: Said =
        serde_json::from_slice(&answer).map_err(|_| format!("`{program}` did not answer as helpers do"))?;
    Ok(Some(match said.user.as_str() {
        "<token>" => Credentials::Identity(said.secret),
        _ => Credentials::Password { user: said.user, password: said.secret },
    }))
}

fn converse(child: &mut Child, registry: &str) -> std::io::Result<Vec<u8>> {
    if let Some(mut input) = child.stdin.take() {
        // One that does not read its input still answers.
        if let Err(e) = input.write_all(registry.as_bytes())
            && e.kind() != std::io::ErrorKind::BrokenPipe
        {
            return Err(e);
        }
    }
    let Some(output) = child.stdout.take() else { return Ok(Vec::new()) };
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut answer = Vec::new();
        let read = output.take(MAX_ANSWER).read_to_end(&mut answer);
        // Nobody listens any more after the time is up.
        drop(send.send(read.map(|_| answer)));
    });
    receive.recv_timeout(PATIENCE).unwrap_or_else(|_| Ok(Vec::new()))
}

/// Whether it ended well; none if it had to be killed.
fn ended(child: &mut Child) -> Option<bool> {
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if begun.elapsed() < Duration::from_secs(2) => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                if child.kill().is_ok() {
                    drop(child.wait());
                }
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), text).expect("written");
        file
    }

    fn password(user: &str, password: &str) -> Option<Credentials> {
        Some(Credentials::Password { user: user.into(), password: password.into() })
    }

    #[test]
    fn host_credentials_are_read_as_docker_writes_them() {
        let config = file(
            r#"{"auths": {"reg.example:5000": {"auth": "bWU6c2VjOnJldA=="}, "https://index.docker.io/v1/": {"username": "hub", "password": "x"},
                "id.example": {"auth": "bWU6", "identitytoken": "tok"}, "bad.example": {"auth": "%%"}}, "HttpHeaders": {}}"#,
        );
        let find = |registry| find(Some(config.path()), registry);
        assert_eq!(find("reg.example:5000").expect("read"), password("me", "sec:ret"));
        assert_eq!(find("docker.io").expect("read"), password("hub", "x"));
        assert_eq!(find("id.example").expect("read"), Some(Credentials::Identity("tok".into())));
        assert_eq!(find("other.example").expect("read"), None);
        assert!(find("bad.example").is_err());
        assert_eq!(super::find(Some(Path::new("/nowhere/config.json")), "x").expect("none"), None);
    }

    #[test]
    fn host_a_broken_file_is_named_and_its_secrets_are_not() {
        let config = file("{\"auths\": {\"x\": {\"password\": \"hunter2\", }}}");
        let error = find(Some(config.path()), "x").expect_err("not JSON").to_string();
        assert!(error.contains("line 1") && !error.contains("hunter2"), "{error}");
        assert_eq!(format!("{:?}", password("a", "hunter2")), "Some(Password)");
    }

    #[test]
    fn host_a_helper_that_is_no_name_is_not_run() {
        let config = file(r#"{"credsStore": "../../bin/sh"}"#);
        assert!(find(Some(config.path()), "x").is_err());
    }

    #[test]
    fn host_a_helper_is_asked_and_one_that_knows_nothing_is_none() {
        // Found by an absolute name would be refused; so the directory goes in front of PATH of a program of its own.
        let dir = tempfile::tempdir().expect("a directory");
        let helper = dir.path().join("docker-credential-kiln-test");
        let script = "#!/bin/sh\nread -r name\ncase \"$name\" in known*) echo '{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"s\"}';; *) echo 'credentials not found'; exit 1;; esac\n";
        fs::write(&helper, script).expect("written");
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).expect("executable");
        let run = |registry: &str| {
            let mut child =
                Command::new(&helper).arg("get").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("runs");
            let answer = converse(&mut child, registry).expect("an answer");
            (ended(&mut child), answer)
        };
        let (good, answer) = run("known.example\n");
        let said: Said = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!((good, said.user.as_str(), said.secret.as_str()), (Some(true), "me", "s"));
        assert_eq!(run("other\n").0, Some(false));
    }
}
