"""A run of the reconciliation: begun once, carried on by whoever comes, finished once."""

import uuid
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.orm import Session
from sqlalchemy.types import Text, Uuid

from shared.commands.restore import standing
from shared.database import Sessions, new_id, reading
from shared.models import plain
from shared.models_reconciliation import ReconciliationRun, ReconciliationSeen, Restore

Run = ReconciliationRun

# In this order.
INTENTS, CHARGES, REFUNDS, OURS, UNSETTLED, STILL_OPEN, HEAL = PHASES = (
    "intents",
    "charges",
    "refunds",
    "ours",
    "unsettled",
    "still open",
    "heal",
)
DONE = "done"
_SEEN = plain(ReconciliationSeen)


_REFS = bindparam("refs", type_=ARRAY(Text()))
_PAYMENTS = bindparam("payments", type_=ARRAY(Uuid()))


class Overtaken(Exception):
    """Another process carries this run on."""


def begin(
    sessions: Sessions,
    since: datetime,
    until: datetime | None,
    margin: timedelta,
    *,
    actor: str,
    scheduled: bool = False,
    heals: bool = False,
    applies: bool = False,
) -> Run:
    """Begin to compare what was made in this window; what is younger than `margin` is left out of it.

    Not so after a restore: nothing is on its way then. Raises ValueError for a window without extent.
    """
    with sessions.begin() as session:
        now = session.scalars(select(func.clock_timestamp())).one()
        mark = standing(session)
        youngest = now if mark else now - margin
        end = min(until, youngest) if until else youngest
        if end <= since:
            raise ValueError(f"nothing to compare: --since must be before {end:%Y-%m-%dT%H:%M:%SZ}")
        run = Run(
            id=new_id(),
            since=since,
            until=end,
            scheduled=scheduled,
            heals=heals,
            applies=applies,
            after_restore=mark is not None,
            actor=actor,
            phase=INTENTS,
            cursor=None,
            step=0,
            counts={},
            began_at=now,
            moved_at=now,
        )
        session.add(run)
        session.flush()
        session.expunge(run)
        return run


def unfinished(sessions: Sessions, since: datetime, until: datetime | None, *, applies: bool) -> Run | None:
    """The newest run of an operator over this window that was interrupted and treated breaks the same."""
    query = select(Run).where(
        Run.finished_at.is_(None), Run.since == since, Run.scheduled.is_(False), Run.applies == applies
    )
    if until:
        query = query.where(Run.until <= until)
    with reading(sessions) as session:
        run = session.scalars(query.order_by(Run.id.desc()).limit(1)).one_or_none()
        mark = standing(session)
        if run is None or run.after_restore != (mark is not None):
            return None  # what it has compared so far was compared by other rules
        session.expunge(run)
        return run


def move(session: Session, run: Run, phase: str, cursor: str | None, counts: dict[str, Any]) -> None:
    """Note how far the run has come. Raises Overtaken when another process was quicker."""
    now, is_done = func.clock_timestamp(), phase == DONE
    values = {"phase": phase, "cursor": cursor, "step": run.step + 1, "counts": counts, "moved_at": now}
    moved = session.execute(
        update(Run)
        .where(Run.id == run.id, Run.step == run.step, Run.finished_at.is_(None))
        .values(**values, finished_at=now if is_done else None)
        .returning(Run.moved_at, Run.finished_at)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if moved is None:
        raise Overtaken("another process carries this run on")
    if is_done:
        _tidy(session, run)
    run.phase, run.cursor, run.counts, run.step = phase, cursor, counts, run.step + 1
    run.moved_at, run.finished_at = moved


def _tidy(session: Session, run: Run) -> None:
    """What was seen is of no more use; nor is that of runs that nobody will carry on."""
    older = select(Run.id).where(Run.id <= run.id, Run.moved_at < func.now() - timedelta(days=1))
    session.execute(
        delete(ReconciliationSeen)
        .where((_SEEN.c.run_id == run.id) | _SEEN.c.run_id.in_(older))
        .execution_options(synchronize_session=False)
    )


def note_seen(session: Session, run: Run, seen: dict[str, uuid.UUID | None]) -> None:
    """Note what the gateway has; a page that is read a second time changes nothing."""
    if not seen:
        return
    refs = func.unnest(_REFS, _PAYMENTS).table_valued("ref", "payment_id").render_derived()
    rows = select(bindparam("run", type_=Uuid()), refs.c.ref, refs.c.payment_id)
    into = insert(_SEEN).from_select(["run_id", "ref", "payment_id"], rows).on_conflict_do_nothing()
    given = {"run": run.id, "refs": list(seen), "payments": list(seen.values())}
    session.connection().execute(into, given)


def intents_of(session: Session, run: Run, payment_id: uuid.UUID) -> list[str]:
    """The PaymentIntents that this run has seen for a payment."""
    query = select(_SEEN.c.ref).where(_SEEN.c.run_id == run.id, _SEEN.c.payment_id == payment_id)
    return sorted(session.scalars(query))


def standing_mark(sessions: Sessions) -> Restore | None:
    """The restore that is not rebuilt yet."""
    with reading(sessions) as session:
        mark = standing(session)
        if mark:
            session.expunge(mark)
        return mark
