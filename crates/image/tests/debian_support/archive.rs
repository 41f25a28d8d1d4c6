//! Packages, indexes and signatures.

use std::io::Write;

use flate2::{Compression, write::GzEncoder};
use jiff::Timestamp;
use kiln_image::debian::KeyFiles;
use kiln_model::{
    Digest,
    lock::LockedPackage,
    recipe::{DebianBase, Distribution, Layout, Repository},
};
use pgp::{
    composed::{
        CleartextSignedMessage, DetachedSignature, KeyType, SecretKeyParamsBuilder, SignedPublicKey, SignedSecretKey,
    },
    packet::{SignatureConfig, SignatureType, Subpacket, SubpacketData},
    ser::Serialize,
    types::{Duration, KeyDetails, Password, Tag},
};

use super::server::{Answer, Server};

/// The suite: one that has no updates and no security archive.
pub const SUITE: &str = "sid";

/// A key to sign archives with.
pub struct Key(pub SignedSecretKey);

impl Key {
    pub fn generate() -> Self {
        let params = SecretKeyParamsBuilder::default()
            .key_type(KeyType::Ed25519Legacy)
            .can_certify(true)
            .can_sign(true)
            .primary_user_id("Test Archive <archive@example.com>".into())
            .build()
            .unwrap();
        Self(params.generate(rand08::thread_rng()).unwrap())
    }

    /// The same key, good for this many seconds after it was made.
    pub fn lasting(mut self, seconds: u32) -> Self {
        let key = &self.0.primary_key;
        let mut config = SignatureConfig::from_key(rand08::thread_rng(), key, SignatureType::CertPositive).unwrap();
        let old = self.0.details.users[0].signatures[0].config().unwrap();
        config.hashed_subpackets = old.hashed_subpackets.clone();
        config.unhashed_subpackets = old.unhashed_subpackets.clone();
        let lasts = SubpacketData::KeyExpirationTime(Duration::from_secs(seconds));
        config.hashed_subpackets.push(Subpacket::regular(lasts).unwrap());
        let user = &self.0.details.users[0].id;
        let public = key.public_key();
        let signature = config.sign_certification(key, public, &Password::empty(), Tag::UserId, user).unwrap();
        self.0.details.users[0].signatures = vec![signature];
        self
    }

    pub fn keyring(&self) -> Vec<u8> {
        SignedPublicKey::from(self.0.clone()).to_bytes().unwrap()
    }

    pub fn sign(&self, text: &str) -> Vec<u8> {
        self.sign_for(text, None)
    }

    /// Signs for this many seconds.
    pub fn sign_for(&self, text: &str, seconds: Option<u32>) -> Vec<u8> {
        let config = self.signing(SignatureType::Text, seconds);
        let signed = CleartextSignedMessage::new(text, config, &self.0.primary_key, &Password::empty()).unwrap();
        signed.to_armored_bytes(Default::default()).unwrap()
    }

    /// Signs beside the text, for this many seconds.
    pub fn sign_beside(&self, text: &str, seconds: Option<u32>) -> DetachedSignature {
        let config = self.signing(SignatureType::Binary, seconds);
        DetachedSignature::new(config.sign(&self.0.primary_key, &Password::empty(), text.as_bytes()).unwrap())
    }

    fn signing(&self, kind: SignatureType, seconds: Option<u32>) -> SignatureConfig {
        let key = &self.0.primary_key;
        let mut config = SignatureConfig::from_key(rand08::thread_rng(), key, kind).unwrap();
        let now = pgp::types::Timestamp::now();
        let lasts = seconds.map(|seconds| SubpacketData::SignatureExpirationTime(Duration::from_secs(seconds)));
        let data = [SubpacketData::SignatureCreationTime(now), SubpacketData::IssuerFingerprint(key.fingerprint())];
        config.hashed_subpackets = data.into_iter().chain(lasts).map(|d| Subpacket::regular(d).unwrap()).collect();
        config
    }
}

/// One package to be.
pub struct Package {
    pub name: &'static str,
    pub fields: &'static str,
    pub file: Vec<u8>,
}

impl Package {
    pub fn new(name: &'static str, fields: &'static str) -> Self {
        let control = format!("Package: {name}\nVersion: 1.0\nArchitecture: all\n{fields}Description: a test\n");
        let data = tar(&[(&format!("./usr/share/{name}/file"), format!("of {name}\n").as_bytes())]);
        Self { name, fields, file: deb(&[("./control", control.as_bytes())], &data) }
    }

    pub fn filename(&self) -> String {
        format!("pool/main/{}_1.0_all.deb", self.name)
    }

    pub fn locked(&self) -> LockedPackage {
        LockedPackage {
            name: self.name.into(),
            version: "1.0".into(),
            architecture: "all".into(),
            archive: "main".into(),
            filename: self.filename(),
            size: self.file.len() as u64,
            sha256: Digest::of(&self.file),
        }
    }

