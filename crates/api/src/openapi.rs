//! The OpenAPI document, made from one table of endpoints and the types' own schemas.

use utoipa::{
    ToSchema,
    openapi::{
        ComponentsBuilder, Content, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, PathItem,
        PathsBuilder, Ref, RefOr, Required, ResponseBuilder, Schema,
        path::{Operation, OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        schema::{ObjectBuilder, Type},
    },
};

use crate::{
    config::{ConfigDiff, ConfigDiffRequest, LiveDetails, LiveRequest},
    error::ErrorBody,
    event::{Event, Happened},
    host::{Collected, HostInventory, ImagesInUse, ServerDetails},
    identity::JwkSet,
    loss::LossReport,
    recovery::RecoveryRequest,
    request::{
        ApplyRequest, Done, DownRequest, HealRequest, Healed, PromoteRequest, Promoted, RebuildRequest, RevokeRequest,
        Revoked, RollbackRequest, TestRequest, TouchRequest,
    },
    status::Status,
    volume::{DrillRequest, VolumeDone, VolumeRequest, Volumes},
};

/// One endpoint of the daemon.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// `GET` or `POST`.
    pub method: &'static str,
    /// Path, parameters in braces.
    pub path: &'static str,
    /// What it does.
    pub summary: &'static str,
    /// Schema of the request body.
    pub request: Option<&'static str>,
    /// What comes back.
    pub answer: Answer,
}

/// What an endpoint answers with status 200.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// One JSON value of this schema.
    Json(&'static str),
    /// A stream of [`Event`]s, one to a line.
    Events,
    /// Plain text.
    Text,
    /// A stream of [`Happened`], one to a line or as server-sent events.
    History,
}

