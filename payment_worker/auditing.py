"""Check the invariants of payments again and again: soon of those that change, in time of all."""

import uuid
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from payment_worker.invariants import Broken, broken
from shared.database import Sessions, try_lock
from shared.models import Operation, Payment, TimelineEntry, plain
from shared.models_invariants import InvariantPass, InvariantViolation
from shared.telemetry import get_logger

log = get_logger(__name__)

BATCH = 500
# Of a million payments all have been looked at within two hours of turns once a minute.
ALL_IN_A_TURN = 10_000
CHANGED_IN_A_TURN = 5_000
# What was written before has been committed by now: no transaction of ours lasts as long.
SETTLED_AFTER = timedelta(seconds=30)
CHANGED, ALL = "changed", "all"
_VIOLATION, _PASS = plain(InvariantViolation), plain(InvariantPass)


def take_turn(sessions: Sessions) -> int:
    """Look at what has changed, at what is known as broken, and at some more payments of all.

    Returns how many payments were looked at; none while another is at it. What is found is kept in a table,
    until the payment is found whole again, and logged once.
    """
    with sessions.begin() as session:
        if not try_lock(session, "invariants"):
            return 0
        before = {row.name: row for row in session.execute(select(_PASS))}
        now = session.scalars(select(func.clock_timestamp())).one()
        until, changed = _changed(session, before.get(CHANGED), now - SETTLED_AFTER)
        last, some = _next(session, before.get(ALL))
        for batch in _batches([*dict.fromkeys([*changed, *some, *_suspects(session)])]):
            _note(session, batch, broken(session.connection(), batch), now)
        _reached(session, CHANGED, now, reached_at=until)
        done = {"finished_at": now} if last is None else {}
        _reached(session, ALL, now, reached_id=last, **done)
        return len(changed) + len(some)


def every_payment(session: Session) -> Iterator[list[uuid.UUID]]:
    """The ids of all payments, in batches."""
    last = uuid.UUID(int=0)
    while batch := _after(session, last, BATCH):
        yield batch
        last = batch[-1]


def _after(session: Session, last: uuid.UUID, limit: int) -> list[uuid.UUID]:
    return list(
        session.scalars(select(Payment.id).where(Payment.id > last).order_by(Payment.id).limit(limit))
    )


def _next(session: Session, before: Any) -> tuple[uuid.UUID | None, list[uuid.UUID]]:
    """Some more of all payments, and the last of them; None when there are no more behind it."""
    last = (before and before.reached_id) or uuid.UUID(int=0)
    found = _after(session, last, ALL_IN_A_TURN)
    return (found[-1] if len(found) == ALL_IN_A_TURN else None), found


def _changed(session: Session, before: Any, until: datetime) -> tuple[datetime, list[uuid.UUID]]:
    """Payments that announced something since the last turn, and until when that was looked at."""
    since = before.reached_at if before else until
    entry = TimelineEntry
    rows = session.execute(
        select(entry.payment_id, entry.at)
        .where(entry.announced_id.is_not(None), entry.at > since, entry.at <= until)
        .order_by(entry.at)
        .limit(CHANGED_IN_A_TURN)
    ).all()
    ids = [*dict.fromkeys(row.payment_id for row in rows)]
    return (rows[-1].at if len(rows) == CHANGED_IN_A_TURN else max(since, until)), ids


def _suspects(session: Session) -> list[uuid.UUID]:
    """Payments that are known as broken, and those with an operation that nobody will look at again."""
    known = session.scalars(select(_VIOLATION.c.payment_id).distinct().limit(CHANGED_IN_A_TURN))
    stuck = session.scalars(
        select(Operation.payment_id)
        .where(
            Operation.finished_at.is_(None),
            Operation.next_attempt_at.is_(None),
            Operation.lease_until.is_(None),
            Operation.doubt_since.is_(None),
            Operation.needs_review.is_(False),
        )
        .limit(CHANGED_IN_A_TURN)
    )
    return [*known, *stuck]


def _batches(ids: Sequence[uuid.UUID]) -> Iterator[Sequence[uuid.UUID]]:
    for start in range(0, len(ids), BATCH):
        yield ids[start : start + BATCH]


def _note(session: Session, looked_at: Sequence[uuid.UUID], found: list[Broken], at: datetime) -> None:
    """Keep what is broken now, and forget what is not any more."""
    row = tuple_(_VIOLATION.c.invariant, _VIOLATION.c.payment_id)
    mended = delete(_VIOLATION).where(_VIOLATION.c.payment_id.in_(looked_at), row.not_in(found))
    for name, payment_id in session.execute(mended.returning(*_VIOLATION.primary_key)):
        log.warning("an invariant holds again", invariant=name, payment_id=str(payment_id))
    if not found:
        return
    rows = [{"invariant": name, "payment_id": each, "found_at": at} for name, each in found]
    new = insert(_VIOLATION).values(rows).on_conflict_do_nothing().returning(*_VIOLATION.primary_key)
    for name, payment_id in session.execute(new):
        log.error("an invariant is broken", invariant=name, payment_id=str(payment_id))


def _reached(session: Session, name: str, now: datetime, **values: Any) -> None:
    row = insert(_PASS).values(name=name, turn_at=now, **values)
    session.execute(
        row.on_conflict_do_update(index_elements=["name"], set_={"turn_at": now, **values}),
    )
