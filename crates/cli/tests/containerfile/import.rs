//! `kiln import`: what it writes is a recipe, and is what the image says of itself.

use std::fs;

use super::world::{World, text};

const FILE: &str = "FROM oci:base:v1 AS build\nENV BUILD=1\nFROM oci:base:v1\nENV APP_MODE=\"a \\\"b\\\"\"\nWORKDIR /srv\nEXPOSE 8080 9000/udp\nVOLUME /data\nHEALTHCHECK CMD wget -q localhost:8080\nUSER www:adm\nSTOPSIGNAL SIGQUIT\nENTRYPOINT [\"/bin/app\"]\nCMD [\"--port\", \"8080\"]\n";

fn imported(world: &World, arguments: &[&str]) -> String {
    let output = world.kiln(&[&["import"], arguments].concat());
    assert!(output.status.success(), "{}", text(&output.stderr));
    text(&output.stdout)
}

#[test]
fn root_a_recipe_is_written_from_a_containerfile() {
    let world = World::new();
    world.write("Dockerfile", FILE);
    imported(&world, &["Dockerfile", "--name", "shop"]);
    insta::assert_snapshot!(fs::read_to_string(world.dir().join("image.toml")).expect("a recipe"));
    let baked = world.kiln(&["bake"]);
    assert!(baked.status.success(), "{}", text(&baked.stderr));
    let again = world.kiln(&["import", "Dockerfile"]);
    assert!(text(&again.stderr).contains("is there already"), "nothing is overwritten");
}

#[test]
fn root_a_recipe_is_written_from_an_image() {
    let world = World::new();
    imported(&world, &["oci:base:v1", "--to", "."]);
    insta::assert_snapshot!(fs::read_to_string(world.dir().join("image.toml")).expect("a recipe"));
    assert!(!world.dir().join("kiln.lock").exists(), "nothing is locked before it is baked");
}

#[test]
fn root_what_cannot_be_imported_is_said() {
    let world = World::new();
    world.write("Dockerfile", "FROM scratch\nONBUILD RUN x\nCOPY a\n");
    let shown = text(&world.kiln(&["import", "Dockerfile"]).stderr);
    assert!(shown.contains("Dockerfile:2:1") && shown.contains("Dockerfile:3:1"), "{shown}");
    let shown = text(&world.kiln(&["import", "No Such"]).stderr);
    assert!(shown.contains("no recipe can be made from it"), "{shown}");
    assert!(!world.dir().join("image.toml").exists());
}
