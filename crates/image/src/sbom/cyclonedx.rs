//! A CycloneDX 1.6 document in JSON (<https://cyclonedx.org/docs/1.6/json/>).

use kiln_model::Digest;
use serde::Serialize;
use serde_json::{Value, json};

use super::{Distro, Package, Subject, package::Checksum};
use crate::oci;

#[derive(Serialize)]
struct Component<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    reference: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<Value>,
    name: &'a str,
    version: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    licenses: Vec<Value>,
    purl: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    properties: Vec<Property<'a>>,
}

#[derive(Serialize)]
struct Property<'a> {
    name: &'static str,
    value: &'a str,
}

/// The document's bytes.
pub(super) fn render(subject: &Subject, packages: &[Package], unread: &[String]) -> Vec<u8> {
    let purl = subject.purl();
    let mut metadata = json!({
        "timestamp": subject.created.to_string(),
        "tools": { "components": [{ "type": "application", "name": "kiln", "version": env!("CARGO_PKG_VERSION") }] },
        "component": image(subject, &purl),
    });
    if !unread.is_empty() {
        let entry = |text: &String| json!(Property { name: "kiln:unread", value: text });
        metadata["properties"] = unread.iter().map(entry).collect();
    }
    let components: Vec<_> = subject.distro.iter().map(system).chain(packages.iter().map(component)).collect();
    let parts: Vec<_> = packages.iter().map(Package::id).collect();
    oci::render(&json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": serial(&subject.seed(&(&components, unread))),
        "version": 1,
        "metadata": metadata,
        "components": components,
        "dependencies": [{ "ref": purl, "dependsOn": parts }],
    }))
}

/// A UUID of version 8 (RFC 9562): what the ids come from, and the program that made the document.
fn serial(of: &Digest) -> String {
    let seed = format!("cyclonedx {} {of}", env!("CARGO_PKG_VERSION"));
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&Digest::of(seed.as_bytes()).as_bytes()[..16]);
    bytes[6] = (bytes[6] & 0x0f) | 0x80;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex = hex::encode(bytes);
    format!("urn:uuid:{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

fn image(subject: &Subject, purl: &str) -> Value {
    let mut component = json!({ "type": "container", "bom-ref": purl, "name": subject.name, "purl": purl });
    if let Some(image) = subject.image {
        component["version"] = json!(image.to_string());
        component["hashes"] = json!([{ "alg": "SHA-256", "content": image.0.hex() }]);
    }
    component
}

fn system(distro: &Distro) -> Value {
    let mut system =
        json!({ "type": "operating-system", "bom-ref": format!("os:{}", distro.tag()), "name": distro.id });
    if let Some(version) = &distro.version {
        system["version"] = json!(version);
    }
    if let Some(title) = &distro.title {
        system["description"] = json!(title);
    }
    system
}

fn component(package: &Package) -> Value {
    let hash = |sum: &Checksum| json!({ "alg": sum.algorithm.cyclonedx(), "content": sum.value });
    json!(Component {
        kind: "library",
        reference: package.id(),
        supplier: package.supplier.as_ref().map(|name| json!({ "name": name })),
        name: &package.name,
        version: &package.version,
        hashes: package.checksum.iter().map(hash).collect(),
        licenses: package.licence.iter().map(|licence| json!({ "expression": licence.as_str() })).collect(),
        purl: &package.purl,
        properties: package.own_place().map(|value| Property { name: "kiln:found-in", value }).into_iter().collect(),
    })
}
