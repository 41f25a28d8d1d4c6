//! Where spans go, from an option or from the variables that every exporter of OpenTelemetry knows
//! (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).

use std::{path::PathBuf, time::Duration};

use hyper::http::{HeaderName, HeaderValue, Uri};

/// A collector that said nothing for so long is asked again, unless a variable says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No variable makes it longer than this.
const LONGEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Where a collector takes traces, below its address.
const PATH: &str = "/v1/traces";

/// Where spans go, and what is said of this daemon with each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceSettings {
    /// Who takes them.
    pub collector: Collector,
    /// What is said of the daemon: `service.name`, and what `OTEL_RESOURCE_ATTRIBUTES` says.
    pub resource: Vec<(String, String)>,
}

/// A collector's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Collector {
    /// As it was said, without anything secret.
    pub url: String,
    /// Whether the connection is encrypted.
    pub encrypted: bool,
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Path and query.
    pub path: String,
    /// What is sent with every request: tokens, for example.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// A request must be answered within this time.
    pub timeout: Duration,
    /// A file with the certificates (PEM) of the authorities that are believed; the host's own where nothing is said.
    pub certificates: Option<PathBuf>,
}

/// What is wrong with what was said of the collector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// No address that spans can be sent to.
    #[error("`{url}` is no address for traces: say it like `http://127.0.0.1:4318/v1/traces`")]
    NoAddress {
        /// What was said.
        url: String,
    },
    /// A protocol that Kiln does not speak.
    #[error(
        "traces are sent by HTTP, and OTEL_EXPORTER_OTLP_PROTOCOL says `{protocol}`: say `http/json`, and the port for HTTP (usually 4318)"
    )]
    Protocol {
        /// The protocol.
        protocol: String,
    },
    /// Pairs that cannot be read.
    #[error("{variable} is no list like `key=value,other=value`")]
    NoPairs {
        /// The variable.
        variable: &'static str,
    },
    /// A time that cannot be read.
    #[error("{variable} is no number of milliseconds above 0")]
    NoTime {
        /// The variable.
        variable: &'static str,
    },
}

type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

impl TraceSettings {
    /// What was said, by an option or by variables; none where nobody asked for traces. The option is a whole address.
    pub fn of(option: Option<&str>, variables: Variables<'_>) -> Result<Option<Self>, SettingsError> {
        let get = |name: &str| variables(name).filter(|value| !value.trim().is_empty());
        let Some(url) = option.map(str::to_owned).or_else(|| endpoint(&get)) else { return Ok(None) };
        if option.is_none() {
            speaks_http(&get)?;
        }
        let mut collector = Collector::parse(&url)?;
        let of_traces = |name: &str| {
            get(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}")).or_else(|| get(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        if let Some(text) = of_traces("HEADERS") {
            collector.headers = headers(&text)?;
        }
        if let Some(text) = of_traces("TIMEOUT") {
            collector.timeout = timeout(&text)?;
        }
        collector.certificates = of_traces("CERTIFICATE").map(PathBuf::from);
        Ok(Some(Self { collector, resource: resource(&get)? }))
    }
}

fn endpoint(get: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let off = get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
        || get("OTEL_TRACES_EXPORTER").is_some_and(|value| value == "none");
    if off {
        return None;
    }
    get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
        .or_else(|| get("OTEL_EXPORTER_OTLP_ENDPOINT").map(|url| format!("{}{PATH}", url.trim_end_matches('/'))))
}

/// Receivers for HTTP take both encodings at the same place.
fn speaks_http(get: &dyn Fn(&str) -> Option<String>) -> Result<(), SettingsError> {
    let said = get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| get("OTEL_EXPORTER_OTLP_PROTOCOL"));
    match said {
        Some(protocol) if !protocol.starts_with("http/") => Err(SettingsError::Protocol { protocol }),
        _ => Ok(()),
    }
}

fn timeout(text: &str) -> Result<Duration, SettingsError> {
    let milliseconds: u64 = text.trim().parse().unwrap_or(0);
    match milliseconds {
        0 => Err(SettingsError::NoTime { variable: "OTEL_EXPORTER_OTLP_TIMEOUT" }),
        _ => Ok(Duration::from_millis(milliseconds).min(LONGEST_TIMEOUT)),
    }
}

fn headers(text: &str) -> Result<Vec<(HeaderName, HeaderValue)>, SettingsError> {
    let wrong = || SettingsError::NoPairs { variable: "OTEL_EXPORTER_OTLP_HEADERS" };
    let parsed = |(name, value): (String, String)| {
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        Some((HeaderName::from_bytes(name.as_bytes()).ok()?, value))
    };
    let all = pairs(text).ok_or_else(wrong)?;
    all.into_iter().map(|pair| parsed(pair).ok_or_else(wrong)).collect()
}

