"""Move one payment along its life: status, history and announcement in one transaction; the one door."""

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from shared.announcements import describe
from shared.database import new_id
from shared.models import Operation, Outbox, Payment, TimelineEntry
from shared.payments import OUTCOMES, PROCESSED, REQUESTED_BY, Announcement, Status, check_transition
from shared.rows import Writes


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """Why a payment changes: who did it, when, through which operation, and what else is worth keeping."""

    event: str  # what happened, as the timeline shows it
    actor: str
    at: datetime
    operation: Operation
    gateway_ref: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)


def begin(writes: Writes, payment: Payment, cause: Cause) -> None:
    """Write the first history row of a new payment and ask the worker for its charge or hold."""
    _write(writes, payment, cause, None, Status.PENDING, Announcement.PAYMENT_REQUESTED)


def rebuild(writes: Writes, payment: Payment, cause: Cause) -> None:
    """Write the first history row of a payment whose rows were lost, and ask nobody for anything.

    The gateway was asked long ago.
    """
    _write(writes, payment, cause, None, Status.PENDING, None)


def begin_unasked(
    writes: Writes, payment: Payment, actor: str, at: datetime, correlation_id: str | None
) -> None:
    """Write the first history row of a payment that is charged only once that is asked for by `request`."""
    entry = {
        "payment_id": payment.id,
        "sequence": payment.version,
        "at": at,
        "actor": actor,
        "event": "payment created",
        "to_status": Status.PENDING,
        "correlation_id": correlation_id,
    }
    writes.add(TimelineEntry, entry)


def request(writes: Writes, payment: Payment, cause: Cause) -> None:
    """Ask the worker for a further operation, `cause.operation`, whose row the caller adds."""
    note(writes, payment, cause, REQUESTED_BY[cause.operation.kind])


def advance(writes: Writes, payment: Payment, to: Status, cause: Cause) -> None:
    """Set `payment` to status `to`, append its history row and queue the edge's event for Kafka.

    The caller has set what comes with the status (captured amount, failure fields), and sends `writes`.
    Raises IllegalTransition when the table has no such edge; nothing is written then.
    """
    announcement = check_transition(payment.status, to)
    was = payment.status
    payment.status = to
    payment.version += 1
    if to in PROCESSED and payment.processed_at is None:
        payment.processed_at = cause.at
    _write(writes, payment, cause, was, to, announcement)
    if payment.outcome_topic and announcement in OUTCOMES:
        # A history row holds one event: the second one has a row, and so a place in the order, of its own.
        also = Announcement(payment.outcome_topic)
        note(writes, payment, replace(cause, event=f"told as {also}", detail={}), also)


def note(writes: Writes, payment: Payment, cause: Cause, announcement: Announcement | None = None) -> None:
    """Append a history row for something worth knowing that changes no status, and announce it if need be."""
    payment.version += 1
    _write(writes, payment, cause, None, None, announcement)


def _write(
    writes: Writes,
    payment: Payment,
    cause: Cause,
    was: Status | None,
    now: Status | None,
    announcement: Announcement | None,
) -> None:
    entry: dict[str, Any] = {
        "payment_id": payment.id,
        "sequence": payment.version,
        "at": cause.at,
        "actor": cause.actor,
        "event": cause.event,
        "from_status": was,
        "to_status": now,
        "operation_id": cause.operation.id,
        "gateway_ref": cause.gateway_ref,
        "correlation_id": cause.operation.correlation_id,
        "detail": cause.detail or None,
        "announced_id": None,
        "announced_type": None,
        "announced_payload": None,
    }
    if announcement:
        event = _announce(writes, payment, cause, announcement)
        entry["announced_id"], entry["announced_type"] = event["id"], event["type"]
        entry["announced_payload"] = event["payload"]
    writes.add(TimelineEntry, entry)


def _announce(writes: Writes, payment: Payment, cause: Cause, announcement: Announcement) -> dict[str, Any]:
    event: dict[str, Any] = {
        "id": new_id(),
        "aggregatetype": "payment",
        "aggregateid": payment.id,
        "type": str(announcement),
        "payload": describe(announcement, payment, cause.operation, cause.at),
        "sequence": payment.version,
        "correlation_id": cause.operation.correlation_id,
        "causation_id": str(cause.operation.id),
        "traceparent": cause.operation.traceparent,
        "created_at": cause.at,
    }
    writes.add(Outbox, event)
    return event
