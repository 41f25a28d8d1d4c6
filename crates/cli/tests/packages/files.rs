//! `.deb` files beside the recipe: installed with what they need, locked by their hash, part of the step's key.

use std::process::Command;

use crate::world::{APP, Deb, World, run, text};

#[test]
fn root_a_file_is_installed_with_what_it_needs_and_its_hash_is_locked() {
    let world = World::new();
    let file = world.deb(&Deb { fields: "Depends: netbase, app-common (= 1.0)\n", ..APP });
    world.deb(&Deb { file: "common.deb", name: "app-common", packing: "zstd", ..EMPTY });
    world.recipe("files", "packages = [\"./app.deb\", \"./common.deb\", \"media-types\"]\n");
    let baked = world.good(&["bake"]);
    assert_eq!(world.read(&baked, "/usr/share/app/about").as_deref(), Some("the first\n"));
    let status = world.read(&baked, "/var/lib/dpkg/status").expect("a database");
    for package in ["app", "app-common", "netbase", "media-types"] {
        assert!(status.contains(&format!("Package: {package}\nStatus: install ok installed\n")), "{package}");
    }
    let sum = run(Command::new("sha256sum").arg(&file));
    let line = format!(
        "archive = \"file\", filename = \"app.deb\", size = {}, sha256 = \"sha256:{}\"",
        length(&file),
        &sum[..64]
    );
    assert!(world.lock().contains(&line), "{line}\n{}", world.lock());
    let provenance = world.good(&["provenance", &format!("files@{}", baked["image"].as_str().expect("a digest"))]);
    assert!(provenance.to_string().contains(&sum[..64]), "what went into the image is told");
}

#[test]
fn root_a_changed_file_makes_the_lock_stale_and_only_its_step_is_run_again() {
    let world = World::new();
    let first = std::fs::read(world.deb(&APP)).expect("readable");
    world.recipe("stale", "\n[[step]]\npackages = [\"./app.deb\"]\n\n[[step]]\nrun = \"cat /usr/share/app/about\"\n");
    let cached = |baked: &serde_json::Value| {
        let steps = baked["steps"].as_array().expect("steps");
        steps.iter().map(|step| step["cached"].as_bool().expect("a bool")).collect::<Vec<_>>()
    };
    world.good(&["bake"]);
    let again = world.good(&["bake", "--locked"]);
    assert_eq!(cached(&again), [true; 4], "nothing has changed");
    world.deb(&Deb { files: &[("usr/share/app/about", "the second\n")], ..APP });
    let refused = world.kiln(&["bake", "--locked"]);
    assert_eq!(refused.code, 2, "{}", refused.errors);
    assert!(refused.errors.contains("`./app.deb` has changed: the lock was made with"), "{}", refused.errors);
    let said = world.kiln(&["bake"]);
    assert!(said.errors.contains("kiln.lock is written anew: `./app.deb` has changed"), "{}", said.errors);
    let changed = world.good(&["bake", "--locked"]);
    assert_eq!(world.read(&changed, "/usr/share/app/about").as_deref(), Some("the second\n"));
    let fresh = world.good(&["bake"]);
    assert_eq!(cached(&fresh), [true; 4]);
    // The first file again is the first layer again.
    std::fs::write(world.directory().join("app.deb"), first).expect("written");
    let back = world.good(&["bake"]);
    assert_eq!(cached(&back), [true; 4], "{back}");
}

#[test]
fn root_a_version_is_taken_exactly_and_files_go_over_an_image_of_this_host() {
    let world = World::new();
    world.deb(&Deb { version: "2.0", ..APP });
    world.recipe("ground", "packages = [\"netbase\"]\n");
    let ground = world.good(&["bake"]);
    let ground = format!("ground@{}", ground["image"].as_str().expect("a digest"));
    world.write(
        "image.toml",
        &format!("name = \"over\"\n[base]\nimage = \"{ground}\"\n[[step]]\npackages = [\"./app.deb\", \"app=1.0\"]\n"),
    );
    assert!(world.bad(2).contains("`./app.deb` and `app=1.0` are the same package, `app`"));
    world.write("image.toml", &format!("name = \"over\"\n[base]\nimage = \"{ground}\"\n[[step]]\npackages = [\"./app.deb\", \"netbase\", \"media-types=0\"]\n"));
    let told = world.bad(2);
    assert!(told.contains("there is no version `0` of package `media-types`; the archives have "), "{told}");
    world.write(
        "image.toml",
        &format!("name = \"over\"\n[base]\nimage = \"{ground}\"\n[[step]]\npackages = [\"./app.deb\", \"netbase\"]\n"),
    );
    let baked = world.good(&["bake"]);
    let lock = world.lock();
    assert!(lock.contains(&format!("over = \"{}\"", ground.split('@').nth(1).expect("a digest"))), "{lock}");
    assert!(
        lock.contains("version = \"2.0\"") && !lock.contains("name = \"netbase\""),
        "what is there is not locked: {lock}"
    );
    assert_eq!(world.read(&baked, "/usr/share/app/about").as_deref(), Some("the first\n"));
    // Another image below may have other packages: the lock is for this one.
    world.recipe("ground", "packages = [\"netbase\", \"media-types\"]\n");
    std::fs::remove_file(world.directory().join("kiln.lock")).expect("removed");
    let other = world.good(&["bake"]);
    world.write("kiln.lock", &lock);
    let other = format!("ground@{}", other["image"].as_str().expect("a digest"));
    world.write(
        "image.toml",
        &format!("name = \"over\"\n[base]\nimage = \"{other}\"\n[[step]]\npackages = [\"./app.deb\", \"netbase\"]\n"),
    );
    let refused = world.kiln(&["bake", "--locked"]);
    assert!(refused.code == 2 && refused.errors.contains("the lock is for sha256:"), "{}", refused.errors);
    world.good(&["lock"]);
    world.good(&["bake", "--locked"]);
}

#[test]
fn root_two_bakes_of_a_file_are_the_same() {
    let world = World::new();
    world.deb(&Deb { files: &[("DEBIAN/postinst", "#!/bin/sh\necho made >/etc/app-made\n")], ..APP });
    world.recipe("twice", "\n[[step]]\npackages = [\"./app.deb\"]\n");
    let said = world.kiln(&["bake", "--check-reproducible"]);
    assert!(said.code == 0 && said.out.starts_with("reproducible"), "{} {}", said.out, said.errors);
}

/// Nothing but itself.
pub const EMPTY: Deb<'static> = Deb { files: &[], ..APP };

fn length(file: &std::path::Path) -> u64 {
    let said = run(Command::new("stat").args(["--format", "%s"]).arg(file));
    text(said.as_bytes()).trim().parse().expect("a number")
}
