"""An example of what the payment service asks and hears: orders to look up, and notices told on Kafka."""

import argparse
import signal
import sys
import threading
import uuid
from decimal import Decimal
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import simplejson  # an amount must never pass through a float
from confluent_kafka import Producer

TOPICS = (
    "payment-initiated",
    "user-subscription-started",
    "inventory-adjusted",
    "reservation-created",
    "reservation-expired",
)
LONGEST_BODY = 65_536
DELIVERED_WITHIN_S = 10
LOOPBACK = "127.0.0.1"

Answer = tuple[HTTPStatus, dict[str, Any]]


class OrderService:
    """Keeps orders in memory, and tells Kafka what it is asked to tell; several threads may use it."""

    def __init__(self, bootstrap_servers: str, topic_prefix: str = "") -> None:
        """Nothing is connected until the first notice."""
        self._orders: dict[str, dict[str, Any]] = {}
        self._prefix = topic_prefix
        settings = {"bootstrap.servers": bootstrap_servers, "acks": "all", "log_level": 0}
        self._producer = Producer({**settings, "message.timeout.ms": DELIVERED_WITHIN_S * 1000})

    def show(self, order_id: str) -> Answer:
        """What the payment service asks: whose the order is, and what it costs."""
        order = self._orders.get(order_id)
        return (HTTPStatus.OK, order) if order else (HTTPStatus.NOT_FOUND, {"error": "no such order"})

    def place(self, body: dict[str, Any]) -> Answer:
        """Take an order; ids that are not given are made."""
        amount = body.get("amount")
        if isinstance(amount, bool) or not isinstance(amount, int | Decimal) or amount <= 0:
            return HTTPStatus.BAD_REQUEST, {"error": "amount: a number greater than 0, as in 150.00"}
        order: dict[str, Any] = {
            "id": str(body.get("id") or uuid.uuid4()),
            "customerId": str(body.get("customerId") or uuid.uuid4()),
            "amount": amount,
            "currency": str(body.get("currency") or "USD"),
        }
        self._orders[order["id"]] = order
        return HTTPStatus.CREATED, order

    def tell(self, topic: str, body: dict[str, Any]) -> Answer:
        """Tell the payment service something, under an id of its own."""
        if topic not in TOPICS:
            return HTTPStatus.NOT_FOUND, {"error": f"topics: {', '.join(TOPICS)}"}
        message_id = str(body.get("eventId") or uuid.uuid4())
        value = simplejson.dumps(body, use_decimal=True).encode()
        headers: dict[str, str | bytes | None] = {"ce_id": message_id, "ce_type": f"{topic}.v1"}
        self._producer.produce(self._prefix + topic, value, headers=headers)
        if self._producer.flush(DELIVERED_WITHIN_S):
            return HTTPStatus.SERVICE_UNAVAILABLE, {"error": "Kafka does not answer"}
        return HTTPStatus.ACCEPTED, {"topic": topic, "id": message_id}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Answer:
        """Answer one request."""
        match method, path.strip("/").split("/"):
            case "GET", ["healthz"]:
                return HTTPStatus.OK, {"orders": len(self._orders)}
            case "GET", ["orders", order_id]:
                return self.show(order_id)
            case "POST", ["orders"]:
                return self.place(body)
            case "POST", ["tell", topic]:
                return self.tell(topic, body)
        return HTTPStatus.NOT_FOUND, {"error": "GET /orders/{id}, POST /orders, POST /tell/{topic}"}


def make_server(service: OrderService, port: int) -> ThreadingHTTPServer:
    """A web server on the loopback address; `port` may be 0 for any free one."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(service.answer("GET", self.path, {}))

        def do_POST(self) -> None:
            length = min(int(self.headers.get("Content-Length") or 0), LONGEST_BODY)
            try:
                body = simplejson.loads(self.rfile.read(length), use_decimal=True)
            except ValueError:
                body = None
            if not isinstance(body, dict):
                self._send((HTTPStatus.BAD_REQUEST, {"error": "the body must be a JSON object"}))
                return
            self._send(service.answer("POST", self.path, body))

        def _send(self, answer: Answer) -> None:
            status, document = answer
            body = f"{simplejson.dumps(document, use_decimal=True)}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    class Server(ThreadingHTTPServer):
        request_queue_size = 128  # connections that may come at once

    return Server((LOOPBACK, port), Handler)


def main() -> int:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser("python -m deploy.local.ordering.service", description=__doc__)
    parser.add_argument("--port", type=int, default=5010, help="default: %(default)s")
    parser.add_argument("--kafka", required=True, help="bootstrap servers: host:port,host:port")
    parser.add_argument("--topic-prefix", default="", help="put before every topic's name")
    given = parser.parse_args()
    server = make_server(OrderService(given.kafka, given.topic_prefix), given.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        # From another thread: it waits for the loop that this very handler interrupts.
        signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever()
    return 0


if __name__ == "__main__":
    sys.exit(main())
