//! Layers as nobody should write them, and as real programs do.

use std::io::{Read, Write as _};

use composefs::tree::Inode;
use kiln_model::{ByteSize, Digest, recipe::ImportLimits};

use super::{Ground, ImportError, Imported, Meter, Packed, layer};
use crate::{
    layer::{Content, Kind, Layer, Meta, apply, write},
    store::objects::Tree,
};

/// A tar stream, entry by entry, with any bytes as paths.
#[derive(Default)]
pub(crate) struct Tar(pub(crate) Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }
    pub(crate) fn file(self, path: &str, content: &str) -> Self {
        self.entry(path.as_bytes(), b'0', b"", content.as_bytes())
    }
    pub(crate) fn dir(self, path: &str) -> Self {
        self.entry(path.as_bytes(), b'5', b"", b"")
    }
    pub(crate) fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(path.as_bytes(), b'2', target.as_bytes(), b"")
    }
    pub(crate) fn hardlink(self, path: &str, target: &str) -> Self {
        self.entry(path.as_bytes(), b'1', target.as_bytes(), b"")
    }
    /// An entry of any kind.
    pub(crate) fn entry(mut self, path: &[u8], kind: u8, link: &[u8], content: &[u8]) -> Self {
        self.0.extend(header(path, kind, link, content.len() as u64, 0, 0));
        self.0.extend(content);
        self.pad();
        self
    }
    pub(crate) fn owned(mut self, path: &str, uid: u64) -> Self {
        self.0.extend(header(path.as_bytes(), b'0', b"", 0, uid, 0));
        self
    }
    /// Pax records for the next entry.
    pub(crate) fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        let mut text = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3;
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length = rest + length.to_string().len();
            }
            write!(text, "{length} {key}=").expect("memory");
            text.extend(*value);
            text.push(b'\n');
        }
        self.0.extend(header(b"pax", b'x', b"", text.len() as u64, 0, 0));
        self.0.extend(text);
        self.pad();
        self
    }
    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
    }
    pub(crate) fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

pub(crate) fn header(path: &[u8], kind: u8, link: &[u8], size: u64, uid: u64, mtime: u64) -> [u8; 512] {
    let mut block = [0; 512];
    block[..path.len()].copy_from_slice(path);
    block[100..108].copy_from_slice(b"0000755\0");
    block[108..116].copy_from_slice(format!("{uid:07o}\0").as_bytes());
    block[116..124].copy_from_slice(b"0000000\0");
    block[124..136].copy_from_slice(format!("{size:011o}\0").as_bytes());
    block[136..148].copy_from_slice(format!("{mtime:011o}\0").as_bytes());
    block[156] = kind;
    block[157..157 + link.len()].copy_from_slice(link);
    block[257..265].copy_from_slice(b"ustar\x0000");
    sum(&mut block);
    block
}

pub(crate) fn sum(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn take_over(below: &Tree, packed: &[u8], diff_id: Digest, limits: ImportLimits) -> Result<Imported, ImportError> {
    let work = tempfile::tempdir().expect("a directory");
    let ground = Ground { below, objects: work.path(), work: work.path(), epoch: 1000 };
    let expected = Some((packed.len() as u64, Digest::of(packed)));
    let imported = layer(Packed::new(packed, expected), diff_id, &mut Meter::new(limits), &ground);
    // Nothing but numbered files is ever written.
    for entry in std::fs::read_dir(work.path()).expect("listed") {
        let name = entry.expect("an entry").file_name();
        assert!(name.to_str().is_some_and(|name| name.parse::<u64>().is_ok()), "{name:?}");
    }
    imported
}

fn take(tar: Vec<u8>) -> Result<Imported, ImportError> {
    take_over(&apply::empty(0), &tar, Digest::of(&tar), ImportLimits::default())
}

fn taken(tar: Tar) -> Layer {
    let tar = tar.end();
    take(tar).unwrap_or_else(|e| panic!("{e}")).layer
}

fn refused(tar: Tar, words: &str) {
    let error = take(tar.end()).expect_err(words).to_string();
    assert!(error.contains(words), "{error}");
}

/// Paths and kinds, in order.
fn shown(layer: &Layer) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kind = |kind: &Kind| match kind {
        Kind::Directory { opaque: false } => "dir".to_owned(),
        Kind::Directory { opaque: true } => "opaque".to_owned(),
        Kind::File(Content::Bytes(bytes)) => format!("file {}", text(bytes)),
        Kind::File(Content::Path { size, .. }) => format!("file of {size}"),
        Kind::Symlink(target) => format!("-> {}", text(target)),
        Kind::Hardlink(target) => format!("= {}", text(target)),
        Kind::Fifo => "fifo".to_owned(),
        Kind::Whiteout => "gone".to_owned(),
    };
    layer.entries().iter().map(|entry| format!("{} {}", text(&entry.path), kind(&entry.kind))).collect()
}

