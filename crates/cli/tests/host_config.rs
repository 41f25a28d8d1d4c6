//! Configuration as the program reads and shows it, before anything is baked.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

const RECIPE: &str = r#"name = "shop"

[base]
debian = "bookworm"

[service.web]
command = "/bin/sleep infinity"

[config.greeting]
type = "string"
default = "hello"

[config.workers]
type = "integer"
min = 1
max = 64

[config.token]
type = "string"
secret = true

[config.level]
type = "enum"
values = ["info", "debug"]
default = "info"
live = true

[config.region]
type = "string"

[config.motto]
type = "string"
optional = true
"#;

const FLEET: &str = r#"[config]
region = "eu"
tier = "gold"

[group.web]
image = "shop"

[group.web.config]
workers = 4
token = "tops3cret"

[group.other]
image = "else"
"#;

fn project(fleet: &str, staging: Option<&str>) -> tempfile::TempDir {
    let temp = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(temp.path().join("image.toml"), RECIPE).expect("a recipe");
    std::fs::write(temp.path().join("fleet.toml"), fleet).expect("a fleet");
    if let Some(text) = staging {
        std::fs::write(temp.path().join("fleet.staging.toml"), text).expect("an environment");
    }
    temp
}

fn kiln(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(["--state", "state"]).args(arguments).current_dir(directory);
    command.env_remove("KILN_STATE").env_remove("SHOP_TOKEN").output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// What a call that must end as a wrong command line says; nothing was baked and no daemon started.
fn refused(temp: &tempfile::TempDir, arguments: &[&str]) -> String {
    let ended = kiln(temp.path(), arguments);
    assert_eq!(ended.status.code(), Some(2), "{}", text(&ended.stderr));
    assert!(!temp.path().join("state").exists(), "the state directory was made");
    text(&ended.stderr)
}

#[test]
fn host_config_show_says_every_key_and_where_its_value_comes_from() {
    let staging =
        "[config]\nregion = \"us\"\n[group.web.config]\nworkers = { file = \"workers\" }\nlevel = \"debug\"\n";
    let temp = project(FLEET, Some(staging));
    let plain = kiln(temp.path(), &["config", "show", "web"]);
    let staged = kiln(temp.path(), &["config", "show", "web", ".", "--env", "staging"]);
    assert!(plain.status.success() && staged.status.success(), "{}", text(&staged.stderr));
    let shown = format!("{}--------\n{}", text(&plain.stdout), text(&staged.stdout));
    assert!(!shown.contains("tops3cret"), "{shown}");
    insta::assert_snapshot!(shown);
    let json = kiln(temp.path(), &["config", "show", "web", "--json", "--env", "staging"]);
    assert!(!text(&json.stdout).contains("tops3cret"));
    insta::assert_json_snapshot!(serde_json::from_slice::<Value>(&json.stdout).expect("JSON"));
}

#[test]
fn host_config_show_of_what_is_not_there() {
    let temp = project(FLEET, None);
    assert!(refused(&temp, &["config", "show", "wep"]).contains("there is no group `wep`"));
    assert!(refused(&temp, &["config", "show", "other"]).contains("group `other` uses the image `else`"));
}

#[test]
fn host_an_environment_without_a_file_is_named_with_its_path() {
    let temp = project(FLEET, None);
    for verb in ["up", "test", "apply"] {
        let said = refused(&temp, &[verb, ".", "--env", "staging"]);
        assert!(said.contains("there is no ./fleet.staging.toml for the environment `staging`"), "{verb}: {said}");
    }
    let said = refused(&temp, &["apply", "fleet.toml", "--env", "staging"]);
    assert!(said.contains("there is no fleet.staging.toml"), "{said}");
    assert!(refused(&temp, &["up", "--env", "../etc"]).contains("environment name"));
}

#[test]
fn host_a_variable_that_is_not_set_is_named_with_its_group_and_key() {
    let temp = project(&FLEET.replace("\"tops3cret\"", "{ env = \"SHOP_TOKEN\" }"), None);
    for verb in ["up", "test", "apply"] {
        let said = refused(&temp, &[verb, "."]);
        assert!(said.contains("group `web` takes `token` from the variable `SHOP_TOKEN`"), "{verb}: {said}");
    }
}

#[test]
fn host_a_value_that_does_not_fit_is_shown_before_anything_is_baked() {
    let temp =
        project(&FLEET.replace("workers = 4", "workers = \"four\""), Some("[group.web.config]\ntokn = \"x9z\"\n"));
    for verb in ["up", "test"] {
        let said = refused(&temp, &[verb, "."]);
        assert!(said.contains("fleet.toml:9:11") && said.contains("a whole number from 1 to 64"), "{verb}: {said}");
        assert!(said.contains("write `workers = 1`") && !said.contains("tops3cret"), "{verb}: {said}");
    }
    std::fs::write(temp.path().join("fleet.toml"), FLEET).expect("a fleet that fits");
    let said = refused(&temp, &["up", "--env", "staging"]);
    assert!(said.contains("fleet.staging.toml:2:1") && said.contains("did you mean `token`?"), "{said}");
    assert!(!said.contains("x9z"), "{said}");
}

#[test]
fn host_a_shared_directory_that_is_not_there_is_shown_before_anything_is_baked() {
    let temp = project(FLEET, None);
    let recipe = format!("{RECIPE}\n[writable]\n\"/srv/files\" = {{ shared = \"files\" }}\n");
    std::fs::write(temp.path().join("image.toml"), recipe).expect("a recipe");
    let fleet = |bound: &str| {
        let text = format!("{FLEET}\n[group.web.shared.{bound}\n");
        std::fs::write(temp.path().join("fleet.toml"), text).expect("a fleet");
        refused(&temp, &["up", "."])
    };
    let missing = temp.path().canonicalize().expect("a path").join("missing");
    let said = fleet(&format!("files]\ndirectory = \"{}\"", missing.display()));
    assert!(said.contains("fleet.toml:16:13") && said.contains("is not there") && said.contains("mkdir"), "{said}");
    assert!(!said.contains("tops3cret"), "{said}");
    let said = fleet("file]\ndirectory = \"/srv\"");
    assert!(said.contains("did you mean `files`?") && said.contains("does not say where to find"), "{said}");
    let said = fleet(&format!("files]\ndirectory = \"{}\"", missing.with_file_name("state").display()));
    assert!(said.contains("is not there"), "{said}");
}

#[test]
fn host_config_lint_counts_what_differs_and_names_what_nobody_reads_or_varies() {
    let fleet = FLEET.replace(
        "[group.other]\nimage = \"else\"",
        "[group.other]\nimage = \"shop\"\nconfig = { workers = 8, token = \"x\" }",
    );
    let temp = project(&fleet, Some("[config]\nregion = \"us\"\n"));
    let recipe = RECIPE
        .replace("[config.greeting]", "environment = { GREETING = { config = \"greeting\" } }\n\n[config.greeting]");
    let matrix = "[[test.matrix]]\nname = \"flags\"\nconfig = { workers = 64, token = \"x\", region = \"eu\", level = \"debug\" }\n";
    std::fs::write(temp.path().join("image.toml"), format!("{recipe}\n{matrix}")).expect("a recipe");
    let linted = kiln(temp.path(), &["config", "lint"]);
    assert_eq!(linted.status.code(), Some(1), "{}", text(&linted.stderr));
    insta::assert_snapshot!(text(&linted.stdout));
    let json = kiln(temp.path(), &["config", "lint", "--json"]);
    let found: Value = serde_json::from_slice(&json.stdout).expect("JSON");
    assert_eq!(
        (&found["keys"], &found["required"], &found["live"], &found["read_by_metadata"]),
        (&6.into(), &3.into(), &1.into(), &Value::Null)
    );
    assert_eq!(found["by_group"], serde_json::json!(["token", "workers"]));
    assert_eq!(found["by_environment"], serde_json::json!(["region"]));
    assert!(!temp.path().join("state").exists(), "the state directory was made");
}

#[test]
fn host_config_set_and_diff_of_what_is_not_there() {
    let temp = project(FLEET, None);
    for arguments in [&["config", "set", "web", "level", "debug"][..], &["config", "diff", "web"][..]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.args(["--state", "state"]).args(arguments).current_dir(temp.path()).env("SHOP_TOKEN", "x");
        let ended = command.output().expect("the program starts");
        assert_eq!(ended.status.code(), Some(5), "no daemon: {}", text(&ended.stderr));
    }
    refused(&temp, &["config", "set", "web", "level"]);
    refused(&temp, &["config", "set", "web", "level", "debug", "--reset"]);
    refused(&temp, &["config", "set", "web", "LEVEL", "debug"]);
}
