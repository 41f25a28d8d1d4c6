//! A directory with a recipe, packages made by `dpkg-deb`, and a state directory.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// Gone with the value.
pub struct World {
    temp: tempfile::TempDir,
    state: PathBuf,
}

/// How a call ended.
pub struct Said {
    pub code: i32,
    pub out: String,
    pub errors: String,
}

impl Said {
    pub fn json(&self) -> Value {
        let last = self.out.lines().last().unwrap_or_else(|| panic!("nothing was printed: {}", self.errors));
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {last}"))
    }
}

fn target(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    fs::create_dir_all(&directory).expect("a directory");
    directory
}

/// A state directory in which Debian was installed once; what was downloaded is kept beside it.
fn seed() -> PathBuf {
    let seed = target("packages-seed");
    let alone = fs::File::create(seed.join("lock")).expect("a lock");
    rustix::fs::flock(&alone, rustix::fs::FlockOperation::LockExclusive).expect("locked");
    if !seed.join("done").exists() {
        fs::create_dir_all(seed.join("cache")).expect("a directory");
        fs::create_dir_all(seed.join("state")).expect("a directory");
        drop(symlink(seed.join("cache"), seed.join("state/cache")));
        fs::write(seed.join("image.toml"), "name = \"seed\"\n\n[base]\ndebian = \"bookworm\"\n").expect("written");
        let kiln = || {
            let mut kiln = Command::new(env!("CARGO_BIN_EXE_kiln"));
            kiln.arg("--state").arg(seed.join("state")).env_remove("KILN_STATE");
            kiln
        };
        run(kiln().arg("bake").arg(&seed));
        run(kiln().args(["down", "--purge"]));
        fs::write(seed.join("done"), "").expect("written");
    }
    seed.join("state")
}

impl World {
    /// With a state directory of its own that begins as the seed is.
    pub fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("kiln-packages-").tempdir().expect("a directory");
        fs::create_dir(temp.path().join("app")).expect("a directory");
        let state = temp.path().join("state");
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(seed()).arg(&state));
        Self { temp, state }
    }

    /// The recipe's directory.
    pub fn directory(&self) -> PathBuf {
        self.temp.path().join("app")
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    /// Calls the program in the recipe's directory.
    pub fn kiln(&self, arguments: &[&str]) -> Said {
        let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
            .arg("--state")
            .arg(&self.state)
            .args(arguments)
            .current_dir(self.directory())
            .env_remove("KILN_STATE")
            .output()
            .expect("the program starts");
        Said { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), errors: text(&output.stderr) }
    }

    /// Calls the program with `--json`; it must succeed.
    pub fn good(&self, arguments: &[&str]) -> Value {
        let said = self.kiln(&[arguments, &["--json"]].concat());
        assert_eq!(said.code, 0, "{arguments:?}: {} {}", said.out, said.errors);
        said.json()
    }

    /// Bakes the recipe, which must fail with this exit code, and gives what people are told.
    pub fn bad(&self, code: i32) -> String {
        let said = self.kiln(&["bake"]);
        assert_eq!(said.code, code, "{} {}", said.out, said.errors);
        said.errors
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.directory().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    }

    /// A recipe over Debian, with this in `[base]` and behind it.
    pub fn recipe(&self, name: &str, rest: &str) {
        self.write("image.toml", &format!("name = \"{name}\"\n\n[base]\ndebian = \"bookworm\"\n{rest}"));
    }

    /// Makes a package's file.
    pub fn deb(&self, deb: &Deb<'_>) -> PathBuf {
        deb.build(&self.directory())
    }

    /// What a file of an image holds.
    pub fn read(&self, baked: &Value, path: &str) -> Option<String> {
        let image = baked["image"].as_str().expect("a digest").parse().expect("a digest");
        let store = kiln_image::Store::open(&self.state.join("store")).expect("a store");
        let bytes = store.tree(&image).expect("a tree").read(Path::new(path), 1 << 20).expect("readable");
        bytes.map(|bytes| text(&bytes))
    }

    pub fn lock(&self) -> String {
        fs::read_to_string(self.directory().join("kiln.lock")).expect("a lock")
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let ended = self.kiln(&["down", "--purge", "--accept-loss"]);
        println!("{}", ended.errors);
    }
}

/// A package to be.
#[derive(Clone)]
pub struct Deb<'a> {
    pub file: &'a str,
    pub name: &'a str,
    pub version: &'a str,
    pub architecture: &'a str,
    /// Further lines of its control file.
    pub fields: &'a str,
    /// Paths and contents; scripts are below `DEBIAN/`.
    pub files: &'a [(&'a str, &'a str)],
    /// How `dpkg-deb` packs it.
    pub packing: &'a str,
}

/// Of every architecture, version 1.0, with a file.
pub const APP: Deb<'static> = Deb {
    file: "app.deb",
    name: "app",
    version: "1.0",
    architecture: "all",
    fields: "",
    files: &[("usr/share/app/about", "the first\n")],
    packing: "xz",
};

impl Deb<'_> {
    /// Calls `dpkg-deb --build`.
    pub fn build(&self, directory: &Path) -> PathBuf {
        let tree = tempfile::tempdir().expect("a directory");
        let Self { name, version, architecture, fields, .. } = self;
        let control = format!(
            "Package: {name}\nVersion: {version}\nArchitecture: {architecture}\nMaintainer: The shop <shop@example.org>\n\
             {fields}Description: a test\n"
        );
        let write = |path: &str, content: &str| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(&path, content).expect("written");
            let mode = if content.starts_with("#!") { 0o755 } else { 0o644 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("changed");
        };
        write("DEBIAN/control", &control);
        self.files.iter().for_each(|(path, content)| write(path, content));
        fs::set_permissions(tree.path(), fs::Permissions::from_mode(0o755)).expect("changed");
        let file = directory.join(self.file);
        let mut build = Command::new("dpkg-deb");
        build.args(["--root-owner-group", "--nocheck", "-Z", self.packing, "--build"]).arg(tree.path()).arg(&file);
        run(&mut build);
        file
    }
}

/// Runs a program, which must succeed.
pub fn run(command: &mut Command) -> String {
    let output: Output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
