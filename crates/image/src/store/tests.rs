//! The store under damage, collection, crashes and company.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use kiln_model::{
    ImageDigest,
    evidence::{Envelope, Signature},
};

use super::{Store, StoreError, objects};
use crate::bake::{
    BakeError,
    tests::{Bench, ChrootSandbox, copy, recipe, request, shell},
};

fn envelope(text: &str) -> Envelope {
    Envelope {
        payload_type: "application/vnd.in-toto+json".into(),
        payload: text.into(),
        signatures: vec![Signature { keyid: "k".into(), sig: "s".into() }],
    }
}

fn find(image: &ImageDigest, bench: &Bench, path: &str) -> PathBuf {
    let mount = bench.store.mount(image, None).expect("mounted");
    let wanted = fs::read(format!("/proc/self/fd/{}{path}", std::os::fd::AsRawFd::as_raw_fd(&mount))).expect("there");
    let objects = bench.store.dir().join("composefs/objects");
    let files = fs::read_dir(objects)
        .expect("a directory")
        .flatten()
        .flat_map(|dir| fs::read_dir(dir.path()).expect("a directory").flatten().map(|file| file.path()));
    let mut same = files.filter(|file| fs::read(file).is_ok_and(|bytes| bytes == wanted));
    same.next().expect("the file has an object")
}

fn flip(path: &Path, at: u64) {
    let mut permissions = fs::metadata(path).expect("there").permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    fs::set_permissions(path, permissions).expect("allowed");
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path).expect("opened");
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).expect("sought");
    file.read_exact(&mut byte).expect("read");
    file.seek(SeekFrom::Start(at)).expect("sought");
    file.write_all(&[byte[0] ^ 1]).expect("written");
}

#[test]
fn root_a_flipped_bit_is_found_and_named() {
    let bench = Bench::new();
    let image = bench.shell_base();
    let sound = bench.store.verify(&image, &|_, _| {}).expect("verified");
    assert!(sound.is_sound() && sound.files > 10, "{sound:?}");
    let file = find(&image, &bench, "/bin/cat");
    flip(&file, 1000);
    let found = bench.store.verify(&image, &|_, _| {}).expect("verified");
    let what: Vec<_> = found.damage.iter().map(|damage| damage.what.as_str()).collect();
    assert_eq!(what.len(), 2, "{found:?}");
    assert_eq!(what[0], "/bin/cat");
    assert!(what[1].starts_with("layer sha256:"));
    flip(&file, 1000);
    assert!(bench.store.verify(&image, &|_, _| {}).expect("verified").is_sound());
    let entry = bench.store.index().image(&image).expect("readable").expect("there");
    let tree =
        bench.store.dir().join("composefs").join(objects::object_path(&objects::parse(&entry.tree).expect("hex")));
    flip(&tree, 2000);
    let found = bench.store.verify(&image, &|_, _| {}).expect("verified");
    assert_eq!(found.damage.iter().map(|d| d.what.as_str()).collect::<Vec<_>>(), ["metadata image"]);
    assert_eq!(found.files, sound.files, "the files are still known, from the layers");
}

#[test]
fn root_gc_keeps_what_is_referenced() {
    let bench = Bench::new();
    let base = bench.shell_base();
    let mut images = vec![base];
    for text in ["one", "two", "three"] {
        bench.write("page", &text.repeat(100));
        let recipe = kiln_model::Recipe {
            base: kiln_model::recipe::Base::Image(format!("sample@{base}").parse().expect("a reference")),
            ..recipe(vec![copy("page", "/etc/page")])
        };
        images.push(bench.bake(&recipe).expect("baked").image);
    }
    bench.store.add_statement(&images[1], &envelope("one")).expect("kept");
    bench.store.add_statement(&images[2], &envelope("two")).expect("kept");
    let later = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(48);
    let would = bench.store.gc(&[images[2]], later, true).expect("planned");
    assert_eq!(would.images, [images[1]], "the channel's, the running and the newest one stay");
    assert_eq!(bench.store.images().expect("readable").len(), 4);
    let done = bench.store.gc(&[images[2]], later, false).expect("collected");
    assert_eq!((done.images.clone(), done.objects, done.bytes), (would.images, would.objects, would.bytes));
    assert!(done.objects > 0);
    for image in [images[0], images[2], images[3]] {
        assert!(bench.store.verify(&image, &|_, _| {}).expect("verified").is_sound());
        drop(bench.store.mount(&image, None).expect("mounted"));
    }
    assert_eq!(bench.store.reports(&images[2]).expect("readable").len(), 1);
    assert!(bench.store.image(&images[1]).expect("readable").is_none());
    assert!(matches!(bench.store.mount(&images[1], None), Err(StoreError::NotFound(_))));
    let again = bench.store.gc(&[images[2]], later, false).expect("collected");
    assert_eq!((again.objects, again.images.len()), (0, 0));
}

