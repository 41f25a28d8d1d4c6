//! The same Containerfiles, the same base: files and configurations are equal, times aside.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, process::Command};

use serde_json::{Value, json};

use super::world::{World, run, seen};

/// What an image says of how it is run.
const CONFIG: [&str; 11] = [
    "User",
    "ExposedPorts",
    "Env",
    "Cmd",
    "Entrypoint",
    "Volumes",
    "WorkingDir",
    "Labels",
    "StopSignal",
    "Healthcheck",
    "Shell",
];

struct Buildah<'w>(&'w World);

impl Buildah<'_> {
    fn command(&self) -> Command {
        let mut command = Command::new("buildah");
        command.arg("--root").arg(self.0.beside("storage")).arg("--runroot").arg(self.0.beside("runroot"));
        command.args(["--storage-driver", "vfs"]).current_dir(self.0.dir());
        command
    }

    /// The file tree and the configuration of what it builds.
    fn built(&self, arguments: &[&str]) -> (PathBuf, Value) {
        let policy = self.0.beside("policy.json");
        fs::write(&policy, r#"{"default": [{"type": "insecureAcceptAnything"}]}"#).expect("written");
        let mut bud = self.command();
        bud.args(["bud", "--isolation", "chroot", "--format", "docker", "--tag", "out", "--signature-policy"]);
        run(bud.arg(&policy).args(arguments).args(["-f", "Containerfile", "."]));
        let image: Value =
            serde_json::from_str(&run(self.command().args(["inspect", "--type", "image", "out"]))).expect("JSON");
        let container = run(self
            .command()
            .args(["from", "--signature-policy"])
            .arg(&policy)
            .args(["--pull-never", "localhost/out"]));
        let mount = run(self.command().args(["mount", container.trim()]));
        (PathBuf::from(mount.trim()), image["Docker"]["config"].clone())
    }

    fn clean(&self) {
        run(self.command().args(["umount", "--all"]));
        run(self.command().args(["rm", "--all"]));
        run(self.command().args(["rmi", "--all", "--force"]));
    }
}

/// Builds with both, and compares.
fn same(world: &World, containerfile: &str, arguments: &[(&str, &str)]) {
    let args: Vec<_> = arguments.iter().map(|(name, value)| format!("{name} = {value:?}")).collect();
    world.recipe(containerfile, &format!("args = {{ {} }}", args.join(", ")), "");
    let baked = world.bake();
    let (root, config) = world.unpacked(&baked);
    let flags: Vec<_> = arguments.iter().map(|(name, value)| format!("--build-arg={name}={value}")).collect();
    let buildah = Buildah(world);
    let (theirs, their_config) = buildah.built(&flags.iter().map(String::as_str).collect::<Vec<_>>());
    let (ours, theirs) = (seen(&root), seen(&theirs));
    let differences: Vec<_> = ours
        .keys()
        .chain(theirs.keys())
        .filter(|path| ours.get(*path) != theirs.get(*path))
        .map(|path| format!("{path}: kiln {:?}, buildah {:?}", ours.get(path), theirs.get(path)))
        .collect();
    let configs = CONFIG.map(|key| (key, plain(&config["config"][key]), plain(&their_config[key])));
    buildah.clean();
    assert!(differences.is_empty(), "{containerfile}\n{}", differences.join("\n"));
    for (key, ours, theirs) in configs {
        assert_eq!(ours, theirs, "{key} of\n{containerfile}");
    }
}

/// What Kiln and buildah themselves say is no part of it; nothing is written in several ways.
fn plain(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(labels) = value.as_object_mut() {
        labels.remove("dev.kiln.manifest");
        labels.remove("io.buildah.version");
    }
    let empty = value.is_null() || value == json!("") || value == json!([]) || value == json!({});
    if empty { Value::Null } else { value }
}

fn files(world: &World) {
    for (path, text) in [
        ("src/index.html", "<p>"),
        ("src/deep/a/b", "b"),
        ("src/skip.log", "no"),
        ("src/keep.log", "yes"),
        ("one.txt", "1"),
        ("two.txt", "2"),
        ("tool", "#!/bin/sh\n"),
    ] {
        world.write(path, text);
    }
    let mode = |path: &str, mode| {
        fs::set_permissions(world.dir().join(path), fs::Permissions::from_mode(mode)).expect("changed")
    };
    mode("tool", 0o755);
    mode("one.txt", 0o640);
    mode("src/deep", 0o750);
    std::os::unix::fs::symlink("index.html", world.dir().join("src/link")).expect("a link");
    world.write(".dockerignore", "*.log\n**/*.log\n!src/keep.log\nstate\n");
}

