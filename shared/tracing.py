"""Traces with OpenTelemetry, from the HTTP request to the outcome event; off unless an endpoint is set."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from shared.telemetry import get_logger

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

log = get_logger(__name__)

# OpenTelemetry's own names for its settings; the exporter reads the rest of them itself.
ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_tracers: list["Tracer"] = []


def configure_tracing(process: str) -> None:
    """Send this process's spans to the endpoint that the environment names, if it names one."""
    if _tracers or not any(os.environ.get(name) for name in ENDPOINTS):
        return
    # Only now: a process that traces nothing need not load it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    resource = Resource.create({"service.name": f"payment-{process}"})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracers.append(provider.get_tracer("payment-service"))
    log.info("tracing is on")


@contextmanager
def span(name: str, traceparent: str | None, **attributes: object) -> Iterator[str | None]:
    """Do the block's work in a span of the trace `traceparent` (W3C); for None of the span around it.

    Yields the traceparent to hand on; with tracing off that is the one that came in.
    """
    if not _tracers:
        yield traceparent
        return
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    propagator = TraceContextTextMapPropagator()
    parent = propagator.extract({"traceparent": traceparent}) if traceparent else None
    kept = {key: str(value) for key, value in attributes.items() if value is not None}
    with _tracers[0].start_as_current_span(name, context=parent, attributes=kept):
        carrier: dict[str, str] = {}
        propagator.inject(carrier)
        yield carrier.get("traceparent", traceparent)
