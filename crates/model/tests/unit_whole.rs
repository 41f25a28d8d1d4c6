//! What is right is read as it is meant, and each key of it can be made wrong in a way that is shown at its line.

mod common;
#[path = "common/whole.rs"]
mod whole;

use std::time::Duration;

use common::{Files, recipe, recipe_with};
use kiln_model::{
    Fleet,
    diagnostic::Diagnostics,
    recipe::{Base, Distribution, Layout},
    schema::{fleet::FleetToml, image::ImageToml},
};
use whole::{WHOLE_FLEET, WHOLE_RECIPE};

#[test]
fn unit_a_whole_recipe_is_read_as_it_is_meant() {
    insta::assert_debug_snapshot!(recipe(WHOLE_RECIPE).expect("the recipe is right"));
}

#[test]
fn unit_a_server_is_held_as_long_as_the_service_that_may_least() {
    let held = |services: &str| {
        let text = format!("name = \"hello\"\n[base]\ndebian = \"bookworm\"\n{services}");
        recipe(&text).expect("right").manifest.holds_ready()
    };
    let service = |name: &str, more: &str| format!("[service.{name}]\ncommand = \"true\"\n{more}\n");
    let (long, short, none) =
        (service("a", "hold_ready = \"1h\""), service("b", "hold_ready = \"90s\""), service("c", ""));
    assert_eq!(held(&long), Some(Duration::from_secs(3600)));
    assert_eq!(held(&(long.clone() + &short)), Some(Duration::from_secs(90)));
    assert_eq!(held(&(long + &short + &none)), None, "one that says nothing is not held");
}

#[test]
fn unit_a_base_of_ubuntu_has_ubuntus_archive() {
    let base = |text: &str| match recipe(&format!("name = \"hello\"\n[base]\nubuntu = \"noble\"\n{text}"))
        .expect("right")
        .base
    {
        Base::Debian(base) => base,
        other => panic!("{other:?}"),
    };
    let usual = base("packages = [\"nginx\"]\n");
    assert_eq!((usual.distribution, usual.suite.as_str()), (Distribution::Ubuntu, "noble"));
    assert_eq!(usual.mirror, "http://archive.ubuntu.com/ubuntu");
    assert_eq!(usual.security_mirror.as_deref(), Some("http://security.ubuntu.com/ubuntu"));
    assert_eq!(
        (usual.components, usual.packages),
        (vec!["main".to_owned(), "universe".to_owned()], vec!["nginx".to_owned()])
    );
    let own = base("mirror = \"https://mirror.example/ubuntu/\"\nsecurity_mirror = false\ncomponents = [\"main\"]\n");
    assert_eq!((own.mirror.as_str(), own.security_mirror), ("https://mirror.example/ubuntu", None));
    assert_eq!(own.components, ["main"]);
}

#[test]
fn unit_a_suite_that_ends_with_a_slash_is_a_flat_repository() {
    let read = |keys: &str| {
        let text = format!(
            "name = \"hello\"\n[base]\ndebian = \"bookworm\"\n[base.repository.shop]\nurl = \"https://x\"\n{keys}"
        );
        let files = Files::default().with("shop.asc", "");
        let Base::Debian(base) = recipe_with(&text, &files).expect("right").base else { panic!("{keys}") };
        base.repositories[0].layout.clone()
    };
    for (written, directory, shown) in
        [("/", "", "/"), ("./", "", "/"), ("stable/", "stable/", "stable/"), ("a:/b+c/", "a:/b+c/", "a:/b+c/")]
    {
        let layout = read(&format!("suite = \"{written}\"\nkey = \"shop.asc\"\n"));
        assert_eq!(layout, Layout::Flat { directory: directory.to_owned() });
        assert_eq!((layout.directory().as_str(), layout.to_string().as_str()), (directory, shown));
    }
    let layout = read("suite = \"stable/updates\"\ncomponents = [\"main\"]\nkey = \"shop.asc\"\n");
    assert_eq!((layout.directory().as_str(), layout.to_string().as_str()), ("dists/stable/updates/", "stable/updates"));
}

#[test]
fn unit_a_whole_fleet_is_read_as_it_is_meant() {
    insta::assert_debug_snapshot!(Fleet::parse(WHOLE_FLEET, "fleet.toml").expect("the fleet is right"));
}

#[test]
fn unit_what_is_right_has_the_form_of_the_schema() {
    toml::from_str::<ImageToml>(WHOLE_RECIPE).expect("the recipe has the schema's form");
    toml::from_str::<FleetToml>(WHOLE_FLEET).expect("the fleet has the schema's form");
}

/// Runs `change` on the key and the value of every line that has both, and gives what is found to `look`.
fn each_line<T>(
    text: &str,
    parse: impl Fn(&str) -> Result<T, Diagnostics>,
    change: impl Fn(&str, &str) -> String,
    look: impl Fn(usize, &str, &Diagnostics),
) {
    for (index, line) in text.lines().enumerate() {
        let Some((key, value)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) else { continue };
        let changed: Vec<_> = text.lines().map(str::to_owned).collect();
        let changed = [&changed[..index], &[change(key, value)], &changed[index + 1..]].concat().join("\n");
        let found =
            parse(&changed).err().unwrap_or_else(|| panic!("line {}: {} is accepted", index + 1, change(key, value)));
        look(index + 1, key, &found);
    }
}

#[test]
fn unit_every_key_mistyped_is_shown_at_its_line() {
    let mistype = |key: &str, value: &str| format!("{key}{key} = {value}");
    let look = |line: usize, key: &str, found: &Diagnostics| {
        let wanted = format!("`{key}{key}` is not a key of");
        let here = found.diagnostics.iter().any(|d| d.line == line && d.column == 1 && d.message.starts_with(&wanted));
        assert!(here, "line {line}: {found}");
    };
    each_line(WHOLE_RECIPE, recipe, mistype, look);
    each_line(WHOLE_FLEET, |text| Fleet::parse(text, "fleet.toml"), mistype, look);
}

#[test]
fn unit_every_value_of_a_wrong_type_is_shown_at_its_line() {
    let look = |line: usize, key: &str, found: &Diagnostics| {
        let here = found.diagnostics.iter().any(|d| d.line == line && d.text == "1979-05-27" && !d.help.is_empty());
        assert!(here, "line {line}, `{key}`: {found}");
    };
    let date = |key: &str, _: &str| format!("{key} = 1979-05-27");
    each_line(WHOLE_RECIPE, recipe, date, look);
    each_line(WHOLE_FLEET, |text| Fleet::parse(text, "fleet.toml"), date, look);
}

#[test]
fn unit_no_schema_accepts_a_wrong_type_that_the_parser_refuses() {
    let lists = |key: &str, _: &str| format!("{key} = [[[]]]");
    let refused = |text: &str| match toml::from_str::<ImageToml>(text) {
        Ok(_) => Ok(()),
        Err(_) => recipe(text).map(|_| ()),
    };
    each_line(WHOLE_RECIPE, refused, lists, |_, _, _| ());
}
