//! Images that real programs made, and images that no program should make.

use std::{
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
};

use kiln_model::{
    Digest, ImageDigest, Recipe,
    oci::{OciPlace, OciSource},
    recipe::{Base, ImportLimits, OciBase, Step},
};
use serde_json::{Value, json};

use crate::{
    bake::{
        BakeError, LockMode, bake,
        tests::{Bench, ChrootSandbox, recipe, request, shell, shell_tree},
    },
    import::tests::Tar,
    registry::docker::tool,
    store::objects,
    tree::{EntryKind, TreeEntry},
};

pub(crate) fn oci(source: &str, steps: Vec<Step>) -> Recipe {
    let source: OciSource = source.parse().expect("a source");
    Recipe { base: Base::Oci(OciBase { source, limits: ImportLimits::default() }), ..recipe(steps) }
}

/// A layout with a small image in two layers: a shell and tools, then what is deleted and added.
pub(crate) fn layout(bench: &Bench) -> PathBuf {
    let (layout, tree) = (bench.recipe_dir().join("layout"), bench.dir.path().join("made"));
    shell_tree(&tree);
    for (path, text) in [("etc/old", "old"), ("srv/data/a", "a"), ("srv/data/b", "b"), ("opt/x", "x")] {
        fs::create_dir_all(tree.join(path).parent().expect("a parent")).expect("a directory");
        fs::write(tree.join(path), text).expect("a file");
    }
    fs::hard_link(tree.join("etc/passwd"), tree.join("etc/passwd-too")).expect("a link");
    std::os::unix::fs::symlink("/etc/group", tree.join("etc/groups")).expect("a link");
    std::os::unix::fs::chown(tree.join("opt/x"), Some(33), Some(44)).expect("owned");
    let more = bench.dir.path().join("more");
    fs::create_dir_all(&more).expect("a directory");
    fs::write(more.join("c"), "new").expect("a file");
    let (at, image) = (layout.to_str().expect("UTF-8"), format!("{}:small", layout.display()));
    tool("umoci", &["init", "--layout", at]);
    tool("umoci", &["new", "--image", &image]);
    tool("umoci", &["insert", "--image", &image, tree.to_str().expect("UTF-8"), "/"]);
    tool("umoci", &["insert", "--image", &image, "--whiteout", "/etc/old"]);
    tool("umoci", &["insert", "--image", &image, "--opaque", more.to_str().expect("UTF-8"), "/srv/data"]);
    let set = [
        "--config.user",
        "www",
        "--config.cmd",
        "/bin/sh",
        "--config.env",
        "GREETING=hello",
        "--config.exposedports",
        "80/tcp",
    ];
    tool("umoci", &[&["config", "--image", &image][..], &set].concat());
    layout
}

/// The image as `umoci` unpacks it.
pub(crate) fn unpacked(layout: &Path, name: &str, to: &Path) -> PathBuf {
    tool("umoci", &["unpack", "--image", &format!("{}:{name}", layout.display()), to.to_str().expect("UTF-8")]);
    to.join("rootfs")
}

/// Asserts that a directory holds exactly what the image's tree does.
pub(crate) fn same_tree(bench: &crate::Store, image: &ImageDigest, directory: &Path) {
    let tree = bench.tree(image).expect("a tree");
    let seen = |path: &Path| -> TreeEntry {
        let host = directory.join(path.strip_prefix("/").expect("absolute"));
        let stat = fs::symlink_metadata(&host).unwrap_or_else(|e| panic!("{}: {e}", host.display()));
        let kind = if stat.is_dir() {
            EntryKind::Directory
        } else if stat.is_symlink() {
            EntryKind::Symlink { target: fs::read_link(&host).expect("a link") }
        } else if stat.is_file() {
            EntryKind::File { size: stat.len() }
        } else {
            EntryKind::Fifo
        };
        let mtime = stat.mtime();
        TreeEntry { path: path.to_owned(), kind, mode: stat.mode() & 0o7777, uid: stat.uid(), gid: stat.gid(), mtime }
    };
    let entries = tree.entries();
    assert!(entries.len() > 20, "{} entries", entries.len());
    for entry in &entries {
        assert_eq!(seen(&entry.path), *entry);
        if let EntryKind::File { size } = entry.kind {
            let there = fs::read(directory.join(entry.path.strip_prefix("/").expect("absolute"))).expect("a file");
            let here = tree.read(&entry.path, size).expect("readable");
            assert!(here.as_deref() == Some(&there), "{}", entry.path.display());
        }
    }
    let mut count = 0;
    let mut todo = vec![directory.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).expect("listed") {
            let path = entry.expect("an entry").path();
            count += 1;
            if !path.is_symlink() && path.is_dir() {
                todo.push(path);
            }
        }
    }
    assert_eq!(count, entries.len(), "paths in the directory and in the image");
}

