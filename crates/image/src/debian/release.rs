//! An archive's release file: whose suite it is, when it was made, until when it holds, and the hash of every index.

use jiff::Timestamp;
use kiln_model::{Digest, recipe::Distribution};

use super::{
    keys::{Keyring, SignatureError},
    signed::Signed,
};

/// Why a release file is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Its signature.
    #[error("the signature of the archive is not accepted")]
    Signature(#[from] SignatureError),
    /// It lacks a field, or has one that cannot be read.
    #[error("the archive's release file has no usable `{0}`")]
    Field(&'static str),
    /// It is for another suite.
    #[error("the archive's release file is for `{codename}` (suite `{suite}`), not for `{wanted}`")]
    OtherSuite {
        /// What was asked for.
        wanted: String,
        /// What came.
        codename: String,
        /// What came.
        suite: String,
    },
    /// `Valid-Until` has passed: an old copy, or a mirror that stands still.
    #[error("the archive's release file was valid until {until}")]
    Expired {
        /// `Valid-Until`
        until: Timestamp,
    },
    /// `Date` is after now.
    #[error("the archive's release file is from the future ({date})")]
    Future {
        /// `Date`
        date: Timestamp,
    },
    /// A flat repository has no index.
    #[error("the repository's release file names no `Packages` with a SHA-256")]
    NoIndex,
    /// A component or architecture is not in it.
    #[error("the suite `{suite}` has no component `{component}` for amd64")]
    NoComponent {
        /// The suite.
        suite: String,
        /// The component.
        component: String,
    },
}

impl ReleaseError {
    /// What to try.
    pub fn help(&self) -> &'static str {
        match self {
            Self::Signature(SignatureError::Missing | SignatureError::Unreadable(_)) | Self::Field(_) => {
                "is the mirror's address right, and does a proxy or a login page answer in its place?"
            }
            Self::Signature(SignatureError::Foreign { .. }) => {
                "the keys shipped with Kiln are Debian's and Ubuntu's; name the archive's own keys with `keyring` under [base]"
            }
            Self::Signature(SignatureError::KeyExpired { .. } | SignatureError::KeyRevoked { .. }) => {
                "name a newer keyring with `keyring` under [base], or use a newer Kiln"
            }
            Self::Signature(SignatureError::Future { .. }) | Self::Future { .. } => "set this machine's clock",
            Self::Signature(_) => "the content was changed on its way or on the mirror: use another mirror",
            Self::Expired { .. } => {
                "the mirror is out of date (or this machine's clock is wrong): use another mirror, or bake from a lock"
            }
            Self::NoIndex => {
                "is it a flat repository? Of one with `dists/` the `suite` is written without `/` at its end, and with `components`"
            }
            Self::OtherSuite { .. } => "write the suite's code name, for example `bookworm`",
            Self::NoComponent { .. } => {
                "Debian's components are main, contrib, non-free and non-free-firmware, Ubuntu's main, restricted, universe and multiverse"
            }
        }
    }
}

/// One index file of a release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFile {
    /// Relative to the release file: `main/binary-amd64/Packages.xz`, or `Packages.gz` of a flat repository.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// SHA-256.
    pub digest: Digest,
    /// Size when unpacked, in bytes.
    pub unpacked: u64,
}

/// Whose release file is wanted.
#[derive(Debug, Clone, Copy)]
pub enum Wanted<'a> {
    /// That of a suite, named as this distribution names its suites.
    Suite(Distribution, &'a str),
    /// That of a flat repository, which need not have a name.
    Any,
}

/// A verified release file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Release {
    /// `Codename`, or `Suite` where there is none; empty where there is neither.
    pub codename: String,
    /// `Date`
    pub date: Timestamp,
    /// `Valid-Until`
    pub valid_until: Option<Timestamp>,
    text: String,
}

const CLOCK_SKEW: i64 = 300;

impl Release {
    /// Checks the signature, the dates and the name of a fetched release file.
    pub fn open(signed: &Signed, wanted: Wanted<'_>, keys: &Keyring, now: Timestamp) -> Result<Self, ReleaseError> {
        let release = Self::read(signed.open(keys, now)?)?;
        if let Wanted::Suite(of, suite) = wanted {
            release.check_name(of, suite)?;
        }
        if release.date.as_second() > now.as_second() + CLOCK_SKEW {
            return Err(ReleaseError::Future { date: release.date });
        }
        match release.valid_until {
            Some(until) if until < now => Err(ReleaseError::Expired { until }),
            _ => Ok(release),
        }
    }

