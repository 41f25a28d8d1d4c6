//! Real tools of Debian over a real tree of Debian.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::Mutex,
};

use kiln_model::{
    Recipe,
    recipe::{
        Step, StepKind,
        provision::{Ansible, Cfengine, Chef, CloudInit, Idempotent, Provision, Puppet, Tool, ToolFrom},
    },
};

use super::State;
use crate::bake::{
    BakeError, BakeEvent, BakeRequest, Baked, bake,
    tests::{Bench, ChrootSandbox, cache, debian, request, step},
};

fn ansible(playbook: &str) -> Tool {
    Tool::Ansible(Ansible {
        playbook: playbook.into(),
        roles: vec![],
        collections: vec![],
        variables: serde_json::from_str(r#"{ "greeting": "hello" }"#).expect("JSON"),
        host: "web1".into(),
        groups: vec!["web".into()],
        tags: vec![],
        skip_tags: vec![],
    })
}

fn provision(tool: Tool, idempotent: Idempotent) -> Step {
    let mut step = step("tool", StepKind::Provision(Provision { tool, from: ToolFrom::Archive, idempotent }));
    step.time_limit = std::time::Duration::from_secs(300);
    step
}

/// Bakes, and answers what became of it and what was said.
fn baked(bench: &Bench, recipe: &Recipe) -> (Result<Baked, BakeError>, Vec<BakeEvent>) {
    let (directory, cache, seen) = (bench.recipe_dir(), cache(), Mutex::new(Vec::new()));
    let request = BakeRequest { offline: false, cache: &cache, ..request(recipe, &directory) };
    let result = bake(&request, &bench.store, &ChrootSandbox, &|event| seen.lock().expect("no panic").push(event));
    let seen = seen.into_inner().expect("no panic");
    for event in &seen {
        match event {
            BakeEvent::Output { bytes, .. } => print!("{}", String::from_utf8_lossy(bytes)),
            BakeEvent::Resource { .. } | BakeEvent::Warning(_) => println!("{event:?}"),
            _ => {}
        }
    }
    (result, seen)
}

fn warnings(events: &[BakeEvent]) -> String {
    let texts = events.iter().filter_map(|event| match event {
        BakeEvent::Warning(text) => Some(format!("{text}\n")),
        _ => None,
    });
    texts.collect()
}

fn resources(events: &[BakeEvent], wanted: State) -> Vec<String> {
    let found = events.iter().filter_map(|event| match event {
        BakeEvent::Resource { run: 1, resource } if resource.state == wanted => Some(resource.to_string()),
        _ => None,
    });
    found.collect()
}

fn read(bench: &Bench, baked: &Baked, path: &str) -> Option<String> {
    let bytes = bench.store.tree(&baked.image).expect("a tree").read(Path::new(path), 1 << 20).expect("readable")?;
    Some(String::from_utf8(bytes).expect("text"))
}

const ROLE: &str = "\
- name: motd
  copy: { content: \"{{ greeting }} from {{ inventory_hostname }}\\n\", dest: /etc/motd }
  notify: restart cron
- name: user
  user: { name: app, system: true }
- name: who
  become_user: app
  command: id -un
  register: who
  changed_when: false
- assert: { that: who.stdout == 'app' }
- name: no interpreter of the tool is seen
  command: sh -c '! command -v python3'
  changed_when: false
- name: cron
  service: { name: cron, state: started, enabled: true }
";

#[test]
fn root_ansible_plays_a_role_and_leaves_nothing_of_itself() {
    let bench = Bench::new();
    bench.write("site.yml", "- hosts: web\n  become: true\n  roles: [web]\n");
    bench.write("roles/web/tasks/main.yml", ROLE);
    bench.write("roles/web/handlers/main.yml", "- name: restart cron\n  service: { name: cron, state: restarted }\n");
    let good = provision(ansible("site.yml"), Idempotent::Fail);
    let (result, events) = baked(&bench, &debian(&["cron", "passwd"], vec![good.clone()]));
    let image = result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read(&bench, &image, "/etc/motd").as_deref(), Some("hello from web1\n"));
    assert!(read(&bench, &image, "/etc/passwd").expect("there").contains("app:"));
    let changed = resources(&events, State::Changed);
    assert!(changed.contains(&"roles/web/tasks/main.yml:1: web : motd".to_owned()), "{changed:?}");
    assert!(warnings(&events).contains("not started: cron.service ("), "{}", warnings(&events));
    let tree = bench.store.tree(&image.image).expect("a tree");
    let tool = |path: &Path| path.to_string_lossy().contains("ansible") || path.ends_with("policy-rc.d");
    let left: Vec<_> = tree.entries().into_iter().map(|entry| entry.path).filter(|path| tool(path)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert!(!read(&bench, &image, "/var/lib/dpkg/status").expect("there").contains("Package: ansible"));

    let case = |playbook: &str, idempotent| {
        bench.write("site.yml", playbook);
        let recipe = debian(&["cron", "passwd"], vec![provision(ansible("site.yml"), idempotent)]);
        let (result, events) = baked(&bench, &recipe);
        (result.map(drop).map_err(|error| error.to_string()), warnings(&events))
    };
    let (failed, _) = case("- hosts: all\n  tasks:\n  - name: bad\n    command: /bin/false\n", Idempotent::Fail);
    assert!(failed.expect_err("it fails").contains("\n  site.yml:3: bad: "));
    let again = "- hosts: all\n  tasks:\n  - name: never at rest\n    shell: date +%N >> /etc/again\n";
    let (failed, _) = case(again, Idempotent::Fail);
    assert!(
        failed
            .expect_err("it is not idempotent")
            .contains("not idempotent: ansible, run again over its own result, changes\n  site.yml:3: never at rest")
    );
    let (done, warned) = case(again, Idempotent::Warn);
    assert!(done.is_ok() && warned.contains("site.yml:3: never at rest"), "{done:?} {warned}");
    let prompt = "- hosts: all\n  vars_prompt: [{ name: password, prompt: The password }]\n  tasks: []\n";
    assert!(case(prompt, Idempotent::Fail).0.expect_err("it asks").contains("The password (variable `password`)"));
    let odd = "- hosts: all\n  tasks:\n  - reboot:\n  - shell: sleep 1000 &\n    changed_when: false\n  - copy:\n      dest: /etc/key\n      \
               content: \"-----BEGIN PRIVATE KEY-----\\n{{ 'b3BlbnNz' * 10 }}\\n\"\n  - command: sysctl -w net.ipv4.ip_forward=1\n    \
               changed_when: false\n";
    let (done, warned) = case(odd, Idempotent::Fail);
    assert!(done.is_ok(), "{done:?}");
    for part in [
        "nothing to reboot",
        "still ran when the tool had ended: sleep (",
        "/etc/key holds a private key",
        "did not set the running kernel: sysctl (",
    ] {
        assert!(warned.contains(part), "{part}: {warned}");
    }
}

#[test]
fn root_ansible_that_hangs_is_ended_and_what_is_not_the_images_stays() {
    let bench = Bench::new();
    let mut hangs = provision(ansible("site.yml"), Idempotent::Fail);
    hangs.time_limit = std::time::Duration::from_secs(20);
    bench.write(
        "site.yml",
        "- hosts: all\n  gather_facts: false\n  tasks:\n  - name: for ever\n    command: sleep 1000\n",
    );
    let failed = baked(&bench, &debian(&["passwd"], vec![hangs])).0.map(drop).expect_err("it ends").to_string();
    assert!(failed.contains("did not end within 20s\n  it was at site.yml:4: for ever"), "{failed}");
    let edits = "- hosts: all\n  gather_facts: false\n  tasks:\n  - copy: { dest: /etc/resolv.conf, content: \"nameserver 192.0.2.1\\n\" }\n";
    bench.write("site.yml", edits);
    let recipe = debian(&["passwd"], vec![provision(ansible("site.yml"), Idempotent::Fail)]);
    let image = baked(&bench, &recipe).0.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read(&bench, &image, "/etc/resolv.conf").as_deref(), Some(""));
}

#[test]
fn root_a_tool_that_cannot_be_fetched_is_named() {
    let bench = Bench::new();
    bench.write("site.pp", "notify { 'x': }\n");
    let puppet = |from| {
        let tool = Tool::Puppet(Puppet { manifest: "site.pp".into(), modules: vec![], hiera: None, facts: [].into() });
        step("tool", StepKind::Provision(Provision { tool, from, idempotent: Idempotent::Fail }))
    };
    let (directory, cache) = (bench.recipe_dir(), bench.dir.path().join("cache"));
    std::fs::create_dir(&cache).expect("a directory");
    let bake = |recipe: &Recipe, offline| {
        let request = BakeRequest { offline, cache: &cache, ..request(recipe, &directory) };
        bake(&request, &bench.store, &ChrootSandbox, &|_| {}).map(drop)
    };
    bake(&debian(&[], vec![]), false).unwrap_or_else(|error| panic!("{error}"));
    let failed = bake(&debian(&[], vec![puppet(ToolFrom::Archive)]), true).expect_err("no network");
    let failed = format!("{failed:?}");
    assert!(failed.contains("the tool puppet") && failed.contains("NotCached"), "{failed}");
    let (failed, _) = baked(&bench, &debian(&[], vec![puppet(ToolFrom::Image)]));
    let failed = failed.map(drop).expect_err("the image has none").to_string();
    assert!(failed.contains("uses the puppet of the image, which has none"), "{failed}");
}

#[test]
fn root_puppet_applies_a_manifest_and_names_what_fails() {
    let bench = Bench::new();
    let puppet = || {
        Tool::Puppet(Puppet {
            manifest: "manifests/site.pp".into(),
            modules: vec!["modules".into()],
            hiera: None,
            facts: [("role".to_owned(), "web".to_owned())].into(),
        })
    };
    bench.write(
        "modules/motd/manifests/init.pp",
        "class motd { file { '/etc/motd': content => \"${facts['role']}\\n\" } }\n",
    );
    bench.write(
        "manifests/site.pp",
        "include motd\nuser { 'app': ensure => present, system => true }\nservice { 'cron': ensure => running, enable => true }\n",
    );
    let recipe = || debian(&["cron", "passwd"], vec![provision(puppet(), Idempotent::Fail)]);
    let (result, events) = baked(&bench, &recipe());
    let image = result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read(&bench, &image, "/etc/motd").as_deref(), Some("web\n"));
    let changed = resources(&events, State::Changed);
    assert!(changed.contains(&"modules/motd/manifests/init.pp:1: File[/etc/motd]".to_owned()), "{changed:?}");
    assert!(warnings(&events).contains("not started: cron.service ("), "{}", warnings(&events));
    let tree = bench.store.tree(&image.image).expect("a tree");
    let left: Vec<_> =
        tree.entries().into_iter().map(|e| e.path).filter(|p| p.to_string_lossy().contains("puppet")).collect();
    assert!(left.is_empty(), "{left:?}");
    let case = |manifest: &str| {
        bench.write("manifests/site.pp", manifest);
        baked(&bench, &recipe()).0.map(drop).expect_err("it fails").to_string()
    };
    assert!(case("\nexec { '/bin/false': }\n").contains("manifests/site.pp:2: Exec[/bin/false]: "));
    assert!(case("\n\nfile { '/etc/motd' content => 'x' }\n").contains("manifests/site.pp:3: the manifest: "));
    assert!(case("exec { '/bin/date': }\n").contains("changes\n  manifests/site.pp:1: Exec[/bin/date]"));
}

