//! An archive laid out as Ubuntu's is: pockets with one code name, components, `.deb` files packed with zstd.

mod debian_support;

use std::io::{Read as _, Write as _};

use debian_support::{
    archive::{Key, tar},
    server::{Answer, Server},
};
use jiff::Timestamp;
use kiln_image::debian::{self, ArchiveError, Archives, KeyFiles, Use, deb::Deb, release::ReleaseError};
use kiln_model::{
    Digest,
    recipe::{DebianBase, Distribution},
};

/// A package as `dpkg-deb` of Ubuntu packs it.
fn deb(name: &str, version: &str) -> Vec<u8> {
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 19).unwrap();
    let control = format!("Package: {name}\nVersion: {version}\nArchitecture: amd64\nDescription: a test\n");
    let data = tar(&[(&format!("./usr/share/{name}/version"), version.as_bytes())]);
    let mut file = b"!<arch>\n".to_vec();
    for (member, content) in [
        ("debian-binary", b"2.0\n".to_vec()),
        ("control.tar.zst", zstd(&tar(&[("./control", control.as_bytes())]))),
        ("data.tar.zst", zstd(&data)),
    ] {
        writeln!(file, "{member:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, content.len()).unwrap();
        file.extend(&content);
        file.resize(file.len().next_multiple_of(2), b'\n');
    }
    file
}

struct Ubuntu {
    server: Server,
    key: Key,
}

impl Ubuntu {
    fn start() -> Self {
        Self { server: Server::start(), key: Key::generate() }
    }

    /// Serves a pocket: (component, package, version, further fields).
    fn pocket(&self, suite: &str, packages: &[(&str, &str, &str, &str)]) -> Vec<u8> {
        let mut hashes = String::new();
        for component in ["main", "universe"] {
            let mut text = String::new();
            for (_, name, version, fields) in packages.iter().filter(|package| package.0 == component) {
                let (file, path) = (deb(name, version), format!("pool/{component}/{name}_{version}_amd64.deb"));
                text += &format!(
                    "Package: {name}\nArchitecture: amd64\nVersion: {version}\nPriority: optional\nSection: utils\nOrigin: Ubuntu\n{fields}\
                     Filename: {path}\nSize: {}\nMD5sum: 0\nSHA1: 0\nSHA256: {}\nSHA512: 0\nDescription: a test\nTask: server\n\n",
                    file.len(),
                    Digest::of(&file).hex()
                );
                self.server.set(&format!("/{path}"), Answer::Body(file));
            }
            let mut packed = Vec::new();
            liblzma::read::XzEncoder::new(text.as_bytes(), 6).read_to_end(&mut packed).unwrap();
            let digest = Digest::of(&packed).hex();
            let directory = format!("{component}/binary-amd64");
            self.server
                .set(&format!("/dists/{suite}/{directory}/by-hash/SHA256/{digest}"), Answer::Body(packed.clone()));
            let plain = Digest::of(text.as_bytes()).hex();
            hashes += &format!(
                " {plain} {} {directory}/Packages\n {digest} {} {directory}/Packages.xz\n",
                text.len(),
                packed.len()
            );
        }
        let date = Timestamp::now().strftime("%a, %d %b %Y %H:%M:%S UTC");
        let text = format!(
            "Origin: Ubuntu\nLabel: Ubuntu\nSuite: {suite}\nVersion: 24.04\nCodename: noble\nDate: {date}\n\
             Architectures: amd64 arm64 armhf i386 ppc64el riscv64 s390x\nComponents: main restricted universe multiverse\n\
             Description: Ubuntu Noble 24.04\nSHA256:\n{hashes}Acquire-By-Hash: yes\n"
        );
        let signed = self.key.sign(&text);
        self.server.set(&format!("/dists/{suite}/InRelease"), Answer::Body(signed.clone()));
        signed
    }

    fn base(&self) -> DebianBase {
        let components = Distribution::Ubuntu.components().iter().map(|name| (*name).to_owned()).collect();
        DebianBase {
            distribution: Distribution::Ubuntu,
            suite: "noble".into(),
            packages: Vec::new(),
            mirror: self.server.address.clone(),
            security_mirror: Some(self.server.address.clone()),
            components,
            keyring: None,
            repositories: Vec::new(),
        }
    }

