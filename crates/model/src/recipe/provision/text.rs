//! The text form of steps for configuration tools.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::{
    super::{Base, FileKind, Step, StepKind, check, text::Context, text::Placed},
    Ansible, Cfengine, Chef, CloudInit, Idempotent, Provision, Puppet, Tool, ToolFrom,
};
use crate::{
    diagnostic::shown,
    text::{Keys, Table, Value},
};

/// The keys of an `ansible` step.
pub(crate) const ANSIBLE: Keys = Keys {
    of: "an `ansible` step",
    valid: &[
        "name",
        "ansible",
        "roles",
        "collections",
        "variables",
        "host",
        "groups",
        "tags",
        "skip_tags",
        "tool",
        "idempotent",
        "environment",
        "network",
        "time_limit",
    ],
};
/// The keys of a `puppet` step.
pub(crate) const PUPPET: Keys = Keys {
    of: "a `puppet` step",
    valid: &[
        "name",
        "puppet",
        "modules",
        "hiera",
        "facts",
        "tool",
        "idempotent",
        "environment",
        "network",
        "time_limit",
    ],
};
/// The keys of a `cfengine` step.
pub(crate) const CFENGINE: Keys = Keys {
    of: "a `cfengine` step",
    valid: &["name", "cfengine", "bundles", "classes", "tool", "idempotent", "environment", "network", "time_limit"],
};
/// The keys of a `chef` step.
pub(crate) const CHEF: Keys = Keys {
    of: "a `chef` step",
    valid: &[
        "name",
        "chef",
        "cookbooks",
        "data_bags",
        "roles",
        "attributes",
        "tool",
        "idempotent",
        "environment",
        "network",
        "time_limit",
    ],
};
/// The keys of a `cloud-init` step.
pub(crate) const CLOUD_INIT: Keys =
    Keys { of: "a `cloud-init` step", valid: &["name", "cloud-init", "tool", "environment", "network", "time_limit"] };

const ARCHIVE: [(&str, ToolFrom); 2] = [("archive", ToolFrom::Archive), ("image", ToolFrom::Image)];
const HOST: [(&str, ToolFrom); 2] = [("host", ToolFrom::Host), ("image", ToolFrom::Image)];

/// Reads a step whose verb is a tool's.
pub(in crate::recipe) fn read(
    verb: &str,
    table: &Table<'_>,
    source: &Value<'_>,
    context: &Context<'_>,
) -> (Keys, Option<StepKind>) {
    let (keys, tool) = match verb {
        "ansible" => (ANSIBLE, ansible(table, source, context).map(Tool::Ansible)),
        "puppet" => (PUPPET, puppet(table, source, context).map(Tool::Puppet)),
        "cfengine" => (CFENGINE, cfengine(table, source, context).map(Tool::Cfengine)),
        "chef" => (CHEF, chef(table, source, context).map(Tool::Chef)),
        _ => (CLOUD_INIT, cloud_init(source, context).map(Tool::CloudInit)),
    };
    let places = if verb == "chef" { HOST } else { ARCHIVE };
    let from = table.get("tool").map_or(Some(places[0].1), |v| v.word(&places));
    // cloud-init does not say what it changed.
    let usual = if verb == "cloud-init" { Idempotent::Unchecked } else { Idempotent::Fail };
    let idempotent = table.get("idempotent").map_or(Some(usual), |v| idempotent(&v));
    let kind = || Some(StepKind::Provision(Provision { tool: tool?, from: from?, idempotent: idempotent? }));
    (keys, kind())
}

fn idempotent(value: &Value<'_>) -> Option<Idempotent> {
    match value.as_text() {
        Some("warn") => Some(Idempotent::Warn),
        Some(_) => value.wrong("true, false or \"warn\"", "\"warn\""),
        None => value.boolean().map(|checked| if checked { Idempotent::Fail } else { Idempotent::Unchecked }),
    }
}

