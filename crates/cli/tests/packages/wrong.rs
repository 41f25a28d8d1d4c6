//! What is wrong with a package is said with its name, whose fault it is, and what to try; nothing is baked of it.

use std::{fs, io::Write as _, process::Command};

use crate::world::{APP, Deb, World, run};

/// A recipe with this file of a package.
fn with(file: &str) -> World {
    let world = World::new();
    world.recipe("wrong", &format!("packages = [\"./{file}\"]\n"));
    world
}

#[test]
fn root_a_package_for_other_machines_is_refused() {
    let world = with("app.deb");
    world.deb(&Deb { architecture: "arm64", ..APP });
    let told = world.bad(2);
    assert!(told.contains("./app.deb is a package for arm64, and images are for amd64"), "{told}");
    assert!(told.contains("built for `amd64`"), "{told}");
}

#[test]
fn root_what_is_cut_off_or_no_package_is_told_apart() {
    let world = with("app.deb");
    let file = world.deb(&APP);
    let whole = fs::read(&file).expect("readable");
    // In the middle of its data, of its control part, and of a header.
    for length in [whole.len() - 20, 200, 100] {
        fs::write(&file, &whole[..length]).expect("written");
        let told = world.bad(2);
        assert!(told.contains("it is cut off") && told.contains("dpkg-deb --info"), "{length}: {told}");
    }
    for (bytes, says) in [
        (&b"<html>not found</html>"[..], "it does not begin as one"),
        (b"", "it does not begin as one"),
        (b"!<arch>\n", "it does not begin with debian-binary"),
    ] {
        fs::write(&file, bytes).expect("written");
        let told = world.bad(2);
        assert!(told.contains("./app.deb cannot be installed") && told.contains(says), "{told}");
    }
    // Damaged inside, also where only the packing's own checksum can tell: it is locked as it is, and unpacking fails.
    for from_the_end in [120, 60] {
        let mut damaged = whole.clone();
        let at = damaged.len() - from_the_end;
        damaged[at..at + 20].fill(0);
        fs::write(&file, damaged).expect("written");
        let told = world.bad(1);
        assert!(told.contains("step `debian bookworm` could not install its packages"), "{told}");
    }
}

#[test]
fn root_a_control_file_of_100_megabytes_is_not_read() {
    let world = with("app.deb");
    let tree = tempfile::tempdir().expect("a directory");
    let mut control = fs::File::create(tree.path().join("control")).expect("a file");
    control.write_all(b"Package: app\nVersion: 1.0\nArchitecture: all\nDescription: long\n").expect("written");
    let line = format!(" {}\n", "x".repeat(998));
    for length in [2_000, 98_000] {
        control.write_all(line.repeat(length).as_bytes()).expect("written");
        let pack = "tar --owner=0 --group=0 -czf control.tar.gz control && tar -czf data.tar.gz --files-from=/dev/null && \
                    echo 2.0 >debian-binary && ar rc app.deb debian-binary control.tar.gz data.tar.gz";
        run(Command::new("sh").args(["-c", pack]).current_dir(tree.path()));
        fs::rename(tree.path().join("app.deb"), world.directory().join("app.deb")).expect("moved");
        let begun = std::time::Instant::now();
        let told = world.bad(2);
        let says =
            if length == 2_000 { "its control file is longer than 1 MiB" } else { "its control part is too large" };
        assert!(told.contains(says), "{told}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());
    }
}

#[test]
fn root_a_file_with_odd_characters_in_its_name_is_installed_and_a_package_with_them_is_not() {
    let odd = "app 1.0 (ünï'\"$&;~).deb";
    let world = World::new();
    world.deb(&Deb { file: odd, ..APP });
    world.recipe("odd", &format!("\n[[step]]\npackages = [{}]\n", toml::Value::from(format!("./{odd}"))));
    let baked = world.good(&["bake"]);
    assert_eq!(world.read(&baked, "/usr/share/app/about").as_deref(), Some("the first\n"));
    world.good(&["bake", "--locked"]);
    for (name, version) in [("../../etc/app", "1.0"), ("app;reboot", "1.0"), ("app", "1.0 $(reboot)")] {
        world.deb(&Deb { file: odd, name, version, ..APP });
        let told = world.bad(2);
        assert!(told.contains("names no package, version and architecture as Debian has them"), "{name}: {told}");
    }
}

#[test]
fn root_a_missing_file_is_shown_at_its_line() {
    let world = with("app.deb");
    let told = world.bad(2);
    assert!(told.contains("there is no file `app.deb` beside the recipe") && told.contains("image.toml:5:"), "{told}");
    let outside = world.path("app.deb");
    fs::write(&outside, "x").expect("written");
    for path in ["../app.deb".to_owned(), outside.display().to_string()] {
        world.recipe("wrong", &format!("packages = [\"{path}\"]\n"));
        let told = world.bad(2);
        assert!(told.contains("image.toml:5:"), "{told}");
    }
    std::os::unix::fs::symlink(&outside, world.directory().join("away.deb")).expect("a link");
    world.recipe("wrong", "packages = [\"./away.deb\"]\n");
    assert!(world.bad(2).contains("leads out of the recipe's directory"));
}

#[test]
fn root_a_dependency_that_cannot_be_met_is_named_with_who_asks_for_it() {
    let world = with("app.deb");
    world.deb(&Deb { fields: "Depends: app-runtime (>= 3)\n", ..APP });
    let told = world.bad(2);
    assert!(told.contains("there is no package `app-runtime` (needed by app)"), "{told}");
    assert!(told.contains("[base.repository.NAME]"), "{told}");
    world.deb(&Deb { fields: "Depends: netbase (>= 99)\n", ..APP });
    let told = world.bad(2);
    assert!(told.contains("`netbase (>= 99)` cannot be met (needed by app): of netbase there is 6."), "{told}");
}

#[test]
fn root_a_script_that_fails_is_named_with_its_package_and_its_last_lines() {
    for script in ["postinst", "preinst"] {
        let world = World::new();
        let path = format!("DEBIAN/{script}");
        let text =
            "#!/bin/sh\nfor i in $(seq 100); do echo line $i; done\necho no database at db.example.org >&2\nexit 3\n";
        world.deb(&Deb { files: &[(&path, text)], fields: "Depends: netbase\n", ..APP });
        world.recipe("script", "\n[[step]]\nname = \"the app\"\npackages = [\"./app.deb\"]\n");
        let told = world.bad(1);
        assert!(told.contains(&format!("the {script} script of package `app` failed")), "{told}");
        assert!(told.contains("line 100\nno database at db.example.org"), "{told}");
        assert!(told.contains("step `the app`") && !told.contains("line 50\n"), "{told}");
    }
}