/// A tree made of small files.
fn tree(tar: Tar) -> Tree {
    let layer = taken(tar);
    let mut tree = apply::empty(0);
    let contents = layer.entries().iter().map(|entry| match &entry.kind {
        Kind::File(Content::Bytes(bytes)) => Some(apply::Kept::Inline(bytes.as_slice().into())),
        _ => None,
    });
    apply::apply(&mut tree, &layer, &contents.collect::<Vec<_>>()).expect("applied");
    tree
}

fn over(below: &Tree, tar: Tar) -> Result<Vec<String>, ImportError> {
    let tar = tar.end();
    take_over(below, &tar, Digest::of(&tar), ImportLimits::default()).map(|imported| shown(&imported.layer))
}

#[test]
fn host_paths_that_lead_out_are_refused() {
    for path in ["../etc/passwd", "a/../../b", "a/.."] {
        refused(Tar::new().file(path, "x"), "`..`");
    }
    refused(Tar::new().hardlink("a", "../../etc/shadow"), "leads out of the layer");
    refused(Tar::new().hardlink("a", "/etc/shadow"), "not there");
    refused(Tar::new().dir("d").hardlink("a", "d"), "a hard link to a directory");
    refused(Tar::new().hardlink("a", "a"), "not there");
    // An absolute path is below the image's root.
    assert_eq!(shown(&taken(Tar::new().file("/etc/x", "1"))), ["etc dir", "etc/x file 1"]);
}

#[test]
fn host_symbolic_links_are_followed_inside_the_image_only() {
    let out = Tar::new().symlink("out", "/../../../../tmp").file("out/x", "1");
    assert_eq!(shown(&taken(out)), ["out -> /../../../../tmp", "tmp dir", "tmp/x file 1"]);
    let up = Tar::new().dir("a").symlink("a/up", "../../..").file("a/up/x", "1");
    assert_eq!(shown(&taken(up)), ["a dir", "a/up -> ../../..", "x file 1"]);
    refused(Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "1"), "round in circles");
    refused(Tar::new().symlink("a", "a/a").file("a/x", "1"), "round in circles");
    refused(Tar::new().symlink("a", "/.wh.x/y").file("a/z", "1"), "a name that cannot be");
    refused(Tar::new().file("f", "1").file("f/x", "1"), "is a file");
    refused(Tar::new().symlink("a", ""), "leads nowhere");
    // Through a link of the layer below, and over it.
    let below = tree(Tar::new().dir("usr").dir("usr/lib").symlink("lib", "usr/lib").symlink("loop", "loop"));
    assert_eq!(over(&below, Tar::new().file("lib/x", "1")).expect("taken"), ["usr/lib/x file 1"]);
    assert_eq!(over(&below, Tar::new().dir("lib").file("lib/x", "1")).expect("taken"), ["lib dir", "lib/x file 1"]);
    assert!(over(&below, Tar::new().file("loop/x", "1")).is_err());
}

#[test]
fn host_deletions_concern_what_is_below() {
    let below = || tree(Tar::new().dir("etc").file("etc/a", "1").file("etc/b", "2").dir("var").file("var/x", "3"));
    let over = |tar| over(&below(), tar).expect("taken");
    assert_eq!(over(Tar::new().file("etc/.wh.a", "")), ["etc/a gone"]);
    // Before or behind, a deletion never takes what the same layer brings.
    assert_eq!(over(Tar::new().file("etc/.wh.a", "").file("etc/a", "new")), ["etc/a file new"]);
    assert_eq!(over(Tar::new().file("etc/a", "new").file("etc/.wh.a", "")), ["etc/a file new"]);
    assert_eq!(
        over(Tar::new().dir("etc").file("etc/.wh..wh..opq", "").file("etc/c", "3")),
        ["etc opaque", "etc/c file 3"]
    );
    assert_eq!(over(Tar::new().file("etc/c", "3").file("etc/.wh..wh..opq", "")), ["etc opaque", "etc/c file 3"]);
    assert_eq!(over(Tar::new().file(".wh.etc", "").dir("etc").file("etc/n", "4")), ["etc opaque", "etc/n file 4"]);
    assert_eq!(over(Tar::new().file(".wh..wh..opq", "").file("n", "1")), ["etc gone", "n file 1", "var gone"]);
    for path in [".wh.", "etc/.wh..", "etc/.wh..."] {
        refused(Tar::new().file(path, ""), "nothing that can be named");
    }
    refused(Tar::new().file(".wh.x/y", ""), "means a deletion");
    let aufs = take(Tar::new().dir(".wh..wh.plnk").file(".wh..wh.aufs", "").end()).expect("taken");
    assert!(aufs.layer.entries().is_empty() && aufs.warnings.len() == 2, "{:?}", aufs.warnings);
}