#[test]
fn root_cfengine_runs_a_policy_and_names_what_is_not_kept() {
    let bench = Bench::new();
    let cfengine =
        || Tool::Cfengine(Cfengine { policy: "policy.cf".into(), bundles: vec!["web".into()], classes: vec![] });
    let recipe = || debian(&[], vec![provision(cfengine(), Idempotent::Fail)]);
    let policy = |promises: &str| {
        let stdlib = "body file control { inputs => { \"$(sys.libdir)/stdlib.cf\" }; }\n";
        format!("{stdlib}bundle agent web\n{{\n{promises}\n}}\n")
    };
    bench.write("policy.cf", &policy("files: \"/etc/motd\" create => \"true\", edit_line => insert_lines(\"hi\");"));
    let (result, events) = baked(&bench, &recipe());
    let image = result.unwrap_or_else(|error| panic!("{error}"));
    assert!(read(&bench, &image, "/etc/motd").expect("there").ends_with("hi\n"));
    assert_eq!(resources(&events, State::Changed), ["policy.cf:4: files '/etc/motd'"]);
    let tree = bench.store.tree(&image.image).expect("a tree");
    let left: Vec<_> =
        tree.entries().into_iter().map(|e| e.path).filter(|p| p.to_string_lossy().contains("cfengine")).collect();
    assert!(left.is_empty(), "{left:?}");
    let case = |text: String| {
        bench.write("policy.cf", &text);
        baked(&bench, &recipe()).0.map(drop).expect_err("it fails").to_string()
    };
    let failed = case(policy("commands: \"/bin/false\";"));
    assert!(failed.contains("commands '/bin/false': "), "{failed}");
    let failed = case(policy("commands \"/bin/false\";"));
    assert!(failed.contains("policy.cf:4: the policy: "), "{failed}");
}