/// Every endpoint.
#[rustfmt::skip]
pub const ENDPOINTS: &[Endpoint] = &[
    Endpoint { method: "GET", path: "/v1/status", summary: "What runs", request: None, answer: Answer::Json("Status") },
    Endpoint { method: "GET", path: "/v1/servers/{id}", summary: "One server in detail", request: None, answer: Answer::Json("ServerDetails") },
    Endpoint { method: "GET", path: "/v1/loss", summary: "What would be gone with the servers that run", request: None, answer: Answer::Json("LossReport") },
    Endpoint { method: "GET", path: "/v1/loss/{id}", summary: "What would be gone with a server, or with those of a group", request: None, answer: Answer::Json("LossReport") },
    Endpoint { method: "GET", path: "/v1/host", summary: "Everything Kiln made on this host", request: None, answer: Answer::Json("HostInventory") },
    Endpoint { method: "GET", path: "/v1/images", summary: "The images that must not be removed", request: None, answer: Answer::Json("ImagesInUse") },
    Endpoint { method: "GET", path: "/v1/jwks", summary: "The keys that verify identity tokens of servers", request: None, answer: Answer::Json("JwkSet") },
    Endpoint { method: "GET", path: "/v1/events", summary: "What happens, until the reader leaves; what is kept of earlier events with `after`", request: None, answer: Answer::History },
    Endpoint { method: "GET", path: "/metrics", summary: "What happened, counted, in the text format of Prometheus", request: None, answer: Answer::Text },
    Endpoint { method: "POST", path: "/v1/test", summary: "Boot an image, run its suite, sign the report", request: Some("TestRequest"), answer: Answer::Events },
    Endpoint { method: "POST", path: "/v1/apply", summary: "Make the groups as a fleet says, or say what would be done", request: Some("ApplyRequest"), answer: Answer::Events },
    Endpoint { method: "POST", path: "/v1/rollback", summary: "Move a group back to the release it had before", request: Some("RollbackRequest"), answer: Answer::Events },
    Endpoint { method: "POST", path: "/v1/rebuild", summary: "Tear down and rebuild the same release", request: Some("RebuildRequest"), answer: Answer::Events },
    Endpoint { method: "POST", path: "/v1/heal", summary: "Replace what is missing of a group now, although too much of it went down lately", request: Some("HealRequest"), answer: Answer::Json("Healed") },
    Endpoint { method: "POST", path: "/v1/down", summary: "Stop and destroy servers", request: Some("DownRequest"), answer: Answer::Events },
    Endpoint { method: "POST", path: "/v1/recovery", summary: "Destroy servers, the gateway or the daemon, and measure how they come back", request: Some("RecoveryRequest"), answer: Answer::Events },
    Endpoint { method: "GET", path: "/v1/volumes", summary: "The volumes, with their snapshots", request: None, answer: Answer::Json("Volumes") },
    Endpoint { method: "POST", path: "/v1/volume", summary: "Make, snapshot, clone, restore, grow, export, import or remove a volume", request: Some("VolumeRequest"), answer: Answer::Json("VolumeDone") },
    Endpoint { method: "POST", path: "/v1/drill", summary: "Restore the newest snapshots on throwaway servers and run the tests there", request: Some("DrillRequest"), answer: Answer::Events },
    Endpoint { method: "POST", path: "/v1/promote", summary: "Point a channel at an image, if the rules of the channel hold", request: Some("PromoteRequest"), answer: Answer::Json("Promoted") },
    Endpoint { method: "POST", path: "/v1/revoke", summary: "Launch an image never again", request: Some("RevokeRequest"), answer: Answer::Json("Revoked") },
    Endpoint { method: "POST", path: "/v1/touch", summary: "Note that somebody runs a command inside a server", request: Some("TouchRequest"), answer: Answer::Json("Done") },
    Endpoint { method: "POST", path: "/v1/gc", summary: "Remove secrets that no release kept names and nobody wanted for a day", request: None, answer: Answer::Json("Collected") },
    Endpoint { method: "POST", path: "/v1/config/diff", summary: "Compare two configurations of a group", request: Some("ConfigDiffRequest"), answer: Answer::Json("ConfigDiff") },
    Endpoint { method: "GET", path: "/v1/live/{id}", summary: "The live values of a group", request: None, answer: Answer::Json("LiveDetails") },
    Endpoint { method: "POST", path: "/v1/live", summary: "Set a live key of a group, or reset it", request: Some("LiveRequest"), answer: Answer::Json("LiveDetails") },
    Endpoint { method: "POST", path: "/v1/shutdown", summary: "End the daemon; servers and traffic go on", request: None, answer: Answer::Json("Done") },
];

/// The OpenAPI document of the daemon.
pub fn openapi() -> OpenApi {
    let paths = ENDPOINTS.iter().fold(PathsBuilder::new(), |paths, endpoint| {
        let method = if endpoint.method == "GET" { HttpMethod::Get } else { HttpMethod::Post };
        paths.path(endpoint.path, PathItem::new(method, operation(endpoint)))
    });
    let info = InfoBuilder::new()
        .title("Kiln daemon")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some("HTTP/1.1 over the Unix socket `kiln.sock` (mode 0600) in the state directory."))
        .license(Some(LicenseBuilder::new().name("Apache-2.0 OR MIT").build()));
    OpenApiBuilder::new().info(info.build()).paths(paths.build()).components(Some(components())).build()
}

fn operation(endpoint: &Endpoint) -> Operation {
    let mut operation = OperationBuilder::new()
        .summary(Some(endpoint.summary))
        .response("200", ResponseBuilder::new().description("Done or under way").content_of(endpoint.answer))
        .response("default", json_response("It could not be done", "ErrorBody"));
    if let Some(name) = endpoint.request {
        let body = RequestBodyBuilder::new().required(Some(Required::True));
        operation = operation.request_body(Some(body.content("application/json", content(name)).build()));
    }
    if endpoint.path.contains("{id}") {
        let id = ParameterBuilder::new().name("id").parameter_in(ParameterIn::Path).required(Required::True);
        operation = operation.parameter(id.schema(Some(ObjectBuilder::new().schema_type(Type::String))));
    }
    if endpoint.answer == Answer::History {
        let number = ObjectBuilder::new().schema_type(Type::Integer);
        let after = ParameterBuilder::new().name("after").parameter_in(ParameterIn::Query).schema(Some(number));
        let whether = ObjectBuilder::new().schema_type(Type::Boolean);
        let follow = ParameterBuilder::new().name("follow").parameter_in(ParameterIn::Query).schema(Some(whether));
        operation = operation.parameter(after).parameter(follow);
    }
    operation.build()
}

