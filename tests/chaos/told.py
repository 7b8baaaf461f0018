"""Join what neighbours were told with what had to be told; pure, no I/O.

The catalog by payment-processed, subscribers by webhook, the delivery contract's order service by callback.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from deploy.local.demo.against_stripe import PAID
from deploy.local.demo.orders import Case
from deploy.local.demo.rows import Finding, PaymentRow, grouped, listed
from deploy.local.ordering import Outcome
from shared.documents import render_json
from shared.money import Money
from tests.chaos.courses import CATALOG, TOLD_BACK

PROCESSED: Final = "payment-processed"
CALLBACKS: Final = {"succeeded": "PAYMENT RECEIVED", "failed": "PAYMENT FAILED"}
ENDS: Final = tuple(f"payment-{end}" for end in CALLBACKS)


@dataclass(frozen=True, slots=True)
class Entry:
    """One event of a payment's history, as it is stored; of one payment in the order of their sequence."""

    payment_id: str
    event_id: str
    topic: str
    says: str  # a digest


@dataclass(slots=True)
class Came:
    """How an event came by webhook; moments are counted in requests."""

    payment_id: str
    says: str  # a digest
    first: int
    times: int = 0
    taken: int | None = None  # when it was first answered with success


def digest(topic: str, value: Any) -> str:
    """What stands for an event's words, however they are arranged."""
    return hashlib.sha256(f"{topic} {render_json(value, sort_keys=True)}".encode()).hexdigest()


def judge_webhooks(entries: Sequence[Entry], came: Mapping[str, Came]) -> Iterator[Finding]:
    """Every event that did not come as it is stored, after those before it were taken; and what is none."""
    for own in grouped((entry.payment_id, entry) for entry in entries).values():
        before: Came | None = None
        for entry in own:
            name, this = f"{entry.topic} {entry.event_id}", came.get(entry.event_id)
            for says in _judge_webhook(entry, this, before):
                yield Finding("unaccounted", entry.payment_id, f"{name} {says}")
            before = this
    for event_id in came.keys() - {entry.event_id for entry in entries}:
        yield Finding("unaccounted", came[event_id].payment_id, f"webhook {event_id} is no event of ours")


def _judge_webhook(entry: Entry, this: Came | None, before: Came | None) -> Iterator[str]:
    if this is None or this.taken is None:
        yield "came by no webhook" if this is None else "was never taken by its subscriber"
        return
    if (this.payment_id, this.says) != (entry.payment_id, entry.says):
        yield "said something else by webhook"
    if before and (before.taken is None or before.taken >= this.first):
        yield "came by webhook before the one before it was taken"


def judge_callbacks(
    cases: Iterable[Case],
    payments: Iterable[PaymentRow],
    entries: Iterable[Entry],
    told: Mapping[str, set[tuple[str, str]]],
) -> Iterator[Finding]:
    """Every order of the delivery contract whose service was not told its end, under its event's id alone."""
    payment_of = {row.order_id: row.payment_id for row in payments}
    end_of = {entry.payment_id: entry.event_id for entry in entries if entry.topic in ENDS}
    due = {
        case.order.order_id: {
            (CALLBACKS[case.expected], end_of.get(payment_of.get(case.order.order_id, ""), ""))
        }
        for case in cases
        if case.label in TOLD_BACK
    }
    for order_id in sorted(due.keys() | told.keys()):
        wanted, heard = due.get(order_id, set()), told.get(order_id, set())
        if wanted != heard:
            says = f"its service should have been told {listed(wanted)}; it was told {listed(heard)}"
            yield Finding("unaccounted", order_id, says)


def judge_processed(
    cases: Iterable[Case], payments: Iterable[PaymentRow], outcomes: Iterable[Outcome]
) -> Iterator[Finding]:
    """Every payment of the catalog's that has not exactly its one payment-processed, and others that have."""
    of_payment = {row.payment_id: row for row in payments}
    of_order = {row.order_id: row for row in of_payment.values()}
    heard = {outcome.event_id: outcome for outcome in outcomes}
    told = grouped((outcome.payment_id, outcome) for outcome in heard.values())
    for outcome in outcomes:
        if outcome != heard[outcome.event_id]:
            yield Finding("unaccounted", outcome.payment_id, f"{PROCESSED} came with two contents")
    for case in cases:
        if case.label in CATALOG and (row := of_order.get(case.order.order_id)):
            own = told.pop(row.payment_id, [])
            if len(own) != 1:
                yield Finding(
                    "unaccounted", row.payment_id, f"{PROCESSED} was announced under {len(own)} ids"
                )
            for outcome in own:
                yield from _judge_processed(case, row, outcome.data)
    for payment_id in told:
        yield Finding("unaccounted", str(payment_id), f"{PROCESSED} was announced, and nobody asked for it")


def _judge_processed(case: Case, row: PaymentRow, said: Mapping[str, Any]) -> Iterator[Finding]:
    paid = row.status in PAID
    order_id = said["subscriptionId"] or said["orderId"]
    due = {
        "order": (order_id, case.order.order_id),
        "user": (said["userId"], case.order.customer_id),
        "status": (said["status"], "confirmed" if paid else "failed"),
        "charge": (said["transactionId"], row.transaction_id if paid else None),
        "amount": (said["amount"], Money(row.amount_minor, row.currency).to_decimal()),
        "currency": (said["currency"], row.currency),
    }
    for name, (is_said, is_due) in due.items():
        if is_said != is_due:
            yield Finding("unaccounted", row.payment_id, f"{PROCESSED} says {name} {is_said}, it is {is_due}")