    fn refresh(&self, cache: &std::path::Path) -> Result<Archives, ArchiveError> {
        let keys = KeyFiles { keyring: Some(self.key.keyring()), repositories: Vec::new() };
        Archives::refresh(&self.base(), &keys, cache, Use::Network, Timestamp::now(), &|_| ())
    }
}

fn all(ubuntu: &Ubuntu) {
    let base = ("main", "base-files", "13ubuntu10", "Essential: yes\n");
    let lib = ("main", "libc6", "2.39-0ubuntu8", "");
    ubuntu.pocket("noble", &[base, lib, ("universe", "tool", "1.0-1", "Depends: libc6 (>= 2.38)\n")]);
    // A phased update goes to some hosts at first; an image takes it at once.
    ubuntu.pocket("noble-updates", &[("main", "libc6", "2.39-0ubuntu8.2", "Phased-Update-Percentage: 10\n")]);
    ubuntu.pocket("noble-security", &[("universe", "tool", "1.0-1ubuntu0.1", "Depends: libc6 (>= 2.38)\n")]);
}

#[test]
fn host_ubuntus_pockets_components_and_packing_are_read() {
    let (ubuntu, cache) = (Ubuntu::start(), tempfile::tempdir().unwrap());
    all(&ubuntu);
    let archives = ubuntu.refresh(cache.path()).unwrap();
    let named: Vec<_> = archives.locked().into_iter().map(|archive| (archive.name, archive.suite)).collect();
    let pocket = |name: &str, suite: &str| (name.to_owned(), suite.to_owned());
    let expected = [pocket("main", "noble"), pocket("updates", "noble-updates"), pocket("security", "noble-security")];
    assert_eq!(named, expected);
    let set = debian::resolve(&archives, &[], &["tool".into()]).unwrap();
    let shown: Vec<_> =
        set.iter().map(|package| format!("{} {} {}", package.name, package.version, package.archive)).collect();
    assert_eq!(shown, ["base-files 13ubuntu10 main", "libc6 2.39-0ubuntu8.2 updates", "tool 1.0-1ubuntu0.1 security"]);
    let paths = debian::fetch(&set, &ubuntu.base(), cache.path(), Use::Network, &|_| ()).unwrap();
    let tool = Deb::open(&paths[2]).unwrap();
    assert_eq!((tool.name(), tool.version()), ("tool", "1.0-1ubuntu0.1"));
    let mut archive = tar::Archive::new(tool.data().unwrap());
    let mut text = String::new();
    archive.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "1.0-1ubuntu0.1");
}

#[test]
fn host_one_pocket_of_ubuntu_cannot_stand_for_another() {
    let (ubuntu, cache) = (Ubuntu::start(), tempfile::tempdir().unwrap());
    all(&ubuntu);
    // Its code name is the same and its signature is good: an old pocket in the place of the security updates.
    let old = ubuntu.pocket("noble", &[("main", "base-files", "1", "Essential: yes\n")]);
    ubuntu.server.set("/dists/noble-security/InRelease", Answer::Body(old));
    match ubuntu.refresh(cache.path()) {
        Err(ArchiveError::Release { source: ReleaseError::OtherSuite { wanted, .. }, .. }) => {
            assert_eq!(wanted, "noble-security");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn host_ubuntus_archive_is_not_believed_by_debians_keys_nor_by_a_strangers() {
    let (ubuntu, cache) = (Ubuntu::start(), tempfile::tempdir().unwrap());
    all(&ubuntu);
    for base in [ubuntu.base(), DebianBase { distribution: Distribution::Debian, ..ubuntu.base() }] {
        let refused =
            Archives::refresh(&base, &KeyFiles::default(), cache.path(), Use::Network, Timestamp::now(), &|_| ());
        let error = refused.expect_err("signed by a stranger");
        assert!(matches!(&error, ArchiveError::Release { source: ReleaseError::Signature(_), .. }), "{error:?}");
    }
}
