//! Databases that real tools made, and small ones of systems whose tools Debian does not have.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use super::{document, listed};
use crate::{bake::tests::Bench, sbom::SbomFormat};

fn tool(program: &str, arguments: &[&str]) -> String {
    let done = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(done.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8")
}

fn write(tree: &Path, path: &str, content: impl AsRef<[u8]>) {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    fs::write(path, content).expect("written");
}

fn lines(lines: &[&str]) -> BTreeSet<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

/// Builds packages with rpmbuild and installs them into the database of a tree: enough for a b-tree of several levels, and
/// one with a header that does not fit one page.
fn rpm(tree: &Path, work: &Path) -> BTreeSet<String> {
    let (database, top) = (tree.join("var/lib/rpm"), work.join("rpmbuild"));
    let mut files = Vec::new();
    for at in 0..40 {
        let (epoch, long) =
            (if at == 3 { "Epoch: 2\n" } else { "" }, if at == 5 { "word ".repeat(8000) } else { "x".into() });
        let spec = format!(
            "Name: sample{at}\nVersion: 1.{at}\nRelease: 1.fc40\n{epoch}Summary: a sample\nLicense: MIT AND GPL-2.0-or-later\n\
             Vendor: The Fedora Project\nBuildArch: noarch\n%description\n{long}\n%files\n"
        );
        let path = work.join(format!("sample{at}.spec"));
        fs::write(&path, spec).expect("written");
        files.push(path.display().to_string());
    }
    let top = format!("_topdir {}", top.display());
    let arguments = ["-bb", "--quiet", "--define", &top].into_iter().chain(files.iter().map(String::as_str));
    tool("rpmbuild", &arguments.collect::<Vec<_>>());
    let built = work.join("rpmbuild/RPMS/noarch");
    let built: Vec<_> = fs::read_dir(built).expect("listed").map(|entry| entry.expect("an entry").path()).collect();
    let (database, built): (_, Vec<_>) =
        (database.display().to_string(), built.iter().filter_map(|path| path.to_str()).collect());
    let options = ["--install", "--justdb", "--nodeps", "--noscripts", "--dbpath", &database];
    tool("rpm", &options.into_iter().chain(built).collect::<Vec<_>>());
    let format = "rpm %{NAME} %|EPOCH?{%{EPOCH}:}:{}|%{VERSION}-%{RELEASE}\n";
    tool("rpm", &["--query", "--all", "--dbpath", &database, "--queryformat", format])
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn root_the_sbom_names_what_rpm_lists() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("rpmtree");
    write(&tree, "etc/os-release", "ID=fedora\nVERSION_ID=40\n");
    let expected = rpm(&tree, bench.dir.path());
    assert_eq!(expected.len(), 40, "{expected:?}");
    assert!(fs::read(tree.join("var/lib/rpm/rpmdb.sqlite")).expect("there").starts_with(b"SQLite format 3"));
    let image = bench.base(&tree);
    assert_eq!(listed(&bench.store, &image), expected);
    let spdx = document(&bench.store, &image, SbomFormat::Spdx);
    let third = spdx["packages"].as_array().expect("a list").iter().find(|p| p["name"] == "sample3").expect("there");
    assert_eq!(
        third["externalRefs"][0]["referenceLocator"],
        "pkg:rpm/fedora/sample3@1.3-1.fc40?arch=noarch&distro=fedora-40&epoch=2&upstream=sample3-1.3-1.fc40.src.rpm"
    );
    assert_eq!(third["licenseDeclared"], "MIT AND GPL-2.0-or-later");
    assert_eq!(third["checksums"][0]["algorithm"], "SHA256");
}

#[test]
fn root_older_databases_of_rpm_are_named_and_not_read() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("tree");
    write(&tree, "var/lib/rpm/Packages", [0_u8; 600]);
    write(&tree, "usr/lib/sysimage/rpm/Packages.db", b"RpmP");
    let image = bench.base(&tree);
    let sbom = bench.store.sbom(&image, SbomFormat::CycloneDx).expect("made");
    assert_eq!((sbom.packages, sbom.unread.len()), (0, 2), "{:?}", sbom.unread);
    let spdx = document(&bench.store, &image, SbomFormat::Spdx);
    let comment = spdx["creationInfo"]["comment"].as_str().expect("a comment");
    assert!(comment.contains("/var/lib/rpm/Packages: a Berkeley database"), "{comment}");
}

/// The entry of musl in Alpine 3.15's database, as it is there.
const APK: &str = "C:Q1Deb0jNytkrjPW4N/eKLZ43BwOlw=\nP:musl\nV:1.2.2-r7\nA:x86_64\nS:383152\nI:622592\n\
T:the musl c library (libc) implementation\nU:https://musl.libc.org/\nL:MIT\no:musl\nm:Timo Ter\u{e4}s <timo.teras@iki.fi>\n\
t:1632431095\nc:bf5bbfdbf780092f387b7abe401fbfceda90c84d\np:so:libc.musl-x86_64.so.1=1\nF:lib\n\
R:ld-musl-x86_64.so.1\na:0:0:755\nZ:Q12adwqQOjo9dFl+VJD2Ecd901vhE=\nR:libc.musl-x86_64.so.1\na:0:0:777\n\
Z:Q17yJ3JFNypA4mxhJJr0ou6CzsJVI=\n\n";

