//! Repositories of others: flat ones, and those whose signature lies beside the release file.

mod debian_support;

use std::{fs, path::Path};

use debian_support::{
    archive::{Archive, Key, Package, SUITE},
    server::Answer,
};
use jiff::{SignedDuration, Timestamp};
use kiln_image::debian::{
    self, ArchiveError, Archives, Event, KeyFiles, Use, http::HttpError, index::IndexError, keys::SignatureError,
    release::ReleaseError,
};
use kiln_model::{
    Digest,
    recipe::{DebianBase, Repository},
};
use pgp::ser::Serialize as _;

/// A vendor's archive beside a base's.
struct Vendor {
    vendor: Archive,
    base: DebianBase,
    keys: KeyFiles,
    cache: tempfile::TempDir,
}

impl Vendor {
    fn new(repository: impl FnOnce(&Archive) -> Repository) -> Self {
        let archive = Archive::serve(vec![Package::new("lib", "")]);
        let vendor = Archive::serve(vec![Package::new("app", "Depends: lib\n")]);
        let base = DebianBase { repositories: vec![repository(&vendor)], ..archive.base() };
        let keys = KeyFiles { repositories: vec![vendor.key.keyring()], ..archive.keys() };
        Self { vendor, base, keys, cache: tempfile::tempdir().unwrap() }
    }

    fn refresh(&self, network: Use, now: Timestamp) -> Result<Archives, ArchiveError> {
        Archives::refresh(&self.base, &self.keys, self.cache.path(), network, now, &|_| ())
    }

    fn good(&self) -> Archives {
        self.refresh(Use::Network, Timestamp::now()).unwrap()
    }

    fn bad(&self) -> ArchiveError {
        self.refresh(Use::Network, Timestamp::now()).unwrap_err()
    }

    /// Why its release file is refused.
    fn refused(&self, now: Timestamp) -> ReleaseError {
        match self.refresh(Use::Network, now) {
            Err(ArchiveError::Release { source, key: Some(_), .. }) => source,
            other => panic!("{other:?}"),
        }
    }

    fn signature_refused(&self) -> SignatureError {
        match self.refused(Timestamp::now()) {
            ReleaseError::Signature(error) => error,
            other => panic!("{other:?}"),
        }
    }

    /// Only `Release` and `Release.gpg` from now on.
    fn sign_beside(&self, release: &str, signature: Vec<u8>) {
        let at = |name: &str| format!("/dists/{SUITE}/{name}");
        self.vendor.server.set(&at("InRelease"), Answer::Status(404));
        self.vendor.server.set(&at("Release"), Answer::Body(release.into()));
        self.vendor.server.set(&at("Release.gpg"), Answer::Body(signature));
    }
}

fn armoured(key: &Key, text: &str) -> Vec<u8> {
    key.sign_beside(text, None).to_armored_bytes(Default::default()).unwrap()
}

#[test]
fn host_a_flat_repository_is_read_at_its_path_and_its_packages_below_its_address() {
    for directory in ["", "stable/", "core:/v1/deb/"] {
        let vendor = Vendor::new(|vendor| vendor.flat(directory, &vendor.flat_release("")));
        let archives = vendor.good();
        let locked = &archives.locked()[1];
        let shown = if directory.is_empty() { "/" } else { directory };
        assert_eq!((locked.name.as_str(), locked.suite.as_str()), ("flat", shown));
        let set = debian::resolve(&archives, &[], &["app".into()]).unwrap();
        let from: Vec<_> = set.iter().map(|package| format!("{} {}", package.archive, package.name)).collect();
        assert_eq!(from, ["flat app", "main lib"]);
        let paths = debian::fetch(&set, &vendor.base, vendor.cache.path(), Use::Network, &|_| ()).unwrap();
        assert_eq!(fs::read(&paths[0]).unwrap(), vendor.vendor.packages[0].file);
        let asked = vendor.vendor.server.requests();
        assert!(asked.iter().all(|path| !path.contains("dists")), "{asked:?}");
        let before = asked.len();
        assert_eq!(vendor.refresh(Use::CacheOnly, Timestamp::now()).unwrap().locked(), archives.locked());
        assert_eq!(vendor.vendor.server.requests().len(), before);
    }
}

