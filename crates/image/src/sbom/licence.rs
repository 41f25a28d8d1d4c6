//! Licences as SPDX expressions. What is no valid expression of known licences is none: a document must not say more than
//! is known.

use std::collections::BTreeSet;

/// A valid SPDX licence expression of listed licences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Licence(String);

/// A longer text (bytes) is no expression.
const MAX: usize = 1024;
/// The first line of a copyright file that programs can read.
const DEP5: &str = "https://www.debian.org/doc/packaging-manuals/copyright-format/1.0";

impl Licence {
    /// An SPDX expression as a package's author wrote it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.is_empty() || text.len() > MAX {
            return None;
        }
        let expression = spdx::Expression::parse(text).ok()?;
        let listed = expression.requirements().all(|part| matches!(part.req.license, spdx::LicenseItem::Spdx { .. }));
        listed.then(|| Self(expression.to_string()))
    }

    /// The licences of a Debian copyright file in the form of DEP-5, if all of them are known to SPDX.
    pub(super) fn of_copyright(text: &str) -> Option<Self> {
        let format = text.lines().next()?.strip_prefix("Format:")?.trim().trim_end_matches('/');
        if format.replacen("http://", "https://", 1) != DEP5 {
            return None;
        }
        let names: BTreeSet<_> = text.lines().filter_map(|line| line.strip_prefix("License:")).map(str::trim).collect();
        let parts: Option<BTreeSet<_>> = names.into_iter().filter(|name| !name.is_empty()).map(expression).collect();
        let parts: Vec<_> = parts?.into_iter().collect();
        let whole = match parts.as_slice() {
            [] => return None,
            [one] => one.clone(),
            many => many
                .iter()
                .map(|part| if part.contains(' ') { format!("({part})") } else { part.clone() })
                .collect::<Vec<_>>()
                .join(" AND "),
        };
        Self::parse(&whole)
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// `GPL-2+ or Expat` as SPDX writes it.
fn expression(names: &str) -> Option<String> {
    let parts: Option<Vec<String>> = names
        .split_whitespace()
        .map(|part| match part {
            "or" => Some("OR".to_owned()),
            "and" => Some("AND".to_owned()),
            name => identifier(name),
        })
        .collect();
    Some(parts?.join(" "))
}

/// The SPDX identifier of a short name of DEP-5.
fn identifier(name: &str) -> Option<String> {
    let known = match name {
        "Expat" | "expat" => "MIT",
        "BSD-2-clause" => "BSD-2-Clause",
        "BSD-3-clause" => "BSD-3-Clause",
        "BSD-4-clause" => "BSD-4-Clause",
        "Artistic" => "Artistic-1.0-Perl",
        _ => return gnu(name).or_else(|| spdx::license_id(name).map(|id| id.name.to_owned())),
    };
    Some(known.to_owned())
}

/// `LGPL-2.1+`: a version may be short, and `+` means every later one.
fn gnu(name: &str) -> Option<String> {
    let (family, version) =
        name.split_once('-').filter(|(family, _)| ["GPL", "LGPL", "AGPL", "GFDL"].contains(family))?;
    let (version, suffix) = match version.strip_suffix('+') {
        Some(version) => (version, "or-later"),
        None => (version, "only"),
    };
    let version = match (family, version) {
        ("GFDL", version) => version.to_owned(),
        (_, version) if version.contains('.') => version.to_owned(),
        (_, version) => format!("{version}.0"),
    };
    let id = format!("{family}-{version}-{suffix}");
    spdx::license_id(&id).map(|id| id.name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::Licence;

    #[test]
    fn unit_only_valid_expressions_are_licences() {
        let parsed = |text: &str| Licence::parse(text).map(|licence| licence.0);
        assert_eq!(parsed("MIT OR Apache-2.0").as_deref(), Some("MIT OR Apache-2.0"));
        for text in ["", "GPL", "SEE LICENSE IN x", "MIT\"}", "LicenseRef-x", &"(".repeat(5000), "proprietary"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }

    #[test]
    fn unit_copyright_files_give_an_expression_where_all_is_known() {
        let text = |licences: &[&str]| {
            let format = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n";
            licences
                .iter()
                .fold(format.to_owned(), |text, name| text + &format!("\nFiles: *\nLicense: {name}\n more\n"))
        };
        let of = |licences: &[&str]| Licence::of_copyright(&text(licences)).map(|licence| licence.0);
        assert_eq!(of(&["GPL-2+", "Expat", "GPL-2+"]).as_deref(), Some("GPL-2.0-or-later AND MIT"));
        assert_eq!(
            of(&["LGPL-2.1 or BSD-3-clause", "GPL-3"]).as_deref(),
            Some("GPL-3.0-only AND (LGPL-2.1-only OR BSD-3-Clause)")
        );
        assert_eq!(of(&["GPL-2+", "my own words"]), None);
        assert_eq!(Licence::of_copyright("This is free software.\nLicense: MIT\n"), None);
    }
}
