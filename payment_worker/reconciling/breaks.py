"""The table of breaks: found, found again, resolved; and what operators and exports read of it."""

import uuid
from collections.abc import Iterator, Sequence

from sqlalchemy import func, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from payment_worker.reconciling.comparing import Finding, Kind
from payment_worker.reconciling.runs import Run
from shared.database import Sessions, new_id, reading
from shared.models_reconciliation import OPEN, ReconciliationBreak

Break = ReconciliationBreak
PAGE = 100


def record(session: Session, run: Run, findings: Sequence[Finding]) -> None:
    """Note what a run has found; what is open already is seen again, with what both sides say now."""
    for each in findings:
        now = func.clock_timestamp()
        new = insert(Break).values(
            id=new_id(),
            object=each.object,
            ref=each.ref,
            kind=str(each.kind),
            reason=each.reason,
            payment_id=each.payment_id,
            ours=each.ours,
            theirs=each.theirs,
            run_id=run.id,
            last_run_id=run.id,
            first_seen=now,
            last_seen=now,
        )
        seen = {
            name: new.excluded[name] for name in ("reason", "payment_id", "ours", "theirs", "last_run_id")
        }
        session.execute(
            new.on_conflict_do_update(
                index_elements=["object", "ref", "kind"], index_where=OPEN, set_={**seen, "last_seen": now}
            )
        )


def resolve(session: Session, break_ids: Sequence[uuid.UUID], resolution: str) -> None:
    """Note that breaks are none any more, and why."""
    session.execute(
        update(Break)
        .where(Break.id.in_(break_ids), Break.resolved_at.is_(None))
        .values(resolved_at=func.clock_timestamp(), resolution=resolution)
        .execution_options(synchronize_session=False)
    )


def propose(session: Session, break_id: uuid.UUID, repair: str) -> None:
    """Note what could be done about a break, or why nothing safe can."""
    session.execute(
        update(Break)
        .where(Break.id == break_id)
        .values(repair=repair)
        .execution_options(synchronize_session=False)
    )


def open_after(
    sessions: Sessions, after: str | None, limit: int, *, not_seen_by: Run | None = None
) -> list[Break]:
    """Open breaks, oldest first, from an id on; without those that a run has seen itself."""
    query = select(Break).where(Break.resolved_at.is_(None))
    if after:
        query = query.where(Break.id > uuid.UUID(after))
    if not_seen_by:
        query = query.where(Break.last_run_id != not_seen_by.id)
    with reading(sessions) as session:
        found = list(session.scalars(query.order_by(Break.id).limit(limit)))
        session.expunge_all()
        return found


def open_counts(session: Session) -> dict[str, int]:
    """How many breaks are open, by kind; kinds without any are there with 0."""
    query = select(Break.kind, func.count()).where(Break.resolved_at.is_(None)).group_by(Break.kind)
    counted = {row[0]: row[1] for row in session.execute(query)}
    return {str(kind): counted.get(str(kind), 0) for kind in Kind}


def standing_in_the_way(sessions: Sessions) -> int:
    """Open breaks because of which something might be charged or given back twice after a restore."""
    query = select(func.count()).where(
        Break.resolved_at.is_(None),
        Break.payment_id.is_not(None),
        Break.kind.in_([Kind.MISSING_HERE, Kind.STATUS]),
    )
    with reading(sessions) as session:
        return session.scalars(query).one()


def each(
    sessions: Sessions, *, resolved: bool = False, kind: str | None = None, run_id: uuid.UUID | None = None
) -> Iterator[Break]:
    """Open breaks, oldest first, and with `resolved` the others, too; no more than a page is in memory.

    With `run_id` only what is open or was seen by that run.
    """
    after: uuid.UUID | None = None
    while True:
        query = select(Break).order_by(Break.id).limit(PAGE)
        if not resolved:
            query = query.where(Break.resolved_at.is_(None))
        if run_id:
            query = query.where(or_(Break.resolved_at.is_(None), Break.last_run_id == run_id))
        if kind:
            query = query.where(Break.kind == kind)
        if after:
            query = query.where(Break.id > after)
        with reading(sessions) as session:
            page = list(session.scalars(query))
            session.expunge_all()
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].id