/// The image's own CFEngine, with the standard library that its package has; the policy's work leaves nothing in its directories.
#[test]
fn root_cfengine_of_the_image_runs_a_policy() {
    let bench = Bench::new();
    let told = || Tool::Cfengine(Cfengine { policy: "policy.cf".into(), bundles: vec!["web".into()], classes: vec![] });
    let recipe = |packages: &[&str]| {
        let kind = Provision { tool: told(), from: ToolFrom::Image, idempotent: Idempotent::Fail };
        let mut step = provision(told(), Idempotent::Fail);
        step.kind = StepKind::Provision(kind);
        debian(packages, vec![step])
    };
    let policy = |promises: &str| {
        let stdlib = "body file control { inputs => { \"$(sys.libdir)/stdlib.cf\" }; }\n";
        format!("{stdlib}bundle agent web\n{{\n{promises}\n}}\n")
    };
    let promises = "files: \"/etc/motd\" edit_defaults => no_backup, edit_line => insert_lines(\"hi\");";
    bench.write("policy.cf", &policy(promises));
    let (result, _) = baked(&bench, &debian(&["cfengine3"], vec![]));
    let before = entries(&bench, &result.unwrap_or_else(|error| panic!("{error}")));
    let (result, events) = baked(&bench, &recipe(&["cfengine3"]));
    let image = result.unwrap_or_else(|error| panic!("{error}"));
    assert!(read(&bench, &image, "/etc/motd").expect("there").ends_with("hi\n"));
    assert_eq!(resources(&events, State::Changed), ["policy.cf:4: files '/etc/motd'"]);
    assert!(read(&bench, &image, "/var/lib/dpkg/status").expect("there").contains("Package: cfengine3\n"));
    let after = entries(&bench, &image);
    let differing: Vec<_> = after.symmetric_difference(&before).collect();
    assert!(differing.is_empty(), "the file that was promised was there before: {differing:?}");
    let case = |packages: &[&str], text: String| {
        bench.write("policy.cf", &text);
        baked(&bench, &recipe(packages)).0.map(drop).expect_err("it fails").to_string()
    };
    let failed = case(&["cfengine3"], policy("commands: \"/bin/false\";"));
    assert!(failed.contains("commands '/bin/false': "), "{failed}");
    let failed = case(&["cfengine3"], policy("commands \"/bin/false\";"));
    assert!(failed.contains("policy.cf:4: the policy: "), "{failed}");
    let failed = case(&[], policy("commands: \"/bin/true\";"));
    assert!(failed.contains("uses the cfengine of the image, which has none"), "{failed}");
}

