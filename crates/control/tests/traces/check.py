"""Decodes the bodies of requests (one JSON text to a line) as a receiver of OTLP does: with the protocol's own definitions.

Unknown fields, wrong types and wrong ids are errors. Prints the number of spans.
"""
import base64, importlib, json, re, subprocess, sys, tempfile
from google.protobuf import json_format

def compiled(directory):
    out = tempfile.mkdtemp()
    files = [f"opentelemetry/proto/{name}" for name in (
        "common/v1/common.proto", "resource/v1/resource.proto", "trace/v1/trace.proto",
        "collector/trace/v1/trace_service.proto")]
    subprocess.run(["protoc", f"--proto_path={directory}", f"--python_out={out}", *files], check=True)
    sys.path.insert(0, out)
    service = importlib.import_module("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
    return service.ExportTraceServiceRequest

def ids_as_bytes(span):
    """The one difference of OTLP to the JSON mapping of proto3: ids are hexadecimal."""
    for key, length in (("traceId", 16), ("spanId", 8), ("parentSpanId", 8)):
        if key in span:
            assert re.fullmatch("[0-9a-f]{%d}" % (2 * length), span[key]), span[key]
            span[key] = base64.b64encode(bytes.fromhex(span[key])).decode()

request, seen = compiled(sys.argv[1]), set()
for line in sys.stdin:
    body = json.loads(line)
    for resource in body["resourceSpans"]:
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                assert isinstance(span["startTimeUnixNano"], str) and isinstance(span["kind"], int)
                ids_as_bytes(span)
    message = json_format.ParseDict(body, request(), ignore_unknown_fields=False)
    for resource in message.resource_spans:
        assert any(a.key == "service.name" and a.value.string_value for a in resource.resource.attributes)
        for scope in resource.scope_spans:
            assert scope.scope.name == "kiln"
            for span in scope.spans:
                assert any(span.trace_id) and any(span.span_id) and span.name
                assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
                assert all(span.start_time_unix_nano <= e.time_unix_nano <= span.end_time_unix_nano for e in span.events)
                assert (span.trace_id, span.span_id) not in seen
                assert all(a.value.WhichOneof("value") for a in span.attributes)
                seen.add((span.trace_id, span.span_id))
print(len(seen))
