"""Gather what the audit compares: our tables by SQL, events as they were heard, Stripe's objects as rows."""

import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

import psycopg
from psycopg.rows import class_row

from deploy.local.demo.rows import ChargeRow, EventRow, PaymentRow, RefundRow
from deploy.local.ordering import OUTCOMES, Outcome, Verdict

TIMEOUT_S = 10

PAYMENTS = """
    SELECT p.id::text AS payment_id, p.order_id, p.amount_minor, p.captured_minor, p.refunded_minor,
           p.currency, p.status, p.transaction_id, o.id::text AS operation_id, o.kind,
           o.amount_minor AS operation_amount_minor, o.state AS operation_state, o.gateway_ref,
           o.doubt_since IS NOT NULL AS in_doubt, coalesce(o.needs_review, false) AS needs_review,
           (SELECT count(*) FROM outbox WHERE aggregateid = p.id) AS undelivered
    FROM payment p LEFT JOIN operation o ON o.payment_id = p.id
    ORDER BY p.id, o.id
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
    """Reads our tables; may be used by several threads."""

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

    def doubtful(self, order_ids: Iterable[str]) -> int:
        """How many of these orders have an operation whose outcome asking again cannot tell."""
        query = """
            SELECT count(*) FROM operation o JOIN payment p ON p.id = o.payment_id
            WHERE p.order_id = ANY(%s) AND o.doubt_since IS NOT NULL
        """
        return self._count(query, [list(order_ids)])

    def left_alone_s(self, order_id: str) -> float:
        """Seconds until recovery asks Stripe how an order's open charge stands; 0 while it is just asking."""
        query = """
            SELECT extract(epoch FROM min(o.next_attempt_at) - clock_timestamp())::float8
            FROM operation o JOIN payment p ON p.id = o.payment_id
            WHERE p.order_id = %s AND o.state = 'requires_action' AND o.dispatch_count = 0
              AND o.lease_until IS NULL
        """
        ((seconds,),) = self._connection.execute(query, [order_id]).fetchall()
        return float(seconds or 0)

    def payment(self, order_id: str) -> tuple[str, str | None]:
        """The status of an order's newest payment, and its PaymentIntent; "none" while it has no payment."""
        query = "SELECT status, gateway_ref FROM payment WHERE order_id = %s ORDER BY id DESC LIMIT 1"
        return self._connection.execute(query, [order_id]).fetchone() or ("none", None)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _count(self, query: str, parameters: list[Any] | None = None) -> int:
        ((count,),) = self._connection.execute(query, parameters).fetchall()
        return int(count)


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


def _event_row(outcome: Outcome) -> EventRow:
    data = outcome.data
    return EventRow(
        event_id=outcome.event_id,
        topic=outcome.topic,
        payment_id=outcome.payment_id,
        operation_id=outcome.operation_id,
        refund_id=data.get("refundId"),
        order_id=data["orderId"],
        status=data.get("status"),
        amount=data["amount"],
        amount_minor=data["amountMinor"],
        currency=data["currency"],
        transaction_id=data.get("transactionId"),
    )


def charge_row(charge: dict[str, Any]) -> ChargeRow:
    """A charge as Stripe shows it, as the audit compares it."""
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


def refund_row(refund: dict[str, Any]) -> RefundRow:
    """A refund as Stripe shows it, as the audit compares it."""
    return RefundRow(
        refund_id=refund["id"],
        charge_id=refund["charge"],
        operation_id=refund["metadata"].get("operation_id"),
        status=refund["status"],
        amount=refund["amount"],
        currency=refund["currency"],
        is_release=refund["destination_details"]["card"]["type"] == "reversal",
    )
