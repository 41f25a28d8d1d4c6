//! How each tool is called.

use kiln_model::recipe::provision::{Ansible, Cfengine, Chef, CloudInit, Puppet, Tool, ToolFrom};
use serde_json::json;

use super::{PROVISION, RECIPE, TOOL, files};

/// Where a tool may keep what it likes for the length of the step.
const HOME: &str = "/run/kiln/home";

/// A tool's call.
#[derive(Debug, Default)]
pub(super) struct Command {
    /// Program and arguments.
    pub(super) words: Vec<String>,
    /// Exit codes that are no failure, separated by commas.
    pub(super) good: &'static str,
    /// Variables of it alone.
    pub(super) environment: Vec<(String, String)>,
    /// Files that it is given below [`PROVISION`].
    pub(super) files: Vec<(&'static str, String)>,
}

impl Command {
    pub(super) fn of(tool: &Tool, from: ToolFrom) -> Self {
        let command = match tool {
            Tool::Ansible(told) => ansible(told, from),
            Tool::Puppet(told) => puppet(told, from),
            Tool::Cfengine(told) => cfengine(told),
            Tool::Chef(told) => chef(told),
            Tool::CloudInit(told) => cloud_init(told, from),
        };
        // systemctl does what it can without a systemd, also where it is called by its path.
        let environment = [("SYSTEMD_OFFLINE", "1")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        Self { environment: environment.into_iter().chain(command.environment).collect(), ..command }
    }
}

fn inside(path: &str) -> String {
    format!("{RECIPE}/{path}")
}

fn joined(paths: &[String]) -> String {
    paths.iter().map(|path| inside(path)).collect::<Vec<_>>().join(":")
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

fn ansible(told: &Ansible, from: ToolFrom) -> Command {
    let mut call = match from {
        ToolFrom::Archive => vec![format!("{PROVISION}/bin/python3"), format!("{TOOL}/usr/bin/ansible-playbook")],
        ToolFrom::Image | ToolFrom::Host => words(["ansible-playbook"]),
    };
    let own = format!("@{PROVISION}/variables.json");
    call.extend([("-i", format!("{PROVISION}/inventory.yml")), ("-e", own)].map(|(k, v)| [k.to_owned(), v]).concat());
    let tags = [("--tags", &told.tags), ("--skip-tags", &told.skip_tags)];
    for (option, tags) in tags.into_iter().filter(|(_, tags)| !tags.is_empty()) {
        call.extend([option.to_owned(), tags.join(",")]);
    }
    call.push(inside(&told.playbook));
    let paths = [("ANSIBLE_ROLES_PATH", &told.roles), ("ANSIBLE_COLLECTIONS_PATH", &told.collections)];
    let paths = paths.into_iter().filter(|(_, paths)| !paths.is_empty()).map(|(name, paths)| (name, joined(paths)));
    let environment = [
        ("ANSIBLE_BECOME_METHOD", "su".to_owned()),
        ("ANSIBLE_CALLBACK_PLUGINS", format!("{PROVISION}/plugins")),
        ("ANSIBLE_HOME", format!("{HOME}/ansible")),
        ("ANSIBLE_LOCALHOST_WARNING", "false".to_owned()),
        ("ANSIBLE_NOCOLOR", "1".to_owned()),
        ("ANSIBLE_PIPELINING", "true".to_owned()),
        ("ANSIBLE_REMOTE_TEMP", format!("{HOME}/remote")),
        ("ANSIBLE_RETRY_FILES_ENABLED", "false".to_owned()),
    ];
    Command {
        words: call,
        good: "0",
        environment: environment.into_iter().chain(paths).map(|(name, value)| (name.to_owned(), value)).collect(),
        files: vec![
            ("inventory.yml", inventory(told, from)),
            ("variables.json", serde_json::Value::Object(told.variables.clone()).to_string()),
        ],
    }
}

/// JSON is YAML.
fn inventory(told: &Ansible, from: ToolFrom) -> String {
    let python = match from {
        ToolFrom::Archive => format!("{PROVISION}/bin/python3"),
        ToolFrom::Image | ToolFrom::Host => "{{ ansible_playbook_python }}".to_owned(),
    };
    let host = json!({
        "ansible_connection": "local",
        "ansible_python_interpreter": python,
        "ansible_user": "root",
    });
    let member = |group: &String| (group.clone(), json!({ "hosts": { told.host.as_str(): {} } }));
    let groups: serde_json::Map<_, _> = told.groups.iter().map(member).collect();
    json!({ "all": { "hosts": { told.host.as_str(): host }, "children": groups } }).to_string()
}

fn puppet(told: &Puppet, from: ToolFrom) -> Command {
    let mut call = match from {
        ToolFrom::Archive => vec![format!("{PROVISION}/bin/ruby")],
        ToolFrom::Image | ToolFrom::Host => words(["ruby"]),
    };
    call.push(format!("-r{PROVISION}/plugins/kiln.rb"));
    call.extend(match from {
        ToolFrom::Archive => vec![format!("{TOOL}/usr/bin/puppet")],
        ToolFrom::Image | ToolFrom::Host => words(["-S", "puppet"]),
    });
    call.extend(words(["apply", "--color=false", "--detailed-exitcodes", "--report", "--reports=kiln"]));
    for place in ["confdir", "codedir", "vardir", "logdir", "rundir", "publicdir", "ssldir"] {
        call.push(format!("--{place}={HOME}/puppet/{place}"));
    }
    if from == ToolFrom::Archive {
        call.push(format!("--basemodulepath={TOOL}/usr/share/puppet/modules"));
    }
    if !told.modules.is_empty() {
        call.push(format!("--modulepath={}:$basemodulepath", joined(&told.modules)));
    }
    call.extend(told.hiera.iter().map(|hiera| format!("--hiera_config={}", inside(hiera))));
    call.push(inside(&told.manifest));
    let environment = told.facts.iter().map(|(name, value)| (format!("FACTER_{name}"), value.clone())).collect();
    Command { words: call, good: "0,2", environment, files: Vec::new() }
}

/// The agent's own words are read ([`super::report`]); it exits with 0 whatever became of its promises.
fn cfengine(told: &Cfengine) -> Command {
    let mut call = vec![format!("{PROVISION}/bin/cf-run")];
    call.extend(words(["--no-lock", "--verbose", "--color=never", "--file"]));
    call.push(inside(&told.policy));
    let lists = [("--bundlesequence", &told.bundles), ("--define", &told.classes)];
    for (option, names) in lists.into_iter().filter(|(_, names)| !names.is_empty()) {
        call.extend([option.to_owned(), names.join(",")]);
    }
    Command { words: call, good: "0", ..Command::default() }
}

/// Its configuration is what <https://docs.chef.io/config_rb_solo/> says, its results come by
/// <https://docs.chef.io/handlers/#event-handlers>.
fn chef(told: &Chef) -> Command {
    let mut call = vec![format!("{PROVISION}/bin/chef-run")];
    call.extend(
        [("--config", "solo.rb"), ("--json-attributes", "node.json")]
            .map(|(k, v)| [k.to_owned(), format!("{PROVISION}/{v}")])
            .concat(),
    );
    call.extend(words(["--no-color", "--log_level", "warn"]));
    let cookbooks: Vec<_> = told.cookbooks.iter().map(|path| inside(path)).collect();
    let one = |name: &str, path: &Option<String>| {
        path.as_ref().map(|path| format!("{name} {}\n", json!(inside(path)))).unwrap_or_default()
    };
    let solo = format!(
        "require '{PROVISION}/chef.rb'\ncookbook_path {}\nfile_cache_path '{HOME}/chef/cache'\n\
         file_backup_path '{HOME}/chef/backup'\ncache_path '{HOME}/chef'\nchef_license 'accept-no-persist'\n\
         solo true\n{}{}",
        json!(cookbooks),
        one("data_bag_path", &told.data_bags),
        one("role_path", &told.roles),
    );
    let mut node = told.attributes.clone();
    node.insert("run_list".to_owned(), json!(told.run_list));
    Command {
        words: call,
        good: "0",
        files: vec![
            ("chef.rb", files::CHEF_HANDLER.to_owned()),
            ("solo.rb", solo),
            ("node.json", serde_json::Value::Object(node).to_string()),
        ],
        ..Command::default()
    }
}

fn cloud_init(told: &CloudInit, from: ToolFrom) -> Command {
    let (python, templates) = match from {
        ToolFrom::Archive => (format!("{PROVISION}/bin/python3"), format!("{TOOL}/etc/cloud/templates")),
        ToolFrom::Image | ToolFrom::Host => ("python3".to_owned(), "/etc/cloud/templates".to_owned()),
    };
    let words = vec![python, format!("{PROVISION}/cloud.py"), inside(&told.user_data), templates];
    Command { words, good: "0", files: vec![("cloud.py", files::CLOUD.to_owned())], ..Command::default() }
}
