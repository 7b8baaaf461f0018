"""Compare Stripe's charges, our payments and the events on Kafka row by row; pure, no I/O.

Rows are joined on payment id and operation id and never summed, so that two errors cannot cancel out.
"""

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeVar

from shared.gateways.stripe_amounts import from_gateway_minor
from shared.money import Money, MoneyError

FINISHED = ("succeeded", "failed", "cancelled")
EVENT_OF = {"succeeded": "payment-succeeded", "failed": "payment-failed"}

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRow:
    """One charge of Stripe's ledger, declined ones too; `amount` is in Stripe's units of the currency."""

    charge_id: str
    payment_id: str | None
    operation_id: str | None
    status: str
    amount: int
    amount_captured: int
    amount_refunded: int
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow:
    """One payment with one of its operations, or with None where it has no operation."""

    payment_id: str
    order_id: str | None
    amount_minor: int
    captured_minor: int
    currency: str
    status: str
    transaction_id: str | None
    undelivered: int  # events that still wait in the outbox
    operation_id: str | None
    operation_amount_minor: int | None
    operation_state: str | None
    in_doubt: bool
    needs_review: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One outcome message read from Kafka; a redelivered event is a row of its own, under the same id."""

    event_id: str
    topic: str
    payment_id: str
    operation_id: str | None
    order_id: str | None
    status: str
    amount: Decimal
    amount_minor: int
    currency: str
    transaction_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """One order that was sent: how it must end, and every payment id that the answers to it named."""

    order_id: str
    amount_minor: int
    currency: str
    expected: str
    answered: frozenset[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One mismatch: something that contradicts something else, or that has not come to its end."""

    kind: Literal["unaccounted", "open"]
    subject: str  # the payment's id, or the order's where it has no payment
    says: str


def audit(
    charges: Sequence[ChargeRow], payments: Sequence[PaymentRow], events: Sequence[EventRow]
) -> list[Finding]:
    """Every mismatch between the three, in each direction; empty when all is accounted for."""
    charges_of = _grouped((charge.payment_id, charge) for charge in charges)
    events_of = _grouped((event.payment_id, event) for event in events)
    rows_of = _grouped((row.payment_id, row) for row in payments)
    findings = [*_strangers(charges, events, payments), *_reused_ids(events)]
    for payment_id, rows in rows_of.items():
        findings += _unfinished(rows)
        findings += _against_stripe(rows, charges_of.get(payment_id, []))
        findings += _against_kafka(rows, events_of.get(payment_id, []))
    return findings


def audit_orders(orders: Sequence[OrderRow], payments: Sequence[PaymentRow]) -> list[Finding]:
    """Every order that did not lead to exactly its one payment, and every payment that nobody ordered."""
    findings = []
    payments_of = _grouped((row.order_id, row) for row in payments)
    for order in orders:
        rows = payments_of.pop(order.order_id, [])
        findings += [Finding("unaccounted", order.order_id, says) for says in _judge_order(order, rows)]
    for rows in payments_of.values():
        findings += [Finding("unaccounted", row.payment_id, "nobody sent its order") for row in rows]
    return findings


def _grouped(pairs: Iterable[tuple[Hashable, Row]]) -> dict[Hashable, list[Row]]:
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for key, row in pairs:
        groups[key].append(row)
    return dict(groups)


def _judge_order(order: OrderRow, rows: list[PaymentRow]) -> Iterator[str]:
    ids = {row.payment_id for row in rows}
    if not ids:
        yield "the order was sent and has no payment"
        return
    if len(ids) > 1:
        yield f"the order has {len(ids)} payments"
    if order.answered != ids:
        yield f"the answers named {_list(order.answered)}, the order's payment is {_list(ids)}"
    payment = rows[0]
    if (payment.amount_minor, payment.currency) != (order.amount_minor, order.currency):
        asked = Money(order.amount_minor, order.currency)
        yield f"{asked} was ordered, the payment is over {Money(payment.amount_minor, payment.currency)}"
    if payment.status in FINISHED and payment.status != order.expected:
        yield f"the order should have {order.expected}, the payment has {payment.status}"


def _strangers(
    charges: Iterable[ChargeRow], events: Iterable[EventRow], payments: Iterable[PaymentRow]
) -> Iterator[Finding]:
    """Charges and events whose payment and operation we do not have, or not together."""
    known = {(row.payment_id, row.operation_id) for row in payments}
    for charge in charges:
        if (charge.payment_id, charge.operation_id) not in known:
            says = f"charge {charge.charge_id} ({charge.status}, {charge.amount} {charge.currency}) at Stripe"
            yield Finding("unaccounted", charge.payment_id or charge.charge_id, f"{says} has no payment here")
    for event in events:
        if (event.payment_id, event.operation_id) not in known:
            says = f"{event.topic} {event.event_id} belongs to no payment and operation here"
            yield Finding("unaccounted", event.payment_id, says)


