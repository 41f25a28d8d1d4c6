//! An SPDX 2.3 document in JSON (<https://spdx.github.io/spdx-spec/v2.3/>).

use serde::Serialize;
use serde_json::{Value, json};

use super::{Package, Subject};
use crate::oci;

/// Where the names of documents are.
const NAMESPACE: &str = "https://github.com/kiln-servers/kiln/sbom/v1";
const IMAGE: &str = "SPDXRef-Image";
const NONE: &str = "NOASSERTION";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpdxPackage<'a> {
    #[serde(rename = "SPDXID")]
    id: String,
    name: &'a str,
    version_info: &'a str,
    download_location: &'static str,
    files_analyzed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    supplier: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    license_declared: Option<&'a str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checksums: Vec<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_info: Option<&'a str>,
    external_refs: [ExternalRef<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ExternalRef<'a> {
    reference_category: &'static str,
    reference_type: &'static str,
    reference_locator: &'a str,
}

/// The document's bytes.
pub(super) fn render(subject: &Subject, packages: &[Package], unread: &[String]) -> Vec<u8> {
    let mut creation = json!({
        "created": subject.created.to_string(),
        "creators": [format!("Tool: kiln-{}", env!("CARGO_PKG_VERSION"))],
    });
    if !unread.is_empty() {
        creation["comment"] = json!(format!("Not read: {}", unread.join("; ")));
    }
    let describes = relation("SPDXRef-DOCUMENT", "DESCRIBES", IMAGE);
    let contains: Vec<_> = packages.iter().map(|package| relation(IMAGE, "CONTAINS", &id(package))).collect();
    let packages: Vec<_> = [image(subject)].into_iter().chain(packages.iter().map(described)).collect();
    let relationships: Vec<_> = [describes].into_iter().chain(contains).collect();
    let seed = subject.seed(&(&packages, unread));
    oci::render(&json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": name(subject),
        "documentNamespace": format!("{NAMESPACE}/{}/{}", env!("CARGO_PKG_VERSION"), seed.hex()),
        "creationInfo": creation,
        "packages": packages,
        "relationships": relationships,
    }))
}

fn name(subject: &Subject) -> String {
    subject.image.map_or_else(|| subject.name.clone(), |image| format!("{}@{image}", subject.name))
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to })
}

/// The image itself.
fn image(subject: &Subject) -> Value {
    let purl = subject.purl();
    let mut described = json!({
        "SPDXID": IMAGE,
        "name": subject.name,
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "primaryPackagePurpose": "CONTAINER",
        "externalRefs": [reference(&purl)],
    });
    if let Some(image) = subject.image {
        described["versionInfo"] = json!(image.to_string());
        described["checksums"] = json!([{ "algorithm": "SHA256", "checksumValue": image.0.hex() }]);
    }
    described
}

fn described(package: &Package) -> Value {
    let checksum =
        |sum: &super::package::Checksum| json!({ "algorithm": sum.algorithm.spdx(), "checksumValue": sum.value });
    json!(SpdxPackage {
        id: id(package),
        name: &package.name,
        version_info: &package.version,
        download_location: NONE,
        files_analyzed: false,
        supplier: package.supplier.as_deref().map(supplier),
        license_declared: package.licence.as_ref().map(|licence| licence.as_str()),
        checksums: package.checksum.iter().map(checksum).collect(),
        source_info: package.own_place(),
        external_refs: [reference(&package.purl)],
    })
}

fn reference(purl: &str) -> ExternalRef<'_> {
    ExternalRef { reference_category: "PACKAGE-MANAGER", reference_type: "purl", reference_locator: purl }
}

/// `NAME <ADDRESS>` as the specification writes it.
fn supplier(text: &str) -> String {
    let plain = |part: &str| part.replace(['(', ')', '<', '>'], " ").trim().to_owned();
    match text.split_once('<') {
        Some((name, address)) => format!("Organization: {} ({})", plain(name), plain(address)),
        None => format!("Organization: {}", plain(text)),
    }
}

/// The package's id in the document.
fn id(package: &Package) -> String {
    format!("SPDXRef-{}", package.id())
}