fn resource(get: &dyn Fn(&str) -> Option<String>) -> Result<Vec<(String, String)>, SettingsError> {
    let text = get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let said = pairs(&text).ok_or(SettingsError::NoPairs { variable: "OTEL_RESOURCE_ATTRIBUTES" })?;
    let named = get("OTEL_SERVICE_NAME").map(|name| ("service.name".to_owned(), name));
    let version = ("service.version".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    let mut all: Vec<(String, String)> = named.into_iter().collect();
    for (key, value) in said.into_iter().chain([("service.name".to_owned(), "kiln".to_owned()), version]) {
        if !all.iter().any(|(known, _)| *known == key) {
            all.push((key, value));
        }
    }
    Ok(all)
}

/// `key=value,key=value`, with values in percent encoding.
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let pair = |part: &str| {
        let (key, value) = part.split_once('=')?;
        let key = key.trim();
        Some((key.to_owned(), decoded(value.trim())?)).filter(|(key, _)| !key.is_empty())
    };
    parts.map(pair).collect()
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(after.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &after[2..];
    }
    String::from_utf8(bytes).ok()
}

impl Collector {
    /// A whole address: `http://host:4318/v1/traces`. Nothing after its host is added where a path is said.
    pub fn parse(url: &str) -> Result<Self, SettingsError> {
        let wrong = || SettingsError::NoAddress { url: url.chars().filter(|c| !c.is_control()).take(200).collect() };
        let uri: Uri = url.trim().parse().map_err(|_| wrong())?;
        let encrypted = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(wrong()),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wrong)?;
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let port = authority.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        if host.is_empty() || port == 0 {
            return Err(wrong());
        }
        let said = uri.path_and_query().map_or("/", |path| path.as_str());
        let path = if said == "/" { PATH.to_owned() } else { said.to_owned() };
        let shown = format!("{}://{authority}{}", uri.scheme_str().unwrap_or_default(), uri.path());
        let (headers, timeout) = (Vec::new(), TIMEOUT);
        Ok(Self { url: shown, encrypted, host, port, path, headers, timeout, certificates: None })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn said(option: Option<&str>, variables: &[(&str, &str)]) -> Result<Option<TraceSettings>, SettingsError> {
        let all: BTreeMap<_, _> = variables.iter().copied().collect();
        TraceSettings::of(option, &|name| all.get(name).map(|value| (*value).to_owned()))
    }

    fn place(settings: Result<Option<TraceSettings>, SettingsError>) -> Option<(String, u16, String)> {
        settings.unwrap().map(|settings| {
            let Collector { host, port, path, .. } = settings.collector;
            (host, port, path)
        })
    }

    #[test]
    fn unit_collectors_are_found_as_other_exporters_find_them() {
        let at = |host: &str, port, path: &str| Some((host.to_owned(), port, path.to_owned()));
        assert_eq!(place(said(None, &[])), None);
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        assert_eq!(place(said(None, &[base])), at("collector", 4318, "/v1/traces"));
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://[::1]:9/own?x=1");
        assert_eq!(place(said(None, &[base, own])), at("::1", 9, "/own?x=1"));
        assert_eq!(place(said(Some("https://a.example/t"), &[base, own])), at("a.example", 443, "/t"));
        assert_eq!(place(said(Some("http://127.0.0.1:4318"), &[])), at("127.0.0.1", 4318, "/v1/traces"));
        assert_eq!(place(said(None, &[base, ("OTEL_SDK_DISABLED", "true")])), None);
        assert_eq!(place(said(None, &[base, ("OTEL_TRACES_EXPORTER", "none")])), None);
        assert_eq!(place(said(None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")])), None);
    }

    #[test]
    fn unit_headers_times_and_names_come_from_their_variables() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let headers = ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-tenant=a");
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment=a%2Cb");
        let time = ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "1500");
        let name = ("OTEL_SERVICE_NAME", "kiln-here");
        let settings = said(None, &[endpoint, headers, attributes, time, name]).unwrap().unwrap();
        assert_eq!(settings.collector.timeout, Duration::from_millis(1500));
        assert_eq!(settings.collector.headers[0].1, "Bearer abc");
        assert!(!format!("{settings:?}").contains("Bearer"), "tokens are not shown");
        assert_eq!(settings.resource[0], ("service.name".to_owned(), "kiln-here".to_owned()));
        assert_eq!(settings.resource[1], ("deployment.environment".to_owned(), "a,b".to_owned()));
        assert_eq!(said(None, &[endpoint]).unwrap().unwrap().resource[0].1, "kiln");
    }

    #[test]
    fn unit_what_is_no_collector_is_refused_in_words() {
        for url in ["collector:4318", "ftp://a/", "http://", "http://user:word@a/", "http://a:0/", "http://a b/"] {
            assert!(matches!(said(Some(url), &[]), Err(SettingsError::NoAddress { .. })), "{url}");
        }
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317");
        let wrong = |variable| said(None, &[endpoint, variable]).unwrap_err().to_string();
        assert!(wrong(("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")).contains("`grpc`: say `http/json`"));
        assert!(wrong(("OTEL_EXPORTER_OTLP_HEADERS", "token")).contains("no list like `key=value"));
        assert!(wrong(("OTEL_EXPORTER_OTLP_HEADERS", "a=%0a")).contains("no list like `key=value"));
        assert!(wrong(("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz")).contains("no list like `key=value"));
        assert!(wrong(("OTEL_EXPORTER_OTLP_TIMEOUT", "soon")).contains("milliseconds"));
    }
}