/// What the image's own tools see is what the image has: Puppet its modules, cloud-init its templates.
#[test]
fn root_other_tools_of_the_image_do_as_those_of_the_archive() {
    let bench = Bench::new();
    let from_image = |tool: Tool| {
        let mut step = provision(tool.clone(), Idempotent::Unchecked);
        step.kind = StepKind::Provision(Provision { tool, from: ToolFrom::Image, idempotent: Idempotent::Unchecked });
        step
    };
    let puppet = Tool::Puppet(Puppet {
        manifest: "site.pp".into(),
        modules: vec!["modules".into()],
        hiera: None,
        facts: [].into(),
    });
    bench.write("modules/motd/manifests/init.pp", "class motd { file { '/etc/motd': content => from::image() } }\n");
    bench.write("image/functions/image.pp", "function from::image() { \"puppet\\n\" }\n");
    bench.write("site.pp", "include motd\n");
    let copy = StepKind::Copy {
        from: "image/functions".into(),
        to: "/usr/share/puppet/modules/from/functions".into(),
        owner: "root".into(),
        mode: None,
    };
    let cloud_init = Tool::CloudInit(CloudInit { user_data: "user-data.yaml".into() });
    bench.write("user-data.yaml", "#cloud-config\nwrite_files:\n  - { path: /etc/cloud-was-here, content: cloud }\n");
    bench.write("site.yml", "- hosts: all\n  tasks:\n  - copy: { dest: /etc/ansible-was-here, content: ansible }\n");
    let tools = [puppet, cloud_init.clone(), ansible("site.yml")].map(from_image);
    let steps = [step("module", copy)].into_iter().chain(tools).collect();
    let (result, _) = baked(&bench, &debian(&["puppet-agent", "cloud-init", "ansible-core", "passwd"], steps));
    let image = result.unwrap_or_else(|error| panic!("{error}"));
    for (path, content) in
        [("/etc/motd", "puppet\n"), ("/etc/cloud-was-here", "cloud"), ("/etc/ansible-was-here", "ansible")]
    {
        assert_eq!(read(&bench, &image, path).as_deref(), Some(content));
    }
    assert!(!read(&bench, &image, "/etc/passwd").expect("there").contains("debian:"), "nobody asked for a user");
    // What it runs with is there, and it is not.
    let (failed, _) = baked(&bench, &debian(&["python3-yaml"], vec![from_image(cloud_init)]));
    let failed = failed.map(drop).expect_err("there is none").to_string();
    assert!(failed.contains("uses the cloud-init of the image, which has none"), "{failed}");
}