trait ContentOf {
    fn content_of(self, answer: Answer) -> Self;
}
impl ContentOf for ResponseBuilder {
    fn content_of(self, answer: Answer) -> Self {
        match answer {
            Answer::Json(name) => self.content("application/json", content(name)),
            Answer::Events => self.content("application/jsonl", items("Event")),
            Answer::Text => {
                self.content("text/plain", Content::new(Some(ObjectBuilder::new().schema_type(Type::String))))
            }
            Answer::History => {
                self.content("application/jsonl", items("Happened")).content("text/event-stream", items("Happened"))
            }
        }
    }
}

fn items(schema: &str) -> Content {
    utoipa::openapi::content::ContentBuilder::new().item_schema(Some(Ref::from_schema_name(schema))).build()
}

fn json_response(description: &str, schema: &str) -> ResponseBuilder {
    ResponseBuilder::new().description(description).content("application/json", content(schema))
}

fn content(schema: &str) -> Content {
    Content::new(Some(Ref::from_schema_name(schema)))
}

fn components() -> utoipa::openapi::Components {
    let mut schemas = Vec::new();
    collect::<Status>(&mut schemas);
    collect::<ServerDetails>(&mut schemas);
    collect::<HostInventory>(&mut schemas);
    collect::<LossReport>(&mut schemas);
    collect::<ImagesInUse>(&mut schemas);
    collect::<JwkSet>(&mut schemas);
    collect::<Event>(&mut schemas);
    collect::<Happened>(&mut schemas);
    collect::<TestRequest>(&mut schemas);
    collect::<ApplyRequest>(&mut schemas);
    collect::<RollbackRequest>(&mut schemas);
    collect::<RebuildRequest>(&mut schemas);
    collect::<HealRequest>(&mut schemas);
    collect::<Healed>(&mut schemas);
    collect::<DownRequest>(&mut schemas);
    collect::<PromoteRequest>(&mut schemas);
    collect::<Promoted>(&mut schemas);
    collect::<RevokeRequest>(&mut schemas);
    collect::<Revoked>(&mut schemas);
    collect::<TouchRequest>(&mut schemas);
    collect::<Volumes>(&mut schemas);
    collect::<VolumeRequest>(&mut schemas);
    collect::<VolumeDone>(&mut schemas);
    collect::<DrillRequest>(&mut schemas);
    collect::<RecoveryRequest>(&mut schemas);
    collect::<ConfigDiffRequest>(&mut schemas);
    collect::<ConfigDiff>(&mut schemas);
    collect::<LiveRequest>(&mut schemas);
    collect::<LiveDetails>(&mut schemas);
    collect::<Collected>(&mut schemas);
    collect::<Done>(&mut schemas);
    collect::<ErrorBody>(&mut schemas);
    ComponentsBuilder::new().schemas_from_iter(schemas).build()
}

fn collect<T: ToSchema>(schemas: &mut Vec<(String, RefOr<Schema>)>) {
    schemas.push((T::name().into_owned(), T::schema()));
    T::schemas(schemas);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_every_reference_leads_to_a_schema() {
        let document = serde_json::to_value(openapi()).unwrap();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        for part in text.split("#/components/schemas/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name} is referenced but not there");
        }
    }

    #[test]
    fn host_the_written_document_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schema/api.openapi.json");
        let written = std::fs::read_to_string(path).unwrap();
        let now = openapi().to_pretty_json().unwrap();
        assert_eq!(written.trim_end(), now, "run `cargo xtask docs`");
    }
}
