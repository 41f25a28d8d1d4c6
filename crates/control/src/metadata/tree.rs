//! EC2's tree, as far as it has a meaning here: leaves by path, directories by what is below them.

use std::{collections::BTreeMap, fmt::Write as _};

use super::resident::Resident;

/// The versions that EC2 has. All of them show the same tree.
#[rustfmt::skip]
pub(super) const VERSIONS: [&str; 28] = [
    "1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01", "2009-04-04",
    "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20", "2016-04-19", "2016-06-30", "2016-09-02",
    "2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03", "2021-03-23", "2021-07-15", "2022-09-24",
    "latest",
];
/// Where a server is, in the words of a cloud.
pub(super) const REGION: &str = "kiln-local-1";
/// The only zone of it.
pub(super) const ZONE: &str = "kiln-local-1a";
/// The configuration key that is a server's user data.
pub(super) const USER_DATA: &str = "user_data";

/// The leaves of one server's `meta-data`.
pub(super) struct Tree(BTreeMap<String, String>);

/// What is at a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A value.
    Leaf(&'a str),
    /// Names, directories with `/` at their ends, one to a line.
    Directory(String),
}

/// The id of an image as clouds write it.
pub(super) fn ami(resident: &Resident) -> String {
    format!("ami-{}", &resident.image.0.hex()[..17])
}

pub(super) fn mac(resident: &Resident) -> String {
    resident.mac.iter().fold(String::new(), |mut text, byte| {
        let colon = if text.is_empty() { "" } else { ":" };
        write!(text, "{colon}{byte:02x}").expect("writing to a String never fails");
        text
    })
}

impl Tree {
    pub(super) fn of(resident: &Resident) -> Self {
        let (server, address, mac) = (resident.server.to_string(), resident.address.to_string(), mac(resident));
        let group = resident.group.as_ref().map_or(kiln_runtime::values::TEST_GROUP, |group| group.as_str());
        let interface = |name: &str| format!("network/interfaces/macs/{mac}/{name}");
        let leaves = [
            ("ami-id", ami(resident)),
            ("hostname", server.clone()),
            ("instance-action", "none".to_owned()),
            ("instance-id", server.clone()),
            ("instance-life-cycle", "on-demand".to_owned()),
            ("instance-type", "kiln".to_owned()),
            ("local-hostname", server.clone()),
            ("local-ipv4", address.clone()),
            ("mac", mac.clone()),
            ("placement/availability-zone", ZONE.to_owned()),
            ("placement/region", REGION.to_owned()),
            ("services/partition", "kiln".to_owned()),
            ("tags/instance/Name", server.clone()),
            ("tags/instance/kiln-group", group.to_owned()),
            ("tags/instance/kiln-release", resident.release.to_string()),
        ];
        let interfaces = [
            (interface("device-number"), "0".to_owned()),
            (interface("local-hostname"), server),
            (interface("local-ipv4s"), address),
            (interface("mac"), mac.clone()),
        ];
        Self(leaves.map(|(path, text)| (path.to_owned(), text)).into_iter().chain(interfaces).collect())
    }

    /// What is at a path below `meta-data/`.
    pub(super) fn find(&self, path: &str) -> Option<Found<'_>> {
        if let Some(text) = self.0.get(path) {
            return Some(Found::Leaf(text));
        }
        let directory = if path.is_empty() || path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
        let mut names: Vec<&str> = Vec::new();
        for below in self.0.range(directory.clone()..).map_while(|(path, _)| path.strip_prefix(directory.as_str())) {
            let name = below.find('/').map_or(below, |end| &below[..=end]);
            if names.last() != Some(&name) {
                names.push(name);
            }
        }
        (!names.is_empty()).then(|| Found::Directory(names.join("\n")))
    }
}
