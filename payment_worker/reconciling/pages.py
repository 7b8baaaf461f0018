"""Carry a run on, page by page: what the gateway has, what we have, what was open, what is repaired."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import Select, and_, or_, select
from sqlalchemy.orm import Session, aliased

from payment_worker.reconciling import breaks, healing, rows, runs
from payment_worker.reconciling.breaks import Break
from payment_worker.reconciling.comparing import OPERATION, Finding, Kind, compare, lost_operations
from payment_worker.reconciling.desk import Desk
from payment_worker.reconciling.runs import PHASES, Run
from shared.commands.restore import lift
from shared.database import first_id_of, reading
from shared.gateways.ledger import Entry, Thing
from shared.models import Operation, Payment
from shared.models_reconciliation import ReconciliationSeen
from shared.payments import PRIMARY, OperationKind, Status
from shared.telemetry import get_logger

log = get_logger(__name__)

THINGS = {runs.INTENTS: Thing.INTENT, runs.CHARGES: Thing.CHARGE, runs.REFUNDS: Thing.REFUND}
# Clocks of the gateway and ours: a little more is listed than was asked for.
CLOCK_MARGIN = timedelta(minutes=5)
OURS_PAGE = 500  # rows of ours, which cost no call unless the gateway has not shown them
CASES_PAGE = 20  # breaks, each of which may cost calls
UNSETTLED = (Status.PENDING, Status.PROCESSING, Status.REQUIRES_ACTION, Status.AUTHORIZED)


@dataclass
class Step:
    """What one page has come to: written in one transaction, together with how far the run is."""

    cursor: str | None  # None: the phase is over
    dealt_with: int
    findings: list[Finding] = field(default_factory=list)
    seen: dict[str, uuid.UUID | None] = field(default_factory=dict)
    resolved: list[uuid.UUID] = field(default_factory=list)
    repaired: list[healing.Repaired] = field(default_factory=list)


def carry_on(desk: Desk, run: Run, on_step: Callable[[Run], None] = lambda _: None) -> None:
    """Carry a run on to its end. Raises GatewayUnavailable and Overtaken; it can be carried on then."""
    while run.finished_at is None:
        step = STEPS[run.phase](desk, run)
        _write(desk, run, step)
        on_step(run)


def _write(desk: Desk, run: Run, step: Step) -> None:
    name = run.phase
    counts = {**run.counts, name: run.counts.get(name, 0) + step.dealt_with}
    phase = name if step.cursor else _next(run)
    with desk.worker.sessions.begin() as session:
        runs.note_seen(session, run, step.seen)
        for each in step.repaired:
            if each.resolved:
                breaks.resolve(session, [each.break_id], f"repaired by run {run.id}: {each.text}")
            else:
                breaks.propose(session, each.break_id, each.text)
        breaks.record(session, run, step.findings)
        breaks.resolve(session, step.resolved, f"found right by run {run.id}")
        if phase == runs.DONE:
            counts["open"] = sum(breaks.open_counts(session).values())
        runs.move(session, run, phase, step.cursor, counts)
    if phase == runs.DONE:
        _end_restore(desk, run)


def _next(run: Run) -> str:
    following = PHASES[PHASES.index(run.phase) + 1 :]
    wanted = {runs.UNSETTLED: run.after_restore, runs.HEAL: run.heals}
    return next((each for each in following if wanted.get(each, True)), runs.DONE)


def _end_restore(desk: Desk, run: Run) -> None:
    """Let the service go on after a restore, once everything that it had lost is rebuilt."""
    mark = runs.standing_mark(desk.worker.sessions)
    covers = mark and run.applies and run.since <= mark.backup_taken_at and run.until >= mark.marked_at
    if not mark or not covers or breaks.standing_in_the_way(desk.worker.sessions):
        return
    with desk.worker.sessions.begin() as session:
        lift(session, f"reconciliation {run.id}")
    log.warning("the restore is complete: operations go on", run_id=str(run.id))


def _list(desk: Desk, run: Run) -> Step:
    """One page of what the gateway has made in the window."""
    thing = THINGS[run.phase]
    since, cursor = run.since - CLOCK_MARGIN, run.cursor
    page = desk.ask(lambda: desk.ledger.page(thing, since, run.until, cursor))
    with reading(desk.worker.sessions) as session:
        owned = rows.find(session, page.entries, after_restore=run.after_restore)
    step = Step(page.after, len(page.entries))
    for each in page.entries:
        ours = owned.get(each.ref)
        found = compare(each, ours)
        if found and ours is not None:
            found = desk.examine(thing, each.ref, ours.payment.id, after_restore=run.after_restore)
        step.findings += found
        step.seen[each.ref] = rows.payment_named(each) if thing is Thing.INTENT else None
    return step


def _ours(desk: Desk, run: Run) -> Step:
    """One page of what we have recorded in the window: what the gateway has not shown is asked for by id."""
    with reading(desk.worker.sessions) as session:
        found = session.execute(_unseen(run, _window(run))).all()
        step = Step(str(found[-1].id) if len(found) == OURS_PAGE else None, len(found))
        step.findings += _lost(session, run, [each for each in found if each.is_still])
    for each in found:
        for thing, ref in _not_shown(each):
            step.findings += desk.examine(thing, ref, each.payment_id, after_restore=run.after_restore)
    return step


def _window(run: Run) -> Any:
    after = uuid.UUID(run.cursor) if run.cursor else None
    return and_(
        Operation.id > after if after else Operation.id >= first_id_of(run.since),
        Operation.created_at >= run.since,
        Operation.created_at < run.until,
    )


def _unseen(run: Run, which: Any) -> Select[*tuple[Any, ...]]:
    """Operations with what the run has seen of them: their objects, and the charges of their payments."""
    own, charge = aliased(ReconciliationSeen), aliased(ReconciliationSeen)
    is_still = and_(
        Operation.finished_at.is_(None),
        Operation.next_attempt_at.is_(None),
        Operation.doubt_since.is_(None),
        Operation.needs_review.is_(False),
    )
    return (
        select(
            Operation.id,
            Operation.payment_id,
            Operation.kind,
            Operation.gateway_ref,
            own.ref.label("own_seen"),
            Payment.transaction_id,
            charge.ref.label("charge_seen"),
            is_still.label("is_still"),
        )
        .join(Payment, Payment.id == Operation.payment_id)
        .outerjoin(own, and_(own.run_id == run.id, own.ref == Operation.gateway_ref))
        .outerjoin(charge, and_(charge.run_id == run.id, charge.ref == Payment.transaction_id))
        .where(which, or_(Operation.kind.in_(PRIMARY), Operation.kind == OperationKind.REFUND, is_still))
        .order_by(Operation.id)
        .limit(OURS_PAGE)
    )


def _not_shown(row: Any) -> list[tuple[Thing, str]]:
    things = []
    is_primary = row.kind in PRIMARY
    if row.gateway_ref and row.own_seen is None:
        things.append((Thing.INTENT if is_primary else Thing.REFUND, row.gateway_ref))
    if is_primary and row.transaction_id and row.charge_seen is None:
        things.append((Thing.CHARGE, row.transaction_id))
    return things


def _lost(session: Session, run: Run, still: list[Any]) -> list[Finding]:
    found = []
    for payment_id in {each.payment_id for each in still}:
        owned = rows.of_payment(session, payment_id, after_restore=run.after_restore)
        found += lost_operations(owned) if owned else []
    return found


def _unsettled(desk: Desk, run: Run) -> Step:
    """After a restore: payments from before the backup that may have gone on since."""
    after = uuid.UUID(run.cursor) if run.cursor else uuid.UUID(int=0)
    query = (
        select(Payment.id, Payment.gateway_ref)
        .where(Payment.status.in_(UNSETTLED), Payment.gateway_ref.is_not(None), Payment.id > after)
        .where(Payment.created_at < run.since)
        .order_by(Payment.id)
        .limit(CASES_PAGE)
    )
    with reading(desk.worker.sessions) as session:
        found = session.execute(query).all()
    step = Step(str(found[-1].id) if len(found) == CASES_PAGE else None, len(found))
    for each in found:
        step.findings += desk.examine(Thing.INTENT, str(each.gateway_ref), each.id, after_restore=True)
    return step


def _still_open(desk: Desk, run: Run) -> Step:
    """Breaks of earlier runs: whether they are still there."""
    found = breaks.unresolved_after(desk.worker.sessions, run.cursor, CASES_PAGE, not_seen_by=run)
    step = Step(str(found[-1].id) if len(found) == CASES_PAGE else None, len(found))
    for each in found:
        still = look_again(desk, run, each)
        step.findings += still
        if not any(finding.kind == each.kind for finding in still):
            step.resolved.append(each.id)
    return step


def look_again(desk: Desk, run: Run, known: Break) -> list[Finding]:
    """Everything that is wrong now with the object of a break."""
    if known.object == OPERATION:
        owned = desk.of_payment(known.payment_id, after_restore=run.after_restore)
        return [each for each in lost_operations(owned) if each.ref == known.ref] if owned else []
    if known.kind == Kind.MISSING_HERE and known.theirs:
        entry = Entry.from_evidence(known.theirs)
        if desk.owned(entry, after_restore=run.after_restore) is None:
            return compare(entry, None)  # what the gateway has made it keeps
    return desk.examine(Thing(known.object), known.ref, known.payment_id, after_restore=run.after_restore)


def _heal(desk: Desk, run: Run) -> Step:
    """Say of every open break what could be done; with `applies` do what is safe, and look again.

    What an operator has accepted is left alone.
    """
    found = breaks.unresolved_after(desk.worker.sessions, run.cursor, CASES_PAGE, accepted=False)
    step = Step(str(found[-1].id) if len(found) == CASES_PAGE else None, len(found))
    for each in found:
        if run.applies:
            _repair(desk, run, each, step)
        else:
            text = healing.repair_of(desk, run, each).text
            step.repaired.append(healing.Repaired(each.id, text, resolved=False))
    if step.findings:
        step.cursor = str(found[-1].id)  # a repair may have brought something else to light
    return step


def _repair(desk: Desk, run: Run, known: Break, step: Step) -> None:
    """Look at a break once more, for the one before may have repaired it, too; repair it; look again."""
    still = look_again(desk, run, known)
    same = next((each for each in still if each.kind == known.kind), None)
    if same is None:
        step.findings += still
        step.resolved.append(known.id)
        return
    repair = healing.repair_of(desk, run, same)
    text, resolved = repair.text, False
    if repair.act:
        why_not = healing.apply(repair)
        still = look_again(desk, run, known)
        resolved = not any(each.kind == known.kind for each in still)
        text = text if resolved else f"{text}: {why_not or 'done, and still not right'}"
    step.findings += still
    step.repaired.append(healing.Repaired(known.id, text, resolved=resolved))


STEPS: dict[str, Callable[[Desk, Run], Step]] = {
    runs.INTENTS: _list,
    runs.CHARGES: _list,
    runs.REFUNDS: _list,
    runs.OURS: _ours,
    runs.UNSETTLED: _unsettled,
    runs.STILL_OPEN: _still_open,
    runs.HEAL: _heal,
}
