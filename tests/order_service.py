"""An order service on a port of its own, which answers as a test says and notes what it was asked."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.factories import as_json
from tests.waiting import POLL_S

Answer = tuple[int, str | bytes]


class OrderServiceStub:
    """A web server; `troubles` are the answers to the next requests, None for a connection cut off."""

    def __init__(self) -> None:
        """Listen on a free port of this machine, with no order."""
        self.orders: dict[str, dict[str, Any]] = {}
        self.troubles: list[Answer | None] = []
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.meanwhile: Callable[[], object] = lambda: None  # what happens while it is being asked
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = stub.take(self.path, dict(self.headers.items()))
                if answer is None:
                    self.close_connection = True
                    return
                status, text = answer
                body = text.encode() if isinstance(text, str) else text
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by its base
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # so many may come at once

        self._server = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def add(self, body: dict[str, Any], **changes: Any) -> None:
        """Know the order of a payment's body, with other facts in place of some; None leaves one out."""
        names = ("customerId", "amount", "currency")
        order = {"id": body["orderId"], **{name: body[name] for name in names}, **changes}
        known = {name: value for name, value in order.items() if value is not None}
        self.orders[body["orderId"]] = known

    def take(self, path: str, headers: dict[str, str]) -> Answer | None:
        """Answer one request."""
        self.asked.append((path, headers))
        self.meanwhile()
        if self.troubles:
            return self.troubles.pop(0)
        order = self.orders.get(path.removeprefix("/orders/"))
        return (200, as_json(order)) if order else (404, "{}")

    def close(self) -> None:
        """Stop listening; connections are refused from now on."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
