//! The attributes of each kind of resource (goss, `resource/*.go`), and reading them.

use std::time::Duration;

use super::{
    Check, Http, MAX_CHECKS, MAX_RESOURCES, Matcher, Problem, Resource, Subject,
    value::Value,
    yaml::{Key, Kind as NodeKind, Node},
};

/// A kind of resource.
pub(super) struct Kind {
    /// Its key in a goss file.
    pub(super) key: &'static str,
    name: &'static str,
    /// Names what is looked at, in place of the key.
    alias: &'static str,
    /// The expectations in goss's order.
    checks: &'static [Attribute],
    /// Attributes that say how to look.
    options: &'static [&'static str],
    first: First,
}

/// What is special about the first check.
#[derive(Clone, Copy, PartialEq, Eq)]
enum First {
    /// It must be there, and decides whether the others are made.
    Decides,
    /// It must be there.
    Required,
    /// Nothing.
    Optional,
}

struct Attribute {
    key: &'static str,
    property: &'static str,
    sort: Sort,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sort {
    Value,
    /// Read line by line; an empty list expects nothing.
    Lines,
    /// A number; a text is taken as one.
    Number,
}

const fn value(key: &'static str) -> Attribute {
    Attribute { key, property: key, sort: Sort::Value }
}

const fn lines(key: &'static str) -> Attribute {
    Attribute { key, property: key, sort: Sort::Lines }
}

const fn number(key: &'static str) -> Attribute {
    Attribute { key, property: key, sort: Sort::Number }
}

const fn called(property: &'static str, attribute: Attribute) -> Attribute {
    Attribute { property, ..attribute }
}

/// All of them; `gossfile` is none.
pub(super) const KINDS: [Kind; 15] = [
    Kind {
        key: "file",
        name: "File",
        alias: "path",
        checks: &[
            value("exists"),
            value("mode"),
            value("owner"),
            value("uid"),
            value("group"),
            value("gid"),
            called("linkedto", value("linked-to")),
            value("filetype"),
            lines("contains"),
            lines("contents"),
            value("size"),
            value("md5"),
            value("sha256"),
            value("sha512"),
        ],
        options: &[],
        first: First::Decides,
    },
    Kind {
        key: "package",
        name: "Package",
        alias: "name",
        checks: &[value("installed"), called("version", value("versions"))],
        options: &[],
        first: First::Decides,
    },
    Kind {
        key: "addr",
        name: "Addr",
        alias: "address",
        checks: &[value("reachable")],
        options: &["local-address", "timeout"],
        first: First::Required,
    },
    Kind {
        key: "port",
        name: "Port",
        alias: "port",
        checks: &[value("listening"), value("ip")],
        options: &[],
        first: First::Decides,
    },
    Kind {
        key: "service",
        name: "Service",
        alias: "name",
        checks: &[value("enabled"), value("running"), value("runlevels")],
        options: &[],
        first: First::Optional,
    },
    Kind {
        key: "user",
        name: "User",
        alias: "username",
        checks: &[value("exists"), number("uid"), number("gid"), value("home"), value("groups"), value("shell")],
        options: &[],
        first: First::Decides,
    },
    Kind {
        key: "group",
        name: "Group",
        alias: "groupname",
        checks: &[value("exists"), number("gid")],
        options: &[],
        first: First::Decides,
    },
    Kind {
        key: "command",
        name: "Command",
        alias: "exec",
        checks: &[number("exit-status"), lines("stdout"), lines("stderr")],
        options: &["timeout"],
        first: First::Required,
    },
    Kind {
        key: "dns",
        name: "DNS",
        alias: "resolve",
        checks: &[value("resolvable"), value("addrs")],
        options: &["resolveable", "timeout", "server"],
        first: First::Decides,
    },
    Kind {
        key: "process",
        name: "Process",
        alias: "comm",
        checks: &[value("running")],
        options: &[],
        first: First::Required,
    },
    Kind {
        key: "kernel-param",
        name: "KernelParam",
        alias: "name",
        checks: &[value("value")],
        options: &[],
        first: First::Required,
    },
    Kind {
        key: "mount",
        name: "Mount",
        alias: "mountpoint",
        checks: &[
            value("exists"),
            value("opts"),
            value("vfs-opts"),
            value("source"),
            value("filesystem"),
            value("usage"),
        ],
        options: &["timeout"],
        first: First::Decides,
    },
    Kind {
        key: "interface",
        name: "Interface",
        alias: "name",
        checks: &[value("exists"), value("addrs"), value("mtu")],
        options: &[],
        first: First::Decides,
    },
    Kind {
        key: "http",
        name: "HTTP",
        alias: "url",
        checks: &[value("status"), called("Headers", lines("headers")), called("Body", lines("body"))],
        options: &[
            "method",
            "allow-insecure",
            "no-follow-redirects",
            "timeout",
            "request-headers",
            "request-body",
            "username",
            "password",
            "ca-file",
            "cert-file",
            "key-file",
            "proxy",
        ],
        first: First::Decides,
    },
    Kind {
        key: "matching",
        name: "Matching",
        alias: "",
        checks: &[value("matches")],
        options: &["content", "as-reader"],
        first: First::Required,
    },
];

/// The types of records that a name may be asked for.
const RECORDS: [&str; 9] = ["A", "AAAA", "CAA", "CNAME", "MX", "NS", "PTR", "SRV", "TXT"];

/// The attributes of any resource.
const ANY: [&str; 3] = ["title", "meta", "skip"];

/// A section's key and a key in it.
type Name = (&'static str, String);

/// What was found in the files so far.
#[derive(Default)]
pub(super) struct Found {
    pub(super) resources: Vec<(Name, Resource)>,
    pub(super) problems: Vec<Problem>,
}

impl Found {
    fn is_full(&self) -> bool {
        let checks: usize = self.resources.iter().map(|(_, resource)| resource.checks.len()).sum();
        self.resources.len() > MAX_RESOURCES || checks > MAX_CHECKS
    }

    /// A resource of an included file takes the place of an earlier one of the same name.
    fn put(&mut self, name: Name, resource: Resource) {
        match self.resources.iter_mut().find(|(there, _)| *there == name) {
            Some((_, there)) => *there = resource,
            None => self.resources.push((name, resource)),
        }
    }
}

/// Reads one section of a goss file into resources.
pub(super) fn section(file: &str, kind: &'static Kind, node: &Node, found: &mut Found) {
    if node.is_null() {
        return;
    }
    let problem = |line, message| Problem { file: file.to_owned(), line, message };
    let Some(entries) = node.entries() else {
        let message = format!("`{}` holds a map from names to attributes, and this is {}", kind.key, node.described());
        return found.problems.push(problem(node.line, message));
    };
    for (key, node) in entries {
        if found.is_full() {
            let message = format!("there are more than {MAX_RESOURCES} resources or {MAX_CHECKS} checks up to here");
            return found.problems.push(problem(key.line, message));
        }
        match (Reading { file, kind, key, node }).resource() {
            Ok(resource) => found.put((kind.key, key.text.clone()), resource),
            Err(more) => found.problems.extend(more),
        }
    }
}

struct Reading<'a> {
    file: &'a str,
    kind: &'static Kind,
    key: &'a Key,
    node: &'a Node,
}

impl Reading<'_> {
    fn problem(&self, line: usize, message: impl Into<String>) -> Problem {
        Problem { file: self.file.to_owned(), line, message: message.into() }
    }

