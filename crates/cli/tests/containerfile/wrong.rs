//! What cannot be done is said with the file and its line; what is hostile reaches nothing.

use std::{fs, os::unix::fs::symlink, process::Command};

use super::world::{World, run};

#[test]
fn root_what_cannot_be_done_is_said_with_its_line() {
    let world = World::new();
    world.write(".dockerignore", "hidden\n");
    world.write("hidden", "x");
    for (file, said) in [
        (
            "FROM oci:base:v1\n\nCOPY missing /x\n",
            "Containerfile:3: `COPY missing /x`: there is no `missing` in the context",
        ),
        (
            "FROM oci:base:v1\nCOPY hidden /x\n",
            "Containerfile:2: `COPY hidden /x`: there is no `hidden` in the context",
        ),
        (
            "FROM oci:base:v1\nCOPY --chown=nobody Containerfile /x\n",
            "Containerfile:2: `COPY --chown=nobody Containerfile /x`: the image has no user `nobody`",
        ),
        ("FROM oci:base:v1\nUSER nobody\nRUN true\n", "Containerfile:3: `RUN true`: the image has no user `nobody`"),
        ("FROM oci:base:v1\nRUN [\"nothing\"]\n", "the image has no program `nothing`"),
        ("FROM scratch\nRUN true\n", "the image has no program `/bin/sh`"),
        (
            "FROM oci:base:v1\nRUN echo why >&2; exit 3\n",
            "step `RUN echo why >&2; exit 3 (Containerfile:2)` failed with exit code 3; the end of its output:\nwhy",
        ),
        (
            "FROM oci:base:v1\nENV a=\"${b:?must be given}\"\n",
            "Containerfile:2: `ENV a=\"${b:?must be given}\"`: `b` must be given",
        ),
        ("FROM oci:base:v1\nRUN --mount=type=secret,id=x,required true\n", "the recipe has no secret `x`"),
        ("FROM oci:base:v1\nRUN --mount=type=tmpfs,target=/proc/x true\n", "is the kernel's own in every step"),
        ("FROM oci:base:v1\nCOPY Containerfile /bin\nCOPY Containerfile /etc/passwd/x\n", "is not a directory"),
    ] {
        world.recipe(file, "network = \"off\"", "");
        let shown = world.refused();
        assert!(shown.contains(said), "{file}\n{shown}");
    }
}

#[test]
fn root_nothing_outside_is_read_or_written() {
    let world = World::new();
    fs::write(world.beside("outside"), "outside").expect("written");
    symlink("../outside", world.dir().join("up")).expect("a link");
    symlink(world.beside("outside"), world.dir().join("absolute")).expect("a link");
    fs::create_dir(world.dir().join("dir")).expect("a directory");
    symlink(world.temp_root(), world.dir().join("dir/all")).expect("a link");
    for source in ["up", "absolute", "../outside", "dir/all/outside", "dir/all/*"] {
        world.recipe(&format!("FROM oci:base:v1\nCOPY {source} /x\n"), "", "");
        let shown = world.refused();
        assert!(shown.contains("there is no") || shown.contains("out of the context"), "{source}\n{shown}");
    }
    // A link of an image leads inside the image.
    world.recipe("FROM oci:base:v1 AS a\nRUN ln -s /etc /link && ln -s ../../../../etc/group /up\nFROM scratch\nCOPY --from=a /link/passwd /up /\n", "", "");
    let (root, _) = world.unpacked(&world.bake());
    assert!(fs::read_to_string(root.join("passwd")).expect("there").starts_with("root:x:0:0"));
    assert!(fs::read_to_string(root.join("up")).expect("there").contains("adm:x:4"));
}

#[test]
fn root_archives_that_lead_out_are_refused() {
    let world = World::new();
    let made = |script: &str| run(Command::new("python3").args(["-c", script]).current_dir(world.dir()));
    let archive = |entries: &str| {
        format!(
            "import tarfile, io\nt = tarfile.open('a.tar', 'w')\ndef add(name, link=None, kind=tarfile.REGTYPE):\n    i = tarfile.TarInfo(name); i.type = kind; i.linkname = link or ''; i.size = 1 if kind == tarfile.REGTYPE else 0\n    t.addfile(i, io.BytesIO(b'x'))\n{entries}\nt.close()\n"
        )
    };
    world.recipe("FROM oci:base:v1\nADD a.tar /srv/\n", "", "");
    for (entries, said) in [
        ("add('../../escaped')", "`..`"),
        ("add('a', '/etc/shadow', tarfile.LNKTYPE)", "hard link"),
        ("add('.wh.etc')", ".wh."),
        ("add('b', kind=tarfile.CHRTYPE)", "device"),
    ] {
        made(&archive(entries));
        let shown = world.refused();
        assert!(shown.contains("Containerfile:2") && shown.contains(said), "{entries}\n{shown}");
    }
    // A link inside the archive leads inside the image.
    made(&archive("add('l', '/', tarfile.SYMTYPE)\nadd('l/made')\nadd('/absolute')"));
    let (root, _) = world.unpacked(&world.bake());
    assert!(root.join("srv/absolute").is_file() && root.join("srv/l").is_symlink());
    assert!(!world.beside("escaped").exists() && !std::path::Path::new("/made").exists());
    // A bomb is stopped by the limit.
    run(Command::new("sh")
        .args(["-c", "head -c 300M /dev/zero > zeros && tar -czf a.tar zeros && rm zeros"])
        .current_dir(world.dir()));
    world.recipe("FROM oci:base:v1\nADD a.tar /srv/\n", "max_size = \"100MiB\"", "");
    let shown = world.refused();
    assert!(shown.contains("Containerfile:2") && shown.contains("the archive cannot be unpacked"), "{shown}");
}

#[test]
fn root_what_is_too_much_is_refused_before_it_is_done() {
    let world = World::new();
    let bomb: String = (0..40).map(|_| "ENV a=$a$a\n").collect();
    world.recipe(&format!("FROM oci:base:v1\nENV a=xxxxxxxxxxxxxxxx\n{bomb}"), "", "");
    assert!(world.refused().contains("the value is longer than 131072 bytes"));
    let file = fs::File::create(world.dir().join("Containerfile")).expect("a file");
    file.set_len(1 << 30).expect("long");
    let shown = world.refused();
    assert!(shown.contains("`Containerfile` is longer than 1048576 bytes"), "{shown}");
    world.recipe(&"FROM scratch\n".repeat(3000), "", "");
    assert!(world.refused().contains("more than"));
}