/// Every path of an image.
fn entries(bench: &Bench, image: &Baked) -> BTreeSet<PathBuf> {
    let tree = bench.store.tree(&image.image).expect("a tree");
    tree.entries().into_iter().map(|entry| entry.path).collect()
}

const USER_DATA: &str = "\
#cloud-config
hostname: web1
users:
  - name: deploy
    system: true
write_files:
  - path: /etc/motd
    content: hello
runcmd:
  - echo ran >> /etc/ran
  - systemctl restart cron
growpart: { mode: auto }
";

#[test]
fn root_cloud_init_applies_what_is_for_an_image_and_names_the_rest() {
    let bench = Bench::new();
    let told = || Tool::CloudInit(CloudInit { user_data: "user-data.yaml".into() });
    let bake = |text: &str| {
        bench.write("user-data.yaml", text);
        baked(&bench, &debian(&["cron", "passwd"], vec![provision(told(), Idempotent::Unchecked)]))
    };
    let (result, events) = bake(USER_DATA);
    let image = result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read(&bench, &image, "/etc/motd").as_deref(), Some("hello"));
    assert_eq!(read(&bench, &image, "/etc/ran").as_deref(), Some("ran\n"));
    assert!(read(&bench, &image, "/etc/passwd").expect("there").contains("deploy:"));
    let changed = ["user-data.yaml:6: write-files", "user-data.yaml:3: users-groups", "user-data.yaml:9: scripts-user"];
    assert_eq!(resources(&events, State::Changed), changed);
    let warned = warnings(&events);
    assert!(warned.contains("left out: user-data.yaml:12 growpart, user-data.yaml:2 hostname ("), "{warned}");
    assert!(warned.contains("not started: cron.service ("), "{warned}");
    let tree = bench.store.tree(&image.image).expect("a tree");
    let left: Vec<_> =
        tree.entries().into_iter().map(|e| e.path).filter(|p| p.to_string_lossy().contains("cloud")).collect();
    assert!(left.is_empty(), "{left:?}");
    for (text, told) in [
        ("#cloud-config\nruncmd: 7\n", "user-data.yaml:2: the user-data: runcmd: 7 is not of type"),
        ("#cloud-config\n\nruncmd: [\n", "user-data.yaml:4: the user-data: "),
        ("#cloud-config\nruncmd: [ /bin/false ]\nlocale: C.UTF-8\n", "user-data.yaml:2: scripts-user: "),
    ] {
        let failed = bake(text).0.map(drop).expect_err("it fails").to_string();
        assert!(failed.contains(told), "{told}: {failed}");
    }
}