    fn resource(&self) -> Result<Resource, Vec<Problem>> {
        let Some(entries) = self.node.entries() else {
            let message = format!("{} `{}` has no attributes", self.kind.key, self.key.text);
            return Err(vec![self.problem(self.key.line, message)]);
        };
        let mut problems: Vec<Problem> = entries.iter().filter_map(|(key, _)| self.unknown(key)).collect();
        let mut note = |problem| problems.push(problem);
        let skip = self.flag("skip").unwrap_or_else(|problem| {
            note(problem);
            false
        });
        let alias = self.texts(self.kind.alias).map_err(&mut note).ok().flatten();
        let subject = self.subject(alias.as_deref().unwrap_or(&self.key.text)).map_err(&mut note).ok();
        let mut checks = Vec::new();
        for (index, attribute) in self.kind.checks.iter().enumerate() {
            match self.check(attribute, index) {
                Ok(check) => checks.extend(check),
                Err(problem) => note(problem),
            }
        }
        let title = self.texts("title").map_err(&mut note).ok().flatten();
        match (subject, problems.is_empty()) {
            (Some(subject), true) => Ok(Resource {
                kind: self.kind.name,
                id: self.id(alias.as_deref()),
                title,
                skip,
                subject,
                checks,
                first_decides: self.kind.first == First::Decides,
            }),
            _ => Err(problems),
        }
    }

