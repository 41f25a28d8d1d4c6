//! Packages that try to leave their tree, and packages that want the same files.

mod debian_support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
};

use debian_support::archive::{deb, header, tar};
use kiln_image::debian::{
    deb::{Deb, DebError},
    root::Root,
    unpack::{Contents, Rules, UnpackError, unpack},
};
use proptest::prelude::*;
use tar::EntryType;

/// A directory with `tree/` and, beside it, what nothing may touch.
struct Scene(tempfile::TempDir);

impl Scene {
    fn new() -> Self {
        let scene = Self(tempfile::tempdir().unwrap());
        fs::create_dir(scene.tree()).unwrap();
        fs::create_dir(scene.outside()).unwrap();
        fs::write(scene.outside().join("file"), "untouched").unwrap();
        scene
    }
    fn tree(&self) -> std::path::PathBuf {
        self.0.path().join("tree")
    }
    fn outside(&self) -> std::path::PathBuf {
        self.0.path().join("outside")
    }
    fn is_untouched(&self) -> bool {
        let names = fs::read_dir(self.outside()).unwrap().count();
        names == 1 && fs::read(self.outside().join("file")).unwrap() == b"untouched"
    }

    fn package(&self, name: &str, fields: &str, control: &[(&str, &[u8])], data: &[u8]) -> Deb {
        let text = format!("Package: {name}\nVersion: 1\nArchitecture: all\n{fields}");
        let files: Vec<(&str, &[u8])> =
            [("./control", text.as_bytes())].into_iter().chain(control.iter().copied()).collect();
        let path = self.0.path().join(format!("{name}.deb"));
        fs::write(&path, deb(&files, data)).unwrap();
        Deb::open(&path).unwrap()
    }

    fn unpack(&self, debs: &[&Deb], rules: &Rules) -> Result<Vec<Contents>, UnpackError> {
        let root = Root::new(fs::File::open(self.tree()).unwrap().into());
        unpack(debs, &root, rules, &|_| ())
    }
}

/// Name, kind, link target, content.
type RawEntry<'a> = (&'a str, EntryType, &'a str, &'a [u8]);