#[test]
fn host_devices_are_refused_or_left_out_by_rule() {
    for kind in [b'3', b'4'] {
        let error = take(Tar::new().entry(b"etc/null", kind, b"", b"").end()).expect_err("refused").to_string();
        assert!(error.contains("a device"), "{error}");
        let left = take(Tar::new().dir("dev").entry(b"dev/null", kind, b"", b"").end()).expect("taken");
        assert_eq!(shown(&left.layer), ["dev dir"]);
        assert_eq!(left.warnings, ["dev/null: a device, left out: every server has a /dev of its own"]);
    }
    refused(Tar::new().entry(b"a", b'9', b"", b""), "of a kind that no image can hold");
    assert_eq!(shown(&taken(Tar::new().entry(b"p", b'6', b"", b""))), ["p fifo"]);
}

#[test]
fn host_the_later_of_two_entries_counts_whatever_they_are() {
    let twice = Tar::new().file("a", "1").file("a", "2").file("./a", "3");
    assert_eq!(shown(&taken(twice)), ["a file 3"]);
    let turned = Tar::new().dir("d").file("d/x", "1").file("d", "now a file");
    assert_eq!(shown(&taken(turned)), ["d file now a file"]);
    let back = Tar::new().dir("d").file("d/x", "1").symlink("d", "/etc").dir("d");
    assert_eq!(shown(&taken(back)), ["d opaque"]);
    let stale = Tar::new().dir("d").file("d/x", "1").symlink("d", "e").file("d/y", "2");
    assert_eq!(shown(&taken(stale)), ["d -> e", "e dir", "e/y file 2"]);
}

#[test]
fn host_hard_links_are_one_file_also_over_the_layer_below() {
    let linked = Tar::new().file("z", "1").hardlink("a", "z").hardlink("m", "./a");
    assert_eq!(shown(&taken(linked)), ["a file 1", "m = a", "z = a"]);
    let below = tree(Tar::new().dir("etc").file("etc/old", "1").symlink("l", "etc/old"));
    assert_eq!(
        over(&below, Tar::new().hardlink("etc/new", "etc/old")).expect("taken"),
        ["etc/new file 1", "etc/old = etc/new"]
    );
    assert_eq!(over(&below, Tar::new().hardlink("k", "l")).expect("taken"), ["k -> etc/old", "l = k"]);
    let gone = over(&below, Tar::new().file("etc/.wh.old", "").hardlink("x", "etc/old"));
    assert!(gone.is_err());
}

#[test]
fn host_only_capabilities_and_user_attributes_are_kept() {
    let capability = [1_u8, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.security.capability", &capability),
        ("SCHILY.xattr.user.note", b"hi"),
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc/shadow"),
        ("SCHILY.xattr.trusted.overlay.metacopy", b""),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"x"),
    ];
    let imported = take(Tar::new().pax(records).file("ping", "").end()).expect("taken");
    let names: Vec<_> = imported.layer.entries()[0].meta.xattrs.keys().map(|k| String::from_utf8_lossy(k)).collect();
    assert_eq!(names, ["security.capability", "user.note"]);
    assert_eq!(imported.warnings.len(), 4, "{:?}", imported.warnings);
}

