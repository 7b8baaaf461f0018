"""What is past its time: holds that may have lapsed, and customers who did not come back."""

import uuid
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import exists, func, select, update
from sqlalchemy.orm import Session

from payment_worker.marking import note
from payment_worker.processing import Worker
from payment_worker.standing import Overtaken, Unanswerable, adopt_standing
from shared.commands.cancel import cancel_payment
from shared.commands.operations import Origin, lock_payment
from shared.database import reading, try_lock
from shared.gateways import Authorized
from shared.lifecycle import Cause
from shared.models import Operation, Payment, TimelineEntry
from shared.payments import PRIMARY, PaymentConflict, Status
from shared.rows import Writes
from shared.telemetry import get_logger, log_context

log = get_logger(__name__)

ACTOR = "deadline"
BATCH = 100
# The gateway may be late, or our clock ahead of it.
LOOK_AGAIN_AFTER = timedelta(minutes=1)
LATER_AFTER = timedelta(minutes=10)
STILL_HELD = "held past its time"
TIMED_OUT = "the customer did not act in time"


class Late(NamedTuple):
    """A payment past its time, and the operation it began with."""

    payment_id: uuid.UUID
    status: Status
    gateway_ref: str | None


def sweep(worker: Worker, recovery_after_s: float) -> int:
    """Look after every payment that is past its time; return how many. Nothing while another sweep is at it.

    Raises GatewayUnavailable when the gateway cannot be asked; they come back in a minute.
    """
    late = take_late(worker)
    # Those for whom the gateway need not be asked at once come first: it may be away.
    for each in sorted(late, key=lambda each: each.status is Status.AUTHORIZED):
        with log_context(payment_id=each.payment_id):
            if each.status is Status.AUTHORIZED:
                _look_at_hold(worker, each)
            else:
                _give_up(worker, each, recovery_after_s)
    return len(late)


def take_late(worker: Worker) -> list[Late]:
    """Take holds and waiting payments whose time is over; push each one's next turn out."""
    late = (
        select(Payment.id)
        .where(
            Payment.expires_at <= func.now(),
            Payment.status.in_([Status.AUTHORIZED, Status.REQUIRES_ACTION]),
        )
        .order_by(Payment.expires_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    push = (
        update(Payment)
        .where(Payment.id.in_(late))
        .values(expires_at=func.now() + LOOK_AGAIN_AFTER)
        .returning(Payment.id, Payment.status, Payment.gateway_ref)
        .execution_options(synchronize_session=False)
    )
    with worker.sessions.begin() as session:
        if not try_lock(session, "deadlines"):
            return []
        return [Late(*row) for row in session.execute(push)]


def _give_up(worker: Worker, late: Late, recovery_after_s: float) -> None:
    """Ask the gateway to cancel; the order is free only once it has said that nobody can pay any more."""
    origin = Origin(actor=ACTOR, correlation_id=None, traceparent=None)
    try:
        cancel_payment(worker.sessions, late.payment_id, TIMED_OUT, origin, recovery_after_s=recovery_after_s)
    except PaymentConflict as error:
        log.info("no longer to be given up", reason=str(error))
        return
    log.info("given up", reason=TIMED_OUT)
    worker.announce_change(late.payment_id)


def _look_at_hold(worker: Worker, late: Late) -> None:
    primary_id = _primary_id(worker, late.payment_id)
    try:
        standing = adopt_standing(worker, primary_id, late.gateway_ref or "", ACTOR)
    except (Overtaken, Unanswerable) as error:
        log.warning("a hold past its time could not be looked at", error=type(error).__name__)
        return
    if isinstance(standing, Authorized):
        _note_still_held(worker, late.payment_id, primary_id)


def _primary_id(worker: Worker, payment_id: uuid.UUID) -> uuid.UUID:
    newest = select(Operation.id).where(Operation.payment_id == payment_id, Operation.kind.in_(PRIMARY))
    with reading(worker.sessions) as session:
        return session.scalars(newest.order_by(Operation.id.desc()).limit(1)).one()


def _note_still_held(worker: Worker, payment_id: uuid.UUID, primary_id: uuid.UUID) -> None:
    """The gateway holds it longer than it had said: look again, and tell so once."""
    with worker.sessions.begin() as session:
        payment, at = lock_payment(session, payment_id)
        if payment.status is not Status.AUTHORIZED:
            return
        writes = Writes()
        payment.expires_at = at + LATER_AFTER
        if not _is_noted(session, payment_id):
            operation = session.get_one(Operation, primary_id)
            cause = Cause(event=STILL_HELD, actor=ACTOR, at=at, operation=operation)
            note(writes, payment, cause, STILL_HELD, "the gateway still holds the money")
        writes.change(payment)
        writes.send_locked(session.connection())


def _is_noted(session: Session, payment_id: uuid.UUID) -> bool:
    noted = exists().where(TimelineEntry.payment_id == payment_id, TimelineEntry.event == STILL_HELD)
    return bool(session.scalar(select(noted)))