#[test]
fn root_a_layout_is_taken_in_as_umoci_unpacks_it() {
    let bench = Bench::new();
    let layout = layout(&bench);
    let baked = bench.bake(&oci("oci:layout:small", Vec::new())).expect("baked");
    assert!(baked.steps.iter().all(|step| !step.cached));
    // The last step makes mount points; what the base is shows without it.
    let first = unpacked(&layout, "small", &bench.dir.path().join("unpacked"));
    let tree = bench.store.tree(&baked.image).expect("a tree");
    for (path, there) in [("/etc/old", false), ("/srv/data/a", false), ("/srv/data/c", true), ("/etc/passwd-too", true)]
    {
        assert_eq!(tree.entry(Path::new(path)).is_some(), there, "{path}");
        assert_eq!(first.join(path.trim_start_matches('/')).exists(), there, "umoci: {path}");
    }
    let x = tree.entry(Path::new("/opt/x")).expect("there");
    assert_eq!((x.uid, x.gid), (33, 44));
    let lock = fs::read_to_string(bench.recipe_dir().join("kiln.lock")).expect("a lock");
    assert!(lock.contains("source = \"oci:layout:small\""), "{lock}");
    let again = bench.bake(&oci("oci:layout:small", Vec::new())).expect("baked");
    assert_eq!(again.image, baked.image);
    assert!(again.steps.iter().all(|step| step.cached), "{:?}", again.steps);
    println!("taken in {:.1} ms, again {:.1} ms", baked.seconds * 1e3, again.seconds * 1e3);
    let found = bench.store.verify(&baked.image, &|_, _| {}).expect("verified");
    assert!(found.is_sound(), "{:?}", found.damage);
}

#[test]
fn root_steps_run_over_an_oci_base_with_its_environment() {
    let bench = Bench::new();
    layout(&bench);
    let steps =
        vec![shell("echo \"$GREETING from $0\" > /etc/made; ls /srv/data > /etc/listed; ln /etc/passwd /etc/third")];
    let baked = bench.bake(&oci("oci:layout:small", steps)).expect("baked");
    let tree = bench.store.tree(&baked.image).expect("a tree");
    let read = |path: &str| tree.read(Path::new(path), 100).expect("readable").expect("there");
    assert_eq!(read("/etc/made"), b"hello from /bin/sh\n");
    assert_eq!(read("/etc/listed"), b"c\n");
}

#[test]
fn root_archives_of_skopeo_and_buildah_give_the_same_image() {
    let bench = Bench::new();
    let layout = layout(&bench);
    let from = format!("oci:{}:small", layout.display());
    let expected = bench.bake(&oci("oci:layout:small", Vec::new())).expect("baked").image;
    for (kind, name) in [("oci-archive", "small"), ("docker-archive", "docker.io/some/app:1")] {
        let file = format!("{kind}.tar");
        let to = format!("{kind}:{}:{name}", bench.recipe_dir().join(&file).display());
        tool("skopeo", &["copy", "--quiet", "--insecure-policy", &from, &to]);
        for source in [format!("{kind}:{file}"), format!("{kind}:{file}:{}", name.trim_start_matches("docker.io/"))] {
            let baked = bench.bake(&oci(&source, Vec::new())).unwrap_or_else(|e| panic!("{source}: {e:?}"));
            assert_eq!(baked.image, expected, "{source}");
        }
        let missing = bench.bake(&oci(&format!("{kind}:{file}:other"), Vec::new())).expect_err("no such image");
        assert!(chain(&missing).contains("has no image `other`"), "{}", chain(&missing));
    }
}

