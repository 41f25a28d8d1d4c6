//! A directory with a recipe, a small base image made from busybox, a state directory, and the programs around them.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// What the base has beside `sh`.
const APPLETS: [&str; 22] = [
    "sh", "ls", "cat", "echo", "mkdir", "cp", "mv", "rm", "chmod", "chown", "id", "env", "touch", "ln", "test", "stat",
    "tar", "date", "head", "true", "false", "wget",
];

/// A recipe's directory and all that belongs to it, gone with the value.
pub struct World {
    temp: tempfile::TempDir,
}

/// What is at a path: kind, mode, owner, and content or target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub kind: &'static str,
    pub mode: u32,
    pub owner: (u32, u32),
    pub content: Vec<u8>,
}

impl World {
    /// With the layout `base` of one image, `v1`.
    pub fn new() -> Self {
        let world =
            Self { temp: tempfile::Builder::new().prefix("kiln-containerfile-").tempdir().expect("a directory") };
        fs::create_dir(world.dir()).expect("a directory");
        let tree = world.temp.path().join("tree");
        for dir in ["bin", "etc", "tmp", "root", "usr/bin", "var/lib"] {
            fs::create_dir_all(tree.join(dir)).expect("a directory");
        }
        fs::set_permissions(tree.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("changed");
        fs::copy("/usr/bin/busybox", tree.join("bin/busybox")).expect("busybox-static is installed");
        for applet in APPLETS {
            symlink("busybox", tree.join("bin").join(applet)).expect("a link");
        }
        fs::write(tree.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/srv:/bin/sh\n")
            .expect("written");
        fs::write(tree.join("etc/group"), "root:x:0:\nwww:x:33:\nadm:x:4:www\n").expect("written");
        let layout = world.dir().join("base");
        let image = format!("{}:v1", layout.display());
        run(Command::new("umoci").args(["init", "--layout"]).arg(&layout));
        run(Command::new("umoci").args(["new", "--image", &image]));
        run(Command::new("umoci").args(["insert", "--image", &image]).arg(&tree).arg("/"));
        let set = ["--config.env", "PATH=/usr/bin:/bin", "--config.env", "GREETING=hi", "--config.cmd", "/bin/sh"];
        run(Command::new("umoci").args(["config", "--image", &image]).args(set).args(["--config.label", "a=base"]));
        world
    }

    /// The recipe's directory.
    pub fn dir(&self) -> PathBuf {
        self.temp.path().join("app")
    }

    /// A place beside it.
    pub fn beside(&self, name: &str) -> PathBuf {
        self.temp.path().join(name)
    }

    pub fn write(&self, path: &str, text: &str) {
        let path = self.dir().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(path, text).expect("written");
    }

    /// The Containerfile, and a recipe with these keys beside it.
    pub fn recipe(&self, containerfile: &str, keys: &str, rest: &str) {
        self.write("Containerfile", containerfile);
        self.write("image.toml", &format!("name = \"app\"\n[base]\ncontainerfile = \"Containerfile\"\n{keys}\n{rest}"));
    }

    pub fn kiln(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kiln"))
            .arg("--state")
            .arg(self.beside("state"))
            .args(arguments)
            .current_dir(self.dir())
            .env_remove("KILN_STATE")
            .output()
            .expect("the program starts")
    }

    /// Bakes, and answers what `--json` says.
    pub fn bake(&self) -> Value {
        let output = self.kiln(&["bake", "--json"]);
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        serde_json::from_str(text(&output.stdout).lines().last().expect("a line")).expect("JSON")
    }

    /// Bakes what cannot be baked, and answers what people see.
    pub fn refused(&self) -> String {
        let output = self.kiln(&["bake"]);
        assert!(!output.status.success(), "{}", text(&output.stdout));
        text(&output.stderr)
            .lines()
            .filter(|line| !line.contains(" ms") && !line.contains("cached"))
            .collect::<Vec<_>>()
            .join("\n")
    }

    /// The image as a directory, and its configuration.
    pub fn unpacked(&self, baked: &Value) -> (PathBuf, Value) {
        let image = baked["image"].as_str().expect("a digest");
        let (file, layout, bundle) =
            (self.beside("saved.tar"), self.beside("saved"), self.beside(&format!("unpacked-{}", &image[7..19])));
        let saved = self.kiln(&["save", &format!("app@{image}"), file.to_str().expect("UTF-8")]);
        assert!(saved.status.success(), "{}", text(&saved.stderr));
        drop(fs::remove_dir_all(&layout));
        fs::create_dir(&layout).expect("a directory");
        run(Command::new("tar").arg("-xf").arg(&file).arg("-C").arg(&layout));
        let index = fs::read_to_string(layout.join("index.json")).expect("an index");
        let index: Value = serde_json::from_str(&index).expect("JSON");
        let blob = |digest: &Value| {
            let hex = &digest.as_str().expect("a digest")[7..];
            let text = fs::read_to_string(layout.join("blobs/sha256").join(hex)).expect("a blob");
            serde_json::from_str::<Value>(&text).expect("JSON")
        };
        let manifest =
            index["manifests"].as_array().expect("a list").iter().find(|entry| entry["artifactType"].is_null());
        let manifest = blob(&manifest.expect("an image")["digest"]);
        let config = blob(&manifest["config"]["digest"]);
        let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"]
            .as_str()
            .expect("a name")
            .to_owned();
        run(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:{name}", layout.display())).arg(&bundle));
        (bundle.join("rootfs"), config)
    }

    /// One file of the image that was baked.
    pub fn read(&self, baked: &Value, path: &str) -> String {
        let (root, _) = self.unpacked(baked);
        let content =
            fs::read_to_string(root.join(path.trim_start_matches('/'))).unwrap_or_else(|e| panic!("{path}: {e}"));
        fs::remove_dir_all(root.parent().expect("a bundle")).expect("removed");
        content
    }
}

/// Every path of a tree that both sides must have alike: nothing below what a server has of its own, and no logs and caches.
pub fn seen(root: &Path) -> BTreeMap<String, Seen> {
    const OWN: [&str; 8] = ["/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp", "/var/log", "/root/.cache"];
    const FILES: [&str; 3] = ["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).expect("listed") {
            let path = entry.expect("an entry").path();
            let inside = format!("/{}", path.strip_prefix(root).expect("below").display());
            if OWN.contains(&inside.as_str()) || FILES.contains(&inside.as_str()) || inside == "/var" {
                if inside == "/var" {
                    todo.push(path);
                }
                continue;
            }
            let stat = fs::symlink_metadata(&path).expect("there");
            let (kind, content) = match () {
                () if stat.is_symlink() => {
                    ("link", fs::read_link(&path).expect("a link").into_os_string().into_encoded_bytes())
                }
                () if stat.is_dir() => ("directory", Vec::new()),
                () if stat.is_file() => ("file", fs::read(&path).expect("readable")),
                () => ("other", Vec::new()),
            };
            if kind == "directory" {
                todo.push(path);
            }
            found.insert(inside, Seen { kind, mode: stat.mode() & 0o7777, owner: (stat.uid(), stat.gid()), content });
        }
    }
    found
}

pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

impl World {
    /// The directory that everything lies in.
    pub fn temp_root(&self) -> &Path {
        self.temp.path()
    }
}
