//! Files of Kiln's own that a tool's step sees.

use kiln_model::Digest;

use super::TOOL;
use crate::bake::key::Key;

/// Process 1 of the step.
pub(super) const DRIVER: &str = include_str!("inside/systemd");
/// What stands before the programs that start services.
pub(super) const SERVICE: &str = include_str!("inside/service");
/// Their names, as far as they are looked up in `PATH`.
pub(super) const SERVICE_NAMES: [&str; 11] = [
    "halt",
    "initctl",
    "invoke-rc.d",
    "poweroff",
    "rc-service",
    "reboot",
    "service",
    "shutdown",
    "sysctl",
    "systemctl",
    "telinit",
];
/// What runs inside a tool and reports its results.
pub(super) const PLUGINS: [(&str, &str); 2] =
    [("kiln.py", include_str!("inside/kiln.py")), ("kiln.rb", include_str!("inside/kiln.rb"))];

/// cloud-init's part, run by Python.
pub(super) const CLOUD: &str = include_str!("inside/cloud.py");
/// Chef's part, read with its configuration.
pub(super) const CHEF_HANDLER: &str = include_str!("inside/chef.rb");

const CHEF: &str = include_str!("inside/chef-run");
const CFENGINE: &str = include_str!("inside/cf-run");

/// The machine's name in paths of libraries, and the loader of programs.
const MACHINE: (&str, &str) = if cfg!(target_arch = "aarch64") {
    ("aarch64-linux-gnu", "lib/ld-linux-aarch64.so.1")
} else {
    ("x86_64-linux-gnu", "lib64/ld-linux-x86-64.so.2")
};

/// Programs that start those of the tool's tree with its own loader and libraries.
pub(super) fn programs(tool: &str) -> Vec<(&'static str, String)> {
    match tool {
        "ansible" | "cloud-init" => vec![("python3", python())],
        "chef" => vec![("chef-run", CHEF.to_owned())],
        "puppet" => vec![("ruby", ruby())],
        "cfengine" => vec![
            ("cf-run", CFENGINE.to_owned()),
            ("cf-agent", started("usr/bin/cf-agent", "", "")),
            ("cf-promises", started("usr/bin/cf-promises", "", "")),
        ],
        _ => Vec::new(),
    }
}

/// `cryptography` looks for a module of OpenSSL that is beside the library in the archive's layout.
fn python() -> String {
    let modules = format!("export OPENSSL_MODULES={TOOL}/usr/lib/{}/ossl-modules\n", MACHINE.0);
    started("usr/bin/python3", &modules, "")
}

/// Ruby has the places of its library and of its gems compiled in; the plugin takes the variables back.
fn ruby() -> String {
    let machine = MACHINE.0;
    let find = format!(
        "for v in {TOOL}/usr/lib/ruby/[0-9]*; do v=${{v##*/}}; done\n\
         l={TOOL}/usr/lib/ruby m={TOOL}/usr/lib/{machine}/ruby\n\
         g={TOOL}/usr/share/rubygems-integration h={TOOL}/usr/lib/{machine}/rubygems-integration\n\
         export GEM_HOME=/run/kiln/home/gems GEM_PATH=$g/all:$g/$v:$h/$v\n"
    );
    let places = " --disable-gems -I$l/vendor_ruby -I$l/vendor_ruby/$v -I$m/vendor_ruby/$v -I$l/$v -I$m/$v";
    started("usr/bin/ruby", &find, places)
}

fn started(program: &str, before: &str, arguments: &str) -> String {
    let (machine, loader) = MACHINE;
    format!(
        "#!/bin/sh\nt={TOOL}\n{before}exec $t/{loader} --inhibit-cache \
         --library-path $t/lib/{machine}:$t/usr/lib/{machine}:$t/usr/lib --argv0 \"$0\" $t/{program}{arguments} \"$@\"\n"
    )
}

/// Stands for all of them: a step that another Kiln carried out differently is carried out again.
pub(super) fn digest() -> Digest {
    let texts =
        [DRIVER, SERVICE, CFENGINE, CHEF, CHEF_HANDLER, CLOUD].into_iter().chain(PLUGINS.iter().map(|(_, text)| *text));
    let programs = ["ansible", "puppet", "cfengine", "cloud-init"].into_iter().flat_map(programs).map(|(_, text)| text);
    Key::new("files", None).parts(texts.map(str::to_owned).chain(programs)).done()
}
