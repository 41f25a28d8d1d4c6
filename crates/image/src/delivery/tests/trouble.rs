//! Registries that refuse, break off, lie, and send elsewhere.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use super::{Elsewhere, Sample, same};
use crate::{
    delivery::DeliveryError,
    registry::{
        RegistryError,
        docker::DockerRegistry,
        proxy::{Fate, Proxy},
    },
};

fn at(proxy: &Proxy) -> String {
    format!("{}/some/sample:v1", proxy.address)
}

fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |e| e.source()).map(|e| format!("{e}; ")).collect()
}

/// Does something to the first request that fits, and to no other.
fn once(fits: impl Fn(&str) -> bool, fate: Fate) -> impl Fn(usize, &str) -> Fate {
    let seen = AtomicUsize::new(0);
    move |_, head| match fits(head) && seen.fetch_add(1, Ordering::Relaxed) == 0 {
        true => fate.clone(),
        false => Fate::Pass,
    }
}

#[test]
fn root_a_push_that_is_disturbed_goes_on() {
    let registry = DockerRegistry::start();
    let later = |seconds: &str| Fate::Answer(429, vec![("retry-after", seconds.into())], Vec::new());
    let upload = |head: &str| head.starts_with("PATCH") && content_length(head) > 100_000;
    for (what, fate, of) in [
        ("500 to a question", Fate::Answer(500, vec![], vec![]), "HEAD"),
        ("429 to the begin of an upload", later("1"), "POST"),
        ("429 to a blob", later("1"), "PATCH"),
        ("503 to the end of an upload", Fate::Answer(503, vec![], vec![]), "PUT /v2/some/sample/blobs"),
        ("500 to a manifest", Fate::Answer(500, vec![], vec![]), "PUT /v2/some/sample/manifests"),
        ("half a blob", Fate::Cut(50_000), "large"),
    ] {
        let sample = Sample::new();
        let proxy = Proxy::start(
            &registry.address,
            once(move |head| if of == "large" { upload(head) } else { head.starts_with(of) }, fate),
        );
        let begun = Instant::now();
        let at = format!("{}/some/sample{}:v1", proxy.address, what.len());
        let at = if of.contains("sample") { at.replace(&format!("sample{}", what.len()), "sample") } else { at };
        sample.push(&sample.image, &at).unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
        if what.starts_with("429") {
            assert!(begun.elapsed().as_millis() >= 1000, "{what}: {:?}", begun.elapsed());
        }
        let other = Elsewhere::new();
        other.pull(&at).unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
        same(&sample, &other.store, &sample.image);
    }
}

fn content_length(head: &str) -> u64 {
    let head = head.to_ascii_lowercase();
    head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0)
}

#[test]
fn root_a_push_that_was_given_up_is_gone_on_with() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    // The end of every upload after the third is refused.
    let ends = AtomicUsize::new(0);
    let proxy = Proxy::start(&registry.address, move |_, head| {
        let end = head.starts_with("PUT") && head.contains("/blobs/");
        match end && ends.fetch_add(1, Ordering::Relaxed) >= 3 {
            true => Fate::Answer(403, vec![], vec![]),
            false => Fate::Pass,
        }
    });
    let error = sample.push(&sample.image, &at(&proxy)).expect_err("refused");
    assert!(chain(&error).contains("does not let this host write `some/sample`"), "{}", chain(&error));
    let pushed = sample.push(&sample.image, &at_of(&registry.address)).expect("pushed");
    assert!(pushed.there >= 3, "{pushed:?}");
}

fn at_of(address: &str) -> String {
    format!("{address}/some/sample:v1")
}

#[test]
fn root_uploads_that_are_sent_elsewhere_carry_no_credentials() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    // The registry keeps blobs at another host, and says so when an upload begins.
    let storage = Proxy::start(&registry.address, |_, _| Fate::Pass);
    let elsewhere = storage.address.clone();
    let front = Proxy::start(&registry.address, move |_, head| {
        if !head.to_ascii_lowercase().contains("authorization: basic") {
            return Fate::Answer(401, vec![("www-authenticate", "Basic realm=\"x\"".into())], vec![]);
        }
        match head.starts_with("PATCH") || head.starts_with("PUT /v2/some/sample/blobs") {
            true => {
                let path = head.split(' ').nth(1).unwrap_or_default();
                Fate::Answer(307, vec![("location", format!("http://{elsewhere}{path}"))], vec![])
            }
            false => Fate::Pass,
        }
    });
    let config = sample.bench.dir.path().join("config.json");
    let text = format!(r#"{{"auths": {{"{}": {{"username": "me", "password": "secret"}}}}}}"#, front.address);
    std::fs::write(&config, text).expect("written");
    let registries = crate::registry::Registries { credentials: Some(config), ..Default::default() };
    let (to, cache) = (super::reference(&at(&front)), sample.bench.dir.path().join("cache"));
    let request = crate::delivery::PushRequest {
        image: sample.image,
        to: &to,
        registries: &registries,
        cache: &cache,
        cosign: None,
    };
    crate::delivery::push(&sample.bench.store, &request, &|_| {}).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert!(!storage.heads().is_empty());
    for head in storage.heads() {
        assert!(!head.to_ascii_lowercase().contains("authorization"), "{head}");
    }
    let other = Elsewhere::new();
    other.pull_with(&at(&front), &registries).unwrap_or_else(|e| panic!("{}", chain(&e)));
    same(&sample, &other.store, &sample.image);
}

