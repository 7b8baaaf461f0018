"""Gather what the audit compares: Stripe's ledger by HTTP, our tables by SQL, events as they were heard."""

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

import psycopg
import requests
from psycopg.rows import class_row

from deploy.local.demo.audit import ChargeRow, EventRow, PaymentRow
from deploy.local.ordering import OUTCOMES, Outcome, Verdict

TIMEOUT_S = 10
PAGE = 500

PAYMENTS = """
    SELECT p.id::text AS payment_id, p.order_id, p.amount_minor, p.captured_minor, p.currency, p.status,
           p.transaction_id, o.id::text AS operation_id, o.amount_minor AS operation_amount_minor,
           o.state AS operation_state, o.doubt_since IS NOT NULL AS in_doubt,
           coalesce(o.needs_review, false) AS needs_review,
           (SELECT count(*) FROM outbox WHERE aggregateid = p.id) AS undelivered
    FROM payment p LEFT JOIN operation o ON o.payment_id = p.id
    ORDER BY p.id
"""
OPEN = """
    SELECT (SELECT count(*) FROM operation WHERE finished_at IS NULL) + (SELECT count(*) FROM outbox)
"""
# Without the claims of a killed worker: nothing becomes of those before their next attempt is due.
BUSY = """
    SELECT (SELECT count(*) FROM outbox) + (
        SELECT count(*) FROM operation o JOIN payment p ON p.id = o.payment_id
        WHERE o.finished_at IS NULL AND NOT coalesce(
            p.order_id = ANY(%s) AND o.next_attempt_at > clock_timestamp() + interval '1 second', false
        )
    )
"""
ANNOUNCED = "SELECT announced_id::text FROM timeline_entry WHERE announced_type = ANY(%s)"
DURATIONS = "SELECT id::text, extract(epoch FROM processed_at - created_at)::float8 FROM payment"


class Database:
    """Reads our tables. Used by one thread."""

    def __init__(self, database_url: str) -> None:
        """Raises psycopg.OperationalError when the database does not answer."""
        self._connection = psycopg.connect(database_url, autocommit=True, connect_timeout=TIMEOUT_S)

    def payments(self) -> list[PaymentRow]:
        """Every payment with each of its operations, oldest first."""
        with self._connection.cursor(row_factory=class_row(PaymentRow)) as cursor:
            return cursor.execute(PAYMENTS).fetchall()

    def open_count(self) -> int:
        """How many operations have no outcome, plus how many events wait for Kafka."""
        return self._count(OPEN)

    def busy_count(self, left_behind: list[str]) -> int:
        """As `open_count`, without the orders `left_behind` by a killed worker and not due for a second."""
        return self._count(BUSY, [left_behind])

    def announced(self) -> set[str]:
        """The ids of all outcome events ever written to the outbox."""
        return {event_id for (event_id,) in self._connection.execute(ANNOUNCED, [list(OUTCOMES)])}

    def durations_s(self) -> dict[str, float | None]:
        """How long each payment took from its request to its outcome, by payment id."""
        return dict(self._connection.execute(DURATIONS).fetchall())

    def statuses(self, order_ids: Iterable[str]) -> Counter[str]:
        """How many of these orders' payments are in each status."""
        query = "SELECT status, count(*) FROM payment WHERE order_id = ANY(%s) GROUP BY status"
        return Counter(dict(self._connection.execute(query, [list(order_ids)]).fetchall()))

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _count(self, query: str, parameters: list[Any] | None = None) -> int:
        ((count,),) = self._connection.execute(query, parameters).fetchall()
        return int(count)


class StripeControl:
    """The simulator's control endpoints."""

    def __init__(self, stripe_api_url: str) -> None:
        """Nothing is sent yet."""
        self._url = f"{stripe_api_url}/_control"

    def fault(self, kind: str, order_id: str) -> None:
        """Let the next request for this order go wrong."""
        fault = {"kind": kind, "times": 1, "match": {"order_id": order_id}}
        requests.post(f"{self._url}/faults", json=fault, timeout=TIMEOUT_S).raise_for_status()

    def latency_ms(self, every_call_ms: float | None) -> None:
        """Let every charge take this long from now on; None for no time at all."""
        latency = {"p50_ms": every_call_ms, "p99_ms": every_call_ms}
        requests.put(f"{self._url}/latency", json=latency, timeout=TIMEOUT_S).raise_for_status()

    def charged(self, order_ids: Iterable[str]) -> int:
        """How many successful charges there are for these orders."""
        wanted = set(order_ids)
        return sum(
            charge["status"] == "succeeded" and charge["metadata"].get("order_id") in wanted
            for charge in self._ledger()
        )

    def charges(self) -> list[ChargeRow]:
        """Every charge ever made, declined ones too."""
        return [_charge_row(charge) for charge in self._ledger()]

    def _ledger(self) -> list[dict[str, Any]]:
        ledger: list[dict[str, Any]] = []
        while True:
            after = {"starting_after": ledger[-1]["id"]} if ledger else {}
            page = requests.get(f"{self._url}/ledger", {"limit": PAGE, **after}, timeout=TIMEOUT_S)
            page.raise_for_status()
            ledger += page.json()["data"]
            if not page.json()["has_more"]:
                return ledger


class Heard:
    """Everything that the ordering domain has read from Kafka; filled by one thread, read by others."""

    def __init__(self) -> None:
        """Nothing was heard yet."""
        self._guard = threading.Lock()
        self._messages: list[tuple[Outcome, Verdict]] = []

    def note(self, outcome: Outcome, verdict: Verdict) -> None:
        """Keep a message with what the client made of it."""
        with self._guard:
            self._messages.append((outcome, verdict))

    def messages(self) -> list[tuple[Outcome, Verdict]]:
        """All messages so far, in the order in which they came."""
        with self._guard:
            return list(self._messages)

    def ids(self) -> set[str]:
        """The ids of all events so far."""
        return {outcome.event_id for outcome, _ in self.messages()}

    def rows(self) -> list[EventRow]:
        """All messages so far, as the audit compares them."""
        return [_event_row(outcome) for outcome, _ in self.messages()]


def _charge_row(charge: dict[str, Any]) -> ChargeRow:
    metadata = charge["metadata"]
    return ChargeRow(
        charge_id=charge["id"],
        payment_id=metadata.get("payment_id"),
        operation_id=metadata.get("operation_id"),
        status=charge["status"],
        amount=charge["amount"],
        amount_captured=charge["amount_captured"],
        amount_refunded=charge["amount_refunded"],
        currency=charge["currency"],
    )


def _event_row(outcome: Outcome) -> EventRow:
    data = outcome.data
    return EventRow(
        event_id=outcome.event_id,
        topic=outcome.topic,
        payment_id=outcome.payment_id,
        operation_id=outcome.operation_id,
        order_id=data["orderId"],
        status=data["status"],
        amount=data["amount"],
        amount_minor=data["amountMinor"],
        currency=data["currency"],
        transaction_id=data.get("transactionId"),
    )
