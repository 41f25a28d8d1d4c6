//! Units of packages as services of an image.

use crate::world::{APP, Deb, World};

const UNIT: &str = "[Unit]\nDescription=Serves pages\n[Service]\nExecStart=/usr/bin/app --port 8080\nUser=www-data\nStateDirectory=app\n\
                    [Install]\nWantedBy=multi-user.target\n";
const STATIC: &str = "[Service]\nType=oneshot\nExecStart=/usr/bin/app --clean\n";

#[test]
fn root_a_recipe_without_services_is_told_what_its_packages_could_run() {
    let world = World::new();
    let files = [
        ("lib/systemd/system/app.service", UNIT),
        ("lib/systemd/system/app-clean.service", STATIC),
        ("lib/systemd/system/app@.service", UNIT),
        ("usr/bin/app", "#!/bin/sh\nexec sleep infinity\n"),
    ];
    world.deb(&Deb { files: &files, ..APP });
    world.recipe("proposed", "\n[[step]]\npackages = [\"./app.deb\"]\n");
    let said = world.kiln(&["bake"]);
    assert_eq!(said.code, 0, "{}", said.errors);
    assert!(said.errors.contains("the recipe has no [service], and its packages bring:"), "{}", said.errors);
    let found = world.good(&["bake"]);
    let proposals = found["proposals"].as_array().expect("proposals");
    assert_eq!(proposals.len(), 1, "only what something starts, and no template: {found}");
    let toml = proposals[0]["toml"].as_str().expect("a text");
    assert!(said.errors.contains(toml), "people see what programs are given: {}", said.errors);
    insta::assert_snapshot!(toml);
    // What is proposed can be pasted as it is.
    let recipe = std::fs::read_to_string(world.directory().join("image.toml")).expect("a recipe");
    world.write("image.toml", &format!("{recipe}\n{toml}"));
    let pasted = world.kiln(&["bake"]);
    assert_eq!(pasted.code, 0, "{}", pasted.errors);
    assert!(!pasted.errors.contains("[service]"), "nothing is proposed any more: {}", pasted.errors);
}