#[test]
fn root_a_pull_that_is_disturbed_goes_on_and_lies_are_refused() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    sample.push(&sample.image, &at_of(&registry.address)).expect("pushed");
    let largest = sample.bench.store.layers(&sample.image).expect("layers").into_iter().max_by_key(|l| l.size);
    let blob = format!("GET /v2/some/sample/blobs/{} ", largest.expect("a layer").digest);
    for (what, fate) in [
        ("500", Fate::Answer(500, vec![], vec![])),
        ("429", Fate::Answer(429, vec![("retry-after", "1".into())], vec![])),
        ("half a blob", Fate::Half(100_000)),
    ] {
        let blob = blob.clone();
        let proxy = Proxy::start(&registry.address, once(move |head| head.starts_with(&blob), fate));
        let other = Elsewhere::new();
        other.pull(&at(&proxy)).unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
        same(&sample, &other.store, &sample.image);
    }
    let wrong =
        Proxy::start(&registry.address, move |_, head| if head.starts_with(&blob) { Fate::Wrong } else { Fate::Pass });
    let other = Elsewhere::new();
    let error = other.pull(&at(&wrong)).expect_err("another blob");
    assert!(chain(&error).contains("has the wrong content"), "{}", chain(&error));
    assert!(other.store.images().expect("read").is_empty());
    // A manifest that is not what its digest says.
    let manifest = format!("GET /v2/some/sample/manifests/{}", sample.image);
    let wrong = Proxy::start(
        &registry.address,
        move |_, head| if head.starts_with(&manifest) { Fate::Wrong } else { Fate::Pass },
    );
    let named = format!("{}/some/sample@{}", wrong.address, sample.image);
    let error = Elsewhere::new().pull(&named).expect_err("another manifest");
    assert!(chain(&error).contains("has the wrong content"), "{}", chain(&error));
    let error = other.pull(&format!("{}/some/sample:v2", registry.address)).expect_err("no such tag");
    assert!(
        matches!(error, DeliveryError::Oci(_)) && chain(&error).contains("has no some/sample v2"),
        "{}",
        chain(&error)
    );
}

#[test]
fn root_what_others_attach_to_an_image_is_left_out_and_never_stops_a_pull() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    sample.push(&sample.image, &at_of(&registry.address)).expect("pushed");
    // A report on another image, and one that is no envelope, filed under this one.
    let subject = sample.bench.store.subject(&sample.image).expect("there");
    let foreign = crate::oci::Descriptor { digest: kiln_model::Digest::of(b"other"), ..subject.clone() };
    let envelope = sample.bench.store.reports(&sample.image).expect("read").remove(0);
    let mut nonsense = crate::oci::Artifact::statement(subject, &envelope);
    nonsense.content = b"{\"payload\": 1}".to_vec();
    let described = crate::oci::Manifest::artifact(
        nonsense.kind,
        sample.bench.store.subject(&sample.image).expect("there"),
        &nonsense.content,
    );
    nonsense.manifest = crate::oci::render(&described);
    let to = super::reference(&at_of(&registry.address));
    let repository =
        crate::registry::Repository::to_write(&to, super::no_registries(), Default::default()).expect("a repository");
    for artifact in [crate::oci::Artifact::statement(foreign, &envelope), nonsense] {
        let open = |_| Ok(Box::new(std::io::Cursor::new(artifact.content.clone())) as Box<dyn std::io::Read>);
        let (digest, size) = (kiln_model::Digest::of(&artifact.content), artifact.content.len() as u64);
        repository.send_blob(&crate::registry::Blob { digest, size, open: &open }, &[]).expect("sent");
        repository
            .send_manifest(&artifact.digest().to_string(), crate::oci::MANIFEST, &artifact.manifest)
            .expect("sent");
        let entry = crate::registry::Referrer {
            media_type: crate::oci::MANIFEST.into(),
            digest: artifact.digest(),
            size: artifact.manifest.len() as u64,
            artifact_type: Some(artifact.kind.into()),
            annotations: Default::default(),
        };
        repository.list_referrer(&sample.image.0, &entry).expect("listed");
    }
    let other = Elsewhere::new();
    let pulled = other.pull(&at_of(&registry.address)).unwrap_or_else(|e| panic!("{}", chain(&e)));
    assert_eq!((pulled.reports, pulled.suites), (1, 1));
    same(&sample, &other.store, &sample.image);
}

#[test]
fn root_a_registry_that_wants_to_know_who_asks_is_told_where_credentials_are_looked_for() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let closed = Proxy::start(&registry.address, |_, _| {
        Fate::Answer(401, vec![("www-authenticate", "Basic realm=\"x\"".into())], vec![])
    });
    let error = sample.push(&sample.image, &at(&closed)).expect_err("nobody is known");
    assert!(matches!(error, DeliveryError::Registry(RegistryError::Unauthorized { action: "write", .. })), "{error:?}");
    assert!(closed.asked().iter().all(|line| line.starts_with("HEAD")), "{:?}", closed.asked());
}
