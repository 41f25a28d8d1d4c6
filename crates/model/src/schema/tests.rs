//! The schema and the parser know the same keys, and the published files are current.

use std::{collections::BTreeSet, path::Path};

use serde_json::Value;

use super::*;
use crate::{
    fleet::{
        drill, healing, logs, loss, overlay, rollout, scaling, shared, source, text as fleet_text, volume, window,
    },
    recipe::{
        archive, base, binding, config, file, provision::text as provision, service, step, test, text as recipe_text,
        writable,
    },
    text::Keys,
};

fn keys_of(schema: &Value, name: &str) -> BTreeSet<String> {
    let object = if name.is_empty() { schema } else { &schema["$defs"][name] };
    let properties = object["properties"].as_object().unwrap_or_else(|| panic!("{name} has no properties"));
    assert_eq!(object["additionalProperties"], Value::Bool(false), "{name} takes unknown keys");
    properties.keys().cloned().collect()
}

/// The parser's keys are those of these definitions together.
fn agree(schema: &Value, keys: Keys, definitions: &[&str]) {
    let published: BTreeSet<_> = definitions.iter().flat_map(|name| keys_of(schema, name)).collect();
    let parsed: BTreeSet<_> = keys.valid.iter().map(|key| (*key).to_owned()).collect();
    assert_eq!(parsed, published, "{} and {definitions:?} differ", keys.of);
}

#[test]
fn unit_recipe_parser_and_schema_know_the_same_keys() {
    let schema = of::<image::ImageToml>().to_value();
    agree(&schema, recipe_text::KEYS, &[""]);
    agree(&schema, base::KEYS, &["DebianBase", "UbuntuBase", "ImageBase", "OciBase", "ContainerfileBase"]);
    agree(&schema, archive::repository::KEYS, &["Repository"]);
    agree(&schema, step::COPY, &["CopyStep"]);
    agree(&schema, step::RUN, &["RunStep"]);
    agree(&schema, step::PACKAGES, &["PackagesStep"]);
    agree(&schema, step::REMOVE, &["RemoveStep"]);
    let tools = ["AnsibleStep", "PuppetStep", "CfengineStep", "ChefStep", "CloudInitStep"];
    let keys = [provision::ANSIBLE, provision::PUPPET, provision::CFENGINE, provision::CHEF, provision::CLOUD_INIT];
    keys.into_iter().zip(tools).for_each(|(keys, name)| agree(&schema, keys, &[name]));
    let kinds = [&["CopyStep", "RunStep", "PackagesStep", "RemoveStep"][..], &tools].concat();
    agree(&schema, step::ANY, &kinds);
    agree(&schema, service::KEYS, &["Service"]);
    agree(&schema, binding::KEYS, &["ServiceBinding"]);
    agree(&schema, config::KEYS, &["Key"]);
    agree(&schema, config::ITEMS, &["ItemsTable"]);
    agree(&schema, file::KEYS, &["File"]);
    agree(&schema, service::CONFIGURED, &["Configured"]);
    agree(&schema, service::PORT, &["SpokenPort"]);
    agree(&schema, service::READINESS, &["HttpReadiness", "TcpReadiness", "CommandReadiness"]);
    agree(&schema, service::LIVENESS, &["HttpLiveness", "TcpLiveness", "CommandLiveness"]);
    agree(&schema, service::STOP, &["Stop"]);
    agree(&schema, writable::KEYS, &["TmpfsWritable", "EphemeralWritable", "VolumeWritable", "SharedWritable"]);
    let kinds = [
        "HttpTest",
        "TcpTest",
        "CommandTest",
        "FileTest",
        "ProcessTest",
        "PackageTest",
        "ScriptTest",
        "GossTest",
        "TapTest",
        "JunitTest",
        "TestinfraTest",
        "PortTest",
        "UserTest",
    ];
    for (keys, name) in test::KINDS.into_iter().zip(kinds) {
        agree(&schema, keys, &[name]);
    }
    agree(&schema, test::ANY, &kinds);
    agree(&schema, test::SCRIPT, &["ScriptProgram"]);
    agree(&schema, test::matrix::KEYS, &["MatrixEntry"]);
}

#[test]
fn unit_fleet_parser_and_schema_know_the_same_keys() {
    let schema = of::<fleet::FleetToml>().to_value();
    agree(&schema, fleet_text::KEYS, &[""]);
    agree(&schema, logs::KEYS, &["Logs"]);
    agree(&schema, fleet_text::GROUP, &["Group"]);
    agree(&schema, fleet_text::LIMITS, &["Limits"]);
    agree(&schema, crate::fleet::publish::KEYS, &["Publish"]);
    agree(&schema, fleet_text::EVIDENCE, &["Evidence"]);
    agree(&schema, rollout::KEYS, &["Rollout"]);
    agree(&schema, volume::KEYS, &["Volume"]);
    agree(&schema, volume::SNAPSHOTS, &["Snapshots"]);
    agree(&schema, shared::KEYS, &["SharedHostDirectory", "SharedNfs"]);
    agree(&schema, healing::KEYS, &["Healing"]);
    agree(&schema, drill::KEYS, &["Drill"]);
    agree(&schema, loss::KEYS, &["Loss"]);
    agree(&schema, window::KEYS, &["Windows"]);
    agree(&schema, scaling::KEYS, &["Scaled"]);
    agree(&schema, scaling::target::TARGET, &["ScaleTarget"]);
    agree(&schema, scaling::target::CUSTOM, &["ScaleMetric"]);
    agree(&schema, scaling::PACE, &["ScalePace"]);
    agree(&schema, scaling::SCHEDULE, &["ScaleFloor"]);
    agree(&schema, source::SOURCE, &["Source"]);
    agree(&schema, source::PASSWORD, &["PasswordSource"]);
    agree(&schema, source::TLS, &["RegistryTls"]);
    let schema = of::<fleet::EnvironmentToml>().to_value();
    agree(&schema, overlay::KEYS, &[""]);
    agree(&schema, overlay::GROUP, &["EnvironmentGroup"]);
}

#[test]
fn unit_trust_parser_and_schema_know_the_same_keys() {
    let schema = of::<trust::TrustToml>().to_value();
    agree(&schema, crate::trust::file::KEYS, &[""]);
    agree(&schema, crate::trust::file::RULE, &["Rule"]);
}

#[test]
fn unit_promotion_parser_and_schema_know_the_same_keys() {
    let schema = of::<promotion::KilnToml>().to_value();
    agree(&schema, crate::promotion::file::KEYS, &[""]);
    agree(&schema, crate::promotion::file::CHANNEL, &["Channel"]);
}

#[test]
fn unit_published_schemas_are_current() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schema");
    for file in files() {
        let published = std::fs::read_to_string(directory.join(file.name)).unwrap_or_default();
        assert!(published == file.text, "schema/{} is not current: run `cargo xtask docs`", file.name);
    }
}