/// A tree of npm 11: `npm install --ignore-scripts ms@2.0.0 debug@4.3.7 @types/ms@0.7.34 which@2.0.2`, of which the programs themselves were
/// left away. `debug` wants another `ms` and has it below itself; npm's own list of what it installed is among the files.
const NPM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/npm.tar.gz");

#[test]
fn root_the_sbom_names_what_npm_says_that_it_installed() {
    let bench = Bench::new();
    let app = bench.dir.path().join("npmtree/srv/app");
    fs::create_dir_all(&app).expect("a directory");
    tool("tar", &["--extract", "--gzip", "--file", NPM, "--directory", &app.display().to_string()]);
    let own = fs::read(app.join("node_modules/.package-lock.json")).expect("npm's list");
    let own: serde_json::Value = serde_json::from_slice(&own).expect("JSON");
    let line = |(path, package): (&String, &serde_json::Value)| {
        let name = path.rsplit("node_modules/").next().expect("a name");
        format!("npm {name} {}", package["version"].as_str().expect("a version"))
    };
    let own: BTreeSet<_> = own["packages"].as_object().expect("packages").iter().map(line).collect();
    assert!(own.len() == 6 && own.contains("npm ms 2.0.0") && own.contains("npm ms 2.1.3"), "{own:?}");
    let image = bench.base(&bench.dir.path().join("npmtree"));
    assert_eq!(listed(&bench.store, &image), own);
}

#[test]
fn root_the_sbom_names_what_apk_and_npm_installed() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("tree");
    write(&tree, "etc/os-release", "ID=alpine\nVERSION_ID=3.15.0\n");
    write(&tree, "lib/apk/db/installed", APK);
    // As npm 9 installs `ms` and `@types/ms`, without what is not read here.
    let ms = r#"{"name":"ms","version":"2.1.3","description":"Tiny millisecond conversion utility","license":"MIT"}"#;
    write(&tree, "srv/node_modules/ms/package.json", ms);
    write(&tree, "srv/node_modules/x/node_modules/ms/package.json", ms);
    write(
        &tree,
        "srv/node_modules/@types/ms/package.json",
        r#"{"name":"@types/ms","version":"0.7.34","license":"MIT"}"#,
    );
    write(&tree, "srv/node_modules/ms/test/package.json", r#"{"name":"no-package","version":"1.0.0"}"#);
    let image = bench.base(&tree);
    assert_eq!(listed(&bench.store, &image), lines(&["apk musl 1.2.2-r7", "npm ms 2.1.3", "npm @types/ms 0.7.34"]));
    let spdx = document(&bench.store, &image, SbomFormat::Spdx);
    let musl = &spdx["packages"][1];
    assert_eq!(
        musl["externalRefs"][0]["referenceLocator"],
        "pkg:apk/alpine/musl@1.2.2-r7?arch=x86_64&distro=alpine-3.15.0"
    );
    assert_eq!(musl["checksums"][0]["checksumValue"], "0de6f48cdcad92b8cf5b837f78a2d9e370703a5c");
}

/// What Python's own library lists in a directory.
const PYTHON: &str = "import importlib.metadata as m, sys\n\
for d in m.distributions(path=[sys.argv[1]]): print('pypi', d.metadata['Name'], d.version)";

#[test]
fn root_the_sbom_names_what_python_lists() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("tree");
    let (from, to) = (Path::new("/usr/lib/python3/dist-packages"), "usr/lib/python3/dist-packages");
    fs::create_dir_all(tree.join(to)).expect("a directory");
    let infos =
        fs::read_dir(from).expect("Debian's Python packages are here").map(|entry| entry.expect("an entry").path());
    let info = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "egg-info" || end == "dist-info");
    for path in infos.filter(info) {
        tool("cp", &["-a", path.to_str().expect("UTF-8"), tree.join(to).to_str().expect("UTF-8")]);
    }
    let list = tool("/usr/bin/python3", &["-c", PYTHON, tree.join(to).to_str().expect("UTF-8")]);
    let expected: BTreeSet<_> = list.lines().map(str::to_owned).collect();
    assert!(expected.iter().any(|line| line.starts_with("pypi kazoo ")), "{expected:?}");
    assert_eq!(listed(&bench.store, &bench.base(&tree)), expected);
}

#[test]
fn root_the_sbom_names_the_crates_of_rust_programs() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("tree");
    fs::create_dir_all(tree.join("bin")).expect("a directory");
    // What `cargo auditable` 0.7 wrote into a program with one dependency and one build dependency.
    let section = format!(".dep-v0={}/tests/data/dep-v0.bin", env!("CARGO_MANIFEST_DIR"));
    let program = tree.join("bin/probe");
    tool("objcopy", &["--add-section", &section, "/bin/cat", program.to_str().expect("UTF-8")]);
    fs::copy("/bin/cat", tree.join("bin/cat")).expect("a copy");
    let image = bench.base(&tree);
    let found = listed(&bench.store, &image);
    let names: Vec<_> = found.iter().map(|line| line.rsplit_once(' ').expect("words").0).collect();
    assert_eq!(names, ["cargo itoa", "cargo probe"], "{found:?}");
}
