"""Tracing: one trace leads from the HTTP request to the outcome event, through every process."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from deploy.local.client import running_stack
from tests.factories import as_json, payment_body
from tests.waiting import LONGEST_S, POLL_S, wait_until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
SOON_S = 30.0


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Any]]]:
    """A place that takes spans over OTLP and HTTP, and what it was sent."""
    spans: list[Any] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = {each.key: each.value.string_value for each in resource.resource.attributes}
                spans.extend(
                    (service["service.name"], each) for scope in resource.scope_spans for each in scope.spans
                )
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=server.serve_forever, args=(POLL_S,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", spans
    server.shutdown()
    server.server_close()


def test_one_trace_leads_from_the_request_to_the_outcome(
    tmp_path: Path, collector: tuple[str, list[Any]]
) -> None:
    """The caller's trace is continued by the API, the relay, the consumer, the task and the outcome."""
    endpoint, spans = collector
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    with running_stack(tmp_path, env=env) as stack:
        answer = requests.post(
            f"{stack.endpoints.api_url}/payments",
            data=as_json(payment_body()),
            headers={
                "Content-Type": "application/json",
                "traceparent": f"00-{TRACE}-{PARENT}-01",
                "Prefer": "wait=30",
            },
            timeout=LONGEST_S,
        )
        assert answer.json()["payment"]["status"] == "succeeded", answer.text

        def seen() -> set[tuple[str, str]]:
            return {(service, each.name) for service, each in spans if each.trace_id.hex() == TRACE}

        wanted = {
            ("payment-api", "POST /payments"),
            ("payment-relay", "deliver payment-requested"),
            ("payment-consumer", "queue"),
            ("payment-tasks", "attempt"),
            ("payment-tasks", "gateway call"),
            ("payment-relay", "deliver payment-succeeded"),
        }
        wait_until(lambda: wanted <= seen(), SOON_S, "the spans of the whole way")
    request = next(
        each for service, each in spans if service == "payment-api" and each.trace_id.hex() == TRACE
    )
    assert request.parent_span_id.hex() == PARENT
