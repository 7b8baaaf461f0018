"""Place orders with a running stack as a shop would, and account for every one of them afterwards."""

import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any, Final

import psycopg
import requests

from deploy.local.client import RunningStack
from shared.documents import parse_json
from tests.factories import as_json, payment_body
from tests.simulator import Simulator
from tests.topics import Received, reader
from tests.waiting import LONGEST_S, wait_until

CALL_S: Final = 120.0
SETTLED_S: Final = 40.0
PACE_S: Final = 0.08  # between two orders of a stream
OUTCOMES: Final = {"succeeded": "payment-succeeded", "failed": "payment-failed"}
NO_ANSWER: Final = 0
COME_BACK: Final = 503

Timeline = list[dict[str, Any]]


class Orders:
    """One shop: it repeats what was not accepted, and knows what it has ordered."""

    def __init__(self, stack: RunningStack) -> None:
        """Order from this stack."""
        self.stack = stack
        self.simulator = Simulator(str(stack.endpoints.stripe_api_url))
        self.placed: list[str] = []  # the payments' ids
        self.refusals: Counter[int] = Counter()  # how often which status was answered instead of acceptance

    def post(self, *, correlation_id: str = "", prefer: str = "", **fields: Any) -> requests.Response:
        """Send one order."""
        headers = {
            "Content-Type": "application/json",
            "X-Correlation-Id": correlation_id,
            "Prefer": prefer,
        }
        return requests.post(
            f"{self.stack.endpoints.api_url}/payments",
            data=as_json(payment_body(**fields)),
            headers={name: value for name, value in headers.items() if value},
            timeout=CALL_S,
        )

    def place(self, **fields: Any) -> str:
        """Send an order, again and again until it is accepted; return the payment's id."""
        body = payment_body(**fields)

        def accepted() -> str | None:
            try:
                response = self.post(prefer="respond-async", **body)
            except requests.ConnectionError:
                self.refusals[NO_ANSWER] += 1
                return None
            if response.status_code not in {200, 202}:
                self.refusals[response.status_code] += 1
                return None
            return str(response.json()["payment"]["id"])

        payment_id = wait_until(accepted, SETTLED_S, "an order to be accepted")
        self.placed.append(payment_id)
        return payment_id

    @contextmanager
    def stream(self) -> Iterator[None]:
        """Place orders all the while, from before the block until after it; every fifth is declined."""
        stop = threading.Event()

        def run() -> None:
            for number in itertools.count(1):
                self.place(amount=Decimal("10.13") if number % 5 == 0 else Decimal("25.00"))
                if stop.wait(PACE_S):
                    return

        thread = threading.Thread(target=run)
        thread.start()
        try:
            self.wait_for_more(5)
            yield
            self.wait_for_more(5)
        finally:
            stop.set()
            thread.join(LONGEST_S)
        assert not thread.is_alive()

    def wait_for_more(self, count: int) -> None:
        """Wait until so many more orders have been accepted."""
        wanted = len(self.placed) + count
        wait_until(lambda: len(self.placed) >= wanted, SETTLED_S, f"{count} more orders to be accepted")

    def get(self, path: str) -> Any:
        """Read from the API, again and again while it says to come back."""

        def answered() -> requests.Response | None:
            response = requests.get(f"{self.stack.endpoints.api_url}{path}", timeout=CALL_S)
            if response.status_code == COME_BACK:
                self.refusals[COME_BACK] += 1
                return None
            return response

        response = wait_until(answered, SETTLED_S, f"an answer to GET {path}")
        response.raise_for_status()
        return parse_json(response.content)

    def payment(self, payment_id: str) -> dict[str, Any]:
        """Read a payment as it stands."""
        payment: dict[str, Any] = self.get(f"/payments/{payment_id}")["payment"]
        return payment

    def status(self, payment_id: str) -> str:
        """Read a payment's status."""
        return str(self.payment(payment_id)["status"])

    def timeline(self, payment_id: str) -> Timeline:
        """Read a payment's history."""
        timeline: Timeline = self.get(f"/payments/{payment_id}/timeline")["timeline"]
        return timeline

    def settle(self) -> None:
        """Wait until every order has its outcome and every event has left the outbox."""
        still_open = list(self.placed)

        def all_have_outcomes() -> bool:
            still_open[:] = [each for each in still_open if self.status(each) not in OUTCOMES]
            return not still_open

        wait_until(all_have_outcomes, SETTLED_S, "the outcome of every order")
        wait_until(lambda: self._waiting_events() == 0, SETTLED_S, "every event to be delivered")

    def account(self, on_kafka: Sequence[str] | None = None) -> None:
        """Join orders, the gateway's charges, histories and Kafka's events, one order at a time.

        `on_kafka` are the payments whose events must be there, by default all: a broker that was killed
        has forgotten what it had.
        """
        assert len(set(self.placed)) == len(self.placed) > 0
        certain = set(self.placed if on_kafka is None else on_kafka)
        charges = [each for each in self.simulator.charges() if each["status"] == "succeeded"]
        events = self._events(certain)
        for payment_id in self.placed:
            payment = self.payment(payment_id)
            taken = [
                each["amount_captured"] for each in charges if each["metadata"]["payment_id"] == payment_id
            ]
            assert taken == ([payment["amount"] * 100] if payment["status"] == "succeeded" else []), payment
            heard = {each.named["ce_id"] for each in events if each.named["ce_subject"] == payment_id}
            assert heard == {self._outcome_event(payment)} or (not heard and payment_id not in certain)

    def _outcome_event(self, payment: dict[str, Any]) -> str:
        """The id of the one outcome event in a payment's whole history."""
        timeline = self.timeline(payment["id"])
        assert [entry["sequence"] for entry in timeline] == list(range(1, len(timeline) + 1))
        announced = [(entry["announced"], entry["eventId"]) for entry in timeline if entry["announced"]]
        assert [name for name, _ in announced] == ["payment-requested", OUTCOMES[payment["status"]]]
        return str(announced[-1][1])

    def _events(self, certain: set[str]) -> list[Received]:
        """What stands on the outcome topics, once there is something of each of these payments."""
        with reader(self.stack.endpoints.kafka_bootstrap_servers, sorted(OUTCOMES.values())) as read:

            def complete() -> list[Received] | None:
                events = read()
                return None if certain - {each.named["ce_subject"] for each in events} else events

            return wait_until(complete, SETTLED_S, "the events of every order")

    def _waiting_events(self) -> int:
        with psycopg.connect(self.stack.endpoints.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM outbox").fetchone()
        return int(row[0]) if row else 0
