//! Archives that are wrong, slow or away, seen through the whole of reading and fetching.

mod debian_support;

use std::{
    error::Error as _,
    fs,
    path::Path,
    process::Command,
    sync::Mutex,
    time::{Duration, Instant},
};

use debian_support::{
    archive::{Archive, Key, Package, release_text},
    server::{Answer, Server},
};
use jiff::{SignedDuration, Timestamp};
use kiln_image::debian::{
    self, ArchiveError, Archives, Event, FetchError, KeyFiles, Use,
    http::{HttpError, Limits},
    keys::SignatureError,
    release::ReleaseError,
};
use kiln_model::recipe::DebianBase;

fn packages() -> Vec<Package> {
    vec![Package::new("web", "Depends: lib\n"), Package::new("lib", ""), Package::new("base", "Essential: yes\n")]
}

fn refresh(archive: &Archive, cache: &Path, now: Timestamp) -> Result<Archives, ArchiveError> {
    Archives::refresh(&archive.base(), &archive.keys(), cache, Use::Network, now, &|_| ())
}

/// What reading the archive at this time is refused with.
fn refused(archive: &Archive, now: Timestamp) -> ReleaseError {
    let cache = tempfile::tempdir().unwrap();
    match refresh(archive, cache.path(), now) {
        Err(ArchiveError::Release { source, .. }) => source,
        other => panic!("{other:?}"),
    }
}

fn later(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

fn quick() -> Limits {
    Limits {
        connect: Duration::from_secs(2),
        stall: Duration::from_millis(400),
        attempts: 2,
        backoff: Duration::from_millis(10),
    }
}

fn fetch(archive: &Archive, cache: &Path) -> Result<Vec<std::path::PathBuf>, FetchError> {
    debian::fetch::fetch_within(&archive.locked(), &archive.base(), cache, Use::Network, quick(), &|_| ())
}

/// Every file below a directory.
fn files(directory: &Path) -> Vec<String> {
    let walk = walkdir::WalkDir::new(directory).into_iter().map(Result::unwrap);
    walk.filter(|e| e.file_type().is_file()).map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn host_a_good_archive_is_read_resolved_and_fetched_and_then_works_without_network() {
    let archive = Archive::serve(packages());
    let cache = tempfile::tempdir().unwrap();
    let archives = refresh(&archive, cache.path(), Timestamp::now()).unwrap();
    let set = debian::resolve(&archives, &[], &["web".into()]).unwrap();
    assert_eq!(set.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["base", "lib", "web"]);
    let progress = Mutex::new(Vec::new());
    let events = |event| progress.lock().unwrap().push(event);
    let paths = debian::fetch(&set, &archive.base(), cache.path(), Use::Network, &events).unwrap();
    assert_eq!(fs::read(&paths[2]).unwrap(), archive.packages[0].file);
    let Some(Event::Fetch(last)) = progress.lock().unwrap().last().cloned() else { panic!() };
    assert_eq!((last.files, last.bytes), (3, last.bytes_total));

    let before = archive.server.requests().len();
    let keys = archive.keys();
    let offline = Archives::refresh(&archive.base(), &keys, cache.path(), Use::CacheOnly, Timestamp::now(), &|_| ());
    assert_eq!(debian::resolve(&offline.unwrap(), &[], &["web".into()]).unwrap(), set);
    assert_eq!(debian::fetch(&set, &archive.base(), cache.path(), Use::CacheOnly, &|_| ()).unwrap(), paths);
    assert_eq!(archive.server.requests().len(), before);

    archive.server.set("/dists/sid/InRelease", Answer::Status(503));
    let notes = Mutex::new(Vec::new());
    let events = |event| notes.lock().unwrap().push(event);
    Archives::refresh(&archive.base(), &keys, cache.path(), Use::Network, Timestamp::now(), &events).unwrap();
    assert!(matches!(notes.lock().unwrap()[0], Event::Away { .. }));
}

const INSIDE: &str = "KILN_TEST_BEHIND_A_PROXY";

/// Runs in a process of its own, whose environment names a proxy.
#[test]
fn inside_a_network_with_a_proxy() {
    let Some(directory) = std::env::var_os(INSIDE) else { return };
    let directory = Path::new(&directory);
    let base = Archive::base_at(Server::PROXIED);
    let keys = KeyFiles { keyring: Some(fs::read(directory.join("keys")).unwrap()), repositories: Vec::new() };
    let (cache, now) = (directory.join("cache"), Timestamp::now());
    let archives = Archives::refresh(&base, &keys, &cache, Use::Network, now, &|_| ()).unwrap();
    let set = debian::resolve(&archives, &[], &["web".into()]).unwrap();
    debian::fetch(&set, &base, &cache, Use::Network, &|_| ()).unwrap();
}

#[test]
fn host_downloads_go_through_the_proxy_of_the_environment() {
    let archive = Archive::serve(packages());
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("keys"), archive.key.keyring()).unwrap();
    let through = |variables: &[(&str, &str)]| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "inside_a_network_with_a_proxy"]).env(INSIDE, directory.path());
        child.envs(variables.iter().copied()).output().unwrap()
    };
    let fetched = through(&[("http_proxy", &archive.server.address)]);
    assert!(fetched.status.success(), "{}", String::from_utf8_lossy(&fetched.stdout));
    let requests = archive.server.requests();
    assert!(requests.len() >= 5 && requests.iter().all(|asked| asked.starts_with(Server::PROXIED)), "{requests:#?}");
    fs::remove_dir_all(directory.path().join("cache")).unwrap();
    let left_out = through(&[("http_proxy", &archive.server.address), ("no_proxy", "mirror.invalid")]);
    assert!(!left_out.status.success(), "a host that does not exist was reached");
    assert_eq!(archive.server.requests().len(), requests.len());
}

