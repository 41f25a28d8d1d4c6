//! `kiln bake --base IMAGE PACKAGE…`: from a package to a server, without a recipe.

use std::fs;

use crate::world::{APP, Deb, World};

const UNIT: &str = "[Unit]\nDescription=Waits\n[Service]\nExecStart=/usr/bin/app\nUser=nobody\n[Install]\nWantedBy=multi-user.target\n";
const PROGRAM: (&str, &str) = ("usr/bin/app", "#!/bin/sh\nexec sleep infinity\n");

fn with_service(world: &World) {
    world.deb(&Deb {
        file: "App 1.deb",
        name: "my-app2.x",
        files: &[("lib/systemd/system/my-app.service", UNIT), PROGRAM],
        ..APP
    });
}

/// What is in the directory of the call.
fn names(world: &World) -> Vec<String> {
    let entries = fs::read_dir(world.directory()).expect("listed");
    entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn root_a_package_becomes_an_image_that_runs_its_service() {
    let world = World::new();
    with_service(&world);
    let said = world.kiln(&["bake", "--base", "debian:bookworm", "./App 1.deb", "netbase"]);
    assert_eq!(said.code, 0, "{}", said.errors);
    assert!(said.errors.contains("service my-app.service"), "{}", said.errors);
    let image = format!("my-app2-x@{}", said.out.trim());
    assert!(said.errors.contains(&format!("next: kiln test {image}")), "{}", said.errors);
    assert_eq!(names(&world), ["App 1.deb"], "nothing is written beside the package");
    let report = world.good(&["test", &image]);
    assert_eq!(report["result"], "ok", "{report}");
    let shown = world.good(&["inspect", &image]);
    assert!(shown.to_string().contains("/usr/bin/app"), "{shown}");

    // What is kept is a recipe and a fleet as any other, and bakes to the same image.
    let baked = world.good(&["bake", "--base", "debian:bookworm", "./App 1.deb", "netbase", "--to", "kept"]);
    assert_eq!((&baked["services"][0], baked["image"].as_str()), (&"my-app.service".into(), Some(said.out.trim())));
    let again = world.good(&["bake", "kept", "--locked"]);
    assert_eq!(again["image"], baked["image"]);
    let up = world.good(&["up", "kept"]);
    assert_eq!(up["result"], "ok", "{up}");
    let status = world.good(&["status"]);
    assert_eq!((&status["groups"][0]["name"], &status["groups"][0]["ready"]), (&"my-app2-x".into(), &2.into()));
    let twice = world.kiln(&["bake", "--base", "debian:bookworm", "netbase", "--to", "kept"]);
    assert!(twice.code == 2 && twice.errors.contains("kept is there already"), "{}", twice.errors);

    // Over an image of this host, by its name and by the first digits of its id.
    let over = world.good(&["bake", "--base", "my-app2-x", "media-types"]);
    assert_eq!(over["name"], "media-types");
    let digits = &said.out.trim()["sha256:".len()..][..12];
    let by_id = world.good(&["bake", "--base", digits, "media-types", "--name", "other"]);
    assert_eq!((&by_id["name"], &by_id["services"]), (&"other".into(), &serde_json::json!([])));
    assert_eq!(world.read(&by_id, "/usr/bin/app").as_deref(), Some(PROGRAM.1));
}

#[test]
fn root_of_several_services_those_that_are_named_are_run() {
    let world = World::new();
    let second = UNIT.replace("/usr/bin/app", "/usr/bin/app --worker");
    let units = [("lib/systemd/system/web.service", UNIT), ("usr/lib/systemd/system/worker.service", &second), PROGRAM];
    world.deb(&Deb { name: "several", files: &units, ..APP });
    let call = ["bake", "--base", "debian:bookworm", "./app.deb"];
    let said = world.kiln(&call);
    assert_eq!(said.code, 0, "{}", said.errors);
    assert!(said.errors.contains("[service.web]") && said.errors.contains("[service.worker]"), "{}", said.errors);
    assert!(said.errors.contains("choose with `--service UNIT`: web.service, worker.service"), "{}", said.errors);
    let both = world.good(&[&call[..], &["--service", "web", "--service", "worker.service"]].concat());
    assert_eq!(both["services"], serde_json::json!(["web.service", "worker.service"]));
    let none = world.kiln(&[&call[..], &["--service", "cron"]].concat());
    assert!(none.code == 2 && none.errors.contains("they bring web.service, worker.service"), "{}", none.errors);
    world.deb(&Deb { name: "silent", ..APP });
    let silent = world.kiln(&call);
    assert!(silent.code == 0 && silent.errors.contains("bring no service unit"), "{}", silent.errors);
    assert_eq!(names(&world), ["app.deb"]);
}

#[test]
fn root_what_is_meant_by_the_words_of_the_call_is_asked() {
    let world = World::new();
    world.deb(&APP);
    let wrong: [(&[&str], &str); 8] = [
        (&["./app.deb"], "`kiln bake --base debian:bookworm ./app.deb`"),
        (&["./missing.deb"], "no base is named for a package"),
        (&["--base", "debian:bookworm"], "no package is named"),
        (&["--base", "nowhere", "./app.deb"], "there is no image `nowhere` on this host"),
        (&["--base", "debian:bookworm", "./missing.deb"], "could not read ./missing.deb"),
        (&["--base", "debian:bookworm", "App"], "cannot be a Debian package"),
        (&["--base", "debian:bookworm", "./app.deb", "--locked"], "cannot be used with"),
        (&["./app.deb", "--to", "kept"], "--base <IMAGE>"),
    ];
    for (arguments, says) in wrong {
        let said = world.kiln(&[&["bake"], arguments].concat());
        assert!(said.code == 2 && said.errors.contains(says), "{arguments:?}: {} {}", said.code, said.errors);
    }
    assert_eq!(names(&world), ["app.deb"]);
}

#[test]
fn root_packages_go_over_an_image_of_others() {
    let world = World::new();
    // Debian as somebody else has packed it: without Kiln's manifest.
    let ground = world.good(&["bake", "--base", "debian:bookworm", "netbase"]);
    let saved = world.path("saved.tar");
    world.good(&[
        "save",
        &format!("netbase@{}", ground["image"].as_str().expect("a digest")),
        saved.to_str().expect("UTF-8"),
    ]);
    let base = format!("oci-archive:{}", saved.display());
    with_service(&world);
    let baked = world.good(&["bake", "--base", &base, "./App 1.deb", "media-types", "--to", "kept"]);
    assert_eq!(baked["services"], serde_json::json!(["my-app.service"]));
    assert!(world.read(&baked, "/etc/mime.types").is_some());
    let lock = fs::read_to_string(world.directory().join("kept/kiln.lock")).expect("a lock");
    assert!(
        lock.contains("[oci]") && lock.contains("suite = \"bookworm\"") && !lock.contains("name = \"netbase\""),
        "{lock}"
    );
    let again = world.good(&["bake", "kept", "--locked"]);
    assert!(again["steps"].as_array().expect("steps").iter().all(|step| step["cached"] == true), "{again}");
    world.good(&["lock", "kept", "--update"]);
    // An image without dpkg says so.
    world.write(
        "empty/image.toml",
        "name = \"small\"\n[base]\noci = \"oci-archive:small.tar\"\n[[step]]\npackages = [\"netbase\"]\n",
    );
    small(&world.directory().join("empty"));
    let told = world.kiln(&["bake", "empty"]);
    assert!(told.code == 2 && told.errors.contains("packages cannot be installed over"), "{}", told.errors);
}

/// An image of somebody with a file and no distribution.
fn small(directory: &std::path::Path) {
    let script = "mkdir root && echo x >root/x && umoci init --layout l && umoci new --image l:v && \
                  umoci insert --rootless --image l:v root /root && tar -cf small.tar -C l .";
    crate::world::run(std::process::Command::new("sh").args(["-c", script]).current_dir(directory));
}
