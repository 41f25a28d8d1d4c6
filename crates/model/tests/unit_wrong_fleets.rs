//! What is wrong with a fleet is shown with its line, the offending text and what to write instead.

use kiln_model::Fleet;

fn shown(pieces: &[&str]) -> String {
    let whole = |piece: &&str| {
        let found = Fleet::parse(piece, "fleet.toml").err().unwrap_or_else(|| panic!("this is accepted:\n{piece}"));
        found.render(false, 100)
    };
    pieces.iter().map(whole).collect::<Vec<_>>().join("--------\n")
}

#[test]
fn unit_groups() {
    insta::assert_snapshot!(shown(&[
        "",
        "[group]\n",
        "group = 1\nname = \"x\"\n",
        "[group.web]\nreplicas = 3\n",
        "[group.Web]\nimage = \"hello:latest\"\ncount = -1\n",
        "[group.web]\nimage = \"hello@sha256:12\"\ncount = \"3\"\nenvironment = { A = 1, \"=\" = \"x\" }\n",
        "[group.a123456789012345678901234567890123456789012345678901]\nimage = \"hello\"\n",
        "[group.web]\nimage = \"hello\"\nlimits = { memory = \"1KiB\", cpu = 0, pids = 1, disk = 1 }\n",
        "[group.web]\nimage = \"hello\"\nlimits = { memory = 256, cpu = \"2\", pids = 1.5 }\n",
    ]));
}

#[test]
fn unit_publish() {
    insta::assert_snapshot!(shown(&[
        "[group.web]\nimage = \"hello\"\npublish = [{ listen = 8080 }, { port = 80 }, 80]\n",
        "[group.web]\nimage = \"hello\"\npublish = [{ listen = 8080, port = 0, protocol = \"https\", host = \"x\" }]\n",
        "[group.web]\nimage = \"hello\"\npublish = [{ listen = 8080, port = 80 }, { listen = 8080, port = 81 }]\n",
        "[group.a]\nimage = \"hello\"\npublish = [{ listen = 80, port = 80 }]\n\n[group.b]\nimage = \"hello\"\npublish = [{ listen = 80, port = 80 }]\n",
        "[group.web]\nimage = \"hello\"\npublish = [{ listen = 0, port = 80 }, { listen = 0, port = 80 }, { listen = 81, port = 80 }]\n",
        "[group.web]\nimage = \"hello\"\npublish = [{ listen = 0, port = 80, slot = 0 }]\n",
        "[group.db]\nimage = \"hello\"\ncount = 2\nvolume = { data = { size = \"1GiB\" } }\npublish = [{ listen = 0, port = 80, slot = 2 }, { listen = 0, port = 80, slot = -1 }]\n",
    ]));
}

#[test]
fn unit_rollout() {
    let rollout = |keys: &str| format!("[group.web]\nimage = \"hello\"\ncount = 3\n[group.web.rollout]\n{keys}");
    let pieces = [
        "strategy = \"canary\"\nsurge = 1\n",
        "strategy = \"blue-green\"\nmax_surge = 1\n",
        "max_surge = 0\nmax_unavailable = 0\n",
        "max_surge = 0\n",
        "max_unavailable = 4\n",
        "min_healthy_time = \"3m\"\n",
        "min_healthy_time = \"1m\"\nprogress_deadline = \"30s\"\n",
        "drain = \"2h\"\nauto_revert = \"yes\"\nmax_surge = \"25%\"\nprogress_deadline = \"0s\"\n",
    ]
    .map(rollout);
    insta::assert_snapshot!(shown(&pieces.each_ref().map(String::as_str)));
}

#[test]
fn unit_volumes() {
    let volume = |keys: &str| format!("[group.db]\nimage = \"hello\"\n{keys}");
    let pieces = [
        "volume = \"1GiB\"\n",
        "[group.db.volume.data]\nfilesystem = \"btrfs\"\n",
        "[group.db.volume.\"../data\"]\nsize = \"1GiB\"\n",
        "[group.db.volume.\"da\\u001bta\"]\nsize = \"1GiB\"\n",
        "[group.db.volume.data]\nsize = \"1MiB\"\nretain = \"never\"\n",
        "[group.db.volume.data]\nsize = \"64MiB\"\nfilesystem = \"xfs\"\nowner = \"db\"\n",
        "[group.db.volume.data]\nsize = \"1GiB\"\nsnapshots = { every = \"1s\", keep = 0 }\n",
        "rollout = { strategy = \"blue-green\" }\n[group.db.volume.data]\nsize = \"1GiB\"\n",
    ]
    .map(volume);
    insta::assert_snapshot!(shown(&pieces.each_ref().map(String::as_str)));
}

#[test]
fn unit_spares() {
    insta::assert_snapshot!(shown(&[
        "[group.web]\nimage = \"hello\"\nspares = 101\n",
        "[group.web]\nimage = \"hello\"\nspares = { count = 1 }\n",
        "[group.web]\nimage = \"hello\"\nspare = 1\n",
        "[group.db]\nimage = \"hello\"\nspares = 1\n[group.db.volume.data]\nsize = \"1GiB\"\n",
    ]));
}

