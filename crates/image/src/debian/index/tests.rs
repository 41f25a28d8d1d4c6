use proptest::prelude::*;

use super::*;

const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn paragraph(name: &str, version: &str, more: &str) -> String {
    format!(
        "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{more}Filename: pool/{name}_{version}.deb\nSize: 7\nSHA256: {HASH}\n\n"
    )
}

#[test]
fn the_kept_fields_come_out_and_the_rest_is_skipped() {
    let more = "Essential: yes\nMulti-Arch: foreign\nPriority: required\nDescription: x\n a line\n Depends: no\nDepends: a,\n b | c\nProvides: v (= 1), w\n";
    let index = Index::parse(paragraph("zed", "1:2-3", more).as_bytes()).unwrap();
    let zed = index.named("zed").next().unwrap();
    assert_eq!((zed.version(), zed.architecture(), zed.depends(), zed.size()), ("1:2-3", "amd64", "a, b | c", 7));
    assert!(zed.essential());
    assert_eq!((zed.multi_arch(), zed.priority()), (MultiArch::Foreign, Priority::Required));
    assert_eq!(zed.filename(), "pool/zed_1:2-3.deb");
    assert_eq!(hex::encode(zed.sha256()), HASH);
    assert_eq!(index.providers("w").map(|p| p.name()).collect::<Vec<_>>(), ["zed"]);
    assert_eq!(index.providers("x").count(), 0);
}

#[test]
fn names_are_found_and_versions_come_newest_first() {
    let text: String =
        [("b", "1"), ("a", "1"), ("b", "1~rc"), ("b", "2"), ("c", "1")].map(|(n, v)| paragraph(n, v, "")).concat();
    let index = Index::parse(text.as_bytes()).unwrap();
    assert_eq!(index.named("b").map(|p| p.version()).collect::<Vec<_>>(), ["2", "1", "1~rc"]);
    assert_eq!(index.len(), 5);
    assert_eq!(index.named("bb").count(), 0);
    assert_eq!(index.named("a").next().unwrap().priority(), Priority::Optional);
}

#[test]
fn a_paragraph_without_hash_or_with_a_path_that_leaves_the_archive_is_refused() {
    let without = paragraph("a", "1", "").replace("SHA256", "SHA1");
    let bad = |field| IndexError::Field { package: "a".into(), field };
    assert_eq!(Index::parse(without.as_bytes()), Err(bad("SHA256")));
    for path in ["../x.deb", "/x.deb", "pool//x.deb", "pool/x?y"] {
        let text = paragraph("a", "1", "").replace("pool/a_1.deb", path);
        assert_eq!(Index::parse(text.as_bytes()), Err(bad("Filename")), "{path}");
    }
    let text = paragraph("a", "1", "").replace("pool/a_1.deb", "./../x.deb");
    assert_eq!(Index::parse(text.as_bytes()), Err(bad("Filename")));
    assert_eq!(Index::parse(b"<html>\xff"), Err(IndexError::NotText(6)));
    assert_eq!(
        Index::parse(b"<html>it works</html>\n"),
        Err(IndexError::Field { package: "".into(), field: "Package" })
    );
    assert!(Index::parse(b"").unwrap().is_empty());
}

#[test]
fn a_list_of_all_machines_is_read_for_one_and_paths_from_here_are_paths() {
    let other = paragraph("a", "3", "Provides: z\n").replace("amd64", "arm64").replace("SHA256", "SHA1");
    let all = paragraph("b", "1", "").replace("amd64", "all").replace("pool/", "./pool/");
    let index = Index::parse([other.clone(), paragraph("a", "2", ""), all, other].concat().as_bytes()).unwrap();
    let found: Vec<_> = index.packages().map(|p| (p.name(), p.version(), p.filename())).collect();
    assert_eq!(found, [("a", "2", "pool/a_2.deb"), ("b", "1", "pool/b_1.deb")]);
    assert_eq!(index.providers("z").count(), 0);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _outcome = Index::parse(&bytes).map(|index| index.len());
    }

    #[test]
    fn no_lines_make_it_panic(lines in prop::collection::vec("(Package|Version|Size|SHA256|Provides|Filename| |)(: ?.*)?", 0..30)) {
        let _outcome = Index::parse(lines.join("\n").as_bytes()).map(|index| index.len());
    }
}