    pub(crate) fn read(text: String) -> Result<Self, ReleaseError> {
        let date =
            |name| field(&text, name).map(|value| parse_date(value).ok_or(ReleaseError::Field(name))).transpose();
        Ok(Self {
            codename: field(&text, "Codename").or(field(&text, "Suite")).unwrap_or_default().to_owned(),
            date: date("Date")?.ok_or(ReleaseError::Field("Date"))?,
            valid_until: date("Valid-Until")?,
            text,
        })
    }

    /// Debian's `Suite` is a role (`stable`) and its `Codename` tells updates from the suite itself; Ubuntu's `Codename` is the
    /// same in all of them.
    fn check_name(&self, of: Distribution, wanted: &str) -> Result<(), ReleaseError> {
        if self.codename.is_empty() {
            return Err(ReleaseError::Field("Codename"));
        }
        let suite = field(&self.text, "Suite").unwrap_or_default();
        if suite == wanted || (of == Distribution::Debian && self.codename == wanted) {
            return Ok(());
        }
        let (wanted, codename) = (wanted.to_owned(), self.codename.clone());
        Err(ReleaseError::OtherSuite { wanted, codename, suite: suite.to_owned() })
    }

    /// Whether `binary-all` has packages that `binary-amd64` does not repeat.
    fn has_own_all(&self) -> bool {
        let architectures = field(&self.text, "Architectures").unwrap_or_default();
        let not_all = field(&self.text, "No-Support-for-Architecture-all").unwrap_or_default();
        architectures.split_whitespace().any(|name| name == "all") && !not_all.contains("Packages")
    }

    /// The package indexes of a component.
    pub fn package_indexes(&self, component: &str) -> Result<Vec<IndexFile>, ReleaseError> {
        let missing = || ReleaseError::NoComponent { suite: self.codename.clone(), component: component.to_owned() };
        let own = self.index(&format!("{component}/binary-amd64/Packages")).ok_or_else(missing)?;
        let all = self.has_own_all().then(|| self.index(&format!("{component}/binary-all/Packages"))).flatten();
        Ok([own].into_iter().chain(all).collect())
    }

    /// The package index of a flat repository, of all architectures.
    pub fn flat_index(&self) -> Result<IndexFile, ReleaseError> {
        self.index("Packages").ok_or(ReleaseError::NoIndex)
    }

    /// The best form of an index: xz, gz or plain.
    fn index(&self, path: &str) -> Option<IndexFile> {
        let plain = self.file(path);
        [".xz", ".gz", ""].iter().find_map(|ending| {
            let path = format!("{path}{ending}");
            let (digest, size) = self.file(&path)?;
            let unpacked = plain.map_or(size.saturating_mul(20), |(_, size)| size);
            Some(IndexFile { path, size, digest, unpacked })
        })
    }