#[test]
fn host_names_of_any_bytes_are_kept_and_shown_safely() {
    let name = b"caf\xe9\n\x1b[31m";
    let layer = taken(Tar::new().entry(name, b'0', b"", b"1"));
    assert_eq!(layer.entries()[0].path, name);
    let error = take(Tar::new().entry(b"\x1b[31m\xff", b'3', b"", b"").end()).expect_err("refused").to_string();
    assert!(error.contains("\\u{1b}[31m\\xff") && !error.contains('\x1b'), "{error}");
    refused(Tar::new().pax(&[("path", b"a\0b")]).file("x", ""), "NUL");
    refused(Tar::new().pax(&[("path", "n".repeat(300).as_bytes())]).file("x", ""), "longer than Linux allows");
}

#[test]
fn host_owners_that_no_server_has_are_named() {
    refused(Tar::new().owned("f", 65_536), "above 65535");
    refused(Tar::new().pax(&[("uid", b"4294967296")]).file("f", ""), "above 65535");
    assert_eq!(taken(Tar::new().owned("f", 65_535)).entries()[0].meta.uid, 65_535);
}

/// Limits that tests can reach.
fn small() -> ImportLimits {
    ImportLimits { size: ByteSize::mib(256), files: 1000, ratio: 200 }
}

#[test]
fn host_a_sparse_file_of_10_tb_is_refused_before_a_byte_is_written() {
    let mut block = header(b"huge", b'S', b"", 512, 0, 0);
    block[257..265].copy_from_slice(b"ustar  \0");
    block[345..386].fill(0);
    block[386..398].copy_from_slice(b"00000000000\0");
    block[398..410].copy_from_slice(b"00000001000\0");
    // realsize in base 256: 10 TB does not fit into octal digits.
    block[483] = 0x80;
    block[484..495].copy_from_slice(&[[0; 3].as_slice(), &10_000_000_000_000_u64.to_be_bytes()].concat());
    sum(&mut block);
    let tar = [&block[..], &[1; 512], &[0; 1024]].concat();
    let error = take(tar).expect_err("refused");
    assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
    let pax = Tar::new().pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"huge"),
        ("GNU.sparse.realsize", b"10000000000000"),
    ]);
    let mut map = b"1\n0\n512\n".to_vec();
    map.resize(1024, b'x');
    map[8..512].fill(0);
    let error = take(pax.entry(b"x", b'0', b"", &map).end()).expect_err("refused");
    assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
}

#[test]
fn host_sparse_files_have_their_holes() {
    let pax = Tar::new().pax(&[
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"holes"),
        ("GNU.sparse.realsize", b"100000"),
    ]);
    let mut map = b"2\n4096\n3\n99999\n1\n".to_vec();
    map.resize(512, 0);
    map.extend(b"abcz");
    let tar = pax.entry(b"x", b'0', b"", &map).end();
    let work = tempfile::tempdir().expect("a directory");
    let below = apply::empty(0);
    let ground = Ground { below: &below, objects: work.path(), work: work.path(), epoch: 0 };
    let mut meter = Meter::new(small());
    let made = layer(Packed::new(&tar[..], None), Digest::of(&tar), &mut meter, &ground).expect("taken").layer;
    let [entry] = made.entries() else { panic!("{made:?}") };
    let Kind::File(Content::Path { path, size: 100_000, .. }) = &entry.kind else { panic!("{entry:?}") };
    let mut expected = vec![0; 100_000];
    expected[4096..4099].copy_from_slice(b"abc");
    expected[99_999] = b'z';
    assert!(std::fs::read(path).expect("read") == expected);
    assert_eq!(entry.path, b"holes");
}

#[test]
fn host_bombs_are_refused_at_their_limit() {
    let zeros = |megabytes: usize| Tar::new().entry(b"zeros", b'0', b"", &vec![0; megabytes << 20]).end();
    let gzip = |bytes: &[u8]| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).expect("memory");
        encoder.finish().expect("memory")
    };
    let plain = zeros(100);
    let (packed, zstd) = (gzip(&plain), zstd::encode_all(&plain[..], 3).expect("memory"));
    for packed in [&packed, &zstd] {
        let error = take_over(&apply::empty(0), packed, Digest::of(&plain), small()).expect_err("dense");
        assert!(matches!(error, ImportError::TooDense { limit: 200 }), "{error}");
    }
    // The same bytes are fine where the recipe says so, and below the size that counts.
    let wide = ImportLimits { ratio: 1_000_000, ..small() };
    take_over(&apply::empty(0), &packed, Digest::of(&plain), wide).expect("allowed");
    let plain = zeros(20);
    take_over(&apply::empty(0), &gzip(&plain), Digest::of(&plain), small()).expect("small");
    let tight = ImportLimits { size: ByteSize::mib(10), ..small() };
    let error = take_over(&apply::empty(0), &gzip(&plain), Digest::of(&plain), tight).expect_err("large");
    assert!(matches!(error, ImportError::TooLarge { .. }), "{error}");
}