/// Chef is in no archive of Debian. What is told it, and what is heard of it, is tried with a program in its place, which
/// carries out nothing.
#[test]
fn root_chef_is_called_as_its_manual_says() {
    let bench = Bench::new();
    let told = Chef {
        run_list: vec!["recipe[web]".into()],
        cookbooks: vec!["cookbooks".into()],
        data_bags: None,
        roles: None,
        attributes: serde_json::from_str(r#"{ "web": { "port": 8080 } }"#).expect("JSON"),
    };
    bench.write("cookbooks/web/recipes/default.rb", "file '/etc/motd'\n");
    let from = |from| {
        let mut step = provision(Tool::Chef(told.clone()), Idempotent::Fail);
        step.kind =
            StepKind::Provision(Provision { tool: Tool::Chef(told.clone()), from, idempotent: Idempotent::Fail });
        step
    };
    let place = "/run/kiln/recipe/cookbooks/web/recipes/default.rb";
    let program = format!(
        "#!/bin/sh\n[ \"$*\" = '--config /run/kiln/provision/solo.rb --json-attributes /run/kiln/provision/node.json --no-color \
         --log_level warn' ] || exit 7\ngrep -q '\"run_list\":\\[\"recipe\\[web\\]\"\\]' $4 || exit 8\n\
         grep -q '^cookbook_path \\[\"/run/kiln/recipe/cookbooks\"\\]$' $2 || exit 9\n[ -e {place} ] || exit 10\n\
         [ -e /etc/chef-was-here ] && exit 0\necho hi > /etc/chef-was-here\n\
         printf '\\036{{\"event\":\"result\",\"state\":\"changed\",\"what\":\"file[/etc/motd]\",\"file\":\"{place}\",\"line\":1}}\\n'\n"
    );
    bench.write("cinc-solo", &program);
    let copy = StepKind::Copy {
        from: "cinc-solo".into(),
        to: "/usr/local/bin/cinc-solo".into(),
        owner: "root".into(),
        mode: Some(0o755),
    };
    let (result, events) = baked(&bench, &debian(&[], vec![step("stand-in", copy), from(ToolFrom::Image)]));
    let image = result.unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(read(&bench, &image, "/etc/chef-was-here").as_deref(), Some("hi\n"));
    assert_eq!(resources(&events, State::Changed), ["cookbooks/web/recipes/default.rb:1: file[/etc/motd]"]);
    if !Path::new("/opt/cinc").exists() && !Path::new("/opt/chef").exists() {
        let failed = baked(&bench, &debian(&[], vec![from(ToolFrom::Host)])).0.map(drop).expect_err("there is none");
        assert!(failed.to_string().contains("this host has neither Cinc nor Chef"), "{failed}");
    }
}
