//! `kiln survey` as a person calls it, on a small tree made here; a real Debian is looked at by `kiln-image`'s tests.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn kiln(directory: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command.args(["--state", "state"]).args(arguments).current_dir(directory).env_remove("KILN_STATE");
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("output is UTF-8")
}

/// A tree with one package, whose configuration file was changed, and a service made by hand.
fn tree(directory: &Path) {
    let status = "Package: web\nStatus: install ok installed\nVersion: 1.0\nMaintainer: The shop <shop@example.org>\nConffiles:\n \
                  /etc/web.conf 5d41402abc4b2a76b9719d911017c592\n";
    let unit = "[Unit]\nDescription=Sells things\n[Service]\nUser=shop\nExecStart=/opt/shop/run --port 8080\n";
    // Whoever runs the tests owns the files.
    let uid = rustix::process::geteuid().as_raw();
    let passwd = format!("root:x:{uid}:0::/root:/bin/sh\nshop:x:1000:1000::/home/shop:/bin/sh\n");
    let files = [
        ("var/lib/dpkg/status", status),
        (
            "var/lib/dpkg/info/web.list",
            "/.\n/usr/share\n/usr/share/base-passwd\n/usr/share/base-passwd/passwd.master\n/etc\n/etc/web.conf\n/etc/os-release\n/etc/systemd\n/etc/systemd/system\n/usr\n",
        ),
        ("etc/os-release", "ID=debian\nVERSION_CODENAME=bookworm\nPRETTY_NAME=\"Debian 12\"\n"),
        ("etc/passwd", passwd.as_str()),
        ("usr/share/base-passwd/passwd.master", "root:*:0:0::/root:/bin/sh\n"),
        ("etc/web.conf", "listen = 81\n"),
        ("etc/secret.conf", "api_token = abcdef\n"),
        ("etc/systemd/system/shop.service", unit),
        ("etc/systemd/system/multi-user.target.wants/shop.service", unit),
        ("opt/shop/run", "#!/bin/sh\n"),
    ];
    for (path, text) in files {
        let path = directory.join("tree").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}

#[test]
fn host_a_survey_is_shown_and_drafts_a_recipe_that_kiln_accepts() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let shown = kiln(temp.path(), &["survey", "tree", "--to", "shop", "--name", "shop"]);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    insta::assert_snapshot!("survey_shown", text(&shown.stdout));
    // The verb reads its own recipe as a bake does; what a person reads of it is pinned here.
    insta::assert_snapshot!("survey_recipe", fs::read_to_string(temp.path().join("shop/image.toml")).unwrap());
    assert_eq!(fs::read_to_string(temp.path().join("shop/files/root/etc/web.conf")).unwrap(), "listen = 81\n");
    assert!(!temp.path().join("shop/files/root/etc/secret.conf").exists(), "a secret was copied");
    let again = kiln(temp.path(), &["survey", "tree", "--to", "shop"]);
    assert_eq!(again.status.code(), Some(2), "nothing is overwritten");
}

#[test]
fn host_a_survey_changes_nothing_and_is_one_object_for_programs() {
    let temp = tempfile::tempdir().unwrap();
    tree(temp.path());
    let listed = || {
        let output =
            Command::new("find").args(["tree", "-printf", "%p %m %s %T@\n"]).current_dir(temp.path()).output().unwrap();
        text(&output.stdout)
    };
    let before = listed();
    let output = kiln(temp.path(), &["survey", "tree", "--json", "--except", "/opt"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["survey"]["changed"][0]["path"], "/etc/web.conf");
    assert_eq!(found["survey"]["unread"][0]["path"], "/opt");
    assert_eq!(found["listening"], serde_json::Value::Null, "nobody knows what ran on another machine");
    assert_eq!(listed(), before);
    assert!(!temp.path().join("state").exists(), "the state directory was made");
}

#[test]
fn host_what_cannot_be_surveyed_is_said() {
    let temp = tempfile::tempdir().unwrap();
    for (root, says) in [(".", "no /var/lib/dpkg/status"), ("nowhere", "No such file")] {
        let output = kiln(temp.path(), &["survey", root]);
        assert_eq!(output.status.code(), Some(2), "{root}");
        assert!(text(&output.stderr).contains(says), "{}", text(&output.stderr));
    }
}
