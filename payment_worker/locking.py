"""Read and lock a payment with one of its operations; everybody locks in the same order."""

import uuid
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, exists, func, select
from sqlalchemy.orm import Session, object_session

from payment_worker import outcomes
from payment_worker.settling import Beside
from shared.gateways import TERMINAL, Authorized, Outcome, Refunded, Succeeded
from shared.models import Operation, Pause, Payment
from shared.payments import PRIMARY, OperationKind
from shared.rows import Writes

LOOK = (
    select(Payment, Operation, func.clock_timestamp(), exists().where(Pause.kind == Operation.kind))
    .join(Operation, Operation.payment_id == Payment.id)
    .where(Operation.id == bindparam("operation_id"))
)
_LOCK = LOOK.with_for_update(of=[Payment, Operation])

Looked = tuple[Payment, Operation, datetime, bool]


def lock(session: Session, operation_id: uuid.UUID) -> tuple[Payment, Operation, datetime]:
    """Lock the operation's payment, then the operation; read both, and the clock.

    Everybody locks in this order. Both rows are locked, for only a locked row is read as a former holder of
    the lock has left it. They are taken out of the session: write them back with `Writes`. Raises LookupError
    for an unknown operation.
    """
    row = session.execute(_LOCK, {"operation_id": operation_id}).one_or_none()
    if row is None:
        raise LookupError(operation_id)
    payment, operation, at, _ = taken_out(row)
    return payment, operation, at


def taken_out(row: Any) -> Looked:
    """A row of `LOOK`, with the payment and the operation taken out of their session."""
    payment, operation, at, paused = row
    for each in (payment, operation):
        if session := object_session(each):
            session.expunge(each)
    return payment, operation, at, paused


def record_locked(
    session: Session,
    payment: Payment,
    operation: Operation,
    outcome: Outcome,
    at: datetime,
    *,
    abandon_after: timedelta,
    actor: str = "worker",
) -> None:
    """Record an outcome on rows that are locked, and end the payment's charge with it where it is open."""
    record_seen(
        session, payment, operation, [outcome], at, Writes(), abandon_after=abandon_after, actor=actor
    )


def record_seen(
    session: Session,
    payment: Payment,
    operation: Operation,
    seen: Sequence[Outcome],
    at: datetime,
    writes: Writes,
    *,
    abandon_after: timedelta = outcomes.ABANDONED_AFTER,
    actor: str = "worker",
) -> None:
    """Record everything that the gateway has of an operation, and send it with what `writes` holds already.

    Of several the weightiest decides, and the others are recorded as what came after.
    """
    primary = open_primary(session, operation)
    asked = payment.cancel_requested_at is not None
    beside = Beside(primary, cancelling=asked and _is_being_cancelled(session, operation))
    for outcome in sorted(seen, key=_weight):
        outcomes.record(
            writes,
            payment,
            operation,
            outcome,
            at,
            beside=beside,
            abandon_after=abandon_after,
            actor=actor,
        )
    writes.change(payment, operation, *([primary] if primary else []))
    writes.send_locked(session.connection())


def _weight(outcome: Outcome) -> int:
    """Something done first, then any other definite outcome."""
    if isinstance(outcome, Succeeded | Authorized | Refunded):
        return 0
    return 1 if isinstance(outcome, TERMINAL) else 2


def _is_being_cancelled(session: Session, operation: Operation) -> bool:
    """Whether another operation cancels the payment's own charge or hold."""
    under_way = select(Operation.id).where(
        Operation.payment_id == operation.payment_id,
        Operation.kind == OperationKind.CANCEL,
        Operation.finished_at.is_(None),
        Operation.target_ref.is_(None),
        Operation.id != operation.id,
    )
    return session.scalars(under_way).first() is not None


def open_primary(session: Session, operation: Operation) -> Operation | None:
    """The payment's charge or hold that is still open, unless `operation` itself is it."""
    if operation.kind in PRIMARY:
        return None
    primary = session.scalars(
        select(Operation)
        .where(Operation.payment_id == operation.payment_id, Operation.kind.in_(PRIMARY))
        .where(Operation.finished_at.is_(None))
        .with_for_update()
    ).one_or_none()
    if primary:
        session.expunge(primary)
    return primary