/// Empty files without end, as a stream that nobody holds.
struct Tiny(u64, Vec<u8>);

impl Read for Tiny {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1.is_empty() {
            self.1 = header(format!("d/{:09}", self.0).as_bytes(), b'0', b"", 0, 0, 0).to_vec();
            self.0 += 1;
        }
        let count = buffer.len().min(self.1.len());
        buffer[..count].copy_from_slice(&self.1[..count]);
        self.1.drain(..count);
        Ok(count)
    }
}

#[test]
fn host_a_million_tiny_files_end_at_the_limit() {
    let work = tempfile::tempdir().expect("a directory");
    let below = apply::empty(0);
    let ground = Ground { below: &below, objects: work.path(), work: work.path(), epoch: 0 };
    let mut meter = Meter::new(ImportLimits::default());
    let error =
        layer(Packed::new(Tiny(0, Vec::new()), None), Digest::of(b""), &mut meter, &ground).expect_err("endless");
    assert!(matches!(error, ImportError::TooMany { limit: 1_000_000 }), "{error}");
    assert_eq!(std::fs::read_dir(work.path()).expect("listed").count(), 0);
}

#[test]
fn host_lies_about_size_and_digest_are_seen() {
    let tar = Tar::new().file("a", "1").end();
    let below = apply::empty(0);
    let work = tempfile::tempdir().expect("a directory");
    let ground = Ground { below: &below, objects: work.path(), work: work.path(), epoch: 0 };
    let (size, digest, other) = (tar.len() as u64, Digest::of(&tar), Digest::of(b"other"));
    let try_with = |bytes: &[u8], expected, diff_id| {
        layer(Packed::new(bytes, Some(expected)), diff_id, &mut Meter::new(small()), &ground).map(|_| ())
    };
    assert!(try_with(&tar, (size, digest), digest).is_ok());
    let error = try_with(&tar, (size, other), digest).expect_err("digest");
    assert!(matches!(error, ImportError::WrongDigest { what: "packed bytes", .. }), "{error}");
    let error = try_with(&tar, (size, digest), other).expect_err("diff id");
    assert!(matches!(error, ImportError::WrongDigest { what: "unpacked bytes", .. }), "{error}");
    for lie in [size - 1, size + 1, 1 << 40] {
        assert!(matches!(try_with(&tar, (lie, digest), digest), Err(ImportError::WrongSize { .. })), "{lie}");
    }
    for length in [1, 100, 511, 512, 1000] {
        let error = try_with(&tar[..length], (size, digest), digest).expect_err("truncated");
        assert!(matches!(error, ImportError::Archive(_) | ImportError::WrongSize { .. }), "{error}");
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).expect("memory");
    let gzip = gzip.finish().expect("memory");
    let half = &gzip[..gzip.len() / 2];
    assert!(try_with(half, (half.len() as u64, Digest::of(half)), digest).is_err());
}

#[test]
fn host_what_kiln_wrote_comes_back_to_the_byte() {
    let meta = |mode: u32, mtime: i64| Meta {
        mode,
        uid: 33,
        gid: 65_535,
        mtime,
        xattrs: [(b"user.a".to_vec(), vec![0, 255])].into(),
    };
    let entry =
        |path: &str, kind, mode| crate::layer::Entry { path: path.as_bytes().to_vec(), meta: meta(mode, 77), kind };
    let gone = |path: &str| crate::layer::Entry {
        path: path.as_bytes().to_vec(),
        meta: Meta::default(),
        kind: Kind::Whiteout,
    };
    let long = "x".repeat(150);
    let own = Layer::new(vec![
        entry("a", Kind::Directory { opaque: true }, 0o700),
        entry("a/f", Kind::File(Content::Bytes(b"hello".to_vec())), 0o4755),
        entry("a/g", Kind::Hardlink(b"a/f".to_vec()), 0o4755),
        entry("a-b", Kind::Symlink(long.clone().into_bytes()), 0o777),
        entry(&format!("a/{long}"), Kind::Fifo, 0o600),
        gone("a/old"),
        gone("b"),
    ]);
    let mut bytes = Vec::new();
    let (digest, _) = write::digest(&own).expect("digest");
    write::plain(&own, &mut bytes).expect("memory");
    assert_eq!(Digest::of(&bytes), digest);
    let back = take(bytes).expect("taken").layer;
    assert_eq!(shown(&back), shown(&own));
    assert_eq!(write::digest(&back).expect("digest").0, digest);
}