#[test]
fn root_documents_are_readable_by_the_composefs_library() {
    let bench = Bench::new();
    let image = bench.shell_base();
    let digest = image.to_string().parse().expect("a digest");
    let read = composefs_oci::OciImage::open(bench.store.repo(), &digest, None).expect("opened");
    let record = bench.store.image(&image).expect("readable").expect("there");
    assert_eq!(read.layer_diff_ids(), record.layers.iter().map(|l| l.to_string()).collect::<Vec<_>>());
    assert!(read.label("dev.kiln.manifest").is_some());
    let entry = bench.store.index().image(&image).expect("readable").expect("there");
    let tree = composefs::fsverity::FsVerityHashValue::to_hex(read.image_ref_v1().expect("a metadata image"));
    assert_eq!(tree, entry.tree);
}

#[test]
fn root_reports_are_kept_once_and_bound_to_their_image() {
    let bench = Bench::new();
    let image = bench.shell_base();
    let one = bench.store.add_statement(&image, &envelope("one")).expect("kept");
    assert_eq!(bench.store.add_statement(&image, &envelope("one")).expect("kept"), one);
    bench.store.add_statement(&image, &envelope("two")).expect("kept");
    let mut found: Vec<_> = bench.store.reports(&image).expect("readable").into_iter().map(|e| e.payload).collect();
    found.sort();
    assert_eq!(found, ["one", "two"]);
    let other = ImageDigest(kiln_model::Digest::of(b"other"));
    assert!(matches!(bench.store.add_statement(&other, &envelope("one")), Err(StoreError::NotFound(_))));
    assert!(bench.store.reports(&other).expect("readable").is_empty());
}

/// Set in a process that a test starts to bake in the directory this names.
const CHILD: &str = "KILN_TEST_BAKE_IN";

/// The same test in a process of its own, below `wrapper` if there is one.
fn again(test: &str, dir: &Path, wrapper: &[&str]) -> Command {
    let exe = std::env::current_exe().expect("a test binary").display().to_string();
    let words: Vec<_> = wrapper.iter().copied().chain([exe.as_str(), "--exact", test, "--nocapture"]).collect();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).env(CHILD, dir).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Bakes a few layers over the base in a directory that another process made.
fn bake_in(dir: &Path, text: &str) -> Result<ImageDigest, BakeError> {
    let store = Store::open(&dir.join("store"))?;
    // Renamed into place: another process may be reading the page, and must never see half of it.
    let page = dir.join(format!("page-{}", std::process::id()));
    fs::write(&page, text.repeat(200)).expect("a file");
    fs::rename(&page, dir.join("recipe/page")).expect("renamed");
    let recipe = recipe(vec![
        copy("page", "/etc/page"),
        shell(&format!("echo {text} > /etc/made; cat /bin/sh /bin/cat > /etc/large")),
        copy("page", "/etc/again"),
    ]);
    let directory = dir.join("recipe");
    Ok(crate::bake::bake(&request(&recipe, &directory), &store, &ChrootSandbox, &|_| {})?.image)
}

fn ended(child: Child) -> String {
    let output = child.wait_with_output().expect("the child ends");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text.lines().filter_map(|line| Some(line.split_once("image ")?.1.to_owned())).next().expect("an image")
}

#[test]
fn root_bakes_in_two_processes_at_once_agree() {
    if let Some(dir) = std::env::var_os(CHILD) {
        println!("image {}", bake_in(Path::new(&dir), "both").expect("baked"));
        return;
    }
    let bench = Bench::new();
    bench.shell_base();
    let child = || {
        again("store::tests::root_bakes_in_two_processes_at_once_agree", bench.dir.path(), &[])
            .spawn()
            .expect("started")
    };
    let children = [child(), child(), child()];
    let images = children.map(ended);
    assert!(images.iter().all(|image| *image == images[0]), "{images:?}");
    let image = images[0].parse().expect("a digest");
    assert!(bench.store.verify(&image, &|_, _| {}).expect("verified").is_sound());
}

#[test]
fn root_a_bake_that_is_killed_anywhere_leaves_a_usable_store() {
    if let Some(dir) = std::env::var_os(CHILD) {
        let text = fs::read_to_string(Path::new(&dir).join("round")).expect("a file");
        println!("image {}", bake_in(Path::new(&dir), &text).expect("baked"));
        return;
    }
    let bench = Bench::new();
    let base = bench.shell_base();
    let test = "store::tests::root_a_bake_that_is_killed_anywhere_leaves_a_usable_store";
    let round = |text: String| {
        fs::write(bench.dir.path().join("round"), text).expect("a file");
        again(test, bench.dir.path(), &[]).spawn().expect("started")
    };
    let begun = std::time::Instant::now();
    let whole = ended(round("whole".into()));
    let span = begun.elapsed();
    for number in 0..24_u32 {
        let mut child = round(format!("round{number}"));
        std::thread::sleep(span * number / 20);
        child.kill().expect("killed or ended");
        child.wait().expect("ended");
    }
    for image in bench.store.images().expect("readable") {
        let found = bench.store.verify(&image.digest, &|_, _| {}).expect("verified");
        assert!(found.is_sound(), "{found:?}");
    }
    assert_eq!(ended(round("whole".into())), whole);
    ended(round("last".into()));
    assert_eq!(
        bench.store.resolve(&"sample".parse().expect("a reference")).expect("readable").expect("there").digest,
        base
    );
    let left = fs::read_dir(bench.store.dir().join("work")).expect("a directory").flatten();
    assert_eq!(left.filter(|entry| entry.file_name() != "locks").count(), 0, "what killed bakes left is removed");
    bench.store.gc(&[], jiff::Timestamp::now(), false).expect("collected");
    assert!(bench.store.verify(&base, &|_, _| {}).expect("verified").is_sound());
}

