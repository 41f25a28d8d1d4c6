//! Package URLs (<https://github.com/package-url/purl-spec>): one text that names a package everywhere.

use std::fmt::{self, Write as _};

/// A package URL. Qualifiers are written in the order in which they are given, which must be that of their names.
pub(crate) struct Purl {
    kind: &'static str,
    namespace: Option<String>,
    name: String,
    version: String,
    qualifiers: Vec<(&'static str, String)>,
}

impl Purl {
    pub(crate) fn new(kind: &'static str, name: &str, version: &str) -> Self {
        let (namespace, name) = match (kind, name.split_once('/')) {
            ("npm", Some((scope, name))) => (Some(scope.to_owned()), name.to_owned()),
            // The rules of the type: PyPI knows no case and takes `_` for `-`.
            ("pypi", _) => (None, name.to_lowercase().replace('_', "-")),
            ("deb" | "apk" | "oci", _) => (None, name.to_lowercase()),
            _ => (None, name.to_owned()),
        };
        Self { kind, namespace, name, version: version.to_owned(), qualifiers: Vec::new() }
    }
    pub(crate) fn namespace(mut self, namespace: Option<&str>) -> Self {
        self.namespace = namespace.map(str::to_owned).or(self.namespace);
        self
    }
    /// An empty value is none.
    pub(crate) fn qualifier(mut self, key: &'static str, value: &str) -> Self {
        if !value.is_empty() {
            self.qualifiers.push((key, value.to_owned()));
        }
        self
    }
}

impl fmt::Display for Purl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pkg:{}/", self.kind)?;
        if let Some(namespace) = &self.namespace {
            encode(f, namespace)?;
            f.write_char('/')?;
        }
        encode(f, &self.name)?;
        if !self.version.is_empty() {
            f.write_char('@')?;
            encode(f, &self.version)?;
        }
        for (at, (key, value)) in self.qualifiers.iter().enumerate() {
            write!(f, "{}{key}=", if at == 0 { '?' } else { '&' })?;
            encode(f, value)?;
        }
        Ok(())
    }
}

fn encode(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.bytes().try_for_each(|byte| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => f.write_char(char::from(byte)),
        _ => write!(f, "%{byte:02X}"),
    })
}

#[cfg(test)]
mod tests {
    use super::Purl;

    #[test]
    fn unit_package_urls_are_those_of_the_specification() {
        let deb = Purl::new("deb", "libstdc++6", "1:12.2.0-14+deb12u1").namespace(Some("debian"));
        assert_eq!(
            deb.qualifier("arch", "amd64").qualifier("distro", "debian-12").qualifier("upstream", "").to_string(),
            "pkg:deb/debian/libstdc%2B%2B6@1%3A12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12"
        );
        assert_eq!(Purl::new("npm", "@types/node", "20.1.0").to_string(), "pkg:npm/%40types/node@20.1.0");
        assert_eq!(Purl::new("pypi", "Flask_Login", "0.6").to_string(), "pkg:pypi/flask-login@0.6");
    }
}