#[test]
fn unit_shared_directories() {
    let shared = |keys: &str| format!("[group.wiki]\nimage = \"hello\"\n{keys}");
    let pieces = [
        "shared = \"/srv/uploads\"\n",
        "[group.wiki.shared.uploads]\nread_only = true\n",
        "[group.wiki.shared.uploads]\ndirectory = \"/srv/uploads\"\nnfs = \"nas:/uploads\"\n",
        "[group.wiki.shared.\"../uploads\"]\ndirectory = \"/srv/uploads\"\n",
        "[group.wiki.shared.uploads]\ndirectory = \"srv/uploads\"\nread_only = \"yes\"\n",
        "[group.wiki.shared.uploads]\ndirectory = \"/srv/../etc\"\n",
        "[group.wiki.shared.uploads]\ndirectory = \"/srv/a\\u001bb\"\n",
        "[group.wiki.shared]\na = { directory = \"/\" }\nb = { directory = \"/proc/1\" }\nc = { directory = \"/etc/cron.d/\" }\n",
        "[group.wiki.shared.uploads]\ndirectory = \"/srv/uploads\"\nversion = \"3\"\nowner = \"web\"\n",
        "[group.wiki.shared]\na = { nfs = \"/uploads\" }\nb = { nfs = \"nas:uploads\" }\nc = { nfs = \"nas,rw:/x\" }\nd = { nfs = \"nas:/../x\" }\n",
        "[group.wiki.shared.uploads]\nnfs = \"nas:/uploads\"\nversion = 4\ntimeout = \"1h\"\nhard = true\n",
        "[group.wiki.shared.uploads]\nnfs = \"nas:/uploads\"\nversion = \"4\"\ntimeout = \"never\"\n",
    ]
    .map(shared);
    insta::assert_snapshot!(shown(&pieces.each_ref().map(String::as_str)));
}

#[test]
fn unit_healing_age_and_windows() {
    insta::assert_snapshot!(shown(&[
        "[group.web]\nimage = \"hello\"\nmax_age = \"10s\"\nhealing = { max_down = 120, within = \"2d\", allways = 5 }\n",
        "[group.web]\nimage = \"hello\"\nhealing = { max_down = \"20%\", within = 600, always = -1 }\n",
        "[group.web]\nimage = \"hello\"\nwindows = { open = [\"monday\", \"mon-fri 9-17\", 5], time_zone = \"Berlin\" }\n",
        "[group.web]\nimage = \"hello\"\nwindows = { open = \"mon-fri\", closed = [\"2027-01-02/2026-12-24\"], zone = \"UTC\" }\n",
    ]));
}

#[test]
fn unit_recovery_drills() {
    insta::assert_snapshot!(shown(&[
        "[group.web]\nimage = \"hello\"\ndrill = { every = \"10s\", servers = 0, ready_within = 200, failed = -1, lost = \"none\" }\n",
        "[group.web]\nimage = \"hello\"\ndrill = { share = \"10%\", within = \"1s\" }\n",
        "[group.web]\nimage = \"hello\"\ndrill = { servers = 1, share = 10 }\n",
        "[group.web]\nimage = \"hello\"\ndrill = \"1d\"\n",
    ]));
}

#[test]
fn unit_what_may_be_lost() {
    insta::assert_snapshot!(shown(&[
        "[group.web]\nimage = \"hello\"\nloss = { logs = -1, data = \"64MB\", lines = 5 }\n",
        "[group.web]\nimage = \"hello\"\nloss = \"64MiB\"\n",
        "[group.web]\nimage = \"hello\"\nloss = { logs = \"none\", data = \"2048TiB\" }\n",
    ]));
}

#[test]
fn unit_counts_that_follow_a_load() {
    let group = |count: &str| format!("[group.web]\nimage = \"hello\"\ncount = {count}\n");
    let wrong = [
        "{ min = 9, max = 3, target = { connections = 5 } }",
        "{ min = -1, max = 20_000, target = { cpu = 0.5 }, step = 3 }",
        "{ min = 1, max = 3, target = { connections = 5, requests_per_second = \"many\" } }",
        "{ max = 3, target = 200, scale_in = { wait = \"0s\", step = 0 }, scale_out = \"fast\" }",
        "{ min = 1, max = 3, target = {}, schedule = [{ during = \"monday\", min = 4 }, { min = 2 }], time_zone = \"Mars\" }",
    ];
    let texts: Vec<String> = wrong.into_iter().map(group).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    insta::assert_snapshot!(shown(&texts));
}

