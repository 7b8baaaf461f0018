"""Receive webhooks and order callbacks, and check signatures by the specification."""

import base64
import hashlib
import hmac
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from requests.structures import CaseInsensitiveDict

from shared.documents import parse_json
from tests.waiting import POLL_S

TOLERANCE_S: Final = 300


@dataclass(frozen=True)
class Call:
    """One request that has come."""

    method: str
    path: str
    headers: CaseInsensitiveDict[str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The parsed JSON."""
        return parse_json(self.raw)

    @property
    def id(self) -> str:
        """The webhook's id."""
        return self.headers["webhook-id"]

    def is_signed_by(self, secret: str) -> bool:
        """Whether one of the signatures is this secret's, for this body and about this time."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        at = self.headers["webhook-timestamp"]
        content = b".".join((self.id.encode(), at.encode(), self.raw))
        expected = "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
        is_fresh = abs(time.time() - int(at)) < TOLERANCE_S
        return is_fresh and expected in self.headers["webhook-signature"].split(" ")


class Subscriber:
    """A web server that keeps what it is sent and answers with the status that `behave` returns."""

    def __init__(
        self,
        behave: Callable[[Call], int] = lambda _: 200,
        headers: Mapping[str, str] | None = None,
        *,
        keeps: bool = True,
    ) -> None:
        """Listen on a free port of this machine; `headers` come with every answer.

        An OSError of `behave` cuts the connection. Without `keeps`, `calls` stays empty.
        """
        self.calls: list[Call] = []
        self.behave = behave
        subscriber = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers["Content-Length"]))
                named = CaseInsensitiveDict(self.headers.items())
                call = Call(self.command, self.path, named, raw)
                if keeps:
                    subscriber.calls.append(call)
                status = subscriber.behave(call)
                self.send_response(status)
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_PUT = do_POST  # noqa: N815 - named by its base
            do_GET = do_POST  # noqa: N815 - named by its base

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by its base
                pass

            def handle(self) -> None:
                with suppress(OSError):  # whoever called did not wait
                    super().handle()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True)
        self._thread.start()
        self.port = int(self._server.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}/hooks"

    def types(self, payment_id: str | None = None) -> list[str]:
        """The types of the webhooks that were taken or refused, in their order; of one payment, if given."""
        told = [each.body for each in list(self.calls)]
        return [each["type"] for each in told if payment_id in {None, each["data"]["paymentId"]}]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
