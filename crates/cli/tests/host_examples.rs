//! The examples and the template are right, and have the form of the published schemas.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use kiln::project;
use kiln_model::schema::{fleet::FleetToml, image::ImageToml};

fn check(directory: &Path) {
    let shown = directory.display();
    let (recipe, files) = project::both(directory, None).unwrap_or_else(|failure| panic!("{shown}: {failure}"));
    assert!(!recipe.suite.tests.is_empty(), "{shown} has no tests");
    assert!(
        files.fleet.groups.values().any(|group| group.image.name == recipe.name),
        "{shown}: no group uses the image"
    );
    files.check(&recipe.manifest).unwrap_or_else(|found| panic!("{shown}: {found}"));
    let read = |file| std::fs::read_to_string(directory.join(file)).expect("the file is there");
    toml::from_str::<ImageToml>(&read("image.toml")).unwrap_or_else(|error| panic!("{shown}: {error}"));
    toml::from_str::<FleetToml>(&read("fleet.toml")).unwrap_or_else(|error| panic!("{shown}: {error}"));
}

#[test]
fn host_every_example_is_right() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let entries = std::fs::read_dir(examples).expect("the examples are there");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut directories: Vec<PathBuf> = paths.filter(|path| path.is_dir()).collect();
    directories.sort();
    assert!(directories.len() >= 4, "{directories:?}");
    directories.iter().for_each(|directory| check(built(directory).as_ref().map_or(directory, |copy| copy.path())));
}

/// A copy with the package that is built from the example's sources, if it has any.
fn built(directory: &Path) -> Option<tempfile::TempDir> {
    if !directory.join("package/DEBIAN/control").exists() {
        return None;
    }
    let copy = tempfile::tempdir().expect("a temporary directory");
    let run = |command: &mut Command| assert!(command.status().expect("it runs").success(), "{command:?}");
    run(Command::new("cp").arg("-r").arg(directory.join(".")).arg(copy.path()));
    let mut build = Command::new("dpkg-deb");
    run(build.args(["--root-owner-group", "--build"]).arg(copy.path().join("package")).arg(copy.path()));
    Some(copy)
}

#[test]
fn host_the_template_is_right() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let templates = Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    std::fs::create_dir(temp.path().join("files")).expect("a directory");
    for (from, to) in [("image.toml", "image.toml"), ("fleet.toml", "fleet.toml"), ("index.html", "files/index.html")] {
        let text = std::fs::read_to_string(templates.join(from)).expect("the template is there");
        std::fs::write(temp.path().join(to), text.replace("__NAME__", "shop")).expect("the file is written");
    }
    check(temp.path());
}
