"""Hear on Kafka what became of payments, and tell repeated and late messages from new ones."""

import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import simplejson  # an amount must never pass through a float
from confluent_kafka import Consumer, Message

OUTCOMES = [
    "payment-authorized",  # the money is held
    "payment-action-required",  # the customer must act, for instance authenticate
    "payment-succeeded",
    "payment-failed",
    "payment-cancelled",
    "refund-succeeded",
    "refund-failed",
]
Verdict = Literal["new", "repeat", "stale"]


@dataclass(frozen=True)
class Outcome:
    """One event as Kafka brought it."""

    event_id: str  # the same event may come more than once, always under the same id
    topic: str
    payment_id: str
    sequence: int  # rises with each event of a payment, so that an older one that comes late can be told
    operation_id: str | None
    data: dict[str, Any]


def read(message: Message) -> Outcome:
    """Take the CloudEvents headers and the JSON value apart. Raises KeyError or ValueError."""
    given = cast("list[tuple[str, bytes]]", message.headers() or [])
    headers = {name: value.decode() for name, value in given}
    place = message.topic() or "", headers["ce_subject"], int(headers["ce_sequence"])
    data = simplejson.loads(message.value() or b"", use_decimal=True)
    return Outcome(headers["ce_id"], *place, headers.get("ce_causationid"), data)


class Outcomes:
    """Hears how payments end, and tells repeated and late messages from new ones."""

    def __init__(self, bootstrap_servers: str, tell: Callable[[Outcome, Verdict], None]) -> None:
        """`tell` is called for every message; act on "new" ones only."""
        self._tell = tell
        self._seen: set[str] = set()
        self._newest: dict[str, int] = {}
        # A real ordering domain remembers in the transaction that changes its order, and keeps one group
        # name to go on where it stopped. An empty memory needs every event, from the beginning.
        settings = {"group.id": f"ordering-{uuid.uuid4()}", "auto.offset.reset": "earliest"}
        settings |= {"enable.auto.commit": "false", "session.timeout.ms": "6000", "log_level": "0"}
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, **settings})
        self._consumer.subscribe(OUTCOMES)

    def run(self, stop: threading.Event) -> None:
        """Listen until `stop` is set. A broker that is away is waited for."""
        while not stop.is_set():
            if (message := self._consumer.poll(0.2)) is None or message.error():
                continue
            try:
                outcome = read(message)
            except (KeyError, ValueError) as error:
                print(f"{message.topic()}: not an event that we know: {error!r}", file=sys.stderr)
            else:
                self._tell(outcome, self._judge(outcome))
            self._consumer.commit(message=message)  # after a crash before this it comes again, as a repeat
        self._consumer.close()

    def _judge(self, outcome: Outcome) -> Verdict:
        if outcome.event_id in self._seen:
            return "repeat"
        self._seen.add(outcome.event_id)
        newest = self._newest.get(outcome.payment_id, 0)
        self._newest[outcome.payment_id] = max(newest, outcome.sequence)
        return "new" if outcome.sequence > newest else "stale"
