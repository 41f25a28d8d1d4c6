//! The text form of `[[test]]`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::{Command, KeyValue};
use crate::{
    config::ConfigKey,
    id::{BindingName, MatrixName},
    schema::{DurationText, ImagePath, ModeText, PackageText, RecipePath, UrlPath, UserText},
};

/// The tests, or only further configurations with which Kiln's own tests are run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Tests {
    /// The tests.
    Tests(Vec<Test>),
    /// No test of the recipe.
    Matrix(MatrixOnly),
}

/// Further configurations alone.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatrixOnly {
    /// Further configurations with which the tests are run.
    #[schemars(length(max = 20))]
    pub matrix: Vec<MatrixEntry>,
}

/// A further configuration with which all tests are run. A key that is not named has its default.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MatrixEntry {
    /// Tells it apart in the report.
    pub name: MatrixName,
    /// Values of the recipe's keys.
    pub config: Option<BTreeMap<ConfigKey, KeyValue>>,
    /// Fields of the recipe's service bindings that are not `throwaway` in tests.
    pub service_binding: Option<BTreeMap<BindingName, BTreeMap<ConfigKey, KeyValue>>>,
}

/// What must hold: exactly one of `http`, `tcp`, `command`, `file`, `process`, `package`, `script`, `goss`, `tap`, `junit`, `testinfra`,
/// `port`, `user`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Test {
    /// A request is answered.
    Http(HttpTest),
    /// A connection is accepted.
    Tcp(TcpTest),
    /// A command inside the server.
    Command(CommandTest),
    /// A file inside the server.
    File(FileTest),
    /// A process inside the server.
    Process(ProcessTest),
    /// A Debian package.
    Package(PackageTest),
    /// A program of the recipe, run on the host side.
    Script(ScriptTest),
    /// goss files.
    Goss(GossTest),
    /// A program that says in TAP how its tests went.
    Tap(TapTest),
    /// A program that writes a JUnit XML file.
    Junit(JunitTest),
    /// Tests of pytest-testinfra.
    Testinfra(TestinfraTest),
    /// A port inside the server.
    Port(PortTest),
    /// A user of the image.
    User(UserTest),
}

/// An expectation about text: exactly one of `contains`, `matches` (a regular expression), `equals`.
pub type Expectation = crate::suite::TextMatch;

/// One expectation, or a list of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Expectations {
    /// One.
    One(Expectation),
    /// All of these.
    All(Vec<Expectation>),
}

/// A program with tests of its own: a command inside the server, or a program of the recipe on the host side.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Program {
    /// A text that is split into words, or program and arguments, inside the server.
    Command(Command),
    /// A program of the recipe.
    Script(ScriptProgram),
}

/// A program of the recipe, run on the host side.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScriptProgram {
    /// A file beside the recipe that starts with `#!`.
    pub script: RecipePath,
}

/// Makes the structs of the kinds, each with the keys every test has.
macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $kind {
            $($(#[$field_doc])* pub $field: $type,)*
            /// What the test is called in the report; made from the test where nothing is said.
            pub name: Option<String>,
            /// Tried again until this time is over; `10s` where nothing is said.
            pub within: Option<DurationText>,
            /// Behind the last test: further configurations with which all tests are run.
            #[schemars(length(max = 20))]
            pub matrix: Option<Vec<MatrixEntry>>,
        }
    )*};
}