#[test]
fn host_signatures_that_do_not_count_stop_the_bake() {
    let archive = Archive::serve(packages());
    let signature = |error| match error {
        ReleaseError::Signature(error) => error,
        other => panic!("{other:?}"),
    };
    let now = Timestamp::now;

    archive.serve_release(archive.release.clone().into_bytes());
    assert!(matches!(signature(refused(&archive, now())), SignatureError::Missing));

    archive.serve_release(b"<html>log in first</html>".to_vec());
    assert!(matches!(signature(refused(&archive, now())), SignatureError::Missing));

    archive.serve_release(Key::generate().sign(&archive.release));
    assert!(matches!(signature(refused(&archive, now())), SignatureError::Foreign { .. }));

    let signed = String::from_utf8(archive.key.sign(&archive.release)).unwrap();
    archive.serve_release(signed.replace("Origin: Test", "Origin: Tost").into_bytes());
    assert!(matches!(signature(refused(&archive, now())), SignatureError::Bad { .. }));

    archive.serve_release(signed.as_bytes()[..signed.len() - 40].to_vec());
    assert!(matches!(signature(refused(&archive, now())), SignatureError::Unreadable(_)));

    archive.serve_release(archive.key.sign_for(&archive.release, Some(60)));
    assert!(matches!(signature(refused(&archive, later(61))), SignatureError::Expired { .. }));

    archive.serve_release(archive.key.sign(&archive.release));
    assert!(matches!(signature(refused(&archive, later(-3600))), SignatureError::Future { .. }));
}

#[test]
fn host_an_expired_key_signs_nothing() {
    let mut archive = Archive::serve(packages());
    archive.key = Key::generate().lasting(3600);
    archive.serve_release(archive.key.sign(&archive.release));
    let cache = tempfile::tempdir().unwrap();
    refresh(&archive, cache.path(), Timestamp::now()).unwrap();
    let error = refused(&archive, later(3601));
    assert!(matches!(error, ReleaseError::Signature(SignatureError::KeyExpired { .. })), "{error:?}");
}

