//! A registry with the referrers API, for tests: no package of Debian has one. It is as strict as distribution-spec 1.1 lets it
//! be: a manifest is taken only when everything it names is there, digests are checked, and a list of referrers under a
//! tag, which is for registries without the API, is refused.

use std::{
    collections::HashMap,
    io::{self, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
};

use kiln_model::Digest;
use serde_json::{Value, json};

use super::proxy::{content_length, read_head};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A running registry of one repository.
pub(crate) struct StrictRegistry {
    pub(crate) address: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    blobs: HashMap<String, Vec<u8>>,
    uploads: Vec<Vec<u8>>,
    /// By tag and by digest: media type and bytes.
    manifests: HashMap<String, (String, Vec<u8>)>,
    /// By subject, in the order in which they came.
    referrers: HashMap<String, Vec<Value>>,
    asked: Vec<String>,
    /// Entries of one page of a list; all of them where it is none.
    page: Option<usize>,
}

struct Answer {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Vec::new() }
    }
    fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    fn body(self, kind: &str, body: Vec<u8>) -> Self {
        Self { body, ..self.header("content-type", kind) }
    }
}

impl StrictRegistry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::<Mutex<State>>::default();
        let shared = state.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                std::thread::spawn(move || drop(serve(stream, &shared)));
            }
        });
        Self { address, state }
    }

    /// Lists so many referrers at a time from now on.
    pub(crate) fn in_pages_of(&self, entries: usize) {
        self.state.lock().expect("no panic").page = Some(entries);
    }

    /// The requests so far: method and path.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state.lock().expect("no panic").asked.clone()
    }

    /// The artifact types that the API lists for a manifest.
    pub(crate) fn listed(&self, subject: &str) -> Vec<String> {
        let state = self.state.lock().expect("no panic");
        let entries = state.referrers.get(subject).into_iter().flatten();
        entries.map(|entry| entry["artifactType"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) -> io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let head = read_head(&mut from)?;
    let mut body = Vec::new();
    from.take(content_length(&head)).read_to_end(&mut body)?;
    let answer = state.lock().expect("no panic").answer(&head, body);
    let mut text =
        format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\nconnection: close\r\n", answer.status, answer.body.len());
    answer.headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    if head.starts_with("HEAD") { Ok(()) } else { stream.write_all(&answer.body) }
}

impl State {
    fn answer(&mut self, head: &str, body: Vec<u8>) -> Answer {
        let mut words = head.split_whitespace();
        let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        self.asked.push(format!("{method} {path}"));
        let rest = path.trim_start_matches("/v2/sample/");
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let kind = head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
        match (method, path.rsplit_once('/')) {
            (_, Some(("blobs/uploads", at))) => self.upload(method, at, query, body),
            ("HEAD" | "GET", Some(("blobs", digest))) => self.blob(digest),
            ("HEAD" | "GET", Some(("manifests", at))) => self.manifest(at),
            ("PUT", Some(("manifests", at))) => self.take(at, kind, body),
            ("GET", Some(("referrers", subject))) => self.list(subject, query),
            _ => Answer::new(404),
        }
    }

    fn list(&self, subject: &str, query: &str) -> Answer {
        let all = self.referrers.get(subject).map_or(&[][..], Vec::as_slice);
        let from: usize = query.strip_prefix("from=").and_then(|at| at.parse().ok()).unwrap_or(0);
        let to = self.page.map_or(all.len(), |page| (from + page).min(all.len()));
        let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": all[from..to] });
        let answer = Answer::new(200).body(INDEX, index.to_string().into_bytes());
        match to < all.len() {
            true => answer.header("link", format!("</v2/sample/referrers/{subject}?from={to}>; rel=\"next\"")),
            false => answer,
        }
    }

    fn upload(&mut self, method: &str, at: &str, query: &str, body: Vec<u8>) -> Answer {
        let at = match method {
            "POST" => {
                self.uploads.push(Vec::new());
                self.uploads.len() - 1
            }
            _ => at.parse().unwrap_or(usize::MAX),
        };
        let Some(upload) = self.uploads.get_mut(at) else { return Answer::new(404) };
        upload.extend(body);
        if method != "PUT" {
            return Answer::new(202).header("location", format!("/v2/sample/blobs/uploads/{at}"));
        }
        let digest = Digest::of(upload).to_string();
        if query != format!("digest={digest}") {
            return Answer::new(400);
        }
        self.blobs.insert(digest.clone(), std::mem::take(upload));
        Answer::new(201)
            .header("location", format!("/v2/sample/blobs/{digest}"))
            .header("docker-content-digest", digest)
    }

    fn blob(&self, digest: &str) -> Answer {
        match self.blobs.get(digest) {
            Some(bytes) => Answer::new(200).body("application/octet-stream", bytes.clone()),
            None => Answer::new(404),
        }
    }

    fn manifest(&self, at: &str) -> Answer {
        match self.manifests.get(at) {
            Some((kind, bytes)) => Answer::new(200).body(kind, bytes.clone()),
            None => Answer::new(404),
        }
    }

    fn take(&mut self, at: &str, kind: &str, body: Vec<u8>) -> Answer {
        let digest = Digest::of(&body).to_string();
        let manifest: Value = serde_json::from_slice(&body).unwrap_or_default();
        let blobs = manifest["layers"].as_array().into_iter().flatten().chain([&manifest["config"]]);
        let mut blobs = blobs.map(|blob| blob["digest"].as_str().unwrap_or_default());
        let named_otherwise = at.starts_with("sha256:") && at != digest;
        let is_list = at.starts_with("sha256-") && !at.ends_with(".att");
        if manifest["mediaType"] != kind
            || named_otherwise
            || is_list
            || !blobs.all(|blob| self.blobs.contains_key(blob))
        {
            return Answer::new(400);
        }
        self.manifests.insert(at.to_owned(), (kind.to_owned(), body.clone()));
        let answer = Answer::new(201).header("docker-content-digest", digest.clone());
        let Some(subject) = manifest["subject"]["digest"].as_str() else { return answer };
        let entry = json!({
            "mediaType": kind, "digest": digest, "size": body.len(), "artifactType": manifest["artifactType"],
        });
        self.referrers.entry(subject.to_owned()).or_default().push(entry);
        answer.header("oci-subject", subject)
    }
}