    fn unknown(&self, key: &Key) -> Option<Problem> {
        let known = self.kind.checks.iter().map(|attribute| attribute.key).chain(self.kind.options.iter().copied());
        let known: Vec<&str> = known.chain(ANY).chain([self.kind.alias]).filter(|name| !name.is_empty()).collect();
        if known.contains(&key.text.as_str()) {
            return None;
        }
        let meant = crate::text::suggest(&key.text.replace('_', "-"), &known);
        let hint = meant.map(|meant| format!(" (did you mean `{meant}`?)")).unwrap_or_default();
        let message = format!("`{}` is not an attribute of a {} in goss 0.4{hint}", key.text, self.kind.key);
        Some(self.problem(key.line, message))
    }

    /// A command is called by its key alone.
    fn id(&self, alias: Option<&str>) -> String {
        match alias {
            Some(alias) if alias != self.key.text && self.kind.key != "command" => {
                format!("{}: {alias}", self.key.text)
            }
            _ => self.key.text.clone(),
        }
    }

    fn check(&self, attribute: &Attribute, index: usize) -> Result<Option<Check>, Problem> {
        let other = (attribute.key == "resolvable").then(|| self.node.get("resolveable")).flatten();
        let found = self.node.get(attribute.key).or(other).filter(|node| !node.is_null());
        let Some(node) = found else {
            let required = index == 0 && self.kind.first != First::Optional && self.flag("skip") != Ok(true);
            let message =
                format!("{} `{}` has no `{}`, which it must have", self.kind.key, self.key.text, attribute.key);
            return if required { Err(self.problem(self.key.line, message)) } else { Ok(None) };
        };
        let lines = attribute.sort == Sort::Lines || (self.kind.key == "matching" && self.flag("as-reader")?);
        if attribute.sort == Sort::Lines && matches!(&node.kind, NodeKind::List(items) if items.is_empty()) {
            return Ok(None);
        }
        let expected = match (attribute.sort, node.text()) {
            (Sort::Number, Some(text)) => {
                let wrong =
                    || self.problem(node.line, format!("`{}` is a number, and this is {text:?}", attribute.key));
                Matcher::number(text.parse().map_err(|_| wrong())?)
            }
            _ => Matcher::read(self.file, node, lines)?,
        };
        Ok(Some(Check { property: attribute.property, expected }))
    }

    fn subject(&self, name: &str) -> Result<Subject, Problem> {
        let owned = name.to_owned();
        Ok(match self.kind.key {
            "file" => Subject::File(owned),
            "package" => Subject::Package(owned),
            "addr" => self.address(name)?,
            "port" => {
                let (network, port) = name.split_once(':').unwrap_or(("tcp", name));
                Subject::Port { network: network.to_owned(), port: port.to_owned() }
            }
            "service" => Subject::Service(owned),
            "user" => Subject::User(owned),
            "group" => Subject::Group(owned),
            "command" => Subject::Command { exec: owned, timeout: self.timeout(10_000)? },
            "dns" => self.dns(name)?,
            "process" => Subject::Process(owned),
            "kernel-param" => Subject::KernelParameter(owned),
            "mount" => {
                self.timeout(1000)?;
                Subject::Mount(owned)
            }
            "interface" => Subject::Interface(owned),
            "http" => Subject::Http(Box::new(self.http(name)?)),
            _ => self.matching()?,
        })
    }

    fn address(&self, name: &str) -> Result<Subject, Problem> {
        let (network, address) = name.split_once("://").unwrap_or(("tcp", name));
        let (local, timeout) = (self.texts("local-address")?, self.timeout(500)?);
        Ok(Subject::Address { network: network.to_owned(), address: address.to_owned(), local, timeout })
    }

