//! Trees that lie: databases that are damaged, huge, links, or full of what is no package.

use std::{fs, os::unix::fs::symlink, path::Path};

use super::document;
use crate::{bake::tests::Bench, sbom::SbomFormat};

fn write(tree: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, content).expect("written");
}

#[test]
fn root_what_is_no_package_is_left_out_and_said() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("tree");
    let good =
        "Package: good\nStatus: install ok installed\nVersion: 1\nArchitecture: all\nMaintainer: A (B) <c> \"d\"\n";
    let long = format!("Package: {}\nStatus: install ok installed\nVersion: 1\n", "a".repeat(5000));
    let status = [good, "Package: ../../etc/passwd\nStatus: install ok installed\nVersion: 1\n", &long, "\u{1b}[31m\n"];
    write(&tree, "var/lib/dpkg/status", status.join("\n"));
    // A database and a licence that are links out of the tree: nothing of the host is read.
    fs::create_dir_all(tree.join("var/lib/dpkg/status.d")).expect("a directory");
    symlink("/etc/os-release", tree.join("var/lib/dpkg/status.d/host")).expect("a link");
    fs::create_dir_all(tree.join("usr/share/doc/good")).expect("a directory");
    symlink("../../../../../../../../../../etc/hostname", tree.join("usr/share/doc/good/copyright")).expect("a link");
    fs::create_dir_all(tree.join("etc")).expect("a directory");
    symlink("/proc/self/../../etc/os-release", tree.join("etc/os-release")).expect("a link");
    write(&tree, "var/lib/rpm/rpmdb.sqlite", [b"SQLite format 3\0".as_slice(), &[0xff; 5000]].concat());
    write(&tree, "opt/node_modules/bomb/package.json", "[".repeat(100_000));
    write(&tree, "opt/x.dist-info/METADATA", [0xff; 300]);
    write(&tree, "lib/apk/db/installed", "P:\u{7}\nV:1\n\nP:ok\n");
    let image = bench.base(&tree);
    let sbom = bench.store.sbom(&image, SbomFormat::Spdx).expect("made");
    assert_eq!(sbom.packages, 1, "{:?}", sbom.unread);
    let said = sbom.unread.join("\n");
    for place in
        ["dpkg/status: 3 entries", "rpmdb.sqlite: the SQLite", "bomb/package.json: 1", "METADATA: 1", "installed: 2"]
    {
        assert!(said.contains(place), "{place} is not in {said}");
    }
    let package = &document(&bench.store, &image, SbomFormat::Spdx)["packages"][1];
    assert_eq!(package["name"], "good");
    assert_eq!(package["licenseDeclared"], serde_json::Value::Null);
    document(&bench.store, &image, SbomFormat::CycloneDx);
}