#[test]
fn host_old_and_odd_archives_are_read() {
    // Before POSIX, directories were files with `/` at the end; `git archive` begins with a global comment.
    let mut tar = Tar::new();
    let text = b"52 comment=0123456789012345678901234567890123456789\n";
    tar = tar.entry(b"g", b'g', b"", text);
    assert_eq!(shown(&taken(tar.file("d/", "").file("d/x", "1"))), ["d dir", "d/x file 1"]);
    refused(Tar::new().entry(b"g", b'g', b"", b"12 path=../x\n").file("a", ""), "global header");
    let without_end = Tar::new().file("a", "1").0;
    assert_eq!(shown(&take(without_end).expect("taken").layer), ["a file 1"]);
    assert!(take(b"this is no tar archive at all".repeat(40)).is_err());
    assert!(take(Vec::new()).expect("empty").layer.entries().is_empty());
    let root = taken(Tar::new().dir("./").file("./etc/x", "1"));
    assert_eq!(shown(&root), ["etc dir", "etc/x file 1"]);
    assert!(matches!(tree(Tar::new().file("n/x", "1")).root.lookup("n".as_ref()), Some(Inode::Directory(_))));
}

#[test]
fn host_names_without_end_stop_at_a_limit() {
    let limits = ImportLimits { files: 100_000, ..ImportLimits::default() };
    let limited = |tar: &[u8], limits| take_over(&apply::empty(0), tar, Digest::of(tar), limits).map(|_| ());
    // Each name makes two thousand directories that nothing else names: they are entries like others.
    let deep = |at: usize| format!("{at:04}/{}x", "d/".repeat(2000));
    let tar = (0..60).fold(Tar::new(), |tar, at| tar.pax(&[("path", deep(at).as_bytes())]).file("x", "")).end();
    let error = limited(&tar, limits).expect_err("directories");
    assert!(matches!(error, ImportError::TooMany { .. } | ImportError::TooWordy { .. }), "{error}");
    let few = ImportLimits { files: 1000, ..limits };
    assert!(matches!(limited(&tar, few), Err(ImportError::TooMany { limit: 1000 })));
    // Attributes of a megabyte each stay in memory.
    let note = vec![b'n'; 60_000];
    let tar = (0..500).fold(Tar::new(), |tar, at| tar.pax(&[("SCHILY.xattr.user.n", &note)]).file(&at.to_string(), ""));
    assert!(matches!(limited(&tar.end(), few), Err(ImportError::TooWordy { .. })));
    // Long links that are followed for every name.
    let round = "a/../".repeat(800) + "a";
    let start = Tar::new().dir("a").pax(&[("linkpath", round.as_bytes())]).symlink("l", "x");
    let tar = (0..9000).fold(start, |tar, at| tar.dir(&format!("l/{at}")).file(&format!("l/{at}/x"), ""));
    let error = limited(&tar.end(), ImportLimits { files: 40_000, ..limits }).expect_err("links");
    assert!(matches!(error, ImportError::TooWordy { .. }), "{error}");
}

#[test]
fn host_a_deep_tree_is_read_in_time() {
    let start = std::time::Instant::now();
    let deep = "d/".repeat(2000);
    let dirs = |tar: Tar, at: usize| tar.pax(&[("path", format!("{deep}{at}/f").as_bytes())]).file("x", "");
    let tar = (0..300).fold(Tar::new(), dirs).end();
    take(tar).expect("deep is no fault");
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

#[test]
fn host_a_list_of_pieces_without_an_end_is_refused() {
    let sparse = |map: &[u8]| {
        let pax = Tar::new().pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"holes"),
            ("GNU.sparse.realsize", b"100"),
        ]);
        take(pax.entry(b"x", b'0', b"", map).end()).expect_err("no list").to_string()
    };
    assert!(sparse(&vec![b'1'; 2048]).contains("it ends in the middle"), "no line has an end");
    assert!(sparse(&vec![b'0'; 3 << 20]).contains("longer than 2 MiB"));
}