kinds! {
    /// A request from outside the server is answered as expected.
    HttpTest {
        /// Path with a leading `/`.
        http: UrlPath,
        /// Port inside the server; the only one that speaks HTTP where nothing is said.
        #[schemars(range(min = 1))]
        port: Option<u16>,
        /// `GET` where nothing is said.
        method: Option<String>,
        /// Headers to send.
        request_headers: Option<BTreeMap<String, String>>,
        /// Expected status; 200 where nothing is said.
        #[schemars(range(min = 100, max = 599))]
        status: Option<u16>,
        /// Expected headers.
        headers: Option<BTreeMap<String, Expectation>>,
        /// Expected body.
        body: Option<Expectations>,
    }
    /// A connection from outside the server is accepted.
    TcpTest {
        /// Port inside the server.
        #[schemars(range(min = 1))]
        tcp: u16,
        /// Sent after connecting.
        send: Option<String>,
        /// Expected in what comes back.
        expect: Option<Expectation>,
    }
    /// A command inside the server ends as expected.
    CommandTest {
        /// A text that is split into words, or program and arguments.
        command: Command,
        /// User of the image; root where nothing is said.
        user: Option<UserText>,
        /// Expected exit code; 0 where nothing is said.
        #[schemars(range(max = 255))]
        exit: Option<u8>,
        /// Expected standard output.
        stdout: Option<Expectations>,
        /// Expected standard error.
        stderr: Option<Expectations>,
    }
    /// A file inside the server is as expected.
    FileTest {
        /// Absolute path.
        file: ImagePath,
        /// Whether it must be there; true where nothing is said.
        exists: Option<bool>,
        /// Expected mode.
        mode: Option<ModeText>,
        /// Expected owner.
        owner: Option<UserText>,
        /// Expected size in bytes.
        size: Option<u64>,
        /// Expected content.
        content: Option<Expectations>,
    }
    /// A program runs inside the server.
    ProcessTest {
        /// The program's file name.
        process: String,
        /// As this user.
        user: Option<UserText>,
        /// At least so many; 1 where nothing is said.
        #[schemars(range(min = 1, max = 100_000))]
        count: Option<u32>,
    }
    /// A Debian package of the image.
    PackageTest {
        /// Its name.
        package: PackageText,
        /// Whether it must be installed; true where nothing is said.
        installed: Option<bool>,
        /// Its exact version.
        version: Option<String>,
    }
    /// A program of the recipe, run on the host side with `KILN_SERVER_ADDRESS` and, as `KILN_CONFIG_KEY`, the configuration
    /// in its environment; exit code 0 passes.
    ScriptTest {
        /// A file beside the recipe that starts with `#!`.
        script: RecipePath,
        /// Arguments.
        arguments: Option<Vec<String>>,
        /// Secret keys that it is told as well.
        secrets: Option<Vec<ConfigKey>>,
    }
    /// goss files (goss 0.4), run as they are; every check is a result of its own.
    GossTest {
        /// The goss file beside the recipe.
        goss: RecipePath,
        /// A YAML or JSON file beside the recipe: what templates see as `.Vars`.
        vars: Option<RecipePath>,
        /// What templates see as `.Env`.
        environment: Option<BTreeMap<String, String>>,
    }
    /// A program that says in TAP how its tests went; every test point is a result of its own. It is run once.
    TapTest {
        /// The program.
        tap: Program,
        /// User of the image, for a program inside; root where nothing is said.
        user: Option<UserText>,
        /// Arguments of a script.
        arguments: Option<Vec<String>>,
        /// Secret keys that a script is told as well.
        secrets: Option<Vec<ConfigKey>>,
    }
    /// A program that writes a JUnit XML file; every case is a result of its own. It is run once.
    JunitTest {
        /// The program.
        junit: Program,
        /// Where it writes the file: an absolute path inside the server; of a script, relative to its working directory.
        report: String,
        /// User of the image, for a program inside; root where nothing is said.
        user: Option<UserText>,
        /// Arguments of a script.
        arguments: Option<Vec<String>>,
        /// Secret keys that a script is told as well.
        secrets: Option<Vec<ConfigKey>>,
    }
    /// Tests of pytest-testinfra, run on the host side with the server as their host; every test is a result of its own.
    TestinfraTest {
        /// The file with the tests, beside the recipe. A `conftest.py` in its directory comes with it.
        testinfra: RecipePath,
        /// Further files beside the recipe that it needs.
        files: Option<Vec<RecipePath>>,
        /// Further arguments of pytest.
        arguments: Option<Vec<String>>,
        /// Secret keys that it is told as well.
        secrets: Option<Vec<ConfigKey>>,
    }
    /// A port is listened on inside the server.
    PortTest {
        /// The port.
        #[schemars(range(min = 1))]
        port: u16,
        /// Whether it must be listened on; true where nothing is said.
        listening: Option<bool>,
    }
    /// A user of the image.
    UserTest {
        /// Login name.
        user: UserText,
        /// Numeric id.
        #[schemars(range(max = 65_535))]
        uid: Option<u32>,
        /// Home directory.
        home: Option<ImagePath>,
        /// Login shell.
        shell: Option<ImagePath>,
    }
}
