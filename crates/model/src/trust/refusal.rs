//! Why a release may not be launched: whose fault it is, what happened, what to try.

use jiff::Timestamp;

use crate::{
    digest::{ConfigDigest, ImageDigest, SuiteDigest},
    id::{ImageName, KeyName},
};

/// Why a release may not be launched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no report of this image.
    #[error("image {} was never tested: there is no report of it. Run `kiln test` on its recipe, then try again", .image.short())]
    NoEvidence {
        /// The image.
        image: ImageDigest,
    },
    /// Reports exist, but none is signed by a key that is trusted here.
    #[error(
        "image {} has no report by a key that is trusted here; found {}. Whoever runs this host decides whom to trust: \
         add that key with `kiln key add`, or run `kiln test` here", .image.short(), shown(.keyids)
    )]
    ForeignKey {
        /// The image.
        image: ImageDigest,
        /// Key ids the reports claim.
        keyids: Vec<String>,
    },
    /// Reports exist, and who signed them was trusted once.
    #[error(
        "the report of image {} is by key {}, which was revoked on this host: what it signed is believed no more. Have the \
         image tested by somebody who is trusted, or run `kiln test` here", .image.short(), named(.keys)
    )]
    RevokedKey {
        /// The image.
        image: ImageDigest,
        /// Whose they were.
        keys: Vec<KeyName>,
    },
    /// A trusted key signed what it may not.
    #[error(
        "the report of image {} is by key {}, which may not sign for images called `{name}`; {} may, says trust.toml. Have it \
         tested by one of these, or change the rule", .image.short(), named(.keys), named(.allowed)
    )]
    NotAllowed {
        /// The image.
        image: ImageDigest,
        /// Its name.
        name: ImageName,
        /// Who signed.
        keys: Vec<KeyName>,
        /// Who may.
        allowed: Vec<KeyName>,
    },
    /// Too few keys saw it pass.
    #[error(
        "image {} was seen to pass by {} of {need} keys ({}); {} may sign. Have the others test it, and pull their reports",
        .image.short(), .have.len(), named(.have), named(.keys)
    )]
    Threshold {
        /// The image.
        image: ImageDigest,
        /// Who saw it pass.
        have: Vec<KeyName>,
        /// How many must.
        need: u32,
        /// Who may.
        keys: Vec<KeyName>,
    },
    /// The policy says nothing of images of this name.
    #[error("image {} is called `{name}`, and trust.toml has no rule for that name. Add one that says who may sign for it", .image.short())]
    NoRule {
        /// The image.
        image: ImageDigest,
        /// Its name.
        name: ImageName,
    },
    /// The suite is none of those that the policy wants.
    #[error(
        "image {} was tested with suite {}, and trust.toml wants one of {}. Have it tested with one of these, or change the \
         rule", .image.short(), .suite.short(), .accepted.iter().map(SuiteDigest::short).collect::<Vec<_>>().join(", ")
    )]
    SuiteNotAccepted {
        /// The image.
        image: ImageDigest,
        /// Its suite.
        suite: SuiteDigest,
        /// Those that count.
        accepted: Vec<SuiteDigest>,
    },
    /// A report claims a trusted key and its content does not fit the signature.
    #[error(
        "a report of image {} was changed after it was signed with key `{key}`. Somebody or something altered the \
         store: find out who, run `kiln verify`, then `kiln test` to make new evidence", .image.short()
    )]
    Tampered {
        /// The image.
        image: ImageDigest,
        /// The trusted key's name.
        key: String,
    },
    /// What was found is not a report.
    #[error("a report of image {} cannot be read ({why}). Its maker wrote it wrongly: run `kiln test` to make another", .image.short())]
    Malformed {
        /// The image.
        image: ImageDigest,
        /// What is wrong with it.
        why: String,
    },
    /// The reports found are about another image.
    #[error(
        "the report found is about image {}, not about {}. It was filed under the wrong image: run `kiln test` on \
         the recipe of the one to launch", .found.short(), .wanted.short()
    )]
    WrongImage {
        /// The image to launch.
        wanted: ImageDigest,
        /// The image of the report.
        found: ImageDigest,
    },
    /// The image was tested, but with another configuration.
    #[error(
        "image {} was tested with configuration {}, not with the group's, {}. A configuration is part of what is \
         tested: run `kiln up` or `kiln test` with this fleet", .image.short(), .found.short(), .wanted.short()
    )]
    WrongConfiguration {
        /// The image.
        image: ImageDigest,
        /// The configuration to launch.
        wanted: ConfigDigest,
        /// The configuration of the newest report.
        found: ConfigDigest,
    },
    /// The release was tested, but with other tests.
    #[error(
        "image {} passed suite {}, but the recipe now asks for suite {}. The tests changed after the run: run \
         `kiln test`", .image.short(), .found.short(), .wanted.short()
    )]
    WrongSuite {
        /// The image.
        image: ImageDigest,
        /// The suite required.
        wanted: SuiteDigest,
        /// The suite of the newest report.
        found: SuiteDigest,
    },
    /// The newest report says that tests failed.
    #[error(
        "image {} failed its tests at {finished_at}: {}. Repair the image or its configuration and bake again; if the \
         test is at fault, repair that", .image.short(), .failed.join(", ")
    )]
    Failing {
        /// The image.
        image: ImageDigest,
        /// When the run ended.
        finished_at: Timestamp,
        /// The tests that failed.
        failed: Vec<String>,
    },
    /// The report is too old.
    #[error(
        "the report of image {} is from {finished_at} and expired at {expired_at}. Nobody did anything wrong, evidence \
         ages: run `kiln test` to renew it", .image.short()
    )]
    Expired {
        /// The image.
        image: ImageDigest,
        /// When the run ended.
        finished_at: Timestamp,
        /// When the report expired.
        expired_at: Timestamp,
    },
    /// The report is dated later than now.
    #[error(
        "the report of image {} is dated {finished_at}, later than now ({now}). A clock is wrong here or where it was \
         tested: set it right, then run `kiln test`", .image.short()
    )]
    FromTheFuture {
        /// The image.
        image: ImageDigest,
        /// When the run ended, it says.
        finished_at: Timestamp,
        /// The clock here.
        now: Timestamp,
    },
    /// The image was revoked.
    #[error("image {} was revoked on this host ({reason}) and is never launched again. Choose another image", .image.short())]
    Revoked {
        /// The image.
        image: ImageDigest,
        /// Why.
        reason: String,
    },
}

