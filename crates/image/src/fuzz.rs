//! What the fuzz targets call: each parser of bytes from outside, as the code that uses it calls it.
//!
//! Nothing here may panic, hang, or need more memory than its limits allow, whatever the bytes are. The corpora under
//! `fuzz/corpus` are read by these functions in the ordinary tests too, so that what was found once stays mended.

use std::{
    cell::RefCell,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use kiln_model::{
    ByteSize, Digest, ImageDigest, Recipe, Suite,
    recipe::{Distribution, FileKind, FileProblem, ImportLimits, RecipeFiles},
    systemd::{Unit, propose},
};

use crate::{
    debian::{
        self,
        deb::Deb,
        index::Index,
        keys::Keyring,
        release::{Release, Wanted},
        signed::Signed,
    },
    import::{self, Ground, Meter, Packed},
    layer::apply,
    oci::{
        self, artifact,
        foreign::{self, Document, ForeignConfig, ForeignManifest},
        source,
    },
    registry,
    survey::{self, EnabledService},
};

/// A manifest or index, as a registry, layout or archive gives it.
pub fn oci_manifest(bytes: &[u8]) {
    if let Ok(Document::Index(manifests)) = Document::parse(bytes) {
        drop(foreign::choose(&manifests));
    }
    if let Ok(manifest) = serde_json::from_slice::<ForeignManifest>(bytes) {
        drop(artifact::wanted(&manifest, &Digest::of(b"image")));
    }
    drop(serde_json::from_slice::<oci::Manifest>(bytes));
}

/// What a configuration tool's step says of itself.
pub fn provision(bytes: &[u8]) {
    crate::bake::fuzz_provision(bytes);
}

/// The index of a layout, and the list of what refers to an image.
pub fn oci_index(bytes: &[u8]) {
    for name in [None, Some("latest")] {
        drop(source::named(bytes, name, None, Path::new("layout")));
    }
    drop(source::unnamed(bytes));
    registry::fuzz::referrers(bytes);
}

/// The configuration of an image, with the manifest of Kiln in its label.
pub fn oci_config(bytes: &[u8]) {
    if let Ok(config) = ForeignConfig::parse(bytes) {
        assert!(config.layer_names().iter().all(|name| !name.contains(char::is_control)));
    }
    if let Ok(config) = serde_json::from_slice::<oci::Config>(bytes) {
        let label = config.config.labels.get(kiln_model::manifest::LABEL);
        drop(label.map(|label| serde_json::from_str::<kiln_model::ImageManifest>(label)));
    }
    drop(serde_json::from_slice::<Suite>(bytes));
}

/// A layer, plain or packed, over an empty tree and over what its own first half makes.
pub fn layer(bytes: &[u8]) {
    let work = tempfile::tempdir_in(scratch()).expect("a directory");
    let limits = ImportLimits { size: ByteSize::mib(8), files: 2000, ratio: 200 };
    let mut below = apply::empty(0);
    for part in [&bytes[..bytes.len() / 1024 * 512], bytes] {
        let ground = Ground { below: &below, objects: work.path(), work: work.path(), epoch: 0 };
        let Ok(imported) = import::unchecked(Packed::new(part, None), &mut Meter::new(limits), &ground) else {
            continue;
        };
        let contents = imported.layer.entries().iter().map(|entry| match entry.kind {
            crate::layer::Kind::File(_) => Some(apply::Kept::Inline(Box::default())),
            _ => None,
        });
        apply::apply(&mut below, &imported.layer, &contents.collect::<Vec<_>>()).expect("it fits what it was made for");
        for file in fs::read_dir(work.path()).expect("listed").flatten() {
            fs::remove_file(file.path()).expect("removed");
        }
    }
}

/// A tar file with a layout in it, or of `docker save`.
pub fn saved_image(bytes: &[u8]) {
    on_disk(bytes, |path| {
        if let Ok(archive) = oci::archive::Archive::open(path, None) {
            drop(source::find(&archive, None));
        }
    });
}

/// A DSSE envelope, and, as its payload, a statement.
pub fn evidence(bytes: &[u8]) {
    use base64::{Engine as _, prelude::BASE64_STANDARD};
    use kiln_model::evidence::{self, Envelope, PAYLOAD_TYPE};
    if let Ok(envelope) = evidence::parse(bytes) {
        drop(evidence::peek(&envelope));
        drop(evidence::open(&envelope, &[]));
        assert_eq!(evidence::parse(&evidence::render(&envelope)).ok(), Some(envelope));
    }
    let envelope = serde_json::json!({
        "payload": BASE64_STANDARD.encode(bytes), "payloadType": PAYLOAD_TYPE, "signatures": [{ "keyid": "", "sig": "" }]
    });
    let envelope: Envelope = serde_json::from_value(envelope).expect("an envelope");
    assert!(evidence::peek(&envelope).is_none_or(|report| report.image != ImageDigest(Digest::of(b""))));
}

/// dpkg's status file.
pub fn dpkg_status(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    drop(debian::database::installed(&text));
    let once: String = debian::control::Paragraph::read_all(&text).iter().map(|p| format!("{p}\n")).collect();
    let twice: String = debian::control::Paragraph::read_all(&once).iter().map(|p| format!("{p}\n")).collect();
    assert_eq!(once, twice);
}

/// A package index, and what is found with it.
pub fn packages(bytes: &[u8]) {
    let Ok(index) = Index::parse(bytes) else { return };
    for package in index.packages() {
        assert!(index.named(package.name()).any(|found| found.position() == package.position()));
        for relations in [package.depends(), package.pre_depends(), package.provides(), package.conflicts()] {
            debian::relation::all(relations).for_each(|relation| drop(relation.to_string()));
        }
    }
}

/// A release file: its text as if it were signed, and both signed forms.
pub fn in_release(bytes: &[u8]) {
    let now = jiff::Timestamp::from_second(1_800_000_000).expect("a time");
    thread_local!(static KEYS: Keyring = Keyring::shipped(Distribution::Debian).expect("shipped"));
    let wanted = Wanted::Suite(Distribution::Debian, "bookworm");
    KEYS.with(|keys| {
        drop(Release::open(&Signed::Inside(bytes.to_owned()), wanted, keys, now));
        let beside = Signed::Beside { text: b"Date: x\n".to_vec(), signature: bytes.to_owned() };
        drop(Release::open(&beside, Wanted::Any, keys, now));
    });
    drop(Keyring::parse(bytes));
    if let Ok(release) = Release::read(String::from_utf8_lossy(bytes).into_owned()) {
        drop((release.package_indexes("main"), release.flat_index()));
    }
}

/// A package: `ar`, its control part, and the names in its data part.
pub fn deb(bytes: &[u8]) {
    on_disk(bytes, |path| {
        let Ok(deb) = Deb::open(path) else { return };
        drop(deb.info_name());
        if !debian::is_ours(deb.architecture()) {
            return;
        }
        // A package of nobody's archive: what it says of itself is read as an index.
        let text = debian::local::paragraph(&deb, bytes.len() as u64, &Digest::of(bytes));
        let index = Index::parse(text.as_bytes()).expect("its fields were checked");
        assert!(index.named(deb.name()).any(|found| found.version() == deb.version()));
        let Ok(data) = deb.data() else { return };
        let mut archive = tar::Archive::new(data.take(8 << 20));
        for entry in archive.entries().into_iter().flatten().map_while(Result::ok) {
            drop((entry.path_bytes(), entry.link_name_bytes()));
        }
    });
}

/// A package's control file, by itself: most of what a package of somebody else says stands there.
pub fn deb_control(bytes: &[u8]) {
    let Ok(deb) = Deb::of_control(Path::new("app.deb"), bytes.to_vec()) else { return };
    if !debian::is_ours(deb.architecture()) {
        return;
    }
    let text = debian::local::paragraph(&deb, 1, &Digest::of(bytes));
    let index = Index::parse(text.as_bytes()).expect("its fields were checked");
    let package = index.packages().next().expect("one package");
    assert_eq!((package.name(), package.version()), (deb.name(), deb.version()));
    let source = debian::resolve::Source { archive: kiln_model::lock::FILE, index: &index };
    let wanted = [format!("{}={}", deb.name(), deb.version())];
    match debian::resolve::resolve_among(&[source], &[], &wanted) {
        Ok(set) => assert!(set.iter().all(|package| package.name == deb.name())),
        Err(error) => drop(error.to_string()),
    }
}

/// A unit file of systemd, alone and as a drop-in over another one: what is proposed for it is a recipe.
pub fn systemd(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut units: Vec<_> = Unit::parse(&text).into_iter().collect();
    let mut under = Unit::parse("[Service]\nExecStart=/bin/app\nUser=app\n").expect("a unit");
    units.extend(under.overlay(&text).is_ok().then_some(under));
    for unit in &units {
        let proposal = propose(unit);
        assert!(!proposal.service.command.is_empty() || !proposal.questions.is_empty(), "what starts it is asked");
        let description = unit.last("Unit", "Description").unwrap_or_default().to_owned();
        let service = EnabledService {
            unit: "app.service".to_owned(),
            path: "/lib/systemd/system/app.service".to_owned(),
            package: None,
            of_every_debian: false,
            description,
            proposal: Some(proposal),
        };
        let service_text = survey::service_text(&service, &[80]).map_or_else(String::new, |found| found.text);
        let (writable, _) = survey::writable_text([&service]);
        let recipe = format!("name = \"app\"\n[base]\ndebian = \"bookworm\"\n{service_text}{writable}");
        if let Err(wrong) = Recipe::parse(&recipe, "image.toml", &NoFiles) {
            panic!("{}", wrong.render(false, 100));
        }
    }
}

/// A recipe's directory with nothing in it.
struct NoFiles;

impl RecipeFiles for NoFiles {
    fn kind(&self, _: &str) -> Result<Option<FileKind>, FileProblem> {
        Ok(None)
    }
    fn read(&self, _: &str, _: u64) -> Result<Vec<u8>, FileProblem> {
        Err(FileProblem::Outside)
    }
    fn list(&self, _: &str) -> Result<Vec<String>, FileProblem> {
        Ok(Vec::new())
    }
}

/// What a registry says of itself, and Docker's file of credentials.
pub fn registry(bytes: &[u8]) {
    registry::fuzz::settings(&String::from_utf8_lossy(bytes));
}

/// Where files of targets go: memory, where there is such a place.
fn scratch() -> &'static Path {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { memory } else { Path::new("/tmp") }
}

