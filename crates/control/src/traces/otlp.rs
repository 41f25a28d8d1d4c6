//! Spans as `ExportTraceServiceRequest` in the JSON encoding of OTLP: the JSON mapping of proto3, with ids in hexadecimal and enums as
//! numbers (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>). Numbers of 64 bits are text, as in that mapping.

use serde::{Deserialize, Serialize};

use super::span::{Moment, Span, Value};

/// `SPAN_KIND_INTERNAL`
const INTERNAL: u8 = 1;
/// `STATUS_CODE_ERROR`
const ERROR: u8 = 2;

/// The body of a request.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: Resource<'a>,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(Serialize)]
struct Resource<'a> {
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Serialize)]
struct ScopeSpans<'a> {
    scope: Scope,
    spans: Vec<SpanOut<'a>>,
}

#[derive(Serialize)]
struct Scope {
    name: &'static str,
    version: &'static str,
}

#[derive(Serialize)]
struct KeyValue<'a> {
    key: &'a str,
    value: AnyValue<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::enum_variant_names, reason = "the names of the protocol")]
enum AnyValue<'a> {
    StringValue(&'a str),
    IntValue(String),
    BoolValue(bool),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SpanOut<'a> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: &'a str,
    kind: u8,
    start_time_unix_nano: String,
    end_time_unix_nano: String,
    attributes: Vec<KeyValue<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    events: Vec<EventOut<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventOut<'a> {
    time_unix_nano: String,
    name: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    attributes: Vec<KeyValue<'a>>,
}

#[derive(Serialize)]
struct Status<'a> {
    message: &'a str,
    code: u8,
}

/// The body for these spans; the resource is what is said of the daemon.
pub(super) fn body(resource: &[(String, String)], spans: &[Span]) -> Vec<u8> {
    let attributes =
        resource.iter().map(|(key, value)| KeyValue { key, value: AnyValue::StringValue(value) }).collect();
    let scope = Scope { name: "kiln", version: env!("CARGO_PKG_VERSION") };
    let scope_spans = [ScopeSpans { scope, spans: spans.iter().map(out).collect() }];
    let request = Request { resource_spans: [ResourceSpans { resource: Resource { attributes }, scope_spans }] };
    serde_json::to_vec(&request).expect("text and numbers are always JSON")
}

fn out(span: &Span) -> SpanOut<'_> {
    SpanOut {
        trace_id: hex(&span.trace.0),
        span_id: hex(&span.id.0),
        parent_span_id: span.parent.map(|id| hex(&id.0)),
        name: span.name,
        kind: INTERNAL,
        start_time_unix_nano: span.start.to_string(),
        end_time_unix_nano: span.end.to_string(),
        attributes: span.attributes.iter().map(|(key, value)| key_value(key, value)).collect(),
        events: span.moments.iter().map(event).collect(),
        status: span.error.as_deref().map(|message| Status { message, code: ERROR }),
    }
}

fn event(moment: &Moment) -> EventOut<'_> {
    let reason = Some(&moment.reason).filter(|reason| !reason.is_empty());
    let reason = reason.map(|reason| KeyValue { key: "kiln.reason", value: AnyValue::StringValue(reason) });
    EventOut { time_unix_nano: moment.at.to_string(), name: moment.name, attributes: reason.into_iter().collect() }
}

fn key_value<'a>(key: &'a str, value: &'a Value) -> KeyValue<'a> {
    let value = match value {
        Value::Text(text) => AnyValue::StringValue(text),
        Value::Number(number) => AnyValue::IntValue(number.to_string()),
        Value::Flag(flag) => AnyValue::BoolValue(*flag),
    };
    KeyValue { key, value }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a collector that took a request may say of it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Response {
    partial_success: PartialSuccess,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PartialSuccess {
    rejected_spans: Count,
    error_message: String,
}

/// Numbers of 64 bits are text in this encoding; some write them as numbers.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Count {
    Number(u64),
    Text(String),
}

impl Default for Count {
    fn default() -> Self {
        Self::Number(0)
    }
}

/// How many spans the collector did not want, and why. An answer that says nothing of the kind refused none.
pub(super) fn rejected(answer: &[u8]) -> (u64, String) {
    let response: Response = serde_json::from_slice(answer).unwrap_or_default();
    let PartialSuccess { rejected_spans, error_message } = response.partial_success;
    let count = match rejected_spans {
        Count::Number(count) => count,
        Count::Text(text) => text.parse().unwrap_or(0),
    };
    (count, error_message)
}