    fn paragraph(&self) -> String {
        format!(
            "Package: {}\nVersion: 1.0\nArchitecture: all\n{}Filename: {}\nSize: {}\nSHA256: {}\n\n",
            self.name,
            self.fields,
            self.filename(),
            self.file.len(),
            Digest::of(&self.file).hex(),
        )
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar of plain files.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = header(tar::EntryType::Regular, content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn header(kind: tar::EntryType, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1_600_000_000);
    header
}

/// A `.deb` of these control files and this data tar.
pub fn deb(control: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
    let mut file = b"!<arch>\n".to_vec();
    let members =
        [("debian-binary", b"2.0\n".to_vec()), ("control.tar.gz", gzip(&tar(control))), ("data.tar.gz", gzip(data))];
    for (name, content) in members {
        writeln!(file, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`", 0, 0, 0, 100_644, content.len()).unwrap();
        file.extend(&content);
        if content.len() % 2 == 1 {
            file.push(b'\n');
        }
    }
    file
}

/// An archive's files behind a server.
pub struct Archive {
    pub server: Server,
    pub key: Key,
    pub packages: Vec<Package>,
    /// `InRelease`, unsigned.
    pub release: String,
    /// Path of the package index on the server.
    pub index_path: String,
    pub index: Vec<u8>,
}

impl Archive {
    pub fn serve(packages: Vec<Package>) -> Self {
        let text: String = packages.iter().map(Package::paragraph).collect();
        let index = gzip(text.as_bytes());
        let release = release_text(&text, &index, Timestamp::now(), "");
        let index_path = format!("/dists/{SUITE}/main/binary-amd64/by-hash/SHA256/{}", Digest::of(&index).hex());
        let archive = Self { server: Server::start(), key: Key::generate(), packages, release, index_path, index };
        archive.server.set(&archive.index_path, Answer::Body(archive.index.clone()));
        for package in &archive.packages {
            archive.server.set(&format!("/{}", package.filename()), Answer::Body(package.file.clone()));
        }
        archive.serve_release(archive.key.sign(&archive.release));
        archive
    }

    pub fn serve_release(&self, bytes: Vec<u8>) {
        self.server.set(&format!("/dists/{SUITE}/InRelease"), Answer::Body(bytes));
    }

    /// As a flat repository in this directory, with this release file; the directory ends with `/`, or is empty.
    pub fn flat(&self, directory: &str, release: &str) -> Repository {
        let text: String = self.packages.iter().map(Package::paragraph).collect();
        self.server.set(&format!("/{directory}InRelease"), Answer::Body(self.key.sign(release)));
        self.server.set(&format!("/{directory}Packages"), Answer::Body(text.into_bytes()));
        Repository { layout: Layout::Flat { directory: directory.to_owned() }, ..self.repository("flat") }
    }

    /// The release file of [`Self::flat`], with these lines in it.
    pub fn flat_release(&self, more: &str) -> String {
        let text: String = self.packages.iter().map(Package::paragraph).collect();
        let date = Timestamp::now().strftime("%a %b %e %H:%M:%S %Y");
        let hash = Digest::of(text.as_bytes()).hex();
        format!("Origin: Test\nDate: {date}\n{more}SHA256:\n {hash} {} Packages\n", text.len())
    }

    /// Its key, as the recipe's `keyring`.
    pub fn keys(&self) -> KeyFiles {
        KeyFiles { keyring: Some(self.key.keyring()), repositories: Vec::new() }
    }

    /// Itself as a repository of a recipe.
    pub fn repository(&self, name: &str) -> Repository {
        Repository {
            name: name.parse().unwrap(),
            url: self.server.address.clone(),
            layout: Layout::Suite { suite: SUITE.into(), components: vec!["main".into()] },
            key: format!("{name}.asc"),
        }
    }

    pub fn base(&self) -> DebianBase {
        Self::base_at(&self.server.address)
    }

    pub fn base_at(mirror: &str) -> DebianBase {
        DebianBase {
            distribution: Distribution::Debian,
            suite: SUITE.into(),
            packages: Vec::new(),
            mirror: mirror.to_owned(),
            security_mirror: None,
            components: vec!["main".into()],
            keyring: None,
            repositories: Vec::new(),
        }
    }

    pub fn locked(&self) -> Vec<LockedPackage> {
        self.packages.iter().map(Package::locked).collect()
    }
}

pub fn release_text(index: &str, packed: &[u8], date: Timestamp, more: &str) -> String {
    let date = date.strftime("%a, %d %b %Y %H:%M:%S UTC");
    let (plain, gz) = (Digest::of(index.as_bytes()).hex(), Digest::of(packed).hex());
    format!(
        "Origin: Test\nSuite: unstable\nCodename: {SUITE}\nDate: {date}\n{more}Acquire-By-Hash: yes\n\
         Architectures: amd64\nComponents: main\nSHA256:\n {plain} {} main/binary-amd64/Packages\n \
         {gz} {} main/binary-amd64/Packages.gz\n",
        index.len(),
        packed.len(),
    )
}
