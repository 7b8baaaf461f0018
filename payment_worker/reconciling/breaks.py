"""The table of breaks: found, found again, accepted, resolved; what operators and exports read of it."""

import uuid
from collections.abc import Iterator, Sequence

from sqlalchemy import and_, case, func, null, or_, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from payment_worker.reconciling.comparing import Finding, Kind
from payment_worker.reconciling.runs import Run
from shared.commands.restore import standing
from shared.database import Sessions, new_id, reading
from shared.models_reconciliation import OPEN, ReconciliationBreak

Break = ReconciliationBreak
PAGE = 100
_UNRESOLVED = Break.resolved_at.is_(None)
IS_OPEN = and_(_UNRESOLVED, Break.accepted_at.is_(None))
IS_ACCEPTED = and_(_UNRESOLVED, Break.accepted_at.is_not(None))
# Of a payment, because of them something might be charged or given back twice after a restore.
DANGEROUS = (Kind.MISSING_HERE, Kind.STATUS)
_EVIDENCE = ("reason", "payment_id", "ours", "theirs")
_ACCEPTANCE = ("accepted_at", "accepted_by", "accepted_reason")


class NotAccepted(Exception):
    """A break cannot be accepted, or let go of; the message says which and why. Nothing was changed."""


def record(session: Session, run: Run, findings: Sequence[Finding]) -> None:
    """Note what a run has found; what is open already is seen again, with what both sides say now.

    What was accepted stays so only while both sides say what they said then.
    """
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
        seen = {name: new.excluded[name] for name in (*_EVIDENCE, "last_run_id")}
        is_same = and_(*(getattr(Break, name).is_not_distinct_from(seen[name]) for name in _EVIDENCE))
        kept = {name: case((is_same, getattr(Break, name)), else_=null()) for name in _ACCEPTANCE}
        session.execute(
            new.on_conflict_do_update(
                index_elements=["object", "ref", "kind"],
                index_where=OPEN,
                set_={**seen, **kept, "last_seen": now},
            )
        )


def resolve(session: Session, break_ids: Sequence[uuid.UUID], resolution: str) -> None:
    """Note that breaks are none any more, and why."""
    session.execute(
        update(Break)
        .where(Break.id.in_(break_ids), _UNRESOLVED)
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


def accept(session: Session, break_ids: Sequence[uuid.UUID], actor: str, reason: str) -> list[Break]:
    """Note that an operator knows of breaks and that nothing is to be done; return them.

    They do not count as open until either side says something else. Raises NotAccepted.
    """
    found = _locked(session, break_ids)
    if standing(session) and any(each.payment_id and each.kind in DANGEROUS for each in found):
        raise NotAccepted("the database was restored: what is missing here may be charged again; rebuild it")
    now = session.scalars(select(func.clock_timestamp())).one()
    for each in found:
        each.accepted_at, each.accepted_by, each.accepted_reason = now, actor, reason
    return found


def reopen(session: Session, break_ids: Sequence[uuid.UUID]) -> list[Break]:
    """Let breaks count as open again that were accepted; return them. Raises NotAccepted."""
    found = _locked(session, break_ids)
    for each in found:
        each.accepted_at = each.accepted_by = each.accepted_reason = None
    return found


def _locked(session: Session, break_ids: Sequence[uuid.UUID]) -> list[Break]:
    query = select(Break).where(Break.id.in_(break_ids)).order_by(Break.id).with_for_update()
    found = {each.id: each for each in session.scalars(query)}
    for break_id in break_ids:
        if break_id not in found:
            raise NotAccepted(f"no such break: {break_id}")
        if found[break_id].resolved_at:
            raise NotAccepted(f"break {break_id} is resolved: {found[break_id].resolution}")
    return list(found.values())


def unresolved_after(
    sessions: Sessions,
    after: str | None,
    limit: int,
    *,
    not_seen_by: Run | None = None,
    accepted: bool = True,
) -> list[Break]:
    """Breaks that are there, oldest first, from an id on.

    Without those that a run has seen itself, and unless `accepted` without those that were accepted.
    """
    query = select(Break).where(_UNRESOLVED if accepted else IS_OPEN)
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
    query = select(Break.kind, func.count()).where(IS_OPEN).group_by(Break.kind)
    counted = {row[0]: row[1] for row in session.execute(query)}
    return {str(kind): counted.get(str(kind), 0) for kind in Kind}


def standing_in_the_way(sessions: Sessions) -> int:
    """Open breaks because of which something might be charged or given back twice after a restore."""
    query = select(func.count()).where(IS_OPEN, Break.payment_id.is_not(None), Break.kind.in_(DANGEROUS))
    with reading(sessions) as session:
        return session.scalars(query).one()


def accepted_count(sessions: Sessions) -> int:
    """How many breaks are there that were accepted."""
    with reading(sessions) as session:
        return session.scalars(select(func.count()).where(IS_ACCEPTED)).one()


def each(
    sessions: Sessions,
    *,
    resolved: bool = False,
    accepted: bool = True,
    kind: str | None = None,
    run_id: uuid.UUID | None = None,
) -> Iterator[Break]:
    """Breaks that are there, oldest first, and with `resolved` the others, too; at most a page is in memory.

    Unless `accepted` without those that were. With `run_id` only what is there or was seen by that run.
    """
    after: uuid.UUID | None = None
    while True:
        query = select(Break).order_by(Break.id).limit(PAGE)
        if not resolved:
            query = query.where(_UNRESOLVED)
        if not accepted:
            query = query.where(Break.accepted_at.is_(None))
        if run_id:
            query = query.where(or_(_UNRESOLVED, Break.last_run_id == run_id))
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
