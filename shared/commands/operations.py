"""What the commands on an existing payment share: its lock, its client's key, and the operation they add."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared import lifecycle
from shared.commands.idempotency import IdempotentRequest, bind, find_bound
from shared.commands.received import ReceivedMessage, take_in, tie
from shared.database import Sessions, new_id
from shared.models import Operation, Payment
from shared.payments import PRIMARY, CaptureMethod, OperationKind, OperationState, PaymentNotFound
from shared.rows import Writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who sent a command, and the trace it belongs to."""

    actor: str
    correlation_id: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Requested:
    """The payment and the operation that answer a command; no operation where the gateway need not be asked.

    `replayed` says that the client's key was used before.
    """

    payment: Payment
    operation: Operation | None
    replayed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """One command under the payment's lock: everything it writes becomes durable together."""

    session: Session
    writes: Writes
    payment: Payment
    at: datetime
    origin: Origin
    due_after: timedelta

    def cause(self, event: str, operation: Operation, **detail: Any) -> lifecycle.Cause:
        """Why the payment changes."""
        return lifecycle.Cause(
            event=event, actor=self.origin.actor, at=self.at, operation=operation, detail=detail
        )

    def request(self, kind: OperationKind, amount_minor: int, reason: str | None, **detail: Any) -> Operation:
        """Add an operation and ask the worker for it."""
        return request_operation(
            self.writes,
            self.payment,
            further(self.payment, kind, amount_minor, self.at + self.due_after, reason=reason)
            | {"correlation_id": self.origin.correlation_id, "traceparent": self.origin.traceparent},
            self.origin.actor,
            self.at,
            **detail,
        )


def further(
    payment: Payment,
    kind: OperationKind,
    amount_minor: int,
    due_at: datetime,
    *,
    reason: str | None = None,
    target_ref: str | None = None,
) -> dict[str, Any]:
    """The row of a new operation; from `due_at` recovery dispatches it, should its message be lost."""
    return {
        "id": new_id(),
        "payment_id": payment.id,
        "kind": kind,
        "amount_minor": amount_minor,
        "state": OperationState.REQUESTED,
        "attempt": 0,
        "key_number": 1,
        "dispatch_count": 0,
        "needs_review": False,
        "reason": reason,
        "target_ref": target_ref,
        "next_attempt_at": due_at,
    }


def primary_kind(payment: Payment) -> OperationKind:
    """The operation that a payment begins with."""
    holds = payment.capture_method is CaptureMethod.MANUAL
    return OperationKind.AUTHORIZE if holds else OperationKind.CHARGE


def live_primary(asking: Asking) -> Operation | None:
    """The payment's charge or hold that has not failed; None for one that nobody has asked to be charged."""
    query = select(Operation).where(
        Operation.payment_id == asking.payment.id,
        Operation.kind.in_(PRIMARY),
        Operation.state != OperationState.FAILED,
    )
    return asking.session.scalars(query).one_or_none()


def request_operation(
    writes: Writes, payment: Payment, values: dict[str, Any], actor: str, at: datetime, **detail: Any
) -> Operation:
    """Write a further operation of a payment and its request; a refund reserves what it will give back."""
    row = {**values, "created_at": at}
    writes.add(Operation, row)
    operation = Operation(**row)
    if operation.kind is OperationKind.REFUND and not operation.target_ref:
        payment.refund_reserved_minor += operation.amount_minor
    told = {"amountMinor": operation.amount_minor, **detail}
    if operation.reason:
        told["reason"] = operation.reason
    cause = lifecycle.Cause(
        event=f"{operation.kind} requested", actor=actor, at=at, operation=operation, detail=told
    )
    lifecycle.request(writes, payment, cause)
    return operation


def carry_out(
    sessions: Sessions,
    payment_id: uuid.UUID,
    origin: Origin,
    work: Callable[[Asking], Operation | None],
    *,
    recovery_after_s: float,
    idempotent: IdempotentRequest | None = None,
    received: ReceivedMessage | None = None,
) -> Requested:
    """Lock the payment and let `work` write, in one transaction.

    In the same one the client's key is bound, or the message that asked is noted. Raises PaymentNotFound,
    IdempotencyKeyReused, IdempotencyKeyInUse, AlreadyReceived, and what `work` raises; then nothing is kept.
    """
    with sessions.begin() as session:
        if received:
            take_in(session, received)
        if idempotent and (bound := find_bound(session, idempotent)):
            payment = session.get_one(Payment, bound.payment_id)
            operation = session.get(Operation, bound.operation_id) if bound.operation_id else None
            return Requested(payment, operation, replayed=True)
        payment, at = lock_payment(session, payment_id)
        asking = Asking(
            session=session,
            writes=Writes(),
            payment=payment,
            at=at,
            origin=origin,
            due_after=timedelta(seconds=recovery_after_s),
        )
        operation = work(asking)
        asking.writes.change(payment)
        asking.writes.send_locked(session.connection())
        if received:
            tie(session, received, payment.id)
        if idempotent:
            bind(session, idempotent, payment_id=payment.id, operation_id=operation.id if operation else None)
        return Requested(payment, operation, replayed=False)


def lock_payment(session: Session, payment_id: uuid.UUID) -> tuple[Payment, datetime]:
    """Lock a payment and read it, and the clock; write it back with `Writes`. Raises PaymentNotFound."""
    query = select(Payment, func.clock_timestamp()).where(Payment.id == payment_id)
    row = session.execute(query.with_for_update(of=Payment)).one_or_none()
    if row is None:
        raise PaymentNotFound("Payment not found")
    payment, at = row
    session.expunge(payment)
    return payment, at


def open_settlement(asking: Asking) -> Operation | None:
    """The capture or cancel of this payment that is under way."""
    query = select(Operation).where(
        Operation.payment_id == asking.payment.id,
        Operation.kind.in_([OperationKind.CAPTURE, OperationKind.CANCEL]),
        Operation.finished_at.is_(None),
        Operation.target_ref.is_(None),
    )
    return asking.session.scalars(query).one_or_none()
