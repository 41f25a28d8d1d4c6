//! Layers: whatever entries there are, the tree made from them directly and the tree read back from the tar stream are the
//! same, and the stream is one that other programs read.

use std::{collections::BTreeMap, io::Read as _};

use composefs::dumpfile::write_dumpfile;
use proptest::prelude::*;

use super::{Content, Entry, Kind, Layer, Meta, apply, parent, write};
use crate::store::{
    Store,
    objects::{Batch, Tree},
};

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[a-c]{1,2}".prop_map(String::into_bytes),
        "[a-z0-9._ é-]{1,40}".prop_map(|text| format!("n{text}").into_bytes()),
        "[x]{90,200}".prop_map(String::into_bytes),
    ]
}

fn meta() -> impl Strategy<Value = Meta> {
    let xattrs = prop_oneof![
        4 => Just(BTreeMap::new()),
        1 => proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|value| BTreeMap::from([(b"user.note".to_vec(), value)])),
        1 => Just(BTreeMap::from([(b"security.capability".to_vec(), vec![1, 0, 0, 2, 0, 4, 0, 0]) ])),
    ];
    (0_u32..0o10000, 0_u32..65_536, 0_u32..65_536, 0_i64..1 << 33, xattrs)
        .prop_map(|(mode, uid, gid, mtime, xattrs)| Meta { mode, uid, gid, mtime, xattrs })
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => any::<bool>().prop_map(|opaque| Kind::Directory { opaque }),
        3 => proptest::collection::vec(any::<u8>(), 0..600).prop_map(|bytes| Kind::File(Content::Bytes(bytes))),
        1 => "[a-z/]{1,150}".prop_map(|target| Kind::Symlink(target.into_bytes())),
        1 => Just(Kind::Fifo),
        1 => Just(Kind::Whiteout),
    ]
}

/// A layer in which every path's parents are directories, as every real layer is.
fn layer() -> impl Strategy<Value = Layer> {
    let entry = (proptest::collection::vec(name(), 1..4), meta(), kind());
    (proptest::collection::vec(entry, 0..30), any::<bool>()).prop_map(|(entries, link)| {
        let mut made: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        for (parts, meta, kind) in entries {
            let path = parts.join(&b'/');
            let mut above: Vec<Vec<u8>> = Vec::new();
            let mut at = parent(&path).to_vec();
            while !at.is_empty() {
                above.push(at.clone());
                at = parent(&at).to_vec();
            }
            let fits = above.iter().all(|dir| made.get(dir).is_none_or(|e| matches!(e.kind, Kind::Directory { .. })));
            let held = made.keys().any(|other| other.starts_with(&[path.as_slice(), b"/"].concat()));
            if !fits || (held && !matches!(kind, Kind::Directory { .. })) {
                continue;
            }
            for dir in above {
                made.entry(dir.clone()).or_insert_with(|| Entry {
                    path: dir,
                    meta: Meta { mode: 0o755, ..Meta::default() },
                    kind: Kind::Directory { opaque: false },
                });
            }
            let meta = if kind == Kind::Whiteout { Meta::default() } else { meta };
            made.insert(path.clone(), Entry { path, meta, kind });
        }
        if link && let Some(file) = made.values().find(|e| matches!(e.kind, Kind::File(_))).cloned() {
            let path = b"zz-link".to_vec();
            made.insert(path.clone(), Entry { path, meta: file.meta, kind: Kind::Hardlink(file.path) });
        }
        Layer::new(made.into_values().collect())
    })
}

fn dump(tree: &Tree) -> String {
    let mut text = Vec::new();
    write_dumpfile(&mut text, tree).expect("a tree can be written down");
    String::from_utf8_lossy(&text).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn host_a_layer_read_back_gives_the_same_tree(below in layer(), above in layer()) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("store")).expect("a store");
        let (mut direct, mut read) = (apply::empty(7), apply::empty(7));
        for layer in [&below, &above] {
            let mut batch = Batch::new(store.repo());
            let written = write::write(store.repo(), &mut batch, layer).expect("written");
            batch.publish().expect("published");
            let before = dump(&direct);
            // A layer may not fit the tree below it (a link over a directory that holds more); then neither way works.
            let fits = apply::apply(&mut direct, layer, &written.contents).is_ok();
            prop_assert!(fits, "over\n{}\n{:?}", before, layer);
            store.read_layer(&written.digest, &mut read).expect("readable");
            prop_assert_eq!(dump(&direct), dump(&read));
            let (again, size) = write::digest(layer).expect("hashed");
            prop_assert_eq!((again, size), (written.digest, written.size));
        }
    }

    #[test]
    fn host_other_programs_read_the_stream(layer in layer()) {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("store")).expect("a store");
        let mut batch = Batch::new(store.repo());
        let written = write::write(store.repo(), &mut batch, &layer).expect("written");
        batch.publish().expect("published");
        let mut bytes = Vec::new();
        store.copy_layer(&written.digest, &mut bytes).expect("readable");
        prop_assert_eq!(bytes.len() as u64, written.size);
        prop_assert_eq!(kiln_model::Digest::of(&bytes), written.digest);
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut found = BTreeMap::new();
        for entry in archive.entries().expect("a tar archive") {
            let mut entry = entry.expect("an entry");
            let path = entry.path_bytes().strip_suffix(b"/").map_or_else(|| entry.path_bytes().to_vec(), <[u8]>::to_vec);
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("content");
            let header = entry.header();
            found.insert(path, (header.mode().expect("a mode"), header.uid().expect("a user"), content));
        }
        for entry in layer.entries() {
            if let Kind::File(Content::Bytes(bytes)) = &entry.kind {
                let (mode, uid, content) = found.get(&entry.path).expect("every file is there");
                prop_assert_eq!((*mode, *uid, content), (entry.meta.mode, u64::from(entry.meta.uid), bytes));
            }
        }
    }
}

#[test]
fn unit_paths_sort_parents_before_children() {
    let entry = |path: &str| Entry {
        path: path.as_bytes().to_vec(),
        meta: Meta::default(),
        kind: Kind::Directory { opaque: false },
    };
    let layer = Layer::new(["a-b", "a/c", "a", "a!", "a/b/c", "a/b"].map(entry).to_vec());
    let paths: Vec<_> = layer.entries().iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect();
    assert_eq!(paths, ["a", "a/b", "a/b/c", "a/c", "a!", "a-b"]);
}