#[test]
fn root_an_image_packed_with_zstd_is_the_same_but_for_its_name() {
    let bench = Bench::new();
    let from = format!("oci:{}:small", layout(&bench).display());
    let to = bench.recipe_dir().join("zstd");
    // What is packed already is not packed anew, so it is unpacked first.
    let between = format!("dir:{}", bench.dir.path().join("plain").display());
    let copy = ["copy", "--quiet", "--insecure-policy"];
    tool("skopeo", &[&copy[..], &["--dest-decompress", &from, &between]].concat());
    let packed = format!("oci:{}:small", to.display());
    tool("skopeo", &[&copy[..], &["--dest-compress-format=zstd", &between, &packed]].concat());
    let index = fs::read_to_string(to.join("index.json")).expect("an index");
    let manifest = index.split("sha256:").nth(1).expect("a digest")[..64].to_owned();
    let manifest = fs::read_to_string(to.join("blobs/sha256").join(manifest)).expect("a manifest");
    assert!(manifest.contains("layer.v1.tar+zstd"), "{manifest}");
    let gzip = bench.bake(&oci("oci:layout:small", Vec::new())).expect("baked").image;
    let zstd = bench.bake(&oci("oci:zstd:small", Vec::new())).expect("baked").image;
    assert_eq!(bench.store.layers(&gzip).expect("layers"), bench.store.layers(&zstd).expect("layers"));
}

#[test]
fn root_an_image_of_buildah_is_taken_in() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("tree");
    shell_tree(&tree);
    let (root, run) = (bench.dir.path().join("storage"), bench.dir.path().join("run"));
    let buildah = |arguments: &[&str]| {
        let places = [
            "--root",
            root.to_str().expect("UTF-8"),
            "--runroot",
            run.to_str().expect("UTF-8"),
            "--storage-driver",
            "vfs",
        ];
        tool("buildah", &[&places[..], arguments].concat())
    };
    let container = buildah(&["from", "scratch"]);
    let container = container.trim();
    buildah(&["copy", "--quiet", container, tree.to_str().expect("UTF-8"), "/"]);
    buildah(&["config", "--env", "A=b", "--cmd", "/bin/sh", container]);
    let to = format!("oci:{}:built", bench.recipe_dir().join("built").display());
    // No signature policy is on this host, and none is needed for what was made here.
    let policy = bench.dir.path().join("policy.json");
    fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).expect("written");
    buildah(&["commit", "--quiet", "--signature-policy", policy.to_str().expect("UTF-8"), container, &to]);
    buildah(&["rm", "--all"]);
    let baked = bench.bake(&oci("oci:built:built", vec![shell("echo $A > /etc/a")])).expect("baked");
    let read = bench.store.tree(&baked.image).expect("a tree").read(Path::new("/etc/a"), 10).expect("readable");
    assert_eq!(read.as_deref(), Some(&b"b\n"[..]));
}

