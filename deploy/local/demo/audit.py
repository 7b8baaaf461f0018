"""Compare Stripe's ledger, our payments and the events on Kafka row by row; pure, no I/O.

Rows are joined on payment id, operation id and refund id. Sums are compared within one payment only, so that
two errors cannot cancel out.
"""

from collections.abc import Iterable, Iterator, Sequence

from deploy.local.demo.against_kafka import against_kafka
from deploy.local.demo.against_stripe import FINISHED, against_stripe
from deploy.local.demo.rows import (
    ChargeRow,
    EventRow,
    Finding,
    OrderRow,
    PaymentRow,
    RefundRow,
    grouped,
    listed,
)
from shared.money import Money

ENDED = ("succeeded", "failed")  # an operation


def audit(
    charges: Sequence[ChargeRow],
    refunds: Sequence[RefundRow],
    payments: Sequence[PaymentRow],
    events: Sequence[EventRow],
) -> list[Finding]:
    """Every mismatch between the sides, in each direction; empty when all is accounted for."""
    charges_of = grouped((charge.payment_id, charge) for charge in charges)
    refunds_of = grouped((refund.charge_id, refund) for refund in refunds)
    events_of = grouped((event.payment_id, event) for event in events)
    rows_of = grouped((row.payment_id, row) for row in payments)
    findings = [*_strangers(charges, refunds, events, payments), *_reused_ids(events)]
    for payment_id, rows in rows_of.items():
        own = charges_of.get(payment_id, [])
        given_back = [refund for charge in own for refund in refunds_of.get(charge.charge_id, [])]
        says = [*against_stripe(rows, own, given_back), *against_kafka(rows, events_of.get(payment_id, []))]
        findings += _unfinished(rows)
        findings += [Finding("unaccounted", rows[0].payment_id, each) for each in says]
    return findings


def audit_orders(
    orders: Sequence[OrderRow], payments: Sequence[PaymentRow], events: Sequence[EventRow]
) -> list[Finding]:
    """Every order that did not lead to exactly its one payment, and every payment that nobody ordered."""
    findings = []
    payments_of = grouped((row.order_id, row) for row in payments)
    events_of = grouped((event.order_id, event) for event in events)
    for order in orders:
        rows = payments_of.pop(order.order_id, [])
        heard = {event.event_id: event.topic for event in events_of.get(order.order_id, [])}
        says = [*_judge_order(order, rows), *_judge_heard(order, tuple(sorted(heard.values())))]
        findings += [Finding("unaccounted", order.order_id, each) for each in says]
    for rows in payments_of.values():
        findings += [Finding("unaccounted", row.payment_id, "nobody sent its order") for row in rows]
    return findings


def _judge_order(order: OrderRow, rows: list[PaymentRow]) -> Iterator[str]:
    ids = {row.payment_id for row in rows}
    if not ids:
        yield "the order was sent and has no payment"
        return
    if len(ids) > 1:
        yield f"the order has {len(ids)} payments"
    if order.answered != ids:
        yield f"the answers named {listed(order.answered)}, the order's payment is {listed(ids)}"
    payment = rows[0]
    for asked_minor, is_minor, words in (
        (order.amount_minor, payment.amount_minor, "was ordered, the payment is over"),
        (order.captured_minor, payment.captured_minor, "should have been taken, it took"),
        (order.refunded_minor, payment.refunded_minor, "should have gone back, back went"),
    ):
        asked, actual = Money(asked_minor, order.currency), Money(is_minor, payment.currency)
        if asked != actual:
            yield f"{asked} {words} {actual}"
    if payment.status in FINISHED and payment.status != order.expected:
        yield f"the order should be {order.expected}, the payment is {payment.status}"


def _judge_heard(order: OrderRow, heard: tuple[str, ...]) -> Iterator[str]:
    if heard != order.events:
        yield f"it should have announced {', '.join(order.events)}; heard was {', '.join(heard) or 'nothing'}"


def _strangers(
    charges: Iterable[ChargeRow],
    refunds: Iterable[RefundRow],
    events: Iterable[EventRow],
    payments: Iterable[PaymentRow],
) -> Iterator[Finding]:
    """Charges, refunds and events whose payment and operation we do not have, or not together."""
    known = {(row.payment_id, row.operation_id) for row in payments}
    for charge in charges:
        if (charge.payment_id, charge.operation_id) not in known:
            says = f"charge {charge.charge_id} ({charge.status}, {charge.amount} {charge.currency}) at Stripe"
            yield Finding("unaccounted", charge.payment_id or charge.charge_id, f"{says} has no payment here")
    made = {charge.charge_id for charge in charges}
    for refund in refunds:
        if refund.charge_id not in made:
            yield Finding(
                "unaccounted", refund.refund_id, f"it is of charge {refund.charge_id}, which is none"
            )
    for event in events:
        if (event.payment_id, event.operation_id) not in known:
            says = f"{event.topic} {event.event_id} belongs to no payment and operation here"
            yield Finding("unaccounted", event.payment_id, says)


def _reused_ids(events: Iterable[EventRow]) -> Iterator[Finding]:
    """A repeated event repeats every word; one id for two different messages would be deduplicated away."""
    for event_id, rows in grouped((event.event_id, event) for event in events).items():
        for other in dict.fromkeys(row for row in rows if row != rows[0]):
            yield Finding("unaccounted", other.payment_id, f"event id {event_id} came with two contents")


def _unfinished(rows: list[PaymentRow]) -> Iterator[Finding]:
    payment = rows[0]

    def still(says: str) -> Finding:
        return Finding("open", payment.payment_id, says)

    if payment.status not in FINISHED:
        yield still(f"the payment is {payment.status}")
    if payment.undelivered:
        yield still(f"{payment.undelivered} events wait in the outbox")
    for row in rows:
        if row.operation_id is None:
            yield still("the payment has no operation")
        elif row.operation_state not in ENDED:
            yield still(f"{row.kind} {row.operation_id} is {row.operation_state}")
        if row.in_doubt:
            yield still(f"{row.kind} {row.operation_id} is in doubt")
        if row.needs_review:
            yield still(f"{row.kind} {row.operation_id} needs an operator's review")
