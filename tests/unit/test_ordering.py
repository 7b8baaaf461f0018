"""The example client tells new outcomes from repeated and late ones."""

import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from confluent_kafka import Message

from deploy.local.ordering import Order, Outcome, Outcomes, Payments, Verdict, read

HEADERS = {"ce_id": "event-1", "ce_subject": "payment-1", "ce_sequence": "3", "ce_causationid": "operation-1"}


def message(headers: dict[str, str], value: bytes = b'{"amount": 150.10}') -> Message:
    """A message as Kafka brings it."""
    raw: list[tuple[str, str | bytes | None]] = [(name, text.encode()) for name, text in headers.items()]
    return Message(topic="payment-succeeded", value=value, headers=raw)


@pytest.fixture
def client() -> Iterator[Outcomes]:
    """A client whose broker is never there: only its memory is looked at."""
    outcomes = Outcomes("127.0.0.1:1")
    yield outcomes
    outcomes._consumer.close()


@pytest.fixture
def shop_api() -> Iterator[tuple[str, list[str]]]:
    """An API that answers at the third time; its address, and the idempotency keys that it was asked with."""
    keys: list[str] = []

    class Busy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            keys.append(self.headers["Idempotency-Key"])
            answer = b'{"payment": {"id": "payment-1", "status": "pending"}}' if len(keys) > 2 else b"{}"
            self.send_response(202 if len(keys) > 2 else 503)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", keys
        server.shutdown()


def outcome(event_id: str, sequence: int, payment_id: str = "payment-1") -> Outcome:
    """An event of a payment."""
    return Outcome(event_id, "payment-succeeded", payment_id, sequence, None, {})


def test_a_message_is_read_exactly() -> None:
    """Ids and sequence come from the headers; an amount never passes through a float."""
    event = read(message(HEADERS))
    assert (event.event_id, event.payment_id, event.sequence) == ("event-1", "payment-1", 3)
    assert event.operation_id == "operation-1"
    assert event.data == {"amount": Decimal("150.10")}


@pytest.mark.parametrize("missing", ["ce_id", "ce_subject", "ce_sequence"])
def test_a_message_without_its_headers_is_refused(missing: str) -> None:
    """What is not one of the service's events is told by KeyError, which the client survives."""
    with pytest.raises(KeyError):
        read(message({name: text for name, text in HEADERS.items() if name != missing}))


def test_a_message_that_is_not_json_is_refused() -> None:
    """Neither is a value that cannot be parsed."""
    with pytest.raises(ValueError, match="Expecting"):
        read(message(HEADERS, b"not json"))


def test_a_service_that_says_come_back_is_asked_again(shop_api: tuple[str, list[str]]) -> None:
    """Twice 503, then the answer: the same request under the same key, so that it takes effect once."""
    url, keys = shop_api
    assert Payments(url).send(Order(amount=Decimal("12.50"))).status == "pending"
    assert len(keys) == 3
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    ("events", "verdicts"),
    [
        ([outcome("a", 3), outcome("b", 5)], ["new", "new"]),
        ([outcome("a", 3), outcome("a", 3), outcome("a", 3)], ["new", "repeat", "repeat"]),
        ([outcome("b", 5), outcome("a", 3)], ["new", "stale"]),
        (
            [outcome("b", 5), outcome("a", 3), outcome("a", 3), outcome("b", 5)],
            ["new", "stale", "repeat", "repeat"],
        ),
        ([outcome("b", 5), outcome("a", 3, "payment-2")], ["new", "new"]),
    ],
)
def test_repeated_and_late_events_are_told(
    client: Outcomes, events: list[Outcome], verdicts: list[Verdict]
) -> None:
    """The same id again is a repeat; a lower sequence of the same payment is stale; payments are apart."""
    assert [client._judge(each) for each in events] == verdicts