#[test]
fn host_dates_and_names_must_fit() {
    let archive = Archive::serve(packages());
    let text = |date: Timestamp, more: &str| release_text("", b"", date, more);
    let now = Timestamp::now();

    archive.serve_release(archive.key.sign(&text(later(7200), "")));
    assert!(matches!(refused(&archive, now), ReleaseError::Future { .. }));

    archive.serve_release(archive.key.sign(&text(now, "Valid-Until: Sat, 04 Jan 2025 00:00:00 UTC\n")));
    let error = refused(&archive, now);
    assert!(matches!(error, ReleaseError::Expired { .. }));
    assert!(error.help().contains("out of date"));

    archive.serve_release(archive.key.sign(&text(now, "").replace("Codename: sid", "Codename: forky")));
    assert!(matches!(refused(&archive, now), ReleaseError::OtherSuite { .. }));

    archive.serve_release(archive.key.sign(&text(now, "").replace("main/", "contrib/")));
    assert!(matches!(refused(&archive, now), ReleaseError::NoComponent { .. }));
}

#[test]
fn host_an_index_that_is_not_the_signed_one_is_not_read() {
    let archive = Archive::serve(packages());
    let cache = tempfile::tempdir().unwrap();
    let mut changed = archive.index.clone();
    changed[20] ^= 1;
    archive.server.set(&archive.index_path, Answer::Body(changed));
    let error = refresh(&archive, cache.path(), Timestamp::now()).unwrap_err();
    assert!(matches!(error, ArchiveError::Fetch { source: HttpError::WrongHash { .. }, .. }), "{error:?}");
    archive.server.set(&archive.index_path, Answer::Endless);
    let error = refresh(&archive, cache.path(), Timestamp::now()).unwrap_err();
    assert!(matches!(error, ArchiveError::Fetch { source: HttpError::TooLarge { .. }, .. }), "{error:?}");
    assert_eq!(files(cache.path()).iter().filter(|name| name.ends_with(".index")).count(), 0);
}

#[test]
fn host_a_wrong_package_is_named_with_both_hashes_and_nothing_is_kept() {
    let archive = Archive::serve(packages());
    let cache = tempfile::tempdir().unwrap();
    let mut wrong = archive.packages[1].file.clone();
    wrong[100] ^= 1;
    archive.server.set("/pool/main/lib_1.0_all.deb", Answer::Body(wrong.clone()));
    let error = fetch(&archive, cache.path()).unwrap_err();
    let text = error.to_string();
    let actual = kiln_model::Digest::of(&wrong).hex();
    for part in ["lib 1.0", &archive.server.address, &archive.locked()[1].sha256.hex(), &actual] {
        assert!(text.contains(part), "{text}: {part}");
    }
    let lib = archive.locked()[1].sha256.hex();
    assert!(files(cache.path()).iter().all(|name| !name.contains(&lib)));
}

#[test]
fn host_a_transfer_that_breaks_off_is_gone_on_with() {
    let archive = Archive::serve(packages());
    let cache = tempfile::tempdir().unwrap();
    let file = archive.packages[0].file.clone();
    let path = "/pool/main/web_1.0_all.deb";
    archive.server.sequence(path, vec![Answer::Cut(file.clone(), 50), Answer::Body(file.clone())]);
    let paths = fetch(&archive, cache.path()).unwrap();
    assert_eq!(fs::read(&paths[0]).unwrap(), file);
    assert!(archive.server.requests().contains(&format!("{path} 50-")));

    let again = tempfile::tempdir().unwrap();
    archive.server.sequence(path, vec![Answer::Cut(file.clone(), 60), Answer::Whole(file.clone())]);
    assert_eq!(fs::read(&fetch(&archive, again.path()).unwrap()[0]).unwrap(), file);
}

