//! A real registry, and servers that only look like one.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use kiln_model::Digest;

use super::{
    Cache, Registries, RegistryError, Remote,
    docker::{DockerRegistry, tool},
};
use crate::{
    bake::{
        BakeRequest, LockMode, bake,
        tests::{Bench, ChrootSandbox, request, shell},
    },
    debian::http::{Expected, HttpError, Limits},
    oci::{
        source::Origin as _,
        tests::{chain, layout, oci},
    },
};

#[test]
fn root_an_image_of_a_registry_is_locked_fetched_once_and_then_needs_no_network() {
    let bench = Bench::new();
    let layout = layout(&bench);
    let registry = DockerRegistry::start();
    let to = format!("docker://{}/some/app:1", registry.address);
    let from = format!("oci:{}:small", layout.display());
    tool("skopeo", &["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", &from, &to]);
    let recipe = oci(&format!("{}/some/app:1", registry.address), vec![shell("echo $GREETING > /etc/made")]);
    let (directory, cache) = (bench.recipe_dir(), bench.dir.path().join("cache"));
    let online = BakeRequest { offline: false, cache: &cache, ..request(&recipe, &directory) };
    let baked = bake(&online, &bench.store, &ChrootSandbox, &|_| {}).unwrap_or_else(|e| panic!("{}", chain(&e)));
    let lock = fs::read_to_string(directory.join("kiln.lock")).expect("a lock");
    assert!(lock.contains("manifest = \"sha256:"), "{lock}");
    let missing = oci(&format!("{}/some/app:2", registry.address), Vec::new());
    let request =
        BakeRequest { offline: false, lock: LockMode::Update, cache: &cache, ..request(&missing, &directory) };
    let error = bake(&request, &bench.store, &ChrootSandbox, &|_| {}).expect_err("no such tag");
    assert!(chain(&error).contains("has no some/app 2"), "{}", chain(&error));
    drop(registry);
    // Another store, and no registry: what was fetched is enough.
    let store = crate::Store::open(&bench.dir.path().join("other")).expect("a store");
    let offline = BakeRequest { offline: true, ..online };
    assert_eq!(bake(&offline, &store, &ChrootSandbox, &|_| {}).expect("baked").image, baked.image);
    let empty = bench.dir.path().join("empty");
    let error = bake(&BakeRequest { cache: &empty, fresh: true, ..offline }, &store, &ChrootSandbox, &|_| {});
    assert!(chain(&error.expect_err("nothing is there")).contains("nothing may be downloaded"));
}

/// An answer: status, headers, body, and how much of the body is really sent.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>, usize);

/// A server that answers every request as a function says; keeps the requests' heads.
struct Fake {
    address: String,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn start(answer: impl Fn(usize, &str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let (heads, answer) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(answer));
        let kept = heads.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (kept, answer) = (kept.clone(), answer.clone());
                std::thread::spawn(move || serve(stream, &kept, answer.as_ref()));
            }
        });
        Self { address, heads }
    }
    fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("no panic").clone()
    }
}

fn serve(mut stream: TcpStream, heads: &Mutex<Vec<String>>, answer: &dyn Fn(usize, &str) -> Answer) {
    let mut head = String::new();
    let mut lines = BufReader::new(stream.try_clone().expect("a stream"));
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).unwrap_or(0) == 0 {
            return;
        }
    }
    let count = {
        let mut heads = heads.lock().expect("no panic");
        heads.push(head.clone());
        heads.len() - 1
    };
    let (status, headers, body, sent) = answer(count, &head);
    let mut text = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    headers.iter().for_each(|(name, value)| text += &format!("{name}: {value}\r\n"));
    // The client may have gone away: that is its part of the test.
    let written = stream.write_all(format!("{text}\r\n").as_bytes()).and_then(|()| stream.write_all(&body[..sent]));
    if let Err(error) = written {
        eprintln!("{error}");
    }
}

fn plain(status: u16, body: &[u8]) -> Answer {
    (status, Vec::new(), body.to_vec(), body.len())
}

const BLOB: &[u8] = b"the bytes of a blob";

fn blob() -> Expected {
    Expected { size: BLOB.len() as u64, digest: Digest::of(BLOB) }
}

fn limits() -> Limits {
    Limits { backoff: Duration::from_millis(10), stall: Duration::from_secs(5), ..Limits::default() }
}

/// Fetches the blob from a server; the directory is the cache.
fn fetch(registries: &Registries, address: &str, cache: &std::path::Path) -> Result<Vec<u8>, RegistryError> {
    let reference = format!("{address}/some/app:1").parse().expect("a reference");
    let cache = Cache::open(cache)?;
    let remote = Remote::new(&reference, registries, cache.clone(), false, limits())?;
    remote.prefetch(&[blob()], &|_| {})?;
    Ok(fs::read(cache.path(&blob().digest)).expect("in the cache"))
}

