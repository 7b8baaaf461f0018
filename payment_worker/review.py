"""What needs a person, and the ways out: it was seen, is tried again, or the gateway's truth is recorded."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from payment_worker import outcomes
from payment_worker.locking import lock
from payment_worker.marking import note
from payment_worker.recovery import CLOCK_MARGIN, Look, adopt_seen, note_absence
from shared.database import Sessions, reading
from shared.gateways import Gateway, GatewayUnavailable, Misconfigured, Outcome, Sought, Transient, Unknown
from shared.lifecycle import Cause
from shared.models import Operation, Payment, TimelineEntry
from shared.payments import PRIMARY, OperationKind
from shared.rows import Writes
from shared.telemetry import get_logger

log = get_logger(__name__)

SHOWN = frozenset({"needs review", "gateway misconfigured"})
SETTLED = frozenset({"review resolved", "review no longer needed"})
# What has a gateway's object of its own; a capture and a cancel are seen on the charge.
HAS_OBJECT = PRIMARY | {OperationKind.REFUND}
BEING_CARRIED_OUT = "it is being carried out, or looked for, at this moment"


class NothingDone(Exception):
    """The operation is not resolved, and nothing has changed but for what the message says."""


class Case(NamedTuple):
    """An operation that needs a person; `since` and `reason` are as the timeline has them."""

    operation: Operation
    payment: Payment
    since: datetime | None
    reason: str | None


def cases(sessions: Sessions, limit: int) -> list[Case]:
    """Everything that needs a person, oldest first, at most `limit`."""
    query = (
        select(Operation, Payment)
        .join(Payment, Payment.id == Operation.payment_id)
        .where(Operation.needs_review)
        .order_by(Operation.id)
        .limit(limit)
    )
    with reading(sessions) as session:
        found = [(operation, payment) for operation, payment in session.execute(query)]
        entries = session.scalars(
            select(TimelineEntry)
            .where(
                TimelineEntry.payment_id.in_([payment.id for _, payment in found]),
                TimelineEntry.operation_id.in_([operation.id for operation, _ in found]),
                TimelineEntry.event.in_(SHOWN | SETTLED),
            )
            .order_by(TimelineEntry.payment_id, TimelineEntry.sequence)
        ).all()
    told = _why(entries)
    return [Case(operation, payment, *told.get(operation.id, (None, None))) for operation, payment in found]


def _why(entries: Iterable[TimelineEntry]) -> dict[uuid.UUID | None, tuple[datetime, str | None]]:
    """Of each operation when it was first shown since it was last settled, and the latest reason."""
    told: dict[uuid.UUID | None, tuple[datetime, str | None]] = {}
    for each in entries:
        if each.event in SETTLED:
            told.pop(each.operation_id, None)
        else:
            since, _ = told.get(each.operation_id, (each.at, None))
            told[each.operation_id] = since, (each.detail or {}).get("reason")
    return told


def accept(sessions: Sessions, operation_id: uuid.UUID, actor: str) -> None:
    """Note that a person has seen it and that nothing is to be done.

    Raises NothingDone for an operation that does not need a person, and for one that is open and that nothing
    would move any more: it would be forgotten.
    """
    with sessions.begin() as session:
        payment, operation, at = _locked(session, operation_id)
        if not operation.needs_review:
            raise NothingDone("it does not need review")
        if operation.finished_at is None and not (operation.next_attempt_at or operation.doubt_since):
            raise NothingDone("it is open and nothing is tried any more: adopt it or retry it")
        operation.needs_review = False
        _resolved(session, payment, operation, at, actor, "seen")


def adopt(sessions: Sessions, gateway: Gateway, operation_id: uuid.UUID, actor: str) -> list[Outcome]:
    """Look at the gateway how the operation stands there, record that, and return it.

    Raises NothingDone when the gateway has nothing of it, or what it has still needs a person;
    GatewayUnavailable when nothing can be known now.
    """
    seen, _ = _look(sessions, gateway, operation_id)
    if not seen:
        raise NothingDone("the gateway has nothing of it; if it is open it can be retried")
    _adopt(sessions, operation_id, seen, actor)
    return seen


def retry(
    sessions: Sessions, gateway: Gateway, operation_id: uuid.UUID, actor: str, apart: timedelta
) -> list[Outcome] | str | None:
    """Have an operation tried again that was given up, once it is certain that the gateway has nothing of it.

    Two looks that find nothing, `apart` from each other, are needed. This is the first, and the pass over
    what is in doubt makes the second by itself, and then the new key: None is returned. Where the first look
    was made already, it is due at once, and the new key is returned. What is found at the gateway is
    recorded and returned, and not tried again.

    Raises NothingDone for an operation that is finished or is tried again by itself; GatewayUnavailable when
    nothing can be known now.
    """
    with reading(sessions) as session:
        _check_given_up(*_read(session, operation_id))
    seen, began = _look(sessions, gateway, operation_id)
    if seen:
        _adopt(sessions, operation_id, seen, actor)
        return seen
    with sessions.begin() as session:
        payment, operation, at = _locked(session, operation_id)
        _check_given_up(payment, operation, at)
        cause = Cause(event="", actor=actor, at=at, operation=operation)
        if operation.doubt_since is None:
            writes = Writes()
            outcomes.doubt(writes, payment, cause, "to be tried again; absent at a first look")
            # One that was given up for the number of its attempts may have as many again.
            operation.attempt += 1
            writes.change(payment, operation)
            writes.send_locked(session.connection())
        renewed = note_absence(session, payment, operation, at, Look(began, apart), actor)
        log.warning("operation to be retried", operation_id=str(operation_id), actor=actor, at_once=renewed)
        return operation.gateway_key if renewed else None


def _check_given_up(_: Payment, operation: Operation, at: datetime) -> None:
    if operation.finished_at is not None:
        raise NothingDone(f"it has {operation.state}; what is finished is not tried again")
    if operation.lease_until is not None and operation.lease_until > at:
        raise NothingDone(BEING_CARRIED_OUT)
    if operation.next_attempt_at is not None:
        due = operation.next_attempt_at.astimezone(UTC)
        raise NothingDone(f"it is tried again by itself at {due:%F %T} UTC")


def _look(sessions: Sessions, gateway: Gateway, operation_id: uuid.UUID) -> tuple[list[Outcome], datetime]:
    """What the gateway has of the operation, and when the look began; no connection is held meanwhile."""
    with reading(sessions) as session:
        payment, operation, began = _read(session, operation_id)
    if operation.gateway_ref and operation.kind in HAS_OBJECT:
        standing = gateway.look_up(operation.kind, operation.gateway_ref)
        if isinstance(standing, Transient | Unknown | Misconfigured):
            raise GatewayUnavailable(standing.reason)
        return [standing], began
    ref = operation.target_ref or payment.gateway_ref
    sought = Sought(operation_id=str(operation_id), kind=operation.kind, gateway_ref=ref)
    found = gateway.find([sought], operation.created_at - CLOCK_MARGIN)
    if str(operation_id) not in found:
        raise GatewayUnavailable("the charge that it is about cannot be looked up")
    return found[str(operation_id)], began


def _adopt(sessions: Sessions, operation_id: uuid.UUID, seen: Sequence[Outcome], actor: str) -> None:
    with sessions.begin() as session:
        payment, operation, at = _locked(session, operation_id)
        if operation.lease_until is not None and operation.lease_until > at:
            raise NothingDone(BEING_CARRIED_OUT)
        operation.needs_review = False
        adopt_seen(session, payment, operation, list(seen), at, actor)
        if not operation.needs_review:
            _resolved(session, payment, operation, at, actor, "adopt")
    if operation.needs_review:
        raise NothingDone("what the gateway has was recorded, and still needs review; show says why")


def _resolved(
    session: Session, payment: Payment, operation: Operation, at: datetime, actor: str, way: str
) -> None:
    writes = Writes()
    note(writes, payment, Cause(event="", actor=actor, at=at, operation=operation), "review resolved", way)
    writes.change(payment, operation)
    writes.send_locked(session.connection())
    log.warning("review resolved", operation_id=str(operation.id), actor=actor, resolved_as=way)


def _read(session: Session, operation_id: uuid.UUID) -> tuple[Payment, Operation, datetime]:
    row = session.execute(
        select(Payment, Operation, func.clock_timestamp())
        .join(Operation, Operation.payment_id == Payment.id)
        .where(Operation.id == operation_id)
    ).one_or_none()
    if row is None:
        raise NothingDone("there is no such operation")
    payment, operation, at = row
    return payment, operation, at


def _locked(session: Session, operation_id: uuid.UUID) -> tuple[Payment, Operation, datetime]:
    try:
        return lock(session, operation_id)
    except LookupError:
        raise NothingDone("there is no such operation") from None