/// An image of the store as a layout, which Kiln itself does not write yet.
fn exported(bench: &Bench, image: &ImageDigest, to: &Path) {
    fs::create_dir_all(to.join("blobs/sha256")).expect("a directory");
    fs::write(to.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("written");
    let blob = |digest: &Digest| to.join("blobs/sha256").join(digest.hex());
    let read = |name: String, kind, digest: &Digest| {
        objects::read_document(bench.store.repo(), &name, kind, digest).expect("readable").expect("there")
    };
    let manifest = read(objects::manifest_stream(&image.0), objects::MANIFEST_STREAM, &image.0);
    let documents = bench.store.documents(image).expect("readable");
    let config = &documents.manifest.config.digest;
    fs::write(blob(config), read(objects::config_stream(config), objects::CONFIG_STREAM, config)).expect("written");
    for layer in &documents.manifest.layers {
        let mut file = fs::File::create(blob(&layer.digest)).expect("a file");
        bench.store.copy_layer(&layer.digest, &mut file).expect("copied");
    }
    let name = json!({ "org.opencontainers.image.ref.name": "kiln" });
    let described = json!({ "mediaType": super::MANIFEST, "digest": image.to_string(), "size": manifest.len(), "annotations": name });
    fs::write(blob(&image.0), manifest).expect("written");
    fs::write(to.join("index.json"), json!({ "schemaVersion": 2, "manifests": [described] }).to_string())
        .expect("written");
}

#[test]
fn root_umoci_unpacks_what_kiln_mounts() {
    let bench = Bench::new();
    layout(&bench);
    let steps = vec![shell("echo made > /etc/made; rm /opt/x; chmod 4711 /bin/cat; ln /etc/group /etc/group-too")];
    let image = bench.bake(&oci("oci:layout:small", steps)).expect("baked").image;
    let to = bench.dir.path().join("exported");
    exported(&bench, &image, &to);
    let inspected: Value =
        serde_json::from_str(&tool("skopeo", &["inspect", &format!("oci:{}:kiln", to.display())])).expect("JSON");
    assert_eq!(inspected["Digest"], json!(image.to_string()));
    same_tree(&bench.store, &image, &unpacked(&to, "kiln", &bench.dir.path().join("bundle")));
}

/// The error and its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

/// A layout written by hand.
struct Forge {
    directory: PathBuf,
}

impl Forge {
    fn new(bench: &Bench) -> Self {
        let directory = bench.recipe_dir().join("forged");
        fs::create_dir_all(directory.join("blobs/sha256")).expect("a directory");
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion": "1.0.0"}"#).expect("written");
        Self { directory }
    }
    fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::of(bytes);
        fs::write(self.directory.join("blobs/sha256").join(digest.hex()), bytes).expect("written");
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    }
    fn document(&self, media_type: &str, value: &Value) -> Value {
        self.blob(media_type, &serde_json::to_vec(value).expect("JSON"))
    }
    fn index(&self, manifests: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": manifests });
        fs::write(self.directory.join("index.json"), serde_json::to_vec(&index).expect("JSON")).expect("written");
    }
    /// An image of these layers.
    fn image(&self, layers: &[Vec<u8>], change: impl Fn(&mut Value, &mut Value)) -> Value {
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let mut config = json!({
            "architecture": super::architecture(), "os": "linux", "rootfs": { "type": "layers", "diff_ids": diff_ids }
        });
        let layers: Vec<_> = layers.iter().map(|layer| self.blob(super::LAYER, layer)).collect();
        let mut manifest = json!({ "schemaVersion": 2, "mediaType": super::MANIFEST, "layers": layers });
        change(&mut manifest, &mut config);
        manifest["config"] = self.document(super::CONFIG, &config);
        self.document(super::MANIFEST, &manifest)
    }
}

fn bake_forged(bench: &Bench) -> Result<ImageDigest, BakeError> {
    let (recipe, directory) = (oci("oci:forged", Vec::new()), bench.recipe_dir());
    let request = crate::bake::BakeRequest { lock: LockMode::Update, ..request(&recipe, &directory) };
    bake(&request, &bench.store, &ChrootSandbox, &|_| {}).map(|baked| baked.image)
}

fn refused(bench: &Bench, words: &str) {
    let error = bake_forged(bench).expect_err(words);
    assert!(chain(&error).contains(words), "{}", chain(&error));
    let left = fs::read_dir(bench.store.dir().join("work")).expect("listed").flatten();
    assert_eq!(left.filter(|entry| entry.file_name() != "locks").count(), 0, "{words}: work is left");
    assert!(bench.store.images().expect("readable").is_empty(), "{words}: an image is left");
}