#[test]
fn root_a_full_disk_is_a_clear_error_and_leaves_nothing_half_done() {
    let test = "store::tests::root_a_full_disk_is_a_clear_error_and_leaves_nothing_half_done";
    let Some(dir) = std::env::var_os(CHILD).map(PathBuf::from) else {
        let dir = tempfile::tempdir().expect("a directory");
        // A small file system of its own, seen by nobody else; it and its loop device go with the mount namespace.
        let script = "mount --make-rprivate / && cd \"$KILN_TEST_BAKE_IN\" && truncate -s 64M image && \
                      mkfs.ext4 -q image && mount -o loop image . && exec \"$@\"";
        let wrapper = ["unshare", "--mount", "sh", "-c", script, "sh"];
        let output = again(test, dir.path(), &wrapper).output().expect("run");
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        return;
    };
    let bench = Bench::inside(&dir);
    let base = bench.shell_base();
    let objects = |store: &Store| {
        let dirs = fs::read_dir(store.dir().join("composefs/objects")).expect("a directory").flatten();
        dirs.filter(|entry| entry.path().is_dir())
            .map(|d| fs::read_dir(d.path()).expect("a directory").count())
            .sum::<usize>()
    };
    let before = objects(&bench.store);
    let over = |steps| kiln_model::Recipe {
        base: kiln_model::recipe::Base::Image(format!("sample@{base}").parse().expect("a reference")),
        ..recipe(steps)
    };
    let error = bench.bake(&over(vec![shell("cat /dev/zero > /etc/large")])).expect_err("no room");
    assert!(matches!(&error, BakeError::StepFull { .. }), "{error:?}");
    assert_eq!(objects(&bench.store), before);
    let large = bench.recipe_dir().join("large");
    let room = rustix::fs::statvfs(&dir).expect("a file system");
    let size = room.f_bavail * room.f_frsize * 2 / 3;
    fs::write(&large, vec![7; size as usize]).expect("a file");
    let error = bench.bake(&over(vec![copy("large", "/etc/large")])).expect_err("no room");
    assert!(matches!(&error, BakeError::Store(e) if e.is_full()), "{error:?}");
    fs::remove_file(large).expect("removed");
    bench.write("page", "small");
    let image = bench.bake(&over(vec![copy("page", "/etc/page")])).expect("baked").image;
    assert!(bench.store.verify(&image, &|_, _| {}).expect("verified").is_sound());
}

#[test]
fn root_mounts_of_one_image_are_quick() {
    let bench = Bench::new();
    let image = bench.shell_base();
    let mut times = Vec::new();
    for _ in 0..50 {
        let begun = std::time::Instant::now();
        let mount = bench.store.mount(&image, None).expect("mounted");
        times.push(begun.elapsed());
        let stat = fs::metadata(format!("/proc/self/fd/{}/bin/sh", std::os::fd::AsRawFd::as_raw_fd(&mount)));
        assert!(stat.is_ok_and(|stat| stat.size() > 1000));
    }
    let first = times[0];
    times.sort();
    println!("first mount {first:?}, median {:?}", times[25]);
    assert!(times[25] < Duration::from_millis(100));
}

#[test]
fn root_what_a_power_cut_emptied_is_found_when_the_store_is_opened() {
    let bench = Bench::new();
    let base = bench.shell_base();
    bench.write("page", &"page".repeat(100));
    let recipe = kiln_model::Recipe {
        base: kiln_model::recipe::Base::Image(format!("sample@{base}").parse().expect("a reference")),
        ..recipe(vec![copy("page", "/etc/page")])
    };
    let image = bench.bake(&recipe).expect("baked").image;
    let page = find(&image, &bench, "/etc/page");
    let marks = bench.store.dir().join("unsettled");
    assert_eq!(fs::read_dir(&marks).expect("a directory").count(), 0, "a bake that ended leaves no mark");
    fs::write(&page, "").expect("emptied");
    fs::write(marks.join("another-boot.x"), "").expect("a mark");
    let store = Store::open(bench.store.dir()).expect("opened");
    assert!(!page.exists() && fs::read_dir(&marks).expect("a directory").count() == 0);
    assert!(store.verify(&base, &|_, _| {}).expect("verified").is_sound());
    let directory = bench.recipe_dir();
    let fresh = crate::bake::BakeRequest { fresh: true, ..request(&recipe, &directory) };
    let again = crate::bake::bake(&fresh, &store, &ChrootSandbox, &|_| {}).expect("baked");
    assert_eq!(again.image, image);
    assert!(store.verify(&image, &|_, _| {}).expect("verified").is_sound());
}