/// A tar whose entries are not checked.
fn raw_tar(entries: &[RawEntry<'_>]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, kind, link, content) in entries {
        let mut header = header(*kind, content.len() as u64);
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        out.extend(header.as_bytes());
        out.extend(*content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

#[test]
fn root_names_that_lead_out_and_special_files_are_refused() {
    let scene = Scene::new();
    let hostile: [&[RawEntry<'_>]; 6] = [
        &[("../outside/file", EntryType::Regular, "", b"x")],
        &[("./a/../../outside/file", EntryType::Regular, "", b"x")],
        &[("/outside/file", EntryType::Regular, "", b"x")],
        &[("./null", EntryType::Char, "", b"")],
        &[("./pipe", EntryType::Fifo, "", b"")],
        &[("./link", EntryType::Link, "../outside/file", b"")],
    ];
    for entries in hostile {
        let package = scene.package("evil", "", &[], &raw_tar(entries));
        let error = scene.unpack(&[&package], &Rules::default()).unwrap_err();
        assert!(matches!(error, UnpackError::Refused { .. }), "{error:?}");
        assert!(scene.is_untouched());
    }
}

#[test]
fn root_links_never_lead_out_of_the_tree() {
    let scene = Scene::new();
    let outside = scene.outside();
    for target in [outside.to_str().unwrap(), "../outside", "../../../../../..", "/proc/self/cwd"] {
        fs::remove_dir_all(scene.tree()).unwrap();
        fs::create_dir(scene.tree()).unwrap();
        let entries: [RawEntry<'_>; 3] = [
            ("./link", EntryType::Symlink, target, b""),
            ("./link/file", EntryType::Regular, "", b"written"),
            ("./link/deep/file", EntryType::Regular, "", b"written"),
        ];
        let package = scene.package("evil", "", &[], &raw_tar(&entries));
        // Written inside the tree or refused: either is safe.
        if let Err(error) = scene.unpack(&[&package], &Rules::default()) {
            assert!(matches!(error, UnpackError::Write { .. }), "{error:?}");
        }
        assert!(scene.is_untouched(), "{target}");
    }
    let hard: [(&str, EntryType, &str, &[u8]); 2] =
        [("./link", EntryType::Symlink, outside.to_str().unwrap(), b""), ("./hard", EntryType::Link, "link/file", b"")];
    let package = scene.package("evil", "", &[], &raw_tar(&hard));
    assert!(scene.unpack(&[&package], &Rules::default()).is_err());
    assert_eq!(fs::metadata(outside.join("file")).unwrap().nlink(), 1);
}

#[test]
fn root_owners_modes_times_and_links_are_the_packages() {
    let scene = Scene::new();
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, kind, mode, gid, content: &[u8], link: &str| {
        let mut header = header(kind, content.len() as u64);
        header.set_mode(mode);
        header.set_gid(gid);
        if link.is_empty() {
            builder.append_data(&mut header, name, content).unwrap();
        } else {
            builder.append_link(&mut header, name, link).unwrap();
        }
    };
    add("./var/mail/", EntryType::Directory, 0o2775, 8, b"", "");
    add("./usr/bin/tool", EntryType::Regular, 0o4755, 42, b"tool", "");
    add("./usr/bin/alias", EntryType::Link, 0o4755, 42, b"", "./usr/bin/tool");
    add("./usr/bin/soft", EntryType::Symlink, 0o777, 0, b"", "tool");
    add("./etc/tool.conf", EntryType::Regular, 0o644, 0, b"conf\n", "");
    let data = builder.into_inner().unwrap();
    let package = scene.package("tool", "", &[("./conffiles", b"/etc/tool.conf\n")], &data);
    let contents = scene.unpack(&[&package], &Rules::default()).unwrap().remove(0);
    let expected = ["/var/mail", "/usr/bin/tool", "/usr/bin/alias", "/usr/bin/soft", "/etc/tool.conf"];
    assert_eq!(contents.list, expected);
    assert_eq!(contents.md5["/etc/tool.conf"], md5_of(b"conf\n"));
    let at = |path: &str| fs::symlink_metadata(scene.tree().join(path)).unwrap();
    let tool = at("usr/bin/tool");
    assert_eq!((tool.mode() & 0o7777, tool.gid(), tool.mtime(), tool.nlink()), (0o4755, 42, 1_600_000_000, 2));
    assert_eq!(at("usr/bin/soft").mtime(), 1_600_000_000);
    let mail = at("var/mail");
    assert_eq!((mail.mode() & 0o7777, mail.gid(), mail.mtime()), (0o2775, 8, 1_600_000_000));
}

fn md5_of(bytes: &[u8]) -> String {
    use md5::{Digest, Md5};
    hex::encode(Md5::digest(bytes))
}

#[test]
fn root_a_file_of_two_packages_goes_to_the_one_that_replaces() {
    let scene = Scene::new();
    let make = |name: &str, fields: &str| {
        let data = tar(&[("./usr/share/same", name.as_bytes()), (&format!("./usr/share/{name}"), b"own")]);
        scene.package(name, fields, &[], &data)
    };
    let (old, plain) = (make("old", ""), make("plain", ""));
    assert!(matches!(scene.unpack(&[&old, &plain], &Rules::default()), Err(UnpackError::Clash { .. })));
    let new = make("new", "Replaces: old (<< 2)\n");
    for order in [[&old, &new], [&new, &old]] {
        for _ in 0..20 {
            fs::remove_dir_all(scene.tree()).unwrap();
            fs::create_dir(scene.tree()).unwrap();
            let contents = scene.unpack(&order, &Rules::default()).unwrap();
            assert_eq!(fs::read(scene.tree().join("usr/share/same")).unwrap(), b"new");
            for (package, contents) in order.iter().zip(contents) {
                let has = contents.list.contains(&"/usr/share/same".to_owned());
                assert_eq!(has, package.name() == "new");
            }
        }
    }
}

#[test]
fn root_directories_belong_to_the_first_and_existing_ones_are_left() {
    let scene = Scene::new();
    let make = |name: &str, mode: u32| {
        let mut header = header(EntryType::Directory, 0);
        header.set_mode(mode);
        let mut builder = tar::Builder::new(Vec::new());
        builder.append_data(&mut header.clone(), "./shared/", &b""[..]).unwrap();
        builder.append_data(&mut header, "./there/", &b""[..]).unwrap();
        scene.package(name, "", &[], &builder.into_inner().unwrap())
    };
    let (first, second) = (make("first", 0o1777), make("second", 0o700));
    fs::create_dir(scene.tree().join("there")).unwrap();
    fs::set_permissions(scene.tree().join("there"), fs::Permissions::from_mode(0o711)).unwrap();
    scene.unpack(&[&first, &second], &Rules::default()).unwrap();
    let mode = |path: &str| fs::metadata(scene.tree().join(path)).unwrap().mode() & 0o7777;
    assert_eq!((mode("shared"), mode("there")), (0o1777, 0o711));
}

#[test]
fn root_merged_usr_diversions_and_kept_conffiles() {
    let scene = Scene::new();
    fs::create_dir_all(scene.tree().join("usr/bin")).unwrap();
    symlink("usr/bin", scene.tree().join("bin")).unwrap();
    fs::create_dir(scene.tree().join("etc")).unwrap();
    fs::write(scene.tree().join("etc/conf"), "mine").unwrap();
    let data = tar(&[("./bin/tool", b"tool"), ("./usr/bin/sh", b"new sh"), ("./etc/conf", b"theirs")]);
    let package = scene.package("tool", "", &[("./conffiles", b"/etc/conf\n")], &data);
    let diversion = ("/usr/bin/sh".to_owned(), ("/usr/bin/sh.distrib".to_owned(), "dash".to_owned()));
    let rules = Rules { diversions: [diversion].into(), keep_conffiles: true, ..Rules::default() };
    let contents = scene.unpack(&[&package], &rules).unwrap().remove(0);
    assert_eq!(contents.list, ["/bin/tool", "/usr/bin/sh", "/etc/conf"]);
    let read = |path: &str| fs::read_to_string(scene.tree().join(path)).unwrap();
    assert_eq!(read("usr/bin/tool"), "tool");
    assert_eq!(read("usr/bin/sh.distrib"), "new sh");
    assert_eq!((read("etc/conf"), read("etc/conf.dpkg-dist")), ("mine".into(), "theirs".into()));
    let other = scene.package("other", "", &[], &tar(&[("./usr/bin/tool", b"other")]));
    assert!(matches!(scene.unpack(&[&package, &other], &rules), Err(UnpackError::Clash { .. })));
}

fn open(directory: &Path, bytes: &[u8]) -> Result<Deb, DebError> {
    let path = directory.join("x.deb");
    fs::write(&path, bytes).unwrap();
    Deb::open(&path)
}

#[test]
fn host_what_is_no_package_is_refused() {
    let scene = Scene::new();
    let control = b"Package: a\nVersion: 1\nArchitecture: all\n";
    let good = deb(&[("./control", control)], &tar(&[("./x", b"x")]));
    assert_eq!(open(scene.0.path(), &good).unwrap().name(), "a");
    for bad in [&b"<html>"[..], b"", b"!<arch>\n", &good[..good.len() - 20], &good[..100]] {
        assert!(open(scene.0.path(), bad).is_err());
    }
    for control in [&b"Package: ../a\nVersion: 1\nArchitecture: all\n"[..], b"Package: a\n", b"", b"\xff"] {
        assert!(open(scene.0.path(), &deb(&[("./control", control)], b"")).is_err());
    }
    let cut = deb(&[("./control", control)], &tar(&[("./x", &[7; 4096])])[..1500]);
    let package = open(scene.0.path(), &cut).unwrap();
    assert!(matches!(
        scene.unpack(&[&package], &Rules::default()),
        Err(UnpackError::Data { .. } | UnpackError::Write { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn host_no_bytes_make_reading_a_package_panic(changes in prop::collection::vec((0usize..600, any::<u8>()), 0..20)) {
        let directory = tempfile::tempdir().unwrap();
        let control = b"Package: a\nVersion: 1\nArchitecture: all\n";
        let mut bytes = deb(&[("./control", control)], &tar(&[("./x", b"x")]));
        for (at, byte) in changes {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        let _outcome = open(directory.path(), &bytes).map(|package| package.name().len());
    }
}