#[test]
fn root_documents_that_lie_are_refused_and_nothing_is_left() {
    let bench = Bench::new();
    let forge = Forge::new(&bench);
    let layer = || Tar::new().dir("etc").file("etc/x", "1").end();
    let image = |change: &dyn Fn(&mut Value, &mut Value)| forge.index(&[forge.image(&[layer()], change)]);
    image(&|_, config| config["architecture"] = json!("m68k"));
    refused(&bench, "it is for linux/m68k");
    image(&|_, config| config["rootfs"]["diff_ids"] = json!([]));
    refused(&bench, "has 1 layers, and its configuration says 0");
    image(&|_, config| config["rootfs"]["diff_ids"] = json!(["sha512:12"]));
    refused(&bench, "its configuration is of no use");
    image(&|_, config| config["rootfs"]["diff_ids"] = json!([Digest::of(b"other").to_string()]));
    refused(&bench, "its unpacked bytes should have the digest");
    image(&|manifest, _| manifest["layers"][0]["size"] = json!(3));
    refused(&bench, "it should have 3 bytes");
    image(&|manifest, _| manifest["layers"][0]["size"] = json!(-3));
    refused(&bench, "its manifest is of no use");
    image(&|manifest, _| {
        manifest["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.v1.tar+encrypted")
    });
    refused(&bench, "Kiln reads tar, tar+gzip and tar+zstd");
    image(&|manifest, _| manifest["schemaVersion"] = json!(1));
    refused(&bench, "schema version 1");
    image(&|manifest, _| manifest["layers"] = json!(vec![manifest["layers"][0].clone(); 501]));
    refused(&bench, "at most 500 are read");
    image(&|manifest, _| manifest["config"] = json!({}));
    // The blob of another image, and half a blob.
    let good = forge.image(&[layer()], |_, _| {});
    forge.index(std::slice::from_ref(&good));
    let blob = forge.directory.join("blobs/sha256").join(Digest::of(&layer()).hex());
    fs::write(&blob, Tar::new().dir("etc").file("etc/x", "2").end()).expect("written");
    refused(&bench, "its packed bytes should have the digest");
    fs::write(&blob, &layer()[..700]).expect("written");
    refused(&bench, "ends in the middle");
    fs::remove_file(&blob).expect("removed");
    refused(&bench, "cannot be read");
    std::os::unix::fs::symlink("/etc/hostname", &blob).expect("a link");
    refused(&bench, "cannot be read");
    fs::remove_file(&blob).expect("removed");
    fs::write(&blob, layer()).expect("written");
    bake_forged(&bench).expect("the same image without a lie is taken in");
}

