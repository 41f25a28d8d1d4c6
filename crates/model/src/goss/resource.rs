//! Resources: what a goss file looks at, and what it expects of it.

use std::time::Duration;

use super::{matcher::Matcher, value::Value};

/// One resource.
#[derive(Debug, Clone)]
pub struct Resource {
    /// What goss calls its kind in results: `File`, `HTTP`, `KernelParam`.
    pub kind: &'static str,
    /// What goss calls it in results: its key, and what is really looked at where that differs.
    pub id: String,
    /// Its title, for people.
    pub title: Option<String>,
    /// Whether it is left out.
    pub skip: bool,
    /// What is looked at.
    pub subject: Subject,
    /// In goss's order.
    pub checks: Vec<Check>,
    /// Whether the other checks are left out when the first fails, or says that there is nothing.
    pub first_decides: bool,
}

/// An expectation about one property.
#[derive(Debug, Clone)]
pub struct Check {
    /// What goss calls it in results: `exists`, `linkedto`, `Body`.
    pub property: &'static str,
    /// What is expected.
    pub expected: Matcher,
}

/// What is looked at, and how.
#[derive(Debug, Clone, PartialEq)]
pub enum Subject {
    /// A path, absolute or with `~`; a symbolic link at its end is not followed.
    File(String),
    /// A package of the distribution.
    Package(String),
    /// Whether `tcp://host:port` or `udp://host:port` can be connected to from the server.
    Address {
        /// `tcp` or `udp`, and the family in a digit behind it where it is fixed.
        network: String,
        /// Host and port.
        address: String,
        /// The server's address that is connected from.
        local: Option<String>,
        /// So long it may take.
        timeout: Duration,
    },
    /// A port that is listened on.
    Port {
        /// `tcp`, `tcp6`, `udp` or `udp6`.
        network: String,
        /// The port.
        port: String,
    },
    /// A service.
    Service(String),
    /// A user.
    User(String),
    /// A group.
    Group(String),
    /// A command, carried out by `sh -c` in the server.
    Command {
        /// The command.
        exec: String,
        /// So long it may take.
        timeout: Duration,
    },
    /// A name, looked up from the server.
    Dns {
        /// `A`, `MX`, … where the file says so.
        kind: Option<String>,
        /// The name.
        name: String,
        /// Who is asked: host, or host and port. The server's own resolver where nothing is said.
        server: Option<String>,
        /// So long it may take.
        timeout: Duration,
    },
    /// A program.
    Process(String),
    /// A kernel parameter: `net.core.somaxconn`.
    KernelParameter(String),
    /// A mount point.
    Mount(String),
    /// A network interface.
    Interface(String),
    /// A request, sent from the server.
    Http(Box<Http>),
    /// A value that the file itself has.
    Matching(Value),
}

/// A request and how it is sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Http {
    /// `http://…` or `https://…`
    pub url: String,
    /// `GET`, …
    pub method: String,
    /// Names and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
    /// So long the whole may take.
    pub timeout: Duration,
    /// Whether the certificate is believed without a look at it.
    pub insecure: bool,
    /// Whether a redirect is the answer.
    pub no_redirects: bool,
    /// Basic authentication.
    pub login: Option<(String, String)>,
    /// A file in the server with the certificates that are believed.
    pub ca_file: Option<String>,
    /// Files in the server with the client's certificate and key.
    pub client: Option<(String, String)>,
    /// `http://…` of a proxy.
    pub proxy: Option<String>,
}