#[test]
fn host_a_damaged_beginning_from_an_earlier_run_is_dropped() {
    let archive = Archive::serve(packages());
    let cache = tempfile::tempdir().unwrap();
    let pool = cache.path().join("pool");
    fs::create_dir(&pool).unwrap();
    fs::write(pool.join(format!("{}.deb.part", archive.locked()[0].sha256.hex())), b"not the beginning").unwrap();
    let paths = fetch(&archive, cache.path()).unwrap();
    assert_eq!(fs::read(&paths[0]).unwrap(), archive.packages[0].file);
    assert!(files(cache.path()).iter().all(|name| !name.ends_with(".part")));
}

#[test]
fn host_a_mirror_that_stalls_drips_or_talks_nonsense_ends_in_an_error_soon() {
    for answer in [Answer::Stall(vec![0; 5000], 10), Answer::Drip, Answer::Noise, Answer::Status(500)] {
        let archive = Archive::serve(packages());
        let cache = tempfile::tempdir().unwrap();
        let base = archive.locked()[2].clone();
        let shown = format!("{answer:?}").chars().take(12).collect::<String>();
        let stalls = matches!(answer, Answer::Stall(..) | Answer::Drip);
        archive.server.set(&format!("/{}", base.filename), answer);
        let mut locked = base;
        locked.size = 1 << 20;
        let start = Instant::now();
        let limits = quick();
        let error =
            debian::fetch::fetch_within(&[locked], &archive.base(), cache.path(), Use::Network, limits, &|_| ());
        let error = error.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(5), "{shown}");
        assert!(matches!(error, FetchError::Transfer { .. }), "{shown}: {error:?}");
        let stalled = error.source().is_some_and(|source| source.to_string().contains("stalled"));
        assert_eq!(stalled, stalls, "{shown}: {error:?}");
    }
}