#[test]
fn root_documents_of_any_size_and_depth_are_bounded() {
    let bench = Bench::new();
    let forge = Forge::new(&bench);
    // 100 MB that say they are a manifest, in the blob and in its description.
    let long = vec![b' '; 100 << 20];
    forge.index(&[forge.blob(super::MANIFEST, &long)]);
    refused(&bench, "its manifest has 104857600 bytes; at most 4194304 are read");
    let mut lie = forge.blob(super::MANIFEST, &long);
    lie["size"] = json!(100);
    forge.index(&[lie]);
    refused(&bench, "at most 4194304 are read");
    fs::write(forge.directory.join("index.json"), &long).expect("written");
    refused(&bench, "its index has");
    // An index that lists itself, as far as that can be: under its own digest there is something else.
    let index = "application/vnd.oci.image.index.v1+json";
    let own = json!({ "mediaType": index, "digest": Digest::of(b"self").to_string(), "size": 4 });
    let looped = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [own] });
    let bytes = serde_json::to_vec(&looped).expect("JSON");
    fs::write(forge.directory.join("blobs/sha256").join(Digest::of(b"self").hex()), &bytes).expect("written");
    forge.index(&[forge.blob(index, &bytes)]);
    refused(&bench, "its manifest should be");
    // Indexes in indexes in indexes.
    let mut inner = forge.image(&[Tar::new().dir("etc").end()], |_, _| {});
    for _ in 0..6 {
        inner = forge.document(index, &json!({ "schemaVersion": 2, "mediaType": index, "manifests": [inner] }));
    }
    forge.index(&[inner]);
    refused(&bench, "it lists indexes that list indexes");
    // Of several platforms the host's is taken.
    let platform = |mut entry: Value, architecture: &str| {
        entry["platform"] = json!({ "os": "linux", "architecture": architecture });
        entry
    };
    let ours = forge.image(&[Tar::new().file("ours", "1").end()], |_, _| {});
    let other =
        forge.image(&[Tar::new().file("other", "1").end()], |_, config| config["architecture"] = json!("s390x"));
    let both = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [platform(other.clone(), "s390x"), platform(ours, super::architecture())] });
    forge.index(&[forge.document(index, &both)]);
    let image = bake_forged(&bench).expect("taken in");
    assert!(bench.store.tree(&image).expect("a tree").entry(Path::new("/ours")).is_some());
    let only = json!({ "schemaVersion": 2, "mediaType": index, "manifests": [platform(other, "s390x")] });
    forge.index(&[forge.document(index, &only)]);
    let error = bake_forged(&bench).expect_err("not for this host");
    assert!(chain(&error).contains("it is for linux/s390x"), "{}", chain(&error));
}

#[test]
fn root_a_hostile_layer_in_a_whole_image_changes_nothing_outside() {
    let bench = Bench::new();
    let forge = Forge::new(&bench);
    // Not below /tmp, which every image has empty.
    let directory = tempfile::tempdir_in("/var/lib").expect("a directory");
    let outside = directory.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    let link = Tar::new().symlink("out", outside.to_str().expect("UTF-8"));
    let through = Tar::new().file("out/owned", "x").entry(b"out/.wh.gone", b'0', b"", b"");
    forge.index(&[forge.image(&[link.end(), through.end()], |_, _| {})]);
    let image = bake_forged(&bench).expect("it is followed inside the image");
    let tree = bench.store.tree(&image).expect("a tree");
    assert!(tree.entry(&outside.join("owned")).is_some(), "{:?}", tree.entries());
    assert_eq!(fs::read_dir(&outside).expect("listed").count(), 0);
    let names = Tar::new().entry(b"caf\xe9\x1b", b'0', b"", b"1").end();
    forge.index(&[forge.image(&[names], |_, _| {})]);
    let image = bake_forged(&bench).expect("any name");
    let tree = bench.store.tree(&image).expect("a tree");
    assert!(tree.entries().iter().any(|entry| entry.path.as_os_str().as_bytes() == b"/caf\xe9\x1b"));
}

#[test]
fn root_a_lock_is_kept_when_the_image_changes() {
    let bench = Bench::new();
    let forge = Forge::new(&bench);
    let image = |text: &str| forge.image(&[Tar::new().file("x", text).end()], |_, _| {});
    forge.index(&[image("1")]);
    let recipe = oci("oci:forged", Vec::new());
    let first = bench.bake(&recipe).expect("baked").image;
    forge.index(&[image("2")]);
    assert_eq!(bench.bake(&recipe).expect("baked").image, first, "the lock decides");
    let second = bake_forged(&bench).expect("updated");
    assert_ne!(second, first);
    fs::remove_dir_all(forge.directory.join("blobs")).expect("removed");
    fs::create_dir_all(forge.directory.join("blobs/sha256")).expect("a directory");
    forge.index(&[image("3")]);
    let error = bench.bake(&recipe).expect_err("what is locked is gone");
    assert!(chain(&error).contains("its manifest should be"), "{}", chain(&error));
    let place = OciPlace { path: "forged".into(), name: None };
    assert_eq!(recipe.base, Base::Oci(OciBase { source: OciSource::Layout(place), limits: ImportLimits::default() }));
}