    fn file(&self, wanted: &str) -> Option<(Digest, u64)> {
        let listed = self.text.lines().skip_while(|line| *line != "SHA256:").skip(1);
        listed.take_while(|line| line.starts_with(' ')).find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let (hash, size, path) = (words.next()?, words.next()?, words.next()?);
            (path == wanted).then(|| Some((format!("sha256:{hash}").parse().ok()?, size.parse().ok()?))).flatten()
        })
    }

    /// Whether indexes can be had under the name of their hash, so that a mirror's update cannot come in between.
    pub fn by_hash(&self) -> bool {
        field(&self.text, "Acquire-By-Hash") == Some("yes")
    }
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// `Sat, 11 Jul 2026 10:16:37 UTC` (RFC 1123), or `Sat Jul 11 10:16:37 2026` (asctime, which the Open Build Service writes and apt
/// takes as well); always UTC.
fn parse_date(text: &str) -> Option<Timestamp> {
    let text = text.strip_suffix("UTC").or(text.strip_suffix("GMT")).unwrap_or(text).trim();
    let text = text.strip_suffix("+0000").unwrap_or(text).trim();
    let forms = ["%a, %d %b %Y %H:%M:%S", "%a %b %e %H:%M:%S %Y"];
    let time = forms.iter().find_map(|form| jiff::civil::DateTime::strptime(form, text).ok())?;
    jiff::tz::TimeZone::UTC.to_timestamp(time).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "Origin: Debian\r\nSuite: oldstable\r\nCodename: bookworm\r\nDate: Sat, 11 Jul 2026 10:16:37 UTC\r\n\
        Architectures: all amd64\r\nNo-Support-for-Architecture-all: Packages\r\nAcquire-By-Hash: yes\r\nMD5Sum:\r\n \
        0ed6d4c8891eb86358b94bb35d9e4da4  1 main/binary-amd64/Packages.xz\r\nSHA256:\r\n \
        515e692f2c4121c6fcec444ef100cc18f79a991910615f3a88c8b7becfc94d2f 50060337 main/binary-amd64/Packages\r\n \
        6777ea16514725f9427f48c240d92e0a6b8496138e37a1491d8597e66774e309 12084798 main/binary-amd64/Packages.gz\r\n \
        9e0b5aabb2465b3d2e7a7fe27f9913846277833f7a2826e7767acccff5b588c5  8790396 main/binary-amd64/Packages.xz\r\n";

    #[test]
    fn the_xz_index_is_preferred_and_knows_its_unpacked_size() {
        let release = Release::read(TEXT.into()).unwrap();
        let indexes = release.package_indexes("main").unwrap();
        assert_eq!(indexes.len(), 1);
        assert_eq!((indexes[0].path.as_str(), indexes[0].size), ("main/binary-amd64/Packages.xz", 8_790_396));
        assert_eq!(indexes[0].unpacked, 50_060_337);
        assert!(release.by_hash());
        assert_eq!(release.date.to_string(), "2026-07-11T10:16:37Z");
        assert!(matches!(release.package_indexes("games"), Err(ReleaseError::NoComponent { .. })));
        let gz = Release::read(TEXT.replace("Packages.xz", "Other")).unwrap();
        assert_eq!(gz.package_indexes("main").unwrap()[0].path, "main/binary-amd64/Packages.gz");
    }

    #[test]
    fn a_suite_goes_by_its_code_name_or_its_role() {
        let release = Release::read(TEXT.into()).unwrap();
        release.check_name(Distribution::Debian, "bookworm").unwrap();
        release.check_name(Distribution::Debian, "oldstable").unwrap();
        let updates = TEXT.replace("oldstable", "noble-updates").replace("bookworm", "noble");
        let updates = Release::read(updates).unwrap();
        updates.check_name(Distribution::Ubuntu, "noble-updates").unwrap();
        assert!(matches!(updates.check_name(Distribution::Ubuntu, "noble"), Err(ReleaseError::OtherSuite { .. })));
        assert!(matches!(release.check_name(Distribution::Debian, "trixie"), Err(ReleaseError::OtherSuite { .. })));
        assert!(matches!(Release::read("Suite: x\nDate: soon\n".into()), Err(ReleaseError::Field("Date"))));
    }

    #[test]
    fn a_flat_repository_has_one_index_and_need_not_have_a_name() {
        let hash = "515e692f2c4121c6fcec444ef100cc18f79a991910615f3a88c8b7becfc94d2f";
        let text = format!("Date: Sat Jul  4 10:16:37 2026\nSHA256:\n {hash} 9 Packages\n {hash} 5 Packages.gz\n");
        let release = Release::read(text.clone()).unwrap();
        assert_eq!(release.date.to_string(), "2026-07-04T10:16:37Z");
        let index = release.flat_index().unwrap();
        assert_eq!((index.path.as_str(), index.size, index.unpacked), ("Packages.gz", 5, 9));
        assert!(matches!(release.check_name(Distribution::Debian, ""), Err(ReleaseError::Field("Codename"))));
        let unhashed = Release::read(text.replace("SHA256", "MD5Sum")).unwrap();
        assert!(matches!(unhashed.flat_index(), Err(ReleaseError::NoIndex)));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "(SHA256:\n|Date: |Codename: x\n| [a-f0-9]{64} 12 x\n|.|\n){0,30}") {
            let _outcome = Release::read(text).map(|release| release.package_indexes("main").is_ok());
        }
    }
}
