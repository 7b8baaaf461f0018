"""Find what was lost: dispatch due operations again, and look for doubtful ones at the gateway."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Float, cast, func, or_, select, true, update
from sqlalchemy.orm import Session

from payment_worker import outcomes
from payment_worker.gate import Gate
from payment_worker.locking import lock, record_seen
from payment_worker.marking import flag
from payment_worker.metrics import REDISPATCHED
from shared import lifecycle
from shared.database import Sessions, reading, try_lock
from shared.gateways import Gateway, Outcome, Sought
from shared.models import Operation, Pause, Payment
from shared.payments import OPEN_OPERATION, OperationKind
from shared.rows import Writes
from shared.telemetry import get_logger

log = get_logger(__name__)

BATCH = 200
# Above this many waiting tasks, of up to twenty operations each, what was never attempted is on its way, and
# what is sent again only adds to the queue: each costs the worker a look, just when it has none to spare.
BACKLOG_DEPTH = 8
NEVER_CAME = timedelta(seconds=15)  # so long after it was due its message counts as lost all the same
MAX_QUEUE_DEPTH = 500  # above this many, nothing at all is sent again
FIRST_REDISPATCH_S = 5.0
LAST_REDISPATCH_S = 300.0
MAX_DOUBLINGS = 10  # more than lead from the first pause to the last
# The gateway's clock may be behind ours.
DOUBT_MAY_LAST = timedelta(minutes=30)
CLOCK_MARGIN = timedelta(minutes=5)
# Longer than most looks, and what a crash in mid-look holds up; of two that look for the same none does harm.
LOOK_LEASE = timedelta(minutes=1)
ACTOR = "recovery"


class Due(NamedTuple):
    """An operation to dispatch: the attempt number tells a late message from a present one."""

    operation_id: uuid.UUID
    attempt: int
    correlation_id: str | None
    kind: OperationKind


def take_due(sessions: Sessions, *, backlog: bool = False) -> list[Due]:
    """Take the operations that are due and whose lease, if any, has lapsed; push each one's next turn out.

    With a `backlog` those that were never attempted are left to the message that waits for its turn. The turn
    is pushed out with backoff before the dispatch, so that a backlog is not dispatched over and over. Returns
    nothing while another sweep is at it.
    """
    # The transaction's time, not the clock's: only a stable value may be looked for in an index.
    now = func.now()
    due = (
        select(Operation.id)
        .where(
            Operation.next_attempt_at <= now,
            Operation.state.in_(OPEN_OPERATION),
            or_(Operation.lease_until.is_(None), Operation.lease_until < now),
            Operation.kind.not_in(select(Pause.kind)),
            or_(Operation.attempt > 0, Operation.next_attempt_at <= now - NEVER_CAME) if backlog else true(),
        )
        .order_by(Operation.next_attempt_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    # Bounded before it is raised to a power: a float overflows after a thousand dispatches in vain.
    doublings = func.least(Operation.dispatch_count, MAX_DOUBLINGS)
    delay_s = func.least(LAST_REDISPATCH_S, FIRST_REDISPATCH_S * func.power(2.0, doublings))
    push = (
        update(Operation)
        .where(Operation.id.in_(due))
        .values(
            next_attempt_at=now + cast(delay_s, Float) * timedelta(seconds=1),
            dispatch_count=Operation.dispatch_count + 1,
        )
        .returning(Operation.id, Operation.attempt, Operation.correlation_id, Operation.kind)
        .execution_options(synchronize_session=False)
    )
    with sessions.begin() as session:
        if not try_lock(session, "recovery sweep"):
            return []
        return [Due(*row) for row in session.execute(push)]


def sweep(sessions: Sessions, queue_depth: Callable[[], int], dispatch: Callable[[list[Due]], None]) -> int:
    """Dispatch what is due and not in the queue already; return how many. Nothing while the queue is deep."""
    depth = queue_depth()
    if depth > MAX_QUEUE_DEPTH:
        log.warning("recovery waits: the queue is deep", depth=depth)
        return 0
    due = take_due(sessions, backlog=depth > BACKLOG_DEPTH)
    if due:
        dispatch(due)
        REDISPATCHED.inc(len(due))
        log.info("operations dispatched again", count=len(due))
    return len(due)


def verify_doubtful(
    sessions: Sessions,
    gateway: Gateway,
    gate: Gate,
    verify_absence_s: float,
    announce_change: Callable[[uuid.UUID], None],
    abandon_after: timedelta = outcomes.ABANDONED_AFTER,
) -> int:
    """Look for all doubtful operations at the gateway in one pass; return how many were settled.

    Found: its outcome is adopted. Absent in two looks `verify_absence_s` apart: a new attempt under a
    new key. Raises GatewayUnavailable when the look could not be completed, or was not due its turn.
    """
    _flag_old_doubts(sessions, timedelta(seconds=verify_absence_s) + DOUBT_MAY_LAST)
    doubtful, began = _take_doubtful(sessions, verify_absence_s)
    if not doubtful:
        return 0
    ids = [each.id for each in doubtful]
    try:
        sought = [
            Sought(operation_id=str(each.id), kind=each.kind, gateway_ref=each.gateway_ref)
            for each in doubtful
        ]
        since = min(each.created_at for each in doubtful) - CLOCK_MARGIN
        found = gate.look(lambda: gateway.find(sought, since))
        look = Look(began, timedelta(seconds=verify_absence_s), abandon_after)
        return sum(
            _settle(sessions, each, found[str(each)], look, announce_change)
            for each in ids
            if str(each) in found
        )
    finally:
        _let_go(sessions, ids)


class Doubtful(NamedTuple):
    """An operation to look for, and the charge that it was to act upon."""

    id: uuid.UUID
    kind: OperationKind
    gateway_ref: str | None
    created_at: datetime


class Look(NamedTuple):
    """When a look began, by the database's clock, and how far apart two of them must be.

    A customer who is found to be waited for has `abandon_after` to act.
    """

    began: datetime
    apart: timedelta
    abandon_after: timedelta = outcomes.ABANDONED_AFTER


def _take_doubtful(sessions: Sessions, verify_absence_s: float) -> tuple[list[Doubtful], datetime]:
    """Take what is to be looked for now under a lease, so that no other process looks for it meanwhile."""
    now = func.now()
    due = (
        select(Operation.id)
        .where(
            Operation.doubt_since.is_not(None),
            Operation.state.in_(OPEN_OPERATION),
            or_(Operation.lease_until.is_(None), Operation.lease_until < now),
            or_(
                Operation.absent_since.is_(None),
                Operation.absent_since <= now - timedelta(seconds=verify_absence_s),
            ),
        )
        .order_by(Operation.doubt_since)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    take = (
        update(Operation)
        .where(Operation.id.in_(due), Payment.id == Operation.payment_id)
        .values(lease_until=now + LOOK_LEASE)
        .returning(
            Operation.id,
            Operation.kind,
            func.coalesce(Operation.target_ref, Payment.gateway_ref),
            Operation.created_at,
            now,
        )
        .execution_options(synchronize_session=False)
    )
    with sessions.begin() as session:
        rows = session.execute(take).all()
    return [Doubtful(*row[:4]) for row in rows], rows[0][4] if rows else datetime.now(UTC)


def _let_go(sessions: Sessions, operation_ids: list[uuid.UUID]) -> None:
    """End the leases of a look: what is still in doubt may be looked for again."""
    still = update(Operation).where(Operation.id.in_(operation_ids), Operation.doubt_since.is_not(None))
    with sessions.begin() as session:
        session.execute(still.values(lease_until=None).execution_options(synchronize_session=False))


def _flag_old_doubts(sessions: Sessions, older_than: timedelta) -> None:
    """Show an operator what has been in doubt for so long that the looks themselves must be failing."""
    old = select(Operation.id).where(
        Operation.doubt_since < func.now() - older_than, Operation.needs_review.is_(False)
    )
    with reading(sessions) as session:
        operation_ids = session.scalars(old.limit(BATCH)).all()
    for operation_id in operation_ids:
        with sessions.begin() as session:
            payment, operation, at = lock(session, operation_id)
            if operation.doubt_since is None or operation.needs_review:
                continue
            writes = Writes()
            cause = lifecycle.Cause(event="needs review", actor=ACTOR, at=at, operation=operation)
            flag(writes, payment, cause, "in doubt, and the gateway cannot be asked")
            writes.change(payment, operation)
            writes.send_locked(session.connection())


def _settle(
    sessions: Sessions,
    operation_id: uuid.UUID,
    seen: list[Outcome],
    look: Look,
    announce_change: Callable[[uuid.UUID], None],
) -> bool:
    with sessions.begin() as session:
        payment, operation, at = lock(session, operation_id)
        if operation.finished_at is not None or operation.doubt_since is None:
            return False
        if seen:
            adopt_seen(session, payment, operation, seen, at, ACTOR, look.abandon_after)
        elif note_absence(session, payment, operation, at, look, ACTOR):
            log.info("a new key after a verified absence", operation_id=str(operation_id))
        settled = operation.finished_at is not None
    if settled:
        announce_change(payment.id)
    return settled


def adopt_seen(
    session: Session,
    payment: Payment,
    operation: Operation,
    seen: list[Outcome],
    at: datetime,
    actor: str,
    abandon_after: timedelta = outcomes.ABANDONED_AFTER,
) -> None:
    """Record what a look has found, on rows that are locked."""
    writes = Writes()
    found = lifecycle.Cause(
        event=f"{operation.kind} found at the gateway", actor=actor, at=at, operation=operation
    )
    lifecycle.note(writes, payment, found)
    record_seen(session, payment, operation, seen, at, writes, abandon_after=abandon_after, actor=actor)


def note_absence(
    session: Session, payment: Payment, operation: Operation, at: datetime, look: Look, actor: str
) -> bool:
    """Note that a look has found nothing; the second one, far enough from the first, gives it a new key.

    The second must have begun that long after the first had ended: how long a look takes does not matter,
    nor how many are under way. Returns whether there is a new key. The rows are locked.
    """
    writes = Writes()
    renewed = operation.absent_since is not None and look.began - operation.absent_since >= look.apart
    if renewed:
        cause = lifecycle.Cause(event="", actor=actor, at=at, operation=operation)
        outcomes.renew_key(writes, payment, cause)
    elif operation.absent_since is None:
        operation.absent_since = at
    writes.change(payment, operation)
    writes.send_locked(session.connection())
    return renewed
