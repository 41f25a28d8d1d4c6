//! Images of registries that Containerfiles name, and what they want of those that start from them.

use std::{collections::BTreeMap, fs, path::Path};

use kiln_model::{
    Digest, Recipe,
    containerfile::Containerfile,
    recipe::{Base, ContainerfileBase, ImportLimits},
};

use crate::{
    bake::{
        BakeError, BakeRequest, Baked, LockMode, LockProblem, bake,
        tests::{Bench, ChrootSandbox, recipe, request},
    },
    oci::tests::layout,
    registry::docker::{DockerRegistry, tool},
};

fn of(text: &str) -> Recipe {
    let file = Containerfile::parse(text, "Containerfile").unwrap_or_else(|faults| panic!("{faults}"));
    let plan = file.plan(&BTreeMap::new(), None).unwrap_or_else(|faults| panic!("{faults}"));
    let base = ContainerfileBase {
        path: "Containerfile".into(),
        context: String::new(),
        network: false,
        secrets: BTreeMap::new(),
        limits: ImportLimits::default(),
        file,
        plan,
        text: Digest::of(text.as_bytes()),
    };
    Recipe { base: Base::Containerfile(Box::new(base)), ..recipe(Vec::new()) }
}

fn baked(bench: &Bench, text: &str, lock: LockMode, offline: bool) -> Result<Baked, BakeError> {
    let (recipe, dir) = (of(text), bench.recipe_dir());
    let request = BakeRequest { lock, offline, ..request(&recipe, &dir) };
    bake(&request, &bench.store, &ChrootSandbox, &|_| {})
}

#[test]
fn root_images_of_a_registry_are_locked_and_found_again() {
    let (bench, registry) = (Bench::new(), DockerRegistry::start());
    let layout = layout(&bench);
    let push = |name: &str| {
        let from = format!("oci:{}:small", layout.display());
        let to = format!("docker://{}/{name}", registry.address);
        tool("skopeo", &["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", &from, &to]);
    };
    push("a:1");
    push("b:1");
    let address = &registry.address;
    let text = format!("FROM {address}/a:1\nCOPY --from={address}/b:1 /srv/data/c /c\nRUN echo $GREETING > /said\n");
    let first = baked(&bench, &text, LockMode::Use, false).expect("baked");
    let read = |baked: &Baked, path: &str| {
        let tree = bench.store.tree(&baked.image).expect("a tree");
        tree.read(Path::new(path), 100).expect("readable")
    };
    assert_eq!(read(&first, "/said").as_deref(), Some(&b"hello\n"[..]), "commands have the image's variables");
    assert_eq!(read(&first, "/c").as_deref(), Some(&b"new"[..]));
    let lock = fs::read_to_string(bench.recipe_dir().join("kiln.lock")).expect("a lock");
    assert_eq!(lock.matches("[[image]]").count(), 2, "{lock}");
    // The tag moves; the lock does not.
    let image = format!("{}:small", layout.display());
    tool("umoci", &["config", "--image", &image, "--config.env", "GREETING=moved"]);
    push("a:1");
    assert_eq!(baked(&bench, &text, LockMode::Use, false).expect("baked").image, first.image);
    assert_eq!(baked(&bench, &text, LockMode::Frozen, true).expect("what is cached is enough").image, first.image);
    let moved = baked(&bench, &text, LockMode::Update, false).expect("baked");
    assert_eq!(read(&moved, "/said").as_deref(), Some(&b"moved\n"[..]));
    let other = format!("FROM {address}/b:1\n");
    let stale = baked(&bench, &other, LockMode::Frozen, false).expect_err("the lock is for other images");
    assert!(matches!(&stale, BakeError::Lock(problem) if matches!(**problem, LockProblem::Stale { .. })), "{stale}");
}

#[test]
fn root_an_image_that_wants_something_done_by_what_starts_from_it_is_refused() {
    let bench = Bench::new();
    let layout = layout(&bench);
    let directory = bench.dir.path().join("plain");
    let (from, to) = (format!("oci:{}:small", layout.display()), format!("dir:{}", directory.display()));
    tool("skopeo", &["copy", "--quiet", "--insecure-policy", &from, &to]);
    let manifest: serde_json::Value =
        serde_json::from_slice(&fs::read(directory.join("manifest.json")).expect("there")).expect("JSON");
    let digest = manifest["config"]["digest"].as_str().expect("a digest").to_owned();
    let config = fs::read_to_string(directory.join(&digest[7..])).expect("a configuration");
    let config = config.replacen("\"Cmd\":", "\"OnBuild\":[\"RUN make\"],\"Cmd\":", 1);
    let changed = Digest::of(config.as_bytes());
    let blobs = layout.join("blobs/sha256");
    fs::write(blobs.join(changed.hex()), &config).expect("written");
    let manifest = fs::read_to_string(directory.join("manifest.json")).expect("there");
    let old = format!("\"size\":{}", fs::metadata(directory.join(&digest[7..])).expect("there").len());
    let manifest = manifest.replace(&digest, &changed.to_string()).replace(&old, &format!("\"size\":{}", config.len()));
    let named = Digest::of(manifest.as_bytes());
    fs::write(blobs.join(named.hex()), &manifest).expect("written");
    let index = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": named.to_string(), "size": manifest.len(),
        "annotations": { "org.opencontainers.image.ref.name": "small" },
    }]});
    fs::write(layout.join("index.json"), index.to_string()).expect("written");
    let refused = baked(&bench, "FROM oci:layout:small\nRUN true\n", LockMode::Use, true).expect_err("refused");
    let cause = std::error::Error::source(&refused).map(ToString::to_string).unwrap_or_default();
    assert!(cause.contains("RUN make") && cause.contains("ONBUILD"), "{refused}: {cause}");
}
