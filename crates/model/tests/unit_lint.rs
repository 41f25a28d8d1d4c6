//! What `kiln config lint` says of a recipe and its fleets.

mod common;

use std::collections::BTreeSet;

use common::recipe;
use kiln_model::{
    config::{ConfigKey, Finding, lint},
    fleet::{FleetFiles, FleetText},
};

fn files(base: &str, over: Option<&str>) -> FleetFiles {
    let named = |file: &str, text: &str| FleetText { file: file.to_owned(), text: text.to_owned() };
    FleetFiles::parse(named("fleet.toml", base), over.map(|text| named("fleet.staging.toml", text))).unwrap()
}

fn keys(names: &[&str]) -> BTreeSet<ConfigKey> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

const START: &str = "name = \"hello\"\nbase = { debian = \"bookworm\" }\n";

#[test]
fn unit_lint_names_what_nobody_reads_and_no_test_varies() {
    let text = format!(
        "{START}[service.web]\ncommand = \"sleep 1\"\nenvironment = {{ G = {{ config = \"greeting\" }} }}\n\
         [file.\"/run/app.conf\"]\ntemplate = \"app.conf.j2\"\n\
         [config.greeting]\ntype = \"string\"\ndefault = \"hi\"\n[config.workers]\ntype = \"integer\"\n\
         [config.motto]\ntype = \"string\"\noptional = true\n[config.asked]\ntype = \"boolean\"\ndefault = false\n\
         [config.beta]\ntype = \"boolean\"\ndefault = false\nlive = true\n\
         [[test.matrix]]\nname = \"most\"\nconfig = {{ workers = 64, asked = true, beta = true }}\n"
    );
    let fleet = files("[group.web]\nimage = \"hello\"\nconfig = { workers = 4 }\n", None);
    let found = lint(&recipe(&text).unwrap(), &[fleet], Some(&keys(&["asked", "beta"])));
    let unread = Finding::Unread("motto".parse().unwrap());
    let unvaried = ["greeting", "motto"].map(|key| Finding::Unvaried(key.parse().unwrap()));
    assert_eq!(found.findings, [vec![unread], unvaried.to_vec()].concat());
    assert!(found.unknown.is_empty() && found.by_group.is_empty() && found.by_environment.is_empty());
    let untested = lint(&recipe(&text).unwrap(), &[], None);
    assert_eq!(untested.unknown, keys(&["asked", "beta", "motto"]), "nobody knows what metadata was asked for");
}

#[test]
fn unit_lint_counts_what_differs_between_groups_and_environments() {
    let many: Vec<String> = (0..9).map(|n| format!("key{n}")).collect();
    let schema: String = many.iter().map(|key| format!("[config.{key}]\ntype = \"integer\"\ndefault = 0\n")).collect();
    let values = |value: u32| many.iter().map(|key| format!("{key} = {value}\n")).collect::<String>();
    let recipe = recipe(&format!("{START}{schema}")).unwrap();
    let base = format!(
        "[group.a]\nimage = \"hello\"\n[group.a.config]\n{}[group.b]\nimage = \"hello\"\n[group.other]\nimage = \"else\"\n\
         [group.other.config]\nkey0 = 7\n",
        values(1)
    );
    let over = format!("[group.a.config]\n{}", values(2));
    let fleets = [files(&base, None), files(&base, Some(&over))];
    let found = lint(&recipe, &fleets, Some(&BTreeSet::new()));
    assert_eq!((found.by_group.len(), found.by_environment.len()), (9, 9));
    assert_eq!(found.findings[..2], [Finding::BroadGroups(9), Finding::BroadEnvironments(9)]);
    let few = files("[group.a]\nimage = \"hello\"\n[group.b]\nimage = \"hello\"\nconfig = { key0 = 1 }\n", None);
    let found = lint(&recipe, &[few.clone(), few], Some(&BTreeSet::new()));
    assert_eq!((found.by_group, found.by_environment.len()), (keys(&["key0"]), 0));
}
