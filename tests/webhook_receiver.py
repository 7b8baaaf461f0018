"""Receive a Stripe simulator's webhooks on a port of its own."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import stripe

from tests.waiting import POLL_S


class Receiver:
    """A web server that verifies and keeps what it is sent.

    `refusals` is how many requests it answers with a 503 before it takes one.
    """

    def __init__(self, secret: str, *, refusals: int = 0) -> None:
        """Listen on a free port of this machine."""
        self.events: list[dict[str, Any]] = []
        self.attempts = 0
        self.problems: list[str] = []
        self._secret = secret
        self._refusals = refusals
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.take(body, self.headers["Stripe-Signature"]))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - named by its base
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL_S,), daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/webhooks"

    def take(self, body: bytes, signature: str) -> int:
        """Keep one event if its signature is right; return the status to answer with."""
        self.attempts += 1
        if self.attempts <= self._refusals:
            return 503
        try:
            event = stripe.Webhook.construct_event(body, signature, self._secret)
        except (ValueError, stripe.SignatureVerificationError) as error:
            self.problems.append(str(error))
            return 400
        self.events.append(event.to_dict())
        return 200

    def types(self, object_id: str | None = None) -> list[str]:
        """Return the types of what has come, in order; of one object or what belongs to it, if given."""
        return [
            event["type"] for event in self.events if object_id in {None, *_names(event["data"]["object"])}
        ]

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _names(shown: dict[str, Any]) -> set[Any]:
    return {shown["id"], shown.get("payment_intent")}