    fn dns(&self, name: &str) -> Result<Subject, Problem> {
        let (kind, host) = match name.split_once(':') {
            Some((kind, host)) if !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_uppercase()) => {
                (Some(kind), host)
            }
            _ => (None, name),
        };
        if let Some(unknown) = kind.filter(|kind| !RECORDS.contains(kind)) {
            return Err(
                self.problem(self.key.line, format!("`{unknown}` is not a type of record that goss 0.4 asks for"))
            );
        }
        let (server, timeout) = (self.texts("server")?.filter(|server| !server.is_empty()), self.timeout(500)?);
        Ok(Subject::Dns { kind: kind.map(str::to_owned), name: host.to_owned(), server, timeout })
    }

    fn http(&self, url: &str) -> Result<Http, Problem> {
        let set = |key| self.texts(key).map(|text| text.filter(|text| !text.is_empty()));
        let (username, password) = (set("username")?, set("password")?);
        let login = (username.is_some() || password.is_some())
            .then(|| (username.unwrap_or_default(), password.unwrap_or_default()));
        Ok(Http {
            url: url.to_owned(),
            method: set("method")?.unwrap_or_else(|| "GET".to_owned()),
            headers: self.request_headers()?,
            body: set("request-body")?.unwrap_or_default(),
            timeout: self.timeout(5000)?,
            insecure: self.flag("allow-insecure")?,
            no_redirects: self.flag("no-follow-redirects")?,
            login,
            ca_file: set("ca-file")?,
            client: set("cert-file")?.zip(set("key-file")?),
            proxy: set("proxy")?,
        })
    }

    fn request_headers(&self) -> Result<Vec<(String, String)>, Problem> {
        let Some(node) = self.node.get("request-headers").filter(|node| !node.is_null()) else { return Ok(Vec::new()) };
        let NodeKind::List(items) = &node.kind else {
            return Err(self.problem(node.line, "`request-headers` is a list of texts like `Accept: text/html`"));
        };
        let header = |item: &Node| {
            let (name, value) = item.text()?.split_once(": ")?;
            Some((name.to_owned(), value.to_owned()))
        };
        let wrong = |item: &Node| self.problem(item.line, "a header is a text like `Accept: text/html`");
        items.iter().map(|item| header(item).ok_or_else(|| wrong(item))).collect()
    }

    fn matching(&self) -> Result<Subject, Problem> {
        let content = self.node.get("content").map_or(Value::Null, Node::value);
        Ok(Subject::Matching(if self.flag("as-reader")? { Value::Text(content.printed()) } else { content }))
    }

    /// yaml.v3 also takes the words of YAML 1.1 where a `bool` is wanted.
    fn flag(&self, key: &str) -> Result<bool, Problem> {
        let Some(node) = self.node.get(key).filter(|node| !node.is_null()) else { return Ok(false) };
        match &node.kind {
            NodeKind::Scalar(Value::Bool(flag)) => Ok(*flag),
            NodeKind::Scalar(Value::Text(text)) => match text.as_str() {
                "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(true),
                "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(false),
                _ => Err(self.problem(node.line, format!("`{key}` is `true` or `false`"))),
            },
            _ => {
                Err(self.problem(node.line, format!("`{key}` is `true` or `false`, and this is {}", node.described())))
            }
        }
    }

    fn texts(&self, key: &str) -> Result<Option<String>, Problem> {
        let Some(node) = self.node.get(key).filter(|node| !node.is_null()) else { return Ok(None) };
        match &node.kind {
            NodeKind::Scalar(value) => Ok(Some(value.printed())),
            _ => Err(self.problem(node.line, format!("`{key}` is a text, and this is {}", node.described()))),
        }
    }

    /// In milliseconds; 0 is the default.
    fn timeout(&self, default: u64) -> Result<Duration, Problem> {
        const LONGEST: i64 = 3_600_000;
        let Some(node) = self.node.get("timeout").filter(|node| !node.is_null()) else {
            return Ok(Duration::from_millis(default));
        };
        match node.kind {
            NodeKind::Scalar(Value::Int(0)) => Ok(Duration::from_millis(default)),
            NodeKind::Scalar(Value::Int(millis @ 1..=LONGEST)) => Ok(Duration::from_millis(millis as u64)),
            _ => {
                let message =
                    format!("`timeout` is a number of milliseconds up to {LONGEST}, and this is {}", node.described());
                Err(self.problem(node.line, message))
            }
        }
    }
}
