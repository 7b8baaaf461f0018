"""Everything about one payment, as tables for an operator."""

import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from rich.table import Table
from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import Operation, Payment, TimelineEntry
from shared.money import Money
from shared.payments import OperationKind, Status


def find(session: Session, text: str) -> list[Payment]:
    """The payments that go by this id: their own, an order's, a cart's, an operation's or a gateway's."""
    with suppress(ValueError):
        if payment := session.get(Payment, uuid.UUID(text)):
            return [payment]
        if operation := session.get(Operation, uuid.UUID(text)):
            return [session.get_one(Payment, operation.payment_id)]
    for column in (Payment.order_id, Payment.gateway_ref, Payment.cart_id, Payment.transaction_id):
        if found := list(session.scalars(select(Payment).where(column == text).order_by(Payment.id))):
            return found
    of_operation = select(Operation.payment_id).where(Operation.gateway_ref == text)
    return list(session.scalars(select(Payment).where(Payment.id.in_(of_operation)).order_by(Payment.id)))


def tables(session: Session, payment: Payment, halted: Sequence[OperationKind]) -> Iterator[Table]:
    """Its facts, its operations and its history."""
    yield _facts(payment)
    yield _operations(session, payment, halted)
    yield _timeline(session, payment)


def _grid(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _facts(payment: Payment) -> Table:
    table = _grid(f"Payment {payment.id}", "what", "value")
    facts: dict[str, Any] = {
        "status": payment.status,
        "amount": _sums(payment),
        "order": payment.order_id,
        "cart": payment.cart_id,
        "customer": payment.customer_id,
        "reservation": payment.reservation_id,
        "capture": payment.capture_method,
        "gateway": payment.gateway_ref,
        "transaction": payment.transaction_id,
        "cancel requested": _moment(payment.cancel_requested_at),
        _deadline(payment): _moment(payment.expires_at),
        "dispute": ", ".join(f"{name} {value}" for name, value in (payment.dispute or {}).items()),
        "failure": payment.error_code and f"{payment.error_code}: {payment.error_message}",
        "simulated": "yes, no money moved" if payment.is_simulated else None,
    }
    for name, value in facts.items():
        if value:
            table.add_row(name, str(value))
    return table


def _sums(payment: Payment) -> str:
    def money(amount_minor: int) -> Money:
        return Money(amount_minor, payment.currency)

    sums = [f"{money(payment.amount_minor)}", f"{money(payment.captured_minor)} taken"]
    if payment.refunded_minor:
        sums.append(f"{money(payment.refunded_minor)} refunded")
    if payment.refund_reserved_minor:
        sums.append(f"{money(payment.refund_reserved_minor)} reserved for refunds")
    return ", ".join(sums)


def _deadline(payment: Payment) -> str:
    return "hold lapses" if payment.status is Status.AUTHORIZED else "customer given up"


def _operations(session: Session, payment: Payment, halted: Sequence[OperationKind]) -> Table:
    heads = ("id", "kind", "amount", "state", "attempts", "gateway", "next attempt", "remarks")
    table = _grid("Operations", *heads)
    query = select(Operation).where(Operation.payment_id == payment.id)
    for each in session.scalars(query.order_by(Operation.created_at, Operation.id)):
        table.add_row(
            str(each.id),
            each.kind,
            str(Money(each.amount_minor, payment.currency)),
            each.state,
            str(each.attempt),
            each.gateway_ref or "",
            _moment(each.next_attempt_at),
            ", ".join(_remarks(each, halted)),
        )
    return table


def _remarks(operation: Operation, halted: Sequence[OperationKind]) -> Iterator[str]:
    if operation.needs_review:
        yield "needs review"
    if operation.finished_at is None and operation.kind in halted:
        yield f"{operation.kind} is paused"
    if operation.doubt_since:
        yield f"in doubt since {_moment(operation.doubt_since)}"
    if operation.absent_since:
        yield f"absent at the gateway since {_moment(operation.absent_since)}"
    if operation.key_number > 1:
        yield f"key {operation.gateway_key}"
    if operation.target_ref:
        yield f"about {operation.target_ref}"
    if operation.reason:
        yield operation.reason
    if refused := (operation.outcome or {}).get("reason"):
        yield f"outcome {refused}"


def _timeline(session: Session, payment: Payment) -> Table:
    table = _grid("Timeline", "#", "at (UTC)", "by", "what", "status", "event", "detail")
    query = select(TimelineEntry).where(TimelineEntry.payment_id == payment.id)
    for each in session.scalars(query.order_by(TimelineEntry.sequence)):
        change = f"{each.from_status or ''} -> {each.to_status}".strip(" ->") if each.to_status else ""
        event = f"{each.announced_type} {each.announced_id}" if each.announced_type else ""
        detail = ", ".join(f"{name} {value}" for name, value in (each.detail or {}).items())
        table.add_row(str(each.sequence), _moment(each.at), each.actor, each.event, change, event, detail)
    return table


def _moment(moment: datetime | None) -> str:
    return f"{moment.astimezone(UTC):%F %T}" if moment else ""