#[test]
fn host_an_index_of_a_flat_repository_is_fetched_by_its_hash_where_that_is_offered() {
    let vendor = Vendor::new(|vendor| vendor.flat("deb/", &vendor.flat_release("Acquire-By-Hash: yes\n")));
    vendor.vendor.server.set("/deb/Packages", Answer::Body(b"of the next release".to_vec()));
    assert!(matches!(vendor.bad(), ArchiveError::Fetch { source: HttpError::Status { status: 404, .. }, .. }));
    let text = String::from_utf8(gunzip(&vendor.vendor.index)).unwrap();
    let path = format!("/deb/by-hash/SHA256/{}", Digest::of(text.as_bytes()).hex());
    vendor.vendor.server.set(&path, Answer::Body(text.into_bytes()));
    vendor.good();
}

fn gunzip(packed: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(packed), &mut text).unwrap();
    text
}

#[test]
fn host_a_flat_repository_that_is_changed_or_leads_out_is_refused() {
    let vendor = Vendor::new(|vendor| vendor.flat("deb/", &vendor.flat_release("")));
    let server = &vendor.vendor.server;
    let good = gunzip(&vendor.vendor.index);
    let other = String::from_utf8(good).unwrap().replace("1.0", "9.0");
    server.set("/deb/Packages", Answer::Body(other.into_bytes()));
    assert!(matches!(vendor.bad(), ArchiveError::Fetch { source: HttpError::WrongHash { .. }, .. }));
    let signed = |index: &str, more: &str| {
        let (hash, length) = (Digest::of(index.as_bytes()).hex(), index.len());
        let date = Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S UTC");
        let text = format!("Date: {date}\n{more}SHA256:\n {hash} {length} Packages\n");
        server.set("/deb/InRelease", Answer::Body(vendor.vendor.key.sign(&text)));
        server.set("/deb/Packages", Answer::Body(index.into()));
    };
    for filename in ["../app.deb", "./../app.deb", "a/../../app.deb", "/app.deb"] {
        signed(
            &format!("Package: app\nVersion: 1\nArchitecture: all\nFilename: {filename}\nSize: 1\nSHA256: {:064}\n", 0),
            "",
        );
        let error = vendor.bad();
        let unusable =
            matches!(&error, ArchiveError::Index { source: IndexError::Field { field: "Filename", .. }, .. });
        assert!(unusable, "{filename}: {error:?}");
    }
    signed("", "Valid-Until: Sat, 11 Jul 2020 10:16:37 UTC\n");
    assert!(matches!(vendor.refused(Timestamp::now()), ReleaseError::Expired { .. }));
    server.set("/deb/InRelease", Answer::Body(Key::generate().sign(&vendor.vendor.flat_release(""))));
    assert!(matches!(vendor.signature_refused(), SignatureError::Foreign { .. }));
    let date = Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S UTC");
    server.set("/deb/InRelease", Answer::Body(vendor.vendor.key.sign(&format!("Date: {date}\n"))));
    let error = vendor.bad();
    assert!(error.help().unwrap().contains("`suite` is written without `/`"), "{error:?}");
}

#[test]
fn host_a_release_that_is_signed_beside_is_as_good_as_one_signed_within() {
    let vendor = Vendor::new(|vendor| vendor.repository("vendor"));
    let (release, key) = (vendor.vendor.release.clone(), &vendor.vendor.key);
    vendor.sign_beside(&release, armoured(key, &release));
    let archives = vendor.good();
    assert_eq!(archives.locked()[1].in_release, Digest::of(release.as_bytes()));
    // Where it is away, what was accepted last is checked again, signature and all.
    vendor.vendor.server.set(&format!("/dists/{SUITE}/InRelease"), Answer::Status(503));
    let notes = std::sync::Mutex::new(Vec::new());
    let events = |event| notes.lock().unwrap().push(event);
    let now = Timestamp::now();
    Archives::refresh(&vendor.base, &vendor.keys, vendor.cache.path(), Use::Network, now, &events).unwrap();
    assert!(matches!(notes.lock().unwrap()[0], Event::Away { .. }));
    vendor.refresh(Use::CacheOnly, now).unwrap();
    damage(vendor.cache.path(), b"Origin: Test", b"Origin: Tost");
    let offline = vendor.refresh(Use::CacheOnly, now).unwrap_err();
    assert!(matches!(
        offline,
        ArchiveError::Release { source: ReleaseError::Signature(SignatureError::Bad { .. }), .. }
    ));
    // Binary as well, and where the store answers 403 for what it does not have.
    vendor.sign_beside(&release, key.sign_beside(&release, None).to_bytes().unwrap());
    vendor.vendor.server.set(&format!("/dists/{SUITE}/InRelease"), Answer::Status(403));
    vendor.good();
    // What is signed within is taken where both are there.
    let within = key.sign(&release);
    vendor.vendor.serve_release(within.clone());
    vendor.vendor.server.set(&format!("/dists/{SUITE}/Release.gpg"), Answer::Status(500));
    assert_eq!(vendor.good().locked()[1].in_release, Digest::of(&within));
}