#[test]
fn root_copies_are_as_buildah_makes_them() {
    let world = World::new();
    files(&world);
    same(
        &world,
        "FROM oci:base:v1\nCOPY src /srv/src\nCOPY src/ /srv/other/\nCOPY *.txt /srv/texts/\nCOPY one.txt /srv/named\nCOPY one.txt tool /srv/into/\nCOPY t?o.txt /srv/t2\n",
        &[],
    );
    same(
        &world,
        "FROM oci:base:v1\nWORKDIR /opt/dir\nWORKDIR below\nCOPY one.txt .\nCOPY [\"two.txt\", \"./x/\"]\nCOPY --chown=www:adm src /srv/\nCOPY --chown=7:8 --chmod=600 one.txt /srv/seven\n",
        &[],
    );
    same(
        &world,
        "FROM oci:base:v1\nRUN mkdir -p /data/real && ln -s /data/real /data/link\nCOPY one.txt /data/link/\nCOPY src/deep /data/link/deep\nRUN echo more >> /data/real/one.txt\n",
        &[],
    );
}

#[test]
fn root_stages_and_archives_are_as_buildah_makes_them() {
    let world = World::new();
    files(&world);
    run(Command::new("tar")
        .args(["--owner=5", "--group=6", "-czf", "src.tar.gz", "src", "tool"])
        .current_dir(world.dir()));
    run(Command::new("tar").args(["-cJf", "src.tar.xz", "one.txt"]).current_dir(world.dir()));
    world.write("not.gz", "this is no archive");
    same(
        &world,
        "ARG TAG=v1\nFROM oci:base:$TAG AS build\nRUN mkdir /out && echo x > /out/x && ln /out/x /out/y && chown www /out/x && chmod 4711 /out/x\nFROM scratch AS unneeded\nCOPY missing /\nFROM oci:base:v1\nCOPY --from=build /out /srv/out\nCOPY --from=0 /out/y /etc/passwd /srv/\nCOPY --from=build --chown=www /out/x /srv/owned\n",
        &[],
    );
    same(
        &world,
        "FROM oci:base:v1\nADD src.tar.gz /srv/\nADD src.tar.xz /srv/xz/\nADD not.gz one.txt /srv/plain/\n",
        &[],
    );
    same(
        &world,
        "FROM oci:base:v1 AS a\nRUN echo a > /a\nFROM a AS b\nRUN echo b > /b\nFROM b\nRUN rm /a && mkdir /a && rm -r /var/lib\n",
        &[],
    );
}

#[test]
fn root_commands_and_configurations_are_as_buildah_makes_them() {
    let world = World::new();
    files(&world);
    same(
        &world,
        "ARG GLOBAL=g\nFROM oci:base:v1\nARG GLOBAL\nARG GIVEN=usual\nARG UNSET\nENV A=1 B=\"two words\" C='$A'\nENV D=$A-${B:-x}-${NONE:-none}-${A:+yes} A=changed\nENV OLD style value\nRUN echo \"$A|$B|$C|$D|$OLD|$GLOBAL|$GIVEN|$UNSET|$GREETING\" > /said\nRUN [\"sh\", \"-c\", \"echo $0 $A > /exec\"]\nUSER www\nRUN touch /tmp/mine && id > /tmp/id && cat /tmp/id\nUSER 33:4\nRUN id -u && id -g\nUSER root\nRUN touch /a && chmod 600 /a\nUSER www:www\n",
        &[("GIVEN", "given")],
    );
    same(
        &world,
        "FROM oci:base:v1\nLABEL a=\"b c\" d=e\nLABEL f=g\\\n h=i\nEXPOSE 80 53/udp\nEXPOSE 8000/tcp\nVOLUME /data\nVOLUME [\"/more\", \"/x y\"]\nSTOPSIGNAL SIGQUIT\nWORKDIR /srv\nHEALTHCHECK --interval=30s --timeout=1m30s --retries=3 CMD wget -q localhost\nENTRYPOINT [\"/bin/app\", \"-x\"]\nCMD [\"a\", \"b\"]\n",
        &[],
    );
    same(&world, "FROM oci:base:v1\nCMD echo $A\nHEALTHCHECK NONE\n", &[]);
    same(
        &world,
        "FROM oci:base:v1\nSHELL [\"/bin/sh\", \"-ec\"]\nRUN echo ok > /ok\nENTRYPOINT [\"app\"]\nCMD [\"x\"]\n",
        &[],
    );
}
