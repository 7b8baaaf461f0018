"""An example of a client: send orders to the running stack by HTTP, hear on Kafka how each ends."""

import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import click
import requests
import simplejson  # an amount must never pass through a float
from confluent_kafka import Consumer, Message
from requests.adapters import HTTPAdapter, Retry

OUTCOMES = ["payment-authorized", "payment-action-required", "payment-succeeded", "payment-failed"]
OUTCOMES += ["payment-cancelled", "refund-succeeded", "refund-failed"]
WAIT_S, TIMEOUT_S = 30, 35  # the service holds an answer back for up to 30 s when asked to wait
Verdict = Literal["new", "repeat", "stale"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a customer owes. The ids are ours; the service is idempotent by `order_id`."""

    amount: Decimal
    currency: str = "USD"
    order_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    customer_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    details: dict[str, Any] = field(default_factory=dict)  # captureMethod, paymentMethodId, offSession, ...


class Answer(NamedTuple):
    """The HTTP status, and the payment as it stood then."""

    http_status: int
    payment_id: str
    status: str


class Outcome(NamedTuple):
    """One event as Kafka brought it."""

    event_id: str  # the same event may come more than once, always under the same id
    topic: str
    payment_id: str
    sequence: int  # rises with each event of a payment, so that an older one that comes late can be told
    operation_id: str | None
    data: dict[str, Any]


class Payments:
    """Sends commands; several threads may use it. Each call raises RequestException, also when refused."""

    def __init__(self, api_url: str, token: str | None = None) -> None:
        """What does not get through is sent again: neither an order nor a key is ever carried out twice."""
        again = Retry(5, read=1, backoff_factor=0.1, status_forcelist=[429, 503], allowed_methods=None)
        self._url, self._session = api_url, requests.Session()
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, HTTPAdapter(max_retries=again, pool_maxsize=64))
        self._session.headers.update({"Authorization": f"Bearer {token}"} if token else {})

    def send(self, order: Order, *, wait: bool = False) -> Answer:
        """Ask for the charge, or with captureMethod manual for the hold."""
        body = {"orderId": order.order_id, "customerId": order.customer_id, **order.details}
        body |= {"amount": order.amount, "currency": order.currency}
        return self.command("/payments", body, wait=wait)

    def command(self, path: str, body: dict[str, Any], *, wait: bool = False) -> Answer:
        """Without `wait` the command is only recorded, and the outcome comes on Kafka."""
        # The key makes a repeat of this very request harmless; two refunds of one amount have two keys.
        headers = {"Content-Type": "application/json", "Idempotency-Key": str(uuid.uuid4())}
        headers["Prefer"] = f"wait={WAIT_S}" if wait else "respond-async"
        url, data = f"{self._url}{path}", simplejson.dumps(body)
        response = self._session.post(url, data, headers=headers, timeout=TIMEOUT_S)
        # A bad field, a conflict: refused. (A declined card is no refusal, but an outcome.)
        if (payment := response.json().get("payment")) is None:
            raise requests.HTTPError(response.text, response=response)
        return Answer(response.status_code, payment["id"], payment["status"])


def read(message: Message) -> Outcome:
    """Take the CloudEvents headers and the JSON value apart. Raises KeyError or ValueError."""
    headers = {name: value.decode() for name, value in cast("Any", message.headers() or [])}
    place = message.topic() or "", headers["ce_subject"], int(headers["ce_sequence"])
    data = simplejson.loads(message.value() or b"", use_decimal=True)
    return Outcome(headers["ce_id"], *place, headers.get("ce_causationid"), data)


class Outcomes:
    """Hears how payments end, and tells repeated and late messages from new ones."""

    def __init__(self, bootstrap_servers: str) -> None:
        """A broker that is away is waited for."""
        self._seen, self._newest = set[str](), dict[str, int]()
        # A real ordering domain remembers in the transaction that changes its order, and keeps one group
        # name to go on where it stopped. An empty memory needs every event, from the beginning.
        settings = {"group.id": f"ordering-{uuid.uuid4()}", "auto.offset.reset": "earliest"}
        settings |= {"enable.auto.commit": "false", "session.timeout.ms": "6000", "log_level": "0"}
        self._consumer = Consumer({"bootstrap.servers": bootstrap_servers, **settings})
        self._consumer.subscribe(OUTCOMES)

    def listen(self, is_enough: Callable[[], bool]) -> Iterator[tuple[Outcome, Verdict]]:
        """Every event as it comes, until it is enough; act on "new" ones only."""
        while not is_enough():
            if (message := self._consumer.poll(0.2)) is None or message.error():
                continue
            try:
                outcome = read(message)
            except (KeyError, ValueError) as error:
                click.echo(f"{message.topic()}: not an event that we know: {error!r}", err=True)
            else:
                yield outcome, self._judge(outcome)
            self._consumer.commit(message=message)  # after a crash before this it comes again, as a repeat
        self._consumer.close()

    def _judge(self, outcome: Outcome) -> Verdict:
        if outcome.event_id in self._seen:
            return "repeat"
        self._seen.add(outcome.event_id)
        newest = self._newest.get(outcome.payment_id, 0)
        self._newest[outcome.payment_id] = max(newest, outcome.sequence)
        return "new" if outcome.sequence > newest else "stale"


@click.command()
@click.option("--orders", "count", default=4, show_default=True, help="how many to send")
@click.option("--state-dir", envvar="STATE_DIR", default=".local", type=Path, help="of the running stack")
@click.option("--token", envvar="TOKEN", help="where AUTH=required")
def main(count: int, state_dir: Path, token: str | None) -> None:
    """Send orders and print how each ends; status 1 when an outcome stays out for a minute."""
    if not (file := state_dir / "endpoints.json").exists():
        raise click.UsageError(f"no stack is up in {state_dir}; `make run` starts one")
    endpoints = simplejson.loads(file.read_text("utf-8"))
    orders = [Order(amount=Decimal(f"{20 + n}.{(50, 10, 75, 13)[n % 4]}")) for n in range(count)]
    payments, waiting = Payments(endpoints["api_url"], token), {order.order_id for order in orders}
    for order in orders:
        click.echo(f"order {order.order_id} {payments.send(order).status}, {order.amount} asked for")
    until, outcomes = time.monotonic() + 60, Outcomes(endpoints["kafka_bootstrap_servers"])
    for outcome, verdict in outcomes.listen(lambda: not waiting or time.monotonic() > until):
        if verdict == "new" and (order_id := outcome.data["orderId"]) in waiting:
            click.echo(f"order {order_id} {outcome.data['status']}, heard on {outcome.topic}")
            waiting.discard(order_id)
    if waiting:
        raise click.ClickException(f"no outcome of {', '.join(waiting)} within a minute")


if __name__ == "__main__":
    main()
