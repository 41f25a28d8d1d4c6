//! The tests of a recipe, always run against the frozen, booted image.

mod matrix;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

pub use matrix::MatrixEntry;
use serde::{Deserialize, Serialize};

use crate::{
    config::ConfigKey,
    digest::{Digest, SuiteDigest},
    goss,
};

/// The tests of a recipe in the order written. Stored by its digest, so a test may change without a new image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// The recipe's tests. The conformance tests are always run as well.
    pub tests: Vec<Test>,
    /// Further configurations with which they are run as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub matrix: Vec<MatrixEntry>,
}

impl Suite {
    /// Tests that are run with the configuration of the release alone.
    pub fn of(tests: Vec<Test>) -> Self {
        Self { tests, matrix: Vec::new() }
    }

    /// The digest of the canonical form.
    pub fn digest(&self) -> SuiteDigest {
        let mut bytes = b"kiln-suite-v1\0".to_vec();
        bytes.extend(serde_json::to_vec(self).expect("plain data always serialises"));
        SuiteDigest(Digest::of(&bytes))
    }
}

/// One test: tried again until it passes or its time is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    /// Unique in the suite.
    pub name: String,
    /// Tried again until this time is over.
    #[serde(with = "crate::duration")]
    pub within: Duration,
    /// What must hold.
    pub kind: TestKind,
}

/// A text expectation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TextMatch {
    /// The text holds this.
    Contains(Expected),
    /// The text matches this regular expression.
    Matches(String),
    /// The text is exactly this.
    Equals(Expected),
}

/// A text, or the value of a configuration key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(untagged)]
pub enum Expected {
    /// A text.
    Text(String),
    /// The value that the configuration under test has for a key.
    Configured(Configured),
}

/// Names a key of the configuration under test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Configured {
    /// The key.
    pub config: ConfigKey,
}

impl From<String> for Expected {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<&str> for Expected {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// What a test checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum TestKind {
    /// A request from the host.
    Http {
        /// Port inside the server.
        port: u16,
        /// Path with a leading `/`.
        path: String,
        /// `GET`, `HEAD`, `POST`, …
        method: String,
        /// Request headers.
        request_headers: BTreeMap<String, String>,
        /// Expected status.
        status: u16,
        /// Expected response headers (names in lower case).
        headers: BTreeMap<String, TextMatch>,
        /// Expected body, of which at most 1 MiB is read.
        body: Vec<TextMatch>,
    },
    /// A connection from the host is accepted, and optionally answers.
    Tcp {
        /// Port inside the server.
        port: u16,
        /// Sent after connecting.
        send: Option<String>,
        /// Expected in what comes back.
        expect: Option<TextMatch>,
    },
    /// A command inside the server.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// As this user of the image.
        user: String,
        /// Expected exit code.
        exit: i32,
        /// Expected standard output, of which at most 1 MiB is read.
        stdout: Vec<TextMatch>,
        /// Expected standard error, of which at most 1 MiB is read.
        stderr: Vec<TextMatch>,
    },
    /// A file inside the server.
    File {
        /// Absolute path.
        path: String,
        /// Whether it must be there; if false, nothing else is checked.
        exists: bool,
        /// Permission bits.
        mode: Option<u32>,
        /// Owner's name or number.
        owner: Option<String>,
        /// Size in bytes.
        size: Option<u64>,
        /// Content, of which at most 1 MiB is read.
        content: Vec<TextMatch>,
    },
    /// A process runs inside the server.
    Process {
        /// The program's file name.
        program: String,
        /// As this user.
        user: Option<String>,
        /// At least this many.
        count: u32,
    },
    /// A port is listened on inside the server (or, with `false`, is not).
    Port {
        /// The port.
        port: u16,
        /// Whether it must be listened on.
        listening: bool,
    },
    /// A user of the image.
    User {
        /// Login name.
        name: String,
        /// Numeric id.
        uid: Option<u32>,
        /// Home directory.
        home: Option<String>,
        /// Login shell.
        shell: Option<String>,
    },
    /// A Debian package of the image.
    Package {
        /// Its name.
        name: String,
        /// Whether it must be installed.
        installed: bool,
        /// Exact version.
        version: Option<String>,
    },
    /// A program of the recipe, run on the host in a sandbox with `KILN_SERVER_ADDRESS` and the configuration in its
    /// environment; exit code 0 passes.
    Script {
        /// The file's name, for messages.
        file: String,
        /// The program itself: a script with a `#!` line, at most 1 MiB.
        content: String,
        /// Arguments.
        arguments: Vec<String>,
        /// The secret keys that it is told as well.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        secrets: BTreeSet<ConfigKey>,
    },
    /// goss files. Every check is a result of its own.
    Goss(goss::Sources),
    /// A program that says in TAP how its tests went. Every test point is a result of its own.
    Tap {
        /// The program.
        run: Runner,
    },
    /// A program that writes a JUnit XML file. Every case is a result of its own.
    Junit {
        /// The program.
        run: Runner,
        /// Where it writes the file: an absolute path inside the server, or one relative to the working directory of a script.
        report: String,
    },
    /// Tests of pytest-testinfra, run on the host. Every test is a result of its own.
    Testinfra {
        /// The file with the tests, relative to the recipe.
        file: String,
        /// It and the files that it needs, by their paths relative to the recipe.
        files: BTreeMap<String, String>,
        /// Further arguments of pytest.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        arguments: Vec<String>,
        /// The secret keys that it is told as well.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        secrets: BTreeSet<ConfigKey>,
    },
}

/// A program with tests of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum Runner {
    /// A program of the image, inside the server.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// As this user of the image.
        user: String,
    },
    /// A program of the recipe, on the host, as for [`TestKind::Script`].
    Script {
        /// The file's name, for messages.
        file: String,
        /// The program itself: a script with a `#!` line, at most 1 MiB.
        content: String,
        /// Arguments.
        arguments: Vec<String>,
        /// The secret keys that it is told as well.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
        secrets: BTreeSet<ConfigKey>,
    },
}