/// Credentials for a server.
fn account(directory: &std::path::Path, address: &str) -> Registries {
    let path = directory.join("config.json");
    fs::write(&path, format!(r#"{{"auths": {{"{address}": {{"username": "me", "password": "secret"}}}}}}"#))
        .expect("written");
    Registries { registry: BTreeMap::new(), credentials: Some(path) }
}

/// `me:secret`.
const BASIC: &str = "basic bwu6c2vjcmv0";

fn authorization(head: &str) -> Option<String> {
    let head = head.to_ascii_lowercase();
    head.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned)
}

#[test]
fn host_credentials_do_not_follow_a_redirect_to_another_host() {
    let temp = tempfile::tempdir().expect("a directory");
    let elsewhere = Fake::start(|_, _| plain(200, BLOB));
    let target = format!("http://{}/blob", elsewhere.address);
    let registry = Fake::start(move |_, head| match authorization(head).as_deref() {
        Some(BASIC) => (307, vec![("location", target.clone())], Vec::new(), 0),
        _ => (401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new(), 0),
    });
    let registries = account(temp.path(), &registry.address);
    assert_eq!(fetch(&registries, &registry.address, temp.path()).expect("fetched"), BLOB);
    assert_eq!(registry.heads().len(), 2);
    assert_eq!(elsewhere.heads().len(), 1);
    assert_eq!(authorization(&elsewhere.heads()[0]), None);
}

#[test]
fn host_a_token_is_fetched_with_the_credentials_and_shown_to_the_registry_only() {
    let temp = tempfile::tempdir().expect("a directory");
    let tokens = Fake::start(|_, _| plain(200, br#"{"token": "tok-1"}"#));
    let challenge =
        format!("Bearer realm=\"http://{}/token\",service=\"reg\",scope=\"repository:some/app:pull\"", tokens.address);
    let registry = Fake::start(move |_, head| match authorization(head).as_deref() {
        Some("bearer tok-1") => plain(200, BLOB),
        _ => (401, vec![("www-authenticate", challenge.clone())], Vec::new(), 0),
    });
    let registries = account(temp.path(), &registry.address);
    assert_eq!(fetch(&registries, &registry.address, temp.path()).expect("fetched"), BLOB);
    let asked = &tokens.heads()[0];
    assert!(asked.starts_with("GET /token?scope=repository:some/app:pull&service=reg "), "{asked}");
    assert_eq!(authorization(asked).as_deref(), Some(BASIC));
}

#[test]
fn host_401_without_credentials_says_where_they_are_looked_for() {
    let temp = tempfile::tempdir().expect("a directory");
    let registry = Fake::start(|_, _| (401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new(), 0));
    let error = fetch(&account(temp.path(), "other"), &registry.address, temp.path()).expect_err("refused");
    assert!(error.to_string().contains("config.json has no credentials for it"), "{error}");
    assert_eq!(registry.heads().len(), 1, "it is not asked again");
}

#[test]
fn host_429_waits_as_long_as_it_is_asked_to_and_500_is_tried_again() {
    let temp = tempfile::tempdir().expect("a directory");
    let registry = Fake::start(|count, _| match count {
        0 => (429, vec![("retry-after", "1".into())], Vec::new(), 0),
        1 => plain(500, b""),
        _ => plain(200, BLOB),
    });
    let begun = Instant::now();
    assert_eq!(fetch(&Registries::default(), &registry.address, temp.path()).expect("fetched"), BLOB);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let always = Fake::start(|_, _| plain(500, br#"{"errors": [{"message": "no disk"}]}"#));
    let error = fetch(&Registries::default(), &always.address, &temp.path().join("two")).expect_err("always");
    assert!(error.to_string().ends_with("answered 500: no disk"), "{error}");
}

#[test]
fn host_half_a_blob_is_gone_on_with_and_the_wrong_blob_is_not_kept() {
    let temp = tempfile::tempdir().expect("a directory");
    let halves = Fake::start(|_, head| match head.to_ascii_lowercase().contains("range: bytes=7-") {
        true => (
            206,
            vec![("content-range", format!("bytes 7-{}/{}", BLOB.len() - 1, BLOB.len()))],
            BLOB[7..].to_vec(),
            BLOB.len() - 7,
        ),
        false => (200, Vec::new(), BLOB.to_vec(), 7),
    });
    assert_eq!(fetch(&Registries::default(), &halves.address, temp.path()).expect("fetched"), BLOB);
    assert_eq!(halves.heads().len(), 2);
    let two = temp.path().join("two");
    let wrong = Fake::start(|_, _| plain(200, b"THE BYTES OF A BLOB"));
    let error = fetch(&Registries::default(), &wrong.address, &two).expect_err("wrong");
    assert!(matches!(error, RegistryError::Http(HttpError::WrongHash { .. })), "{error}");
    assert_eq!(fs::read_dir(two.join("oci/blobs/sha256")).expect("listed").count(), 0);
    let long = Fake::start(|_, _| plain(200, &[b'x'; 100_000]));
    let error = fetch(&Registries::default(), &long.address, &two).expect_err("long");
    assert!(matches!(error, RegistryError::Http(HttpError::TooLarge { .. })), "{error}");
}

#[test]
fn host_a_mirror_that_lies_or_fails_is_passed_over_and_gets_no_credentials() {
    let temp = tempfile::tempdir().expect("a directory");
    let liar = Fake::start(|_, _| plain(200, b"THE BYTES OF A BLOB"));
    let broken = Fake::start(|_, _| plain(403, b""));
    let registry = Fake::start(|_, head| match authorization(head).as_deref() {
        Some(BASIC) => plain(200, BLOB),
        _ => (401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new(), 0),
    });
    let mut registries = account(temp.path(), &registry.address);
    let mirrors = vec![liar.address.clone(), format!("http://{}", broken.address)];
    registries.registry.insert(registry.address.clone(), super::RegistrySettings { mirrors, ..Default::default() });
    assert_eq!(fetch(&registries, &registry.address, temp.path()).expect("fetched"), BLOB);
    for mirror in [&liar, &broken] {
        assert!(!mirror.heads().is_empty() && mirror.heads().iter().all(|head| authorization(head).is_none()));
    }
}

#[test]
fn host_a_manifest_of_100_mb_of_a_registry_is_not_read() {
    use crate::oci::source::Origin as _;
    let huge = Fake::start(|_, _| plain(200, &vec![b' '; 100 << 20]));
    let directory = tempfile::tempdir().expect("a directory");
    let reference = format!("{}/some/app:1", huge.address).parse().expect("a reference");
    let cache = Cache::open(directory.path()).expect("a cache");
    let remote = Remote::new(&reference, &Registries::default(), cache, false, limits()).expect("a place");
    let Err(error) = remote.top(None) else { panic!("100 MB were read") };
    assert!(chain(&error).contains("4194304"), "{}", chain(&error));
    assert_eq!(huge.heads().len(), 1, "it is not asked for again");
    assert_eq!(fs::read_dir(directory.path().join("oci/blobs/sha256")).expect("listed").count(), 0);
}

/// The list of what refers to something, of a server.
fn listed(registries: &Registries, address: &str, cache: &std::path::Path) -> Result<usize, String> {
    let reference = format!("{address}/some/app:1").parse().expect("a reference");
    let cache = Cache::open(cache).expect("a cache");
    let remote = Remote::new(&reference, registries, cache, false, limits()).expect("settings");
    remote.referrers(&Digest::of(b"subject")).map(|found| found.len()).map_err(|error| chain(&error))
}

/// One page with an entry of its own.
fn page(entry: usize) -> Vec<u8> {
    let digest = Digest::of(&entry.to_le_bytes());
    format!(r#"{{"manifests": [{{"mediaType": "x/y", "digest": "{digest}", "size": 1}}]}}"#).into_bytes()
}

#[test]
fn host_the_next_page_of_a_list_is_never_at_another_host() {
    let temp = tempfile::tempdir().expect("a directory");
    let elsewhere = Fake::start(|_, _| plain(200, &page(1)));
    let target = elsewhere.address.clone();
    let lead = move |link: String| {
        Fake::start(move |_, head| match authorization(head).as_deref() {
            Some(BASIC) => (200, vec![("link", link.clone())], page(0), page(0).len()),
            _ => (401, vec![("www-authenticate", "Basic realm=\"x\"".into())], Vec::new(), 0),
        })
    };
    for link in [format!("<http://{target}/v2/x>; rel=\"next\""), format!("<https://{target}/v2/x>; rel=\"next\"")] {
        let registry = lead(link);
        let error = listed(&account(temp.path(), &registry.address), &registry.address, temp.path());
        let error = error.expect_err("it leads elsewhere");
        assert!(error.contains("the next page of a list is at another host"), "{error}");
    }
    let registry = lead(format!("<//{target}/v2/x>; rel=\"next\""));
    let error = listed(&account(temp.path(), &registry.address), &registry.address, temp.path());
    assert!(error.expect_err("no address").contains("it leads to what is no address"));
    assert_eq!(elsewhere.heads().len(), 0, "nothing is asked there");
}

#[test]
fn host_pages_without_end_stop_at_a_limit() {
    let temp = tempfile::tempdir().expect("a directory");
    let next = "</v2/some/app/referrers/x?more>; rel=\"next\"";
    let registry = Fake::start(move |count, _| (200, vec![("link", next.into())], page(count), page(count).len()));
    let found = listed(&Registries::default(), &registry.address, temp.path());
    assert_eq!((found, registry.heads().len()), (Ok(super::pages::MAX_PAGES), super::pages::MAX_PAGES));
    let large = Fake::start(move |_, _| {
        let page = [page(0), vec![b' '; 4_000_000]].concat();
        (200, vec![("link", next.into())], page.clone(), page.len())
    });
    let found = listed(&Registries::default(), &large.address, temp.path());
    assert_eq!((found, large.heads().len()), (Ok(5), 5));
}
