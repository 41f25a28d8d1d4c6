//! The program as it is started by people and scripts: what it prints, and how it ends.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::Value;

fn kiln(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["--state", "state"])
        .args(arguments)
        .current_dir(directory)
        .env_remove("KILN_STATE")
        .output()
        .expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

fn json(output: &Output) -> Value {
    let text = text(&output.stdout);
    assert_eq!(text.lines().count(), 1, "one line: {text}");
    serde_json::from_str(&text).expect("standard output is JSON")
}

#[test]
fn host_new_writes_what_kiln_accepts_and_overwrites_nothing() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let made = kiln(temp.path(), &["new", "shop"]);
    assert!(made.status.success(), "{}", text(&made.stderr));
    let recipe = std::fs::read_to_string(temp.path().join("shop/image.toml")).expect("a recipe");
    assert!(recipe.contains("name = \"shop\"") && !recipe.contains("__NAME__"));
    let again = kiln(temp.path(), &["new", "shop", "--json"]);
    assert_eq!(again.status.code(), Some(2));
    assert_eq!(json(&again)["error"]["code"], "invalid");
}

#[test]
fn host_a_wrong_recipe_is_shown_and_nothing_is_touched() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    std::fs::write(temp.path().join("image.toml"), "name = \"hello\"\n[base]\ndebian = \"bookworm\"\npakages = []\n")
        .expect("a recipe");
    let shown = kiln(temp.path(), &["bake"]);
    assert_eq!(shown.status.code(), Some(2));
    insta::assert_snapshot!(text(&shown.stderr));
    let found = json(&kiln(temp.path(), &["bake", "--json"]));
    insta::assert_json_snapshot!(found);
    assert!(!temp.path().join("state").exists(), "the state directory was made");
}

#[test]
fn host_what_is_not_there_is_said_with_what_to_try() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let none = kiln(temp.path(), &["up", "nowhere"]);
    assert_eq!(none.status.code(), Some(2));
    insta::assert_snapshot!(text(&none.stderr));
    let silent = kiln(temp.path(), &["status"]);
    assert_eq!(silent.status.code(), Some(5));
    assert!(text(&silent.stderr).contains("no daemon answers"), "{}", text(&silent.stderr));
    assert_eq!(kiln(temp.path(), &["frobnicate"]).status.code(), Some(2));
}

#[test]
fn host_where_nothing_was_done_the_audit_log_is_empty() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let shown = kiln(temp.path(), &["audit", "--json"]);
    assert_eq!(shown.status.code(), Some(0), "{}", text(&shown.stderr));
    assert_eq!(json(&shown)["entries"], serde_json::json!([]));
    let verified = kiln(temp.path(), &["audit", "verify"]);
    assert_eq!(text(&verified.stdout), "the audit log has no entries: nothing was done here yet\n");
    let noted = kiln(temp.path(), &["audit", "verify", "--head", &format!("1:sha256:{}", "0".repeat(64))]);
    assert_eq!(noted.status.code(), Some(1), "{}", text(&noted.stderr));
    let moves = kiln(temp.path(), &["history", "shop", "--json"]);
    assert_eq!(json(&moves)["moves"], serde_json::json!([]));
}

#[test]
fn host_up_with_json_ends_with_one_result() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    let failed = kiln(temp.path(), &["up", "--json"]);
    assert_eq!(failed.status.code(), Some(2));
    let last = json(&failed);
    assert_eq!(last["result"], "failed");
    assert!(last["seconds"].is_number() && last["endpoints"].is_array());
    assert_eq!(last["error"]["code"], "invalid");
}

#[test]
fn host_completions_for_every_shell() {
    let temp = tempfile::tempdir().expect("a temporary directory");
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let made = kiln(temp.path(), &["completions", shell]);
        assert!(made.status.success() && text(&made.stdout).contains("kiln"), "{shell}");
    }
}