#[test]
fn unit_counts_that_follow_processor_time_or_a_number_of_the_application() {
    let group =
        |count: &str| format!("[group.web]\nimage = \"hello\"\ncount = {{ min = 1, max = 3, target = {count} }}\n");
    let wrong = [
        "{ cpu = \"60\" }",
        "{ cpu = \"0%\", memory = \"1GiB\" }",
        "{ custom = \"http://127.0.0.1:9090/metrics\" }",
        "{ custom = { url = \"https://queue/metrics\", metric = \"rate(jobs[5m])\" } }",
        "{ custom = { url = \"http://me:secret@queue/\", per_server = 0, every = \"5s\" } }",
        "{ custom = { metric = \"jobs\", per_server = 10 }, cpu = \"50%\" }",
    ];
    let texts: Vec<String> = wrong.into_iter().map(group).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    insta::assert_snapshot!(shown(&texts));
}

#[test]
fn unit_groups_that_nothing_would_wake() {
    let publish = "publish = [{ listen = 8080, port = 80 }]";
    let group = |keys: &str| format!("[group.web]\nimage = \"hello\"\n{keys}\n");
    let texts = [
        group("count = { min = 0, max = 3, target = { connections = 5 } }"),
        group("count = { min = 0, max = 3, target = { connections = 5 } }\npublish = []"),
        group(&format!("count = {{ min = 0, max = 3, target = {{ cpu = \"50%\" }} }}\n{publish}")),
    ];
    insta::assert_snapshot!(shown(&texts.each_ref().map(String::as_str)));
    let text = group(&format!("count = {{ min = 0, max = 3, target = {{ connections = 5 }} }}\n{publish}"));
    let fleet = kiln_model::Fleet::parse(&text, "fleet.toml").unwrap();
    assert_eq!(fleet.groups.values().next().unwrap().count, 1, "it is seen to work before it sleeps");
}

#[test]
fn unit_bindings_and_sources() {
    let binding = |keys: &str| format!("[group.web]\nimage = \"hello\"\n[group.web.service_binding.db]\n{keys}");
    let pieces = [
        "host = \"localhost\"\n",
        "host = \"127.0.0.1\"\nPort = 1979-05-27\n",
        "host = { zookeper = \"a:1/x\" }\n",
        "host = { zookeeper = \"a:1\", etcd = \"a:1/x\" }\n",
        "host = { zookeeper = \"a/x\" }\nport = { etcd = 5 }\n",
        "host = { file = \"x\", user = \"u\" }\n",
        "host = { etcd = \"a:1/x\", user = \"u\" }\n",
        "host = { etcd = \"a:1/x\", password = { file = \"x\" } }\n",
        "host = { etcd = \"a:1/x\", user = \"a:b\", password = { files = \"x\" } }\n",
        "host = { etcd = \"a:1/x\", tls = { ca = \"\", key = \"k\" } }\n",
        "host = { command = \"date\" }\nport = { command = [] }\nuser = { env = \"A B\" }\n",
    ]
    .map(binding);
    insta::assert_snapshot!(shown(&pieces.each_ref().map(String::as_str)));
    insta::assert_snapshot!(shown(&[
        "[group.web]\nimage = \"hello\"\non_source_change = \"apply\"\nservice_binding = 1\n"
    ]));
}

#[test]
fn unit_values_of_keys() {
    insta::assert_snapshot!(shown(&[
        "config = 1\n[group.web]\nimage = \"hello\"\nconfig = \"x\"\n",
        "[config]\nGreeting = \"x\"\n[group.web]\nimage = \"hello\"\n[group.web.config]\nday = 1979-05-27\n",
        "[group.web]\nimage = \"hello\"\nconfig = { greeting = { fil = \"x\" } }\n",
    ]));
}

#[test]
fn unit_logs() {
    let group = "[group.web]\nimage = \"hello\"\n[group.web.logs]\n";
    let pieces = [
        "receipt = \"30s\"\n",
        "to = \"http://a:1\"\nreceipt = \"2d\"\n",
        "to = \"tcp://a\"\ncert = \"x\"\n",
        "to = \"relp://a:1\"\nca = \"ca.pem\"\n",
        "to = \"tls://a:1\"\nkey = \"k.pem\"\n",
        "to = \"none\"\nreceipt = \"5s\"\n",
    ]
    .map(|keys| format!("{group}{keys}"));
    insta::assert_snapshot!(shown(&pieces.each_ref().map(String::as_str)));
}

#[test]
fn unit_evidence() {
    let group = "[group.web]\nimage = \"hello\"\n[evidence]\n";
    let pieces = ["max_age = \"0d\"\non_expiry = \"ignore\"\n", "max_age = 30\non_expiry = true\nmaxage = 1\n"]
        .map(|keys| format!("{group}{keys}"));
    insta::assert_snapshot!(shown(&pieces.each_ref().map(String::as_str)));
}

#[test]
fn unit_the_form_for_programs() {
    let found = Fleet::parse(
        "[group.web]\nimage = \"hello\"\n[group.web.rollout]\nmax_surge = 0\nmax_unavailable = 0\n",
        "fleet.toml",
    );
    insta::assert_json_snapshot!(found.expect_err("a contradiction"));
}