def _reused_ids(events: Iterable[EventRow]) -> Iterator[Finding]:
    """A repeated event repeats every word; one id for two different messages would be deduplicated away."""
    for event_id, rows in _grouped((event.event_id, event) for event in events).items():
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
        elif row.operation_state not in FINISHED:
            yield still(f"operation {row.operation_id} is {row.operation_state}")
        if row.in_doubt:
            yield still(f"operation {row.operation_id} is in doubt")
        if row.needs_review:
            yield still(f"operation {row.operation_id} needs an operator's review")


def _against_stripe(rows: list[PaymentRow], charges: list[ChargeRow]) -> Iterator[Finding]:
    payment = rows[0]
    taken = [charge for charge in charges if charge.status == "succeeded"]
    says = list(_judge_operations(rows, charges))
    if payment.status == "succeeded" and len(taken) != 1:
        says.append(f"it succeeded with {len(taken)} successful charges: {_list(c.charge_id for c in taken)}")
    if payment.status != "succeeded" and taken:
        says.append(f"it is {payment.status}, yet Stripe took {_list(c.charge_id for c in taken)}")
    if payment.status != "succeeded" and payment.captured_minor:
        says.append(f"it is {payment.status} with {payment.captured_minor} captured")
    for charge in taken:
        says += _judge_charge(payment, charge)
    for text in says:
        yield Finding("unaccounted", payment.payment_id, text)


def _judge_operations(rows: list[PaymentRow], charges: list[ChargeRow]) -> Iterator[str]:
    """Each operation agrees with the charges made under it, and their ends with the payment's."""
    for row in rows:
        ends = {charge.status for charge in charges if charge.operation_id == row.operation_id}
        name = f"operation {row.operation_id}"
        if row.operation_state == "succeeded" and ends != {"succeeded"}:
            yield f"{name} succeeded, its charges at Stripe: {_list(ends)}"
        if row.operation_state == "failed" and "succeeded" in ends:
            yield f"{name} failed, yet a charge of it succeeded at Stripe"
        if row.operation_amount_minor not in {None, row.amount_minor}:
            yield f"{name} is over {row.operation_amount_minor}, the payment over {row.amount_minor}"
    states = {row.operation_state for row in rows if row.operation_state in FINISHED}
    if rows[0].status in FINISHED and states and (rows[0].status == "succeeded") != ("succeeded" in states):
        yield f"it is {rows[0].status}, its operations: {_list(states)}"


def _judge_charge(payment: PaymentRow, charge: ChargeRow) -> Iterator[str]:
    try:
        asked, taken = (
            from_gateway_minor(amount, charge.currency) for amount in (charge.amount, charge.amount_captured)
        )
    except MoneyError as error:
        yield f"charge {charge.charge_id} of {charge.amount} {charge.currency} cannot be: {error}"
        return
    due = Money(payment.amount_minor, payment.currency)
    if asked != due:
        yield f"charge {charge.charge_id} is over {asked}, the payment over {due}"
    recorded = Money(payment.captured_minor, payment.currency)
    if taken != recorded:
        yield f"charge {charge.charge_id} took {taken}, recorded is {recorded}"
    if charge.amount_refunded:
        yield f"of charge {charge.charge_id} {charge.amount_refunded} {charge.currency} went back"
    if payment.status == "succeeded" and payment.transaction_id != charge.charge_id:
        yield f"it records charge {payment.transaction_id}, Stripe's is {charge.charge_id}"


def _against_kafka(rows: list[PaymentRow], events: list[EventRow]) -> Iterator[Finding]:
    payment = rows[0]
    ids = dict.fromkeys(event.event_id for event in events)
    wanted = EVENT_OF.get(payment.status)
    says = []
    if wanted and not ids:
        says.append(f"it {payment.status}, and no event says so")
    if len(ids) > 1:
        says.append(f"its outcome was announced under {len(ids)} ids: {_list(ids)}")
    for event in dict.fromkeys(events):
        says += _judge_event(payment, event, wanted)
    for text in says:
        yield Finding("unaccounted", payment.payment_id, text)


def _judge_event(payment: PaymentRow, event: EventRow, wanted: str | None) -> Iterator[str]:
    name = f"{event.topic} {event.event_id}"
    if event.topic != wanted:
        yield f"{name} was announced, but it is {payment.status}"
    if EVENT_OF.get(event.status) != event.topic:
        yield f"{name} says {event.status}"
    moved = payment.captured_minor if event.topic == EVENT_OF["succeeded"] else payment.amount_minor
    due = Money(moved, payment.currency)
    if (event.amount_minor, event.amount, event.currency) != (
        due.amount_minor,
        due.to_decimal(),
        due.currency,
    ):
        yield f"{name} says {event.amount} ({event.amount_minor}) {event.currency}, it is {due}"
    if event.order_id != payment.order_id:
        yield f"{name} says order {event.order_id}, it is {payment.order_id}"
    if event.transaction_id != payment.transaction_id:
        yield f"{name} says charge {event.transaction_id}, it is {payment.transaction_id}"


def _list(words: Iterable[object]) -> str:
    return ", ".join(sorted(map(str, words))) or "none"
