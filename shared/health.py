"""The small HTTP server of a process that has none: /healthz, /readyz and /metrics."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from shared.telemetry import get_logger

log = get_logger(__name__)

# A loop turns every second or so; one that is silent for longer hangs, unless it waits for an outage to end.
SILENT_AFTER_S = 30.0

Ready = Callable[[], tuple[bool, dict[str, Any]]]
Start = Callable[[str, list[tuple[str, str]]], object]


class Pulse:
    """When a process's loop last turned."""

    def __init__(self) -> None:
        """The start counts as a turn."""
        self._last = time.monotonic()

    def beat(self) -> None:
        """The loop has turned."""
        self._last = time.monotonic()

    def silent_s(self) -> float:
        """Seconds since the last turn."""
        return time.monotonic() - self._last


class HealthServer:
    """Answers operators and their tools about one process."""

    def __init__(
        self, process: str, pulse: Pulse, ready: Ready, waits: Callable[[], bool] = lambda: False
    ) -> None:
        """`ready()` says whether the process can do its work, and facts worth showing.

        `waits()` is asked when the loop is silent: whether it does nothing but wait for something that is
        away, for killing the process would mend nothing then.
        """
        self._waits = waits
        self._process = process
        self._pulse = pulse
        self._ready = ready
        self._routes = {"/healthz": self._healthz, "/readyz": self._readyz, "/metrics": _metrics}

    def start(self, host: str, port: int) -> int:
        """Serve in a thread that ends with the process; return the port, a free one for 0."""
        server = make_server(host, port, self, server_class=_ThreadingServer, handler_class=_QuietHandler)
        threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
        shown = f"[{host}]" if ":" in host else host
        log.info("health and metrics are served", url=f"http://{shown}:{server.server_port}")
        return server.server_port

    def __call__(self, environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        """Answer one request (WSGI)."""
        route = self._routes.get(environ["PATH_INFO"])
        status, kind, body = route() if route else (HTTPStatus.NOT_FOUND, "text/plain", b"not found\n")
        start_response(
            f"{status.value} {status.phrase}", [("Content-Type", kind), ("Content-Length", str(len(body)))]
        )
        return [body]

    def _healthz(self) -> tuple[HTTPStatus, str, bytes]:
        silent_s = self._pulse.silent_s()
        alive = silent_s < SILENT_AFTER_S or self._waits()
        return _json(
            alive, status="ok" if alive else "hangs", process=self._process, silent_s=round(silent_s, 1)
        )

    def _readyz(self) -> tuple[HTTPStatus, str, bytes]:
        ready, facts = self._ready()
        return _json(ready, status="ready" if ready else "not ready", process=self._process, **facts)


class _ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[WSGIRequestHandler]) -> None:
        """Only IPv6 writes an address with colons."""
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        super().__init__(address, handler)


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        """Probes and scrapes come every few seconds; they are no news."""


def _metrics() -> tuple[HTTPStatus, str, bytes]:
    return HTTPStatus.OK, CONTENT_TYPE_LATEST, generate_latest(REGISTRY)


def _json(good: bool, **facts: Any) -> tuple[HTTPStatus, str, bytes]:  # noqa: FBT001 - the answer's verdict
    status = HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
    return status, "application/json", json.dumps(facts).encode() + b"\n"