impl Refusal {
    /// A stable word for scripts: `no-evidence`, `foreign-key`, …
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoEvidence { .. } => "no-evidence",
            Self::ForeignKey { .. } => "foreign-key",
            Self::RevokedKey { .. } => "revoked-key",
            Self::NotAllowed { .. } => "not-allowed",
            Self::Threshold { .. } => "threshold",
            Self::NoRule { .. } => "no-rule",
            Self::SuiteNotAccepted { .. } => "suite-not-accepted",
            Self::Tampered { .. } => "tampered",
            Self::Malformed { .. } => "malformed",
            Self::WrongImage { .. } => "wrong-image",
            Self::WrongConfiguration { .. } => "wrong-configuration",
            Self::WrongSuite { .. } => "wrong-suite",
            Self::Failing { .. } => "failing",
            Self::Expired { .. } => "expired",
            Self::FromTheFuture { .. } => "from-the-future",
            Self::Revoked { .. } => "revoked",
        }
    }
    /// How near this came to being admitted: of several reports, the nearest tells most about what to do.
    pub(super) fn nearness(&self) -> u8 {
        match self {
            Self::NoEvidence { .. } => 0,
            Self::Malformed { .. } => 1,
            Self::ForeignKey { .. } => 2,
            Self::NotAllowed { .. } => 3,
            Self::RevokedKey { .. } => 4,
            Self::WrongImage { .. } => 5,
            Self::WrongConfiguration { .. } => 6,
            Self::WrongSuite { .. } => 7,
            Self::FromTheFuture { .. } => 8,
            Self::Threshold { .. } => 9,
            Self::Expired { .. } => 10,
            Self::Failing { .. } => 11,
            Self::Tampered { .. } => 12,
            Self::SuiteNotAccepted { .. } => 13,
            Self::NoRule { .. } => 14,
            Self::Revoked { .. } => 15,
        }
    }
}

fn named(keys: &[KeyName]) -> String {
    let names: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
    if names.is_empty() { "every trusted key".to_owned() } else { names.join(", ") }
}

fn shown(keyids: &[String]) -> String {
    let ids: Vec<String> = keyids
        .iter()
        .map(|id| if id.is_empty() { "a key without id".to_owned() } else { id.chars().take(16).collect() })
        .collect();
    if ids.is_empty() { "none".to_owned() } else { ids.join(", ") }
}
