"""What the audit compares, row by row: Stripe's ledger, our tables, Kafka's messages, the orders sent."""

from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal, TypeVar

Row = TypeVar("Row")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChargeRow:
    """One charge of Stripe's ledger, holds and declined ones too; amounts are in Stripe's units."""

    charge_id: str
    payment_id: str | None
    operation_id: str | None
    status: str
    amount: int
    amount_captured: int
    amount_refunded: int  # what was released of a hold is among it
    currency: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundRow:
    """One refund of Stripe's ledger; the released part of a hold is one, too."""

    refund_id: str
    charge_id: str
    operation_id: str | None  # None: made at the dashboard, or released
    status: str
    amount: int  # in Stripe's units
    currency: str
    is_release: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentRow:
    """One payment with one of its operations, or with None where it has no operation."""

    payment_id: str
    order_id: str | None
    amount_minor: int
    captured_minor: int
    refunded_minor: int
    currency: str
    status: str
    transaction_id: str | None
    undelivered: int  # events that still wait in the outbox
    operation_id: str | None
    kind: str | None
    operation_amount_minor: int | None
    operation_state: str | None
    gateway_ref: str | None  # what the operation made at Stripe; of a refund its id
    in_doubt: bool
    needs_review: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """One outcome message read from Kafka; a redelivered event is a row of its own, under the same id."""

    event_id: str
    topic: str
    payment_id: str
    operation_id: str | None
    refund_id: str | None
    order_id: str | None
    status: str | None  # refunds' events have none
    amount: Decimal
    amount_minor: int
    currency: str
    transaction_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderRow:
    """One order that was sent: how it must end, and every payment id that the answers to it named."""

    order_id: str
    amount_minor: int
    captured_minor: int
    refunded_minor: int
    currency: str
    expected: str
    events: tuple[str, ...]  # the topics of all that must have been announced, sorted
    answered: frozenset[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """One mismatch: something that contradicts something else, or that has not come to its end."""

    kind: Literal["unaccounted", "open"]
    subject: str  # the payment's id, or the order's where it has no payment
    says: str


def grouped(pairs: Iterable[tuple[Hashable, Row]]) -> dict[Hashable, list[Row]]:
    """Rows by key, in their order."""
    groups: dict[Hashable, list[Row]] = defaultdict(list)
    for key, row in pairs:
        groups[key].append(row)
    return dict(groups)


def listed(words: Iterable[object]) -> str:
    """Words for people, sorted."""
    return ", ".join(sorted(map(str, words))) or "none"
