//! What is in an image and where it comes from: the same on every host, and believed as reports are.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::{docker::DockerRegistry, host::Host};

/// Statements of cosign's type that it accepts with a host's exported key.
fn cosign(host: &Host, image: &str, kind: &str) -> bool {
    let key = host.path("cosign.pem");
    fs::write(&key, host.good(&["key", "export"])["pem"].as_str().expect("a key")).expect("written");
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/tools/cosign");
    let arguments = ["verify-attestation", "--insecure-ignore-tlog", "--allow-http-registry", "--type", kind, "--key"];
    let mut cosign = Command::new(program);
    let done = cosign.args(arguments).arg(key).arg(image).env_clear().env("HOME", host.path("")).output();
    done.expect("cosign is there: `cargo xtask test` fetches it").status.success()
}

#[test]
fn root_provenance_and_sboms_go_with_an_image_and_are_believed_by_the_key_of_its_maker() {
    let (registry, here, there) = (DockerRegistry::start(), Host::new(), Host::new());
    here.project("page one\n");
    let image = here.good(&["bake", "shop"])["image"].as_str().expect("a digest").to_owned();
    let name = &*format!("shop@{image}");
    let first = here.good(&["provenance", name, "--verify"]);
    // Baking again says the same, to the byte.
    here.good(&["bake", "shop"]);
    assert_eq!(here.good(&["provenance", name]), first);
    let origin = &first["statements"][0];
    assert_eq!((&first["verified"], &origin["signed_by"][0]), (&Value::Bool(true), &Value::from("this-host")));
    let definition = &origin["statement"]["predicate"]["buildDefinition"];
    let recipe = fs::read(here.path("shop/image.toml")).expect("readable");
    let digest = kiln_model::Digest::of(&recipe).hex();
    assert_eq!(definition["externalParameters"]["recipe"]["digest"]["sha256"], digest);
    let names =
        definition["resolvedDependencies"].as_array().expect("a list").iter().map(|input| input["name"].as_str());
    let names: Vec<_> = names.map(|name| name.expect("a name")).collect();
    assert!(names.len() >= 4 && names[..2] == ["image.toml", "kiln.lock"], "{names:?}");
    let at = format!("{}/shop:v1", registry.address);
    here.good(&["push", "--cosign", name, &at]);
    for kind in ["slsaprovenance1", "spdxjson", "cyclonedx"] {
        assert!(cosign(&here, &at, kind), "{kind}");
        assert!(!cosign(&there, &at, kind), "{kind}: another key");
    }
    let pulled = there.good(&["pull", &at, "--channel", "dev"]);
    assert_eq!((pulled["provenance"].as_u64(), pulled["sboms"].as_u64()), (Some(1), Some(2)), "{pulled}");
    assert_eq!(pulled["image"], *image);
    // Read by anybody, believed by nobody who does not believe its maker.
    assert_eq!(there.good(&["provenance", name])["statements"][0]["statement"], origin["statement"]);
    let said = there.kiln(&["provenance", name, "--verify"]);
    assert_eq!((said.code, &said.lines[0]["verified"]), (3, &Value::Bool(false)), "{:?}", said.lines);
    there.believe("ci", &here);
    assert_eq!(there.good(&["provenance", name, "--verify"])["statements"][0]["signed_by"][0], "ci");
    for format in ["spdx", "cyclonedx"] {
        let written = |host: &Host| {
            let file = host.path("sbom.json");
            host.good(&["sbom", name, "--format", format, "--output", file.to_str().expect("UTF-8")]);
            fs::read(file).expect("written")
        };
        assert_eq!(written(&here), written(&there), "{format}");
    }
}