fn ansible(table: &Table<'_>, source: &Value<'_>, context: &Context<'_>) -> Option<Ansible> {
    let playbook = file(source, "\"site.yml\"", context);
    let roles = directories(table, "roles", context);
    let collections = directories(table, "collections", context);
    let variables = object(table, "variables", "{ nginx_port = 8080 }");
    let host = table.get("host").map_or(Some("localhost".to_owned()), |v| v.checked("\"web1\"", word));
    let groups = words(table, "groups", "[\"web\"]");
    let tags = words(table, "tags", "[\"install\"]");
    let skip_tags = words(table, "skip_tags", "[\"reboot\"]");
    Some(Ansible {
        playbook: playbook?,
        roles: roles?,
        collections: collections?,
        variables: variables?,
        host: host?,
        groups: groups?,
        tags: tags?,
        skip_tags: skip_tags?,
    })
}

fn puppet(table: &Table<'_>, source: &Value<'_>, context: &Context<'_>) -> Option<Puppet> {
    let manifest = present(source, "\"manifests/site.pp\"", context).map(|(path, _)| path);
    let modules = directories(table, "modules", context);
    let hiera = table.get("hiera").map_or(Some(None), |v| file(&v, "\"hiera.yaml\"", context).map(Some));
    let facts = table.get("facts").map_or(Some(BTreeMap::new()), |v| facts(&v));
    Some(Puppet { manifest: manifest?, modules: modules?, hiera: hiera?, facts: facts? })
}

fn facts(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let fact = |name: &str| {
        let good = name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if good && !name.is_empty() { Ok(()) } else { Err(format!("`{}` is not the name of a fact", shown(name))) }
    };
    let pairs = value.map("{ role = \"web\" }")?;
    let read = pairs.entries().map(|entry| match fact(entry.key) {
        Ok(()) => Some((entry.key.to_owned(), entry.value.checked("\"web\"", check::argument)?)),
        Err(message) => entry.place.report(message, "write a-z, 0-9 and `_`: `role = \"web\"`"),
    });
    read.collect::<Vec<_>>().into_iter().collect()
}

fn cfengine(table: &Table<'_>, source: &Value<'_>, context: &Context<'_>) -> Option<Cfengine> {
    let policy = file(source, "\"policy.cf\"", context);
    let bundles = words(table, "bundles", "[\"web\"]");
    let classes = words(table, "classes", "[\"web\"]");
    Some(Cfengine { policy: policy?, bundles: bundles?, classes: classes? })
}

fn chef(table: &Table<'_>, source: &Value<'_>, context: &Context<'_>) -> Option<Chef> {
    let example = "[\"recipe[web]\"]";
    let items: Vec<_> = source.list(example)?.iter().map(|item| item.checked(example, run_item)).collect();
    let run_list = match items.into_iter().collect::<Option<Vec<_>>>() {
        Some(list) if list.is_empty() => source.wrong("a list with something in it", example),
        list => list,
    };
    let cookbooks = table
        .required("cookbooks", "cookbooks = [\"cookbooks\"]")
        .and_then(|_| directories(table, "cookbooks", context));
    let one = |key: &'static str| table.get(key).map_or(Some(None), |v| directory(&v, "\"roles\"", context).map(Some));
    let (data_bags, roles) = (one("data_bags"), one("roles"));
    let attributes = object(table, "attributes", "{ web = { port = 8080 } }");
    Some(Chef {
        run_list: run_list?,
        cookbooks: cookbooks?,
        data_bags: data_bags?,
        roles: roles?,
        attributes: attributes?,
    })
}

/// `recipe[web::install]`, `role[base]`, `web`.
fn run_item(text: &str) -> Result<(), String> {
    let name = ["recipe[", "role["].iter().find_map(|kind| text.strip_prefix(kind)?.strip_suffix(']')).unwrap_or(text);
    let good = |b: u8| b.is_ascii_alphanumeric() || b"_-:@.".contains(&b);
    match !name.is_empty() && name.len() <= 128 && name.bytes().all(good) {
        true => Ok(()),
        false => Err(format!("`{}` is no item of a run list: write `recipe[web]` or `role[base]`", shown(text))),
    }
}

