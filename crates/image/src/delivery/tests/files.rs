//! Images in files, and what other programs make of them.

use std::fs;

use kiln_model::{ByteSize, recipe::ImportLimits};

use super::{Elsewhere, Sample, cosign::add_provenance, same};
use crate::{
    bake::tests::no_registries,
    delivery::{DeliveryError, Received, load, save},
    import::ImportError,
    registry::docker::{DockerRegistry, tool},
};

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

#[test]
fn root_an_image_is_saved_and_loaded_with_its_reports_and_its_suite() {
    let sample = Sample::new();
    sample.report(&sample.image, 2);
    let provenance = add_provenance(&sample, sample.image);
    let file = sample.bench.dir.path().join("sample.tar");
    let saved = save(&sample.bench.store, &sample.image, &file, &|_| {}).expect("saved");
    assert_eq!((saved.reports, saved.name.as_str()), (2, "sample"));
    let other = Elsewhere::new();
    let loaded = load(&other.store, &file, None, ImportLimits::default(), now(), &|_| {}).expect("loaded");
    assert_eq!((loaded.image, loaded.reports, loaded.suites), (sample.image, 2, 1));
    assert_eq!((loaded.provenance, loaded.sboms), (1, 2));
    assert_eq!(other.store.provenance(&sample.image).expect("read"), [provenance]);
    same(&sample, &other.store, &sample.image);
    // Saved again there, it is the same file.
    let again = other.cache().with_extension("tar");
    save(&other.store, &sample.image, &again, &|_| {}).expect("saved");
    assert!(fs::read(&file).expect("read") == fs::read(&again).expect("read"), "the two files differ");
}

#[test]
fn root_a_damaged_file_is_refused_and_a_strangers_image_is_no_image_of_kiln() {
    let sample = Sample::new();
    let file = sample.bench.dir.path().join("sample.tar");
    save(&sample.bench.store, &sample.image, &file, &|_| {}).expect("saved");
    let mut bytes = fs::read(&file).expect("read");
    let other = Elsewhere::new();
    let middle = bytes.len() * 3 / 4;
    bytes[middle] ^= 1;
    fs::write(&file, &bytes).expect("written");
    let loaded = load(&other.store, &file, None, ImportLimits::default(), now(), &|_| {});
    // Whatever the flipped bit hit, nothing wrong came in.
    match loaded {
        Err(_) => assert!(other.store.images().expect("read").is_empty()),
        Ok(loaded) => assert_eq!((loaded.image, loaded.reports + loaded.suites), (sample.image, 1)),
    }
    bytes.truncate(middle);
    fs::write(&file, &bytes).expect("written");
    load(&Elsewhere::new().store, &file, None, ImportLimits::default(), now(), &|_| {}).expect_err("half a file");
    let bench = crate::bake::tests::Bench::new();
    let layout = crate::oci::tests::layout(&bench);
    let archive = bench.dir.path().join("foreign.tar");
    let from = format!("oci:{}:small", layout.display());
    tool("skopeo", &["copy", "--quiet", "--insecure-policy", &from, &format!("oci-archive:{}:x", archive.display())]);
    let error = load(&other.store, &archive, None, ImportLimits::default(), now(), &|_| {}).expect_err("a stranger's");
    assert!(matches!(error, DeliveryError::NotKiln { .. }), "{error}");
}

#[test]
fn root_a_host_says_how_much_of_an_image_it_takes() {
    let (sample, registry) = (Sample::new(), DockerRegistry::start());
    let (file, at) = (sample.bench.dir.path().join("sample.tar"), format!("{}/sample", registry.address));
    save(&sample.bench.store, &sample.image, &file, &|_| {}).expect("saved");
    sample.push(&sample.image, &at).expect("pushed");
    let usual = ImportLimits::default();
    let small = ImportLimits { size: ByteSize::bytes(10_000), ..usual };
    let few = ImportLimits { files: 3, ..usual };
    let refused = |came: Result<Received, DeliveryError>, other: &Elsewhere| {
        let DeliveryError::Layer { source, .. } = came.expect_err("too much") else { panic!("another reason") };
        assert!(other.store.images().expect("read").is_empty());
        source
    };
    let other = Elsewhere::new();
    let load = |limits| load(&other.store, &file, None, limits, now(), &|_| {});
    let pull = |limits| other.pull_at_most(&at, no_registries(), limits);
    assert!(matches!(refused(load(small), &other), ImportError::TooLarge { .. }));
    assert!(matches!(refused(load(few), &other), ImportError::TooMany { limit: 3 }));
    let error = refused(pull(small), &other);
    assert!(matches!(error, ImportError::TooLarge { .. }) && error.to_string().contains("--max-size"), "{error}");
    assert!(matches!(refused(pull(few), &other), ImportError::TooMany { limit: 3 }));
    assert_eq!(pull(usual).expect("pulled").image, sample.image);
}