#[test]
fn host_a_huge_answer_is_cut_and_a_vanished_package_says_what_to_do() {
    let archive = Archive::serve(packages());
    let cache = tempfile::tempdir().unwrap();
    archive.server.set("/pool/main/web_1.0_all.deb", Answer::Endless);
    let error = fetch(&archive, cache.path()).unwrap_err();
    assert!(matches!(error, FetchError::Transfer { source: HttpError::TooLarge { .. }, .. }), "{error:?}");
    assert!(files(cache.path()).iter().all(|name| !name.ends_with(".part")));

    archive.server.set("/pool/main/web_1.0_all.deb", Answer::Status(404));
    let error = fetch(&archive, cache.path()).unwrap_err();
    assert!(matches!(error, FetchError::Vanished { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("kiln lock --update"));
}

#[test]
fn host_redirects_are_followed_and_an_absent_mirror_is_told() {
    let archive = Archive::serve(packages());
    let cache = tempfile::tempdir().unwrap();
    let file = archive.packages[0].file.clone();
    archive.server.set("/elsewhere.deb", Answer::Body(file.clone()));
    let there = format!("{}/elsewhere.deb", archive.server.address);
    archive.server.set("/pool/main/web_1.0_all.deb", Answer::Redirect(there));
    assert_eq!(fs::read(&fetch(&archive, cache.path()).unwrap()[0]).unwrap(), file);

    archive.server.set("/pool/main/web_1.0_all.deb", Answer::Redirect("/pool/main/web_1.0_all.deb".into()));
    assert!(matches!(fetch(&archive, tempfile::tempdir().unwrap().path()), Err(FetchError::Transfer { .. })));

    let mut base = archive.base();
    base.mirror = "http://127.0.0.1:1".into();
    let locked = archive.locked();
    let empty = tempfile::tempdir().unwrap();
    let error = debian::fetch::fetch_within(&locked, &base, empty.path(), Use::Network, quick(), &|_| ()).unwrap_err();
    assert!(matches!(error, FetchError::Transfer { source: HttpError::Connect { .. }, .. }), "{error:?}");
    let error = debian::fetch(&locked, &base, empty.path(), Use::CacheOnly, &|_| ()).unwrap_err();
    assert!(matches!(error, FetchError::NotCached { .. }));
}

/// A base with a repository of somebody else, and the keys of both.
fn with_vendor(archive: &Archive, vendor: &Archive) -> (DebianBase, KeyFiles) {
    let base = DebianBase { repositories: vec![vendor.repository("vendor")], ..archive.base() };
    let keys = KeyFiles { repositories: vec![vendor.key.keyring()], ..archive.keys() };
    (base, keys)
}

fn refresh_both(base: &DebianBase, keys: &KeyFiles) -> Result<Archives, ArchiveError> {
    let cache = tempfile::tempdir().unwrap();
    Archives::refresh(base, keys, cache.path(), Use::Network, Timestamp::now(), &|_| ())
}

#[test]
fn host_packages_of_a_repository_are_resolved_and_fetched_with_those_of_the_archive() {
    let archive = Archive::serve(packages());
    let vendor = Archive::serve(vec![Package::new("app", "Depends: lib\n")]);
    let (base, keys) = with_vendor(&archive, &vendor);
    let archives = refresh_both(&base, &keys).unwrap();
    assert_eq!(archives.locked().iter().map(|locked| locked.name.clone()).collect::<Vec<_>>(), ["main", "vendor"]);
    let set = debian::resolve(&archives, &[], &["app".into()]).unwrap();
    let from: Vec<_> = set.iter().map(|package| format!("{} {}", package.archive, package.name)).collect();
    assert_eq!(from, ["vendor app", "main base", "main lib"]);
    let cache = tempfile::tempdir().unwrap();
    let paths = debian::fetch(&set, &base, cache.path(), Use::Network, &|_| ()).unwrap();
    assert_eq!(fs::read(&paths[0]).unwrap(), vendor.packages[0].file);
    assert!(vendor.server.requests().iter().all(|asked| !asked.contains("lib")), "each is asked for its own only");
}

#[test]
fn host_a_repository_is_believed_by_its_own_key_alone() {
    let archive = Archive::serve(packages());
    let vendor = Archive::serve(vec![Package::new("app", "")]);
    let (base, keys) = with_vendor(&archive, &vendor);
    let refused = |keys: &KeyFiles| match refresh_both(&base, keys) {
        Err(error @ ArchiveError::Release { source: ReleaseError::Signature(SignatureError::Foreign { .. }), .. }) => {
            error
        }
        other => panic!("{other:?}"),
    };
    // Neither key counts for the other one's archive.
    let swapped = KeyFiles { repositories: vec![archive.key.keyring()], ..keys.clone() };
    let error = refused(&swapped);
    assert!(error.to_string().ends_with("is not accepted by `key = \"vendor.asc\"`"), "{error}");
    assert!(error.help().unwrap().contains("only its own `key` counts"), "{:?}", error.help());
    archive.serve_release(vendor.key.sign(&archive.release));
    assert!(refused(&keys).help().unwrap().contains("`keyring`"));
    archive.serve_release(archive.key.sign(&archive.release));
    // Without its key nothing is believed of it, not even what the archive's key signed.
    vendor.serve_release(archive.key.sign(&vendor.release));
    let error = refresh_both(&base, &archive.keys()).unwrap_err();
    assert!(matches!(&error, ArchiveError::Key { name, .. } if name == "vendor"), "{error:?}");
}

#[test]
fn host_a_repository_that_is_not_signed_is_refused() {
    let archive = Archive::serve(packages());
    let vendor = Archive::serve(vec![Package::new("app", "")]);
    let (base, keys) = with_vendor(&archive, &vendor);
    vendor.serve_release(vendor.release.clone().into_bytes());
    let error = refresh_both(&base, &keys).unwrap_err();
    let missing = matches!(
        error,
        ArchiveError::Release { source: ReleaseError::Signature(SignatureError::Missing), key: Some(_), .. }
    );
    assert!(missing && error.help().unwrap().contains("not signed"), "{error:?}");
    vendor.server.set("/dists/sid/InRelease", Answer::Status(404));
    let error = refresh_both(&base, &keys).unwrap_err();
    assert!(matches!(error, ArchiveError::Unsigned { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("./app.deb"), "what can be done instead is said");
}
