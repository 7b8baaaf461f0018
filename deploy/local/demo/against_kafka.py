"""What a payment's rows say that its events on Kafka do not, and the other way round; pure."""

from collections.abc import Iterator
from types import MappingProxyType
from typing import Final

from deploy.local.demo.against_stripe import PAID
from deploy.local.demo.rows import EventRow, PaymentRow, listed
from shared.money import Money

SUCCEEDED: Final = "payment-succeeded"
REFUNDED: Final = MappingProxyType({"refund-succeeded": "succeeded", "refund-failed": "failed"})
# Each topic of a payment's, and the status that its events name.
SAYS: Final = MappingProxyType(
    {
        "payment-authorized": "authorized",
        "payment-action-required": "requires_action",
        SUCCEEDED: "succeeded",
        "payment-failed": "failed",
        "payment-cancelled": "cancelled",
    }
)


def against_kafka(rows: list[PaymentRow], events: list[EventRow]) -> Iterator[str]:
    """Every contradiction between one payment and the events about it, in words."""
    ids_of = {topic: {e.event_id for e in events if e.topic == topic} for topic in {e.topic for e in events}}
    due = _due(rows)
    for topic in sorted(due - ids_of.keys()):
        yield f"no event says {topic}"
    for topic, ids in ids_of.items():
        if topic in SAYS and topic not in due | {"payment-action-required"}:
            yield f"{topic} was announced, but it is {rows[0].status}"
        if topic in SAYS and len(ids) > 1:
            yield f"{topic} was announced under {len(ids)} ids: {listed(ids)}"
    for event in dict.fromkeys(events):
        yield from _judge_event(rows, event)
    yield from _judge_refunds(rows, events)


def _due(rows: list[PaymentRow]) -> set[str]:
    """What must have been announced, as far as rows tell; that a customer had to act leaves no row."""
    due = {topic for topic, status in SAYS.items() if status == rows[0].status and topic != SUCCEEDED}
    if rows[0].status in PAID:
        due.add(SUCCEEDED)
    if any(row.kind == "authorize" and row.operation_state == "succeeded" for row in rows):
        due.add("payment-authorized")
    return due


def _judge_event(rows: list[PaymentRow], event: EventRow) -> Iterator[str]:
    payment, name = rows[0], f"{event.topic} {event.event_id}"
    if event.status != SAYS.get(event.topic):
        yield f"{name} says {event.status}"
    of_refund = [row for row in rows if row.kind == "refund" and row.operation_id == event.refund_id]
    moved = payment.captured_minor if event.topic == SUCCEEDED else payment.amount_minor
    if event.topic in REFUNDED and of_refund:
        moved = of_refund[0].operation_amount_minor or 0
    due = Money(moved, payment.currency)
    if (event.amount_minor, event.amount, event.currency) != (moved, due.to_decimal(), due.currency):
        yield f"{name} says {event.amount} ({event.amount_minor}) {event.currency}, it is {due}"
    if event.order_id != payment.order_id:
        yield f"{name} says order {event.order_id}, it is {payment.order_id}"
    if event.topic == SUCCEEDED and event.transaction_id != payment.transaction_id:
        yield f"{name} says charge {event.transaction_id}, it is {payment.transaction_id}"


def _judge_refunds(rows: list[PaymentRow], events: list[EventRow]) -> Iterator[str]:
    """Each refund that has ended was announced under one id, and no event tells of another one."""
    told = [event for event in events if event.topic in REFUNDED]
    refunds = {row.operation_id: row.operation_state for row in rows if row.kind == "refund"}
    for refund_id, state in refunds.items():
        ids = {e.event_id for e in told if e.refund_id == refund_id and REFUNDED[e.topic] == state}
        if state in REFUNDED.values() and len(ids) != 1:
            yield f"refund {refund_id} {state} and was announced under {len(ids)} ids: {listed(ids)}"
    for event in dict.fromkeys(told):
        if event.refund_id not in refunds or event.operation_id != event.refund_id:
            yield f"{event.topic} {event.event_id} names refund {event.refund_id}, which is not the payment's"
        elif refunds[event.refund_id] != REFUNDED[event.topic]:
            yield f"{event.topic} {event.event_id}: the refund has {refunds[event.refund_id]}"
