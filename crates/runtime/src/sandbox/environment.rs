//! What a command gets from the host besides its files: environment variables, and with the network on the resolver's
//! configuration, the proxy variables and the host's certificates, so that a build behind a company's proxy works and
//! nothing of it stays in the image.

use std::{
    ffi::{CStr, CString},
    path::Path,
};

use super::{Bind, Job, Network, SandboxError};
use crate::network::resolver;

/// Also understood in capitals.
const PROXY_VARIABLES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"];

/// Where distributions keep the bundle of all certificates that programs trust.
const BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The variables by which programs are told of a bundle.
const BUNDLE_VARIABLES: [&str; 5] =
    ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT", "NODE_EXTRA_CA_CERTS"];

const BUNDLE_INSIDE: &str = "/run/kiln/ca-certificates.crt";

/// What a command is given.
#[derive(Debug)]
pub(super) struct Environment {
    /// `NAME=value` each.
    pub(super) variables: Vec<String>,
    /// Content for `/etc/resolv.conf`.
    pub(super) resolver: Option<String>,
    /// Host files to show, the job's own among them.
    pub(super) binds: Vec<Bind>,
    /// What will not work, in words for the step's output.
    pub(super) warnings: Vec<String>,
}

/// Puts a job's environment together. What the job sets itself is not replaced.
pub(super) fn prepare(job: &Job) -> Result<Environment, SandboxError> {
    let mut variables = job.environment.clone();
    let mut binds = job.binds.clone();
    let (mut resolver, mut warnings) = (None, Vec::new());
    if job.network == Network::On {
        resolver = Some(resolver::configuration().ok_or_else(no_resolver)?);
        let proxies = proxies();
        warnings.extend(proxies.iter().filter_map(unreachable_proxy));
        add_missing(&mut variables, proxies);
        if let Some(bundle) = BUNDLES.iter().map(Path::new).find(|path| path.is_file()) {
            binds.push(Bind { source: bundle.to_owned(), target: BUNDLE_INSIDE.to_owned(), writable: false });
            add_missing(&mut variables, BUNDLE_VARIABLES.map(|name| (name.to_owned(), BUNDLE_INSIDE.to_owned())));
        }
    }
    let variables = variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    Ok(Environment { variables, resolver, binds, warnings })
}

fn add_missing(variables: &mut Vec<(String, String)>, more: impl IntoIterator<Item = (String, String)>) {
    for (name, value) in more {
        if !variables.iter().any(|(known, _)| *known == name) {
            variables.push((name, value));
        }
    }
}

fn proxies() -> Vec<(String, String)> {
    let names = PROXY_VARIABLES.iter().flat_map(|name| [(*name).to_owned(), name.to_uppercase()]);
    names.filter_map(|name| std::env::var(&name).ok().map(|value| (name, value))).collect()
}

fn no_resolver() -> SandboxError {
    SandboxError::Resolver(
        "every name server in /etc/resolv.conf is on this host itself, which build steps cannot reach; \
         name one outside, or put the upstream servers into /run/systemd/resolve/resolv.conf"
            .to_owned(),
    )
}

fn unreachable_proxy((name, value): &(String, String)) -> Option<String> {
    if name.eq_ignore_ascii_case("no_proxy") {
        return None;
    }
    let address = value.rsplit_once("://").map_or(value.as_str(), |(_, rest)| rest);
    let address = address.rsplit_once('@').map_or(address, |(_, rest)| rest);
    let on_host = ["localhost", "127.", "[::1]"].iter().any(|start| address.starts_with(start));
    on_host.then(|| {
        format!(
            "{name} names a proxy on this host's loopback, {address}, which build steps cannot reach; \
             let it listen on an address of the network"
        )
    })
}

/// C strings that live together.
#[derive(Debug)]
pub(super) struct CStrings(Vec<CString>);

impl CStrings {
    pub(super) fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, SandboxError> {
        let texts = texts.into_iter().map(CString::new).collect::<Result<_, _>>();
        texts.map(Self).map_err(|_| SandboxError::Job("a command, variable or path holds a zero byte"))
    }

    pub(super) fn all(&self) -> Vec<&CStr> {
        self.0.iter().map(CString::as_c_str).collect()
    }

    pub(super) fn three(&self) -> [&CStr; 3] {
        [&self.0[0], &self.0[1], &self.0[2]]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_on_loopback_is_named() {
        let warning = |name: &str, value: &str| unreachable_proxy(&(name.to_owned(), value.to_owned()));
        assert!(warning("http_proxy", "http://user:secret@127.0.0.1:3128").unwrap().contains(" 127.0.0.1:3128,"));
        assert!(warning("HTTPS_PROXY", "localhost:3128").is_some());
        assert_eq!(warning("http_proxy", "http://proxy.example.org:3128"), None);
        assert_eq!(warning("no_proxy", "localhost"), None);
    }

    #[test]
    fn what_the_job_sets_is_not_replaced() {
        let mut variables = vec![("PIP_CERT".to_owned(), "mine".to_owned())];
        add_missing(&mut variables, [("PIP_CERT".to_owned(), "theirs".to_owned())]);
        assert_eq!(variables, [("PIP_CERT".to_owned(), "mine".to_owned())]);
    }
}
