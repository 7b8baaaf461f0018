"""An example of a client: an ordering domain that sends orders by HTTP and hears their outcomes on Kafka."""

import argparse
import os
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, cast

import requests
import simplejson  # an amount must never pass through a float
from confluent_kafka import Consumer, Message
from requests.adapters import HTTPAdapter, Retry

OUTCOMES = ["payment-succeeded", "payment-failed"]
TIMEOUT_S = 35  # the service holds an answer back for up to 30 s when asked to wait
Verdict = Literal["new", "repeat", "stale"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a customer owes. The ids are ours; the service is idempotent by `order_id`."""

    amount: Decimal
    currency: str = "USD"
    order_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    customer_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    details: dict[str, Any] = field(default_factory=dict)  # paymentMethodId, offSession, metadata, ...


@dataclass(frozen=True)
class Answer:
    """The HTTP status, and the payment that the order has now."""

    http_status: int
    payment_id: str
    status: str


class Payments:
    """Sends orders; may be used by several threads."""

    def __init__(self, api_url: str) -> None:
        """What does not get through is sent again: the same order never makes a second charge."""
        again = Retry(total=5, backoff_factor=0.1, status_forcelist=[429, 503], allowed_methods=None)
        self._session = requests.Session()
        self._session.mount("http", HTTPAdapter(max_retries=again, pool_maxsize=64))
        self._url = f"{api_url}/payments"

    def send(self, order: Order, *, wait: bool = False) -> Answer:
        """Ask for the charge; without `wait` the outcome comes on Kafka only. Raises RequestException."""
        body = {"orderId": order.order_id, "customerId": order.customer_id, **order.details}
        body |= {"amount": order.amount, "currency": order.currency}
        headers = {"Content-Type": "application/json"} | ({} if wait else {"Prefer": "respond-async"})
        response = self._session.post(self._url, simplejson.dumps(body), headers=headers, timeout=TIMEOUT_S)
        if (payment := response.json()["payment"]) is None:  # the order is refused: a bad field, a conflict
            raise requests.HTTPError(response.text, response=response)
        return Answer(response.status_code, payment["id"], payment["status"])


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


def main() -> int:
    """Send orders to a running stack and print how each ends; 1 when an outcome stays out for a minute."""
    parser = argparse.ArgumentParser("python -m deploy.local.ordering", description=__doc__)
    parser.add_argument("--orders", type=int, default=4, help="how many to send (default: %(default)s)")
    count: int = parser.parse_args().orders
    file = Path(os.environ.get("STATE_DIR") or ".local", "endpoints.json")  # there while the stack is up
    endpoints = simplejson.loads(file.read_text("utf-8"))
    orders = [Order(amount=Decimal(f"{20 + n}.{(50, 10, 75, 13)[n % 4]}")) for n in range(count)]
    waiting, all_heard = {order.order_id for order in orders}, threading.Event()

    def tell(outcome: Outcome, verdict: Verdict) -> None:
        if verdict == "new" and (order_id := outcome.data["orderId"]) in waiting:
            print(f"order {order_id} {outcome.data['status']}, heard on {outcome.topic}", flush=True)
            waiting.discard(order_id)
            if not waiting:
                all_heard.set()

    listen = Outcomes(endpoints["kafka_bootstrap_servers"], tell).run
    threading.Thread(target=listen, args=(all_heard,), daemon=True).start()
    payments = Payments(endpoints["api_url"])
    for order in orders:
        print(f"order {order.order_id} {payments.send(order).status}, {order.amount} asked for", flush=True)
    return 0 if not orders or all_heard.wait(60) else 1


if __name__ == "__main__":
    sys.exit(main())