/// Changes what the cache has of release files.
fn damage(cache: &Path, from: &[u8], to: &[u8]) {
    let files = fs::read_dir(cache.join("lists")).unwrap().map(|entry| entry.unwrap().path());
    for file in files.filter(|path| path.extension().is_some_and(|ending| ending == "InRelease")) {
        let mut bytes = fs::read(&file).unwrap();
        let signature = bytes.starts_with(b"signature ");
        if let Some(at) = memchr::memmem::find(&bytes, from).filter(|_| signature) {
            bytes[at..at + to.len()].copy_from_slice(to);
            fs::write(&file, bytes).unwrap();
        }
    }
}

#[test]
fn host_a_signature_beside_is_checked_as_one_within_is() {
    let vendor = Vendor::new(|vendor| vendor.repository("vendor"));
    let (release, key) = (vendor.vendor.release.clone(), &vendor.vendor.key);
    let good = armoured(key, &release);
    vendor.sign_beside(&release.replace("Origin: Test", "Origin: Tost"), good.clone());
    assert!(matches!(vendor.signature_refused(), SignatureError::Bad { .. }));
    let mut tampered = key.sign_beside(&release, None).to_bytes().unwrap();
    *tampered.last_mut().unwrap() ^= 1;
    vendor.sign_beside(&release, tampered);
    assert!(matches!(vendor.signature_refused(), SignatureError::Bad { .. }));
    vendor.sign_beside(&release, armoured(&Key::generate(), &release));
    assert!(matches!(vendor.signature_refused(), SignatureError::Foreign { .. }));
    vendor.sign_beside(&release, key.sign_beside(&release, Some(1)).to_bytes().unwrap());
    let later = Timestamp::now() + SignedDuration::from_secs(10);
    let refused = vendor.refused(later);
    assert!(matches!(refused, ReleaseError::Signature(SignatureError::Expired { .. })), "{refused:?}");
    for nothing in [
        &b""[..],
        b"<html>",
        b"-----BEGIN PGP SIGNATURE-----\n\n!!\n-----END PGP SIGNATURE-----\n",
        &vendor.keys.repositories[0],
    ] {
        vendor.sign_beside(&release, nothing.to_vec());
        let error = vendor.signature_refused();
        assert!(matches!(error, SignatureError::Missing | SignatureError::Unreadable(_)), "{error:?}");
    }
    let old = release.replace("Acquire-By-Hash", "Valid-Until: Sat, 11 Jul 2020 10:16:37 UTC\nAcquire-By-Hash");
    vendor.sign_beside(&old, armoured(key, &old));
    assert!(matches!(vendor.refused(Timestamp::now()), ReleaseError::Expired { .. }));
    vendor.sign_beside(&release, vec![b'x'; 1 << 20]);
    assert!(matches!(vendor.bad(), ArchiveError::Fetch { source: HttpError::TooLarge { .. }, .. }));
    // One without the other is not signed.
    vendor.sign_beside(&release, good);
    vendor.vendor.server.set(&format!("/dists/{SUITE}/Release"), Answer::Status(404));
    let error = vendor.bad();
    assert!(matches!(error, ArchiveError::Unsigned { .. }), "{error:?}");
    assert!(error.to_string().ends_with("it has neither InRelease nor Release with Release.gpg"), "{error}");
}