fn cloud_init(source: &Value<'_>, context: &Context<'_>) -> Option<CloudInit> {
    file(source, "\"user-data.yaml\"", context).map(|user_data| CloudInit { user_data })
}

fn object(table: &Table<'_>, key: &'static str, example: &str) -> Option<Map<String, Json>> {
    let Some(value) = table.get(key) else { return Some(Map::new()) };
    match value.map(example).and_then(|_| value.json(example))? {
        Json::Object(object) => Some(object),
        _ => None,
    }
}

fn words(table: &Table<'_>, key: &'static str, example: &str) -> Option<Vec<String>> {
    let Some(value) = table.get(key) else { return Some(Vec::new()) };
    let items: Vec<_> = value.list(example)?.iter().map(|item| item.checked(example, word)).collect();
    items.into_iter().collect()
}

fn word(text: &str) -> Result<(), String> {
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    let good = first && text.len() <= 128 && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.:".contains(&b));
    if good { Ok(()) } else { Err(format!("`{}` is not a name: write letters, digits, `_`, `-`, `.`", shown(text))) }
}

fn directories(table: &Table<'_>, key: &'static str, context: &Context<'_>) -> Option<Vec<String>> {
    let Some(value) = table.get(key) else { return Some(Vec::new()) };
    let example = "[\"shared/roles\"]";
    let items: Vec<_> = value.list(example)?.iter().map(|item| directory(item, example, context)).collect();
    items.into_iter().collect()
}

fn directory(value: &Value<'_>, example: &str, context: &Context<'_>) -> Option<String> {
    match present(value, example, context)? {
        (path, FileKind::Directory) => Some(path),
        (path, _) => value.place.report(format!("`{}` is not a directory", shown(&path)), "name the directory itself"),
    }
}

fn file(value: &Value<'_>, example: &str, context: &Context<'_>) -> Option<String> {
    match present(value, example, context)? {
        (path, FileKind::File) => Some(path),
        (path, _) => value.place.report(format!("`{}` is not a file", shown(&path)), "name the file itself"),
    }
}

fn present(value: &Value<'_>, example: &str, context: &Context<'_>) -> Option<(String, FileKind)> {
    let path = value.checked(example, check::recipe_path)?;
    let help = "paths are relative to the directory of the recipe";
    match context.files.kind(&path) {
        Ok(Some(FileKind::Other)) => {
            value.place.report(format!("`{}` is neither a file nor a directory", shown(&path)), help)
        }
        Ok(Some(kind)) => Some((path.trim_start_matches("./").trim_end_matches('/').to_owned(), kind)),
        Ok(None) => value.place.report(format!("there is no `{}` beside the recipe", shown(&path)), help),
        Err(problem) => value.place.report(format!("`{}` cannot be used: {problem}", shown(&path)), help),
    }
}

/// Reports steps whose tool Kiln cannot bake, because there is no archive to take it from.
pub(in crate::recipe) fn tools_need_an_archive(base: &Base, steps: &[Placed<'_, Step>]) {
    for (step, place) in steps {
        let StepKind::Provision(provision) = &step.kind else { continue };
        let name = provision.tool.name();
        let missing = match base {
            _ if provision.from != ToolFrom::Archive => continue,
            Base::Debian(_) => continue,
            Base::Image(_) | Base::Oci(_) | Base::Containerfile(_) => {
                format!("{name} is baked from the packages of a Debian or Ubuntu base, which this recipe does not have")
            }
        };
        place.report::<()>(
            missing,
            format!("install {name} in the image and write `tool = \"image\"`, which uses what is installed there"),
        );
    }
}
