//! A survey of a Debian tree that mmdebstrap made: first nothing is found, then just what was done to it.
//! Needs root, the network and mmdebstrap, as the comparison of bases does.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Command,
};

use kiln_image::{
    debian::root::Root,
    survey::{Change, Kind, Survey, copy, draft, survey},
};
use tempfile::TempDir;

const PACKAGES: &str = "nginx-light,cron,logrotate,ca-certificates,python3-minimal,openssh-server,sudo";

/// A Debian as it is installed.
fn debian() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let arguments =
        ["--quiet", "--variant=minbase", "--format=directory", &format!("--include={PACKAGES}"), "bookworm"];
    let output = Command::new("mmdebstrap").args(arguments).arg(directory.path().join("tree")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    directory
}

fn look(tree: &Path) -> Survey {
    survey(&Root::new(fs::File::open(tree).unwrap().into()), &[]).unwrap()
}

fn write(tree: &Path, path: &str, text: &str, mode: u32) {
    let path = tree.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn append(tree: &Path, path: &str, text: &str) {
    let path = tree.join(path);
    let before = fs::read_to_string(&path).unwrap();
    fs::write(&path, before + text).unwrap();
}

const UNIT: &str = "[Unit]\nDescription=The shop\n[Service]\nUser=shop\nExecStart=/opt/shop/run --port 8080\nStateDirectory=shop\n\
                    EnvironmentFile=/etc/default/shop\n[Install]\nWantedBy=multi-user.target\n";

/// What people do to servers.
fn touch(tree: &Path) {
    append(tree, "etc/nginx/nginx.conf", "# tuned\n");
    append(tree, "etc/ssh/sshd_config", "PermitRootLogin no\n");
    append(tree, "etc/profile", "export EDITOR=vi\n");
    append(tree, "usr/lib/python3.11/os.py", "# patched\n");
    fs::remove_file(tree.join("usr/sbin/logrotate")).unwrap();
    append(
        tree,
        "etc/passwd",
        "shop:x:1000:1000::/home/shop:/bin/sh\ndeploy:x:990:990::/nonexistent:/usr/sbin/nologin\n",
    );
    append(tree, "etc/group", "shop:x:1000:\ndeploy:x:990:\n");
    write(tree, "opt/shop/run", "#!/bin/sh\nexec sleep 1000\n", 0o755);
    write(tree, "opt/shop/lib/one.py", "print(1)\n", 0o644);
    write(tree, "opt/shop/lib/key.pem", "-----BEGIN RSA PRIVATE KEY-----\nAAAA\n", 0o644);
    write(tree, "usr/local/bin/backup", "#!/bin/sh\n", 0o755);
    write(tree, "etc/default/shop", "DB_PASSWORD=hunter2\n", 0o644);
    write(tree, "srv/shop/data.bin", "data", 0o644);
    write(tree, "etc/systemd/system/shop.service", UNIT, 0o644);
    symlink("/etc/systemd/system/shop.service", tree.join("etc/systemd/system/multi-user.target.wants/shop.service"))
        .unwrap();
    write(tree, "etc/cron.d/shop", "MAILTO=ops\n*/5 * * * * shop /opt/shop/run --clean\n", 0o644);
    write(tree, "var/spool/cron/crontabs/root", "@daily /usr/local/bin/backup\n", 0o600);
    write(tree, "etc/nginx/sites-available/shop", "server {}\n", 0o644);
    let link = tree.join("etc/nginx/sites-enabled/shop");
    symlink("/etc/nginx/sites-available/shop", link).unwrap();
}

#[test]
fn root_of_a_server_just_what_was_done_to_it_is_found() {
    let directory = debian();
    let tree = directory.path().join("tree");
    only_the_packages_asked_for_are_found(&tree);
    touch(&tree);
    everything_that_was_done_is_found_and_nothing_else(&tree);
    a_draft_copies_no_secret_and_asks_what_it_cannot_decide(&tree);
}

fn only_the_packages_asked_for_are_found(tree: &Path) {
    let found = look(tree);
    let names: BTreeSet<&str> = found.packages.iter().map(|package| package.name.as_str()).collect();
    assert_eq!(names, PACKAGES.split(',').filter(|name| !["cron", "logrotate"].contains(name)).collect(), "{found:#?}");
    assert_eq!(found.changed, []);
    assert_eq!(found.unowned, []);
    assert_eq!(found.scheduled, []);
    assert_eq!(found.users, []);
    assert_eq!(found.unread, []);
    let units: Vec<_> = found.services.iter().map(|service| service.unit.as_str()).collect();
    assert_eq!(units, ["cron.service", "nginx.service", "ssh.service"]);
    assert!(found.own.contains(&"/etc/ssh/ssh_host_rsa_key".to_owned()), "{:?}", found.own);
}

fn everything_that_was_done_is_found_and_nothing_else(tree: &Path) {
    let found = look(tree);
    let changed: Vec<_> = found.changed.iter().map(|changed| (changed.path.as_str(), changed.change)).collect();
    assert_eq!(
        changed,
        [
            ("/etc/nginx/nginx.conf", Change::Configuration),
            ("/etc/profile", Change::Configuration),
            ("/etc/ssh/sshd_config", Change::Configuration),
            ("/usr/lib/python3.11/os.py", Change::Content),
            ("/usr/sbin/logrotate", Change::Missing),
        ]
    );
    let unowned: Vec<_> = found.unowned.iter().map(|unowned| (unowned.path.as_str(), &unowned.kind)).collect();
    let link = |to: &str| Kind::Link(to.to_owned());
    let (site, unit) = (link("/etc/nginx/sites-available/shop"), link("/etc/systemd/system/shop.service"));
    assert_eq!(
        unowned,
        [
            ("/etc/cron.d/shop", &Kind::File),
            ("/etc/default/shop", &Kind::File),
            ("/etc/nginx/sites-available/shop", &Kind::File),
            ("/etc/nginx/sites-enabled/shop", &site),
            ("/etc/systemd/system/multi-user.target.wants/shop.service", &unit),
            ("/etc/systemd/system/shop.service", &Kind::File),
            ("/opt/shop", &Kind::Directory { files: 3 }),
            ("/srv/shop", &Kind::Directory { files: 1 }),
            ("/usr/local/bin/backup", &Kind::File),
        ]
    );
    let users: Vec<_> = found.users.iter().map(|user| (user.name.as_str(), user.uid)).collect();
    assert_eq!(users, [("shop", 1000), ("deploy", 990)]);
    let scheduled: Vec<_> =
        found.scheduled.iter().map(|run| [&run.when, &run.user, &run.command].map(String::as_str)).collect();
    assert_eq!(
        scheduled,
        [["*/5 * * * *", "shop", "/opt/shop/run --clean"], ["@daily", "root", "/usr/local/bin/backup"]]
    );
    let shop = found.services.iter().find(|service| service.unit == "shop.service").expect("enabled");
    assert_eq!((shop.package.as_deref(), shop.description.as_str()), (None, "The shop"));
}

fn a_draft_copies_no_secret_and_asks_what_it_cannot_decide(tree: &Path) {
    let found = look(tree);
    let drafted = draft(&found, None, &"old-shop".parse().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let root = Root::new(fs::File::open(tree).unwrap().into());
    copy(&root, &drafted.files, directory.path()).unwrap();
    let copied = |path: &str| directory.path().join("files/root").join(path);
    for there in ["etc/nginx/nginx.conf", "etc/profile", "usr/local/bin/backup"] {
        assert_eq!(fs::read(copied(there)).unwrap(), fs::read(tree.join(there)).unwrap(), "{there}");
    }
    assert_eq!(fs::metadata(copied("usr/local/bin/backup")).unwrap().permissions().mode() & 0o777, 0o755);
    let everything =
        Command::new("grep").args(["-rl", "hunter2\\|PRIVATE KEY"]).arg(directory.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&everything.stdout), "", "no secret is copied");
    for asked in
        ["/etc/default/shop", "/opt/shop", "/srv/shop", "crontabs/root", "/usr/sbin/logrotate", "/var/lib/shop"]
    {
        assert!(drafted.questions.iter().any(|question| question.contains(asked)), "{asked}: {:#?}", drafted.questions);
    }
}

#[test]
fn host_links_of_a_hostile_tree_lead_nowhere_outside_it() {
    let (tree, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    write(tree.path(), "var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\n", 0o644);
    write(outside.path(), "passwd", "outside:x:1234:1234::/:/bin/sh\n", 0o644);
    write(outside.path(), "job", "@daily root outside\n", 0o644);
    fs::create_dir_all(tree.path().join("etc")).unwrap();
    fs::create_dir_all(tree.path().join("opt")).unwrap();
    symlink(outside.path().join("passwd"), tree.path().join("etc/passwd")).unwrap();
    symlink(outside.path(), tree.path().join("etc/cron.d")).unwrap();
    symlink("../../../../..", tree.path().join("opt/up")).unwrap();
    let found = look(tree.path());
    assert_eq!((found.users.len(), found.scheduled.len()), (0, 0), "{found:#?}");
    let up = found.unowned.iter().find(|unowned| unowned.path == "/opt/up").expect("a link is a link");
    assert_eq!(up.kind, Kind::Link("../../../../..".to_owned()));
}

#[test]
fn host_a_tree_without_dpkg_is_refused_with_what_it_lacks() {
    let tree = tempfile::tempdir().unwrap();
    let refused = survey(&Root::new(fs::File::open(tree.path()).unwrap().into()), &[]).unwrap_err();
    assert!(refused.to_string().contains("no /var/lib/dpkg/status"), "{refused}");
}
