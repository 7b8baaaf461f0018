"""Move one payment along its life: status, history and announcement in one transaction; the one door."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from shared.announcements import describe
from shared.database import new_id
from shared.models import Operation, Outbox, Payment, TimelineEntry
from shared.payments import PROCESSED, Announcement, Status, check_transition


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a payment changes: who did it, when, through which operation, and what else is worth keeping."""

    event: str  # what happened, as the timeline shows it
    actor: str
    at: datetime
    operation: Operation
    gateway_ref: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def begin(session: Session, payment: Payment, cause: Cause) -> None:
    """Write the first history row of a new payment and ask the worker for its charge."""
    _write(session, payment, cause, None, Status.PENDING, Announcement.PAYMENT_REQUESTED)


def advance(session: Session, payment: Payment, to: Status, cause: Cause) -> None:
    """Set `payment` to status `to`, append its history row and queue the edge's event for Kafka.

    The caller holds the payment's row lock and has set what comes with the status (captured amount,
    failure fields). Raises IllegalTransition when the table has no such edge; nothing is written then.
    """
    announcement = check_transition(payment.status, to)
    was = payment.status
    payment.status = to
    payment.version += 1
    if to in PROCESSED and payment.processed_at is None:
        payment.processed_at = cause.at
    _write(session, payment, cause, was, to, announcement)


def note(session: Session, payment: Payment, cause: Cause) -> None:
    """Append a history row for something worth knowing that changes no status. Caller holds the row lock."""
    payment.version += 1
    _write(session, payment, cause, None, None, None)


def _write(
    session: Session,
    payment: Payment,
    cause: Cause,
    was: Status | None,
    now: Status | None,
    announcement: Announcement | None,
) -> None:
    entry = TimelineEntry(
        payment_id=payment.id,
        sequence=payment.version,
        at=cause.at,
        actor=cause.actor,
        event=cause.event,
        from_status=was,
        to_status=now,
        operation_id=cause.operation.id,
        gateway_ref=cause.gateway_ref,
        correlation_id=cause.operation.correlation_id,
        detail=cause.detail or None,
    )
    if announcement:
        _announce(session, payment, cause, entry, announcement)
    session.add(entry)


def _announce(
    session: Session, payment: Payment, cause: Cause, entry: TimelineEntry, announcement: Announcement
) -> None:
    row = Outbox(
        id=new_id(),
        aggregatetype="payment",
        aggregateid=payment.id,
        type=str(announcement),
        payload=describe(announcement, payment, cause.at),
        sequence=entry.sequence,
        correlation_id=cause.operation.correlation_id,
        causation_id=str(cause.operation.id),
        traceparent=cause.operation.traceparent,
        created_at=cause.at,
    )
    entry.announced_id, entry.announced_type, entry.announced_payload = row.id, row.type, row.payload
    session.add(row)