/// Calls with a file of these bytes.
fn on_disk(bytes: &[u8], with: impl FnOnce(&Path)) {
    thread_local!(static PLACE: RefCell<tempfile::NamedTempFile> =
        RefCell::new(tempfile::NamedTempFile::new_in(scratch()).expect("a file")));
    PLACE.with_borrow_mut(|place| {
        let file: &mut File = place.as_file_mut();
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).expect("empty");
        file.write_all(bytes).expect("written");
        with(place.path());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads every file of a target's corpus.
    fn corpus(target: &str, read: fn(&[u8])) {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let files: Vec<_> =
            fs::read_dir(&directory).expect("a corpus").map(|file| file.expect("a file").path()).collect();
        assert!(!files.is_empty(), "{target} has no corpus");
        files.iter().for_each(|file| read(&fs::read(file).expect("readable")));
    }

    #[test]
    fn host_what_was_fuzzed_is_read_without_fault() {
        corpus("oci_manifest", oci_manifest);
        corpus("oci_index", oci_index);
        corpus("oci_config", oci_config);
        corpus("layer", layer);
        corpus("saved_image", saved_image);
        corpus("evidence", evidence);
        corpus("dpkg_status", dpkg_status);
        corpus("packages", packages);
        corpus("in_release", in_release);
        corpus("deb", deb);
        corpus("deb_control", deb_control);
        corpus("provision", provision);
        corpus("systemd", systemd);
        corpus("registry", registry);
    }
}
