"""What can be done about a break: through the same door as an outcome or a webhook, and never a guess."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import func, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payment_worker.foreign import NotYet, adopt_refunds
from payment_worker.locking import record_seen
from payment_worker.reconciling.breaks import Break
from payment_worker.reconciling.comparing import NOT_OURS, OPERATION, Finding, Kind
from payment_worker.reconciling.desk import Desk
from payment_worker.reconciling.rebuilding import ACTOR, NotRebuilt, rebuild
from payment_worker.reconciling.rows import Owned
from payment_worker.reconciling.runs import Run
from payment_worker.standing import Overtaken, look_and_record
from shared import lifecycle
from shared.gateways import (
    Failed,
    GatewayUnavailable,
    Misconfigured,
    Outcome,
    Transient,
    Unknown,
    Waiting,
)
from shared.gateways.ledger import Entry, Thing
from shared.lifecycle import Cause
from shared.models import Operation, Payment
from shared.payments import PRIMARY, OperationState, PaymentError, Status
from shared.rows import Writes

WHY_NOT = {
    Kind.AMOUNT: "an amount is not corrected by itself; compare both sides, then act at Stripe's dashboard",
    Kind.CURRENCY: "a currency is not corrected by itself",
    Kind.MISSING_THERE: "the gateway certainly has no such object: are account and key the right ones?",
}
Act = Callable[[], None]


class Repair(NamedTuple):
    """What could be done; without an `act` nothing is safe, and the text says why."""

    text: str
    act: Act | None = None


@dataclass(frozen=True, slots=True)
class Repaired:
    """What became of a break."""

    break_id: uuid.UUID
    text: str
    resolved: bool


class CannotBe(Exception):
    """The repair is not to be made now; the message says why."""


_REASONS = (NotRebuilt, NotYet, Overtaken, PaymentError, CannotBe)


def apply(repair: Repair) -> str | None:
    """Make a repair; return why it was not made, or None. Raises GatewayUnavailable."""
    assert repair.act is not None  # noqa: S101 - for the type checker
    try:
        repair.act()
    except _REASONS as error:
        return str(error) or type(error).__name__
    except (IntegrityError, LookupError) as error:
        return f"our rows do not allow it ({type(error).__name__})"
    return None


def repair_of(desk: Desk, run: Run, found: Break | Finding) -> Repair:
    """What could be done about an open break."""
    kind = Kind(found.kind)
    if found.object == OPERATION:
        return _of_operation(desk, found)
    if kind is Kind.MISSING_HERE:
        return _of_missing(desk, run, found)
    owned = desk.of_payment(found.payment_id, after_restore=run.after_restore)
    if owned is None or found.theirs is None or kind not in _REPAIRS:
        return Repair(WHY_NOT.get(kind, "our rows of it are gone"))
    return _REPAIRS[kind](desk, run, Entry.from_evidence(found.theirs), owned)


def _of_missing(desk: Desk, run: Run, found: Break | Finding) -> Repair:
    entry = Entry.from_evidence(found.theirs or {})
    owned = desk.owned(entry, after_restore=run.after_restore)
    if owned is not None and not owned.is_unasked and entry.thing is Thing.REFUND:
        return _record_refunds(desk, entry, owned)
    return _rebuilding(desk, run, entry)


def _rebuilding(desk: Desk, run: Run, entry: Entry) -> Repair:
    if not entry.intent_ref or not {"payment_id", "operation_id"} <= entry.ids.keys():
        return Repair(f"{NOT_OURS}; nothing can be rebuilt")

    def act() -> None:
        rebuild(desk, run, str(entry.intent_ref))
        if entry.thing is Thing.REFUND:
            adopt_refunds(desk.worker, _primary_of(desk, run, entry), str(entry.intent_ref), ACTOR)

    return Repair(f"rebuild payment {entry.ids['payment_id']} from {entry.intent_ref}", act)


def _primary_of(desk: Desk, run: Run, entry: Entry) -> uuid.UUID:
    owned = desk.owned(entry, after_restore=run.after_restore)
    if owned is None:
        raise CannotBe("the refund's payment is not rebuilt")
    primary_id: uuid.UUID = owned.primary.id
    return primary_id


def _record_refunds(desk: Desk, entry: Entry, owned: Owned) -> Repair:
    intent_ref = str(entry.intent_ref)
    return Repair(
        f"record the refunds of {intent_ref} as the gateway has them",
        lambda: adopt_refunds(desk.worker, owned.primary.id, intent_ref, ACTOR),
    )


def _of_status(desk: Desk, run: Run, entry: Entry, owned: Owned) -> Repair:
    if owned.is_unasked:
        return _rebuilding(desk, run, entry)
    if entry.thing is Thing.REFUND:
        operation = owned.refund(entry)
        if operation is None:
            return _record_refunds(desk, entry, owned)
        return Repair(
            f"record {entry.ref} as the gateway has it", _adoption(desk, run, operation.id, entry.ref)
        )
    if entry.intent_ref is None:
        return Repair("the charge has no PaymentIntent")
    primary_id = owned.primary.id
    return Repair(
        f"record {entry.intent_ref} as the gateway has it", _adoption(desk, run, primary_id, entry.intent_ref)
    )


def _of_amount(desk: Desk, _run: Run, entry: Entry, owned: Owned) -> Repair:
    sums_differ = entry.thing is Thing.CHARGE and entry.returned_minor != owned.returned_minor
    if sums_differ and entry.taken_minor == owned.payment.captured_minor:
        return _record_refunds(desk, entry, owned)
    return Repair(WHY_NOT[Kind.AMOUNT])


def _of_duplicate(desk: Desk, run: Run, entry: Entry, owned: Owned) -> Repair:
    if entry.thing is Thing.REFUND:
        return _record_refunds(desk, entry, owned)
    if entry.intent_ref is None or owned.is_own(entry.intent_ref):
        return Repair("two charges of one PaymentIntent: a person must look")
    return Repair(
        f"give {entry.intent_ref} back and show it to a person",
        _adoption(desk, run, owned.primary.id, entry.intent_ref),
    )


_REPAIRS: dict[Kind, Callable[[Desk, Run, Entry, Owned], Repair]] = {
    Kind.STATUS: _of_status,
    Kind.DUPLICATE: _of_duplicate,
    Kind.AMOUNT: _of_amount,
}


def _of_operation(desk: Desk, found: Break | Finding) -> Repair:
    """An operation that nothing carries on with: it is dispatched again, and its own guards do the rest."""
    lost = update(Operation).where(
        Operation.id == uuid.UUID(found.ref),
        Operation.finished_at.is_(None),
        Operation.next_attempt_at.is_(None),
        Operation.doubt_since.is_(None),
        Operation.needs_review.is_(False),
    )

    def act() -> None:
        with desk.worker.sessions.begin() as session:
            due = lost.values(next_attempt_at=func.clock_timestamp())
            session.execute(due.execution_options(synchronize_session=False))

    return Repair("dispatch it again", act)


def _adoption(desk: Desk, run: Run, operation_id: uuid.UUID, ref: str) -> Act:
    """Record how a charge or a refund stands, on the operation that it belongs to."""
    worker = desk.worker

    def look() -> Outcome:
        with worker.sessions() as session:
            kind = session.scalars(select(Operation.kind).where(Operation.id == operation_id)).one()
        outcome = worker.gateway.look_up(kind, ref)
        if isinstance(outcome, Transient | Unknown | Misconfigured):
            raise GatewayUnavailable(outcome.reason)
        return outcome

    def record(session: Session, payment: Payment, operation: Operation, at: datetime, seen: Outcome) -> None:
        if operation.lease_until is not None and operation.lease_until > at:
            raise CannotBe("it is being carried out at this moment")
        told, given_up = _as_ours(run, operation, seen)
        abandon_after = timedelta(0) if given_up else worker.abandon_after
        writes = Writes()
        if payment.status is Status.PENDING:
            _note_sent(writes, payment, operation, at, ref)
        record_seen(session, payment, operation, [told], at, writes, abandon_after=abandon_after, actor=ACTOR)

    return lambda: _discard(look_and_record(worker, operation_id, look, record))


def _note_sent(writes: Writes, payment: Payment, operation: Operation, at: datetime, ref: str) -> None:
    """What a claim would have written, of which the rows know nothing: they are older than it."""
    operation.attempt += 1
    operation.state = OperationState.IN_FLIGHT
    operation.first_sent_at = at
    cause = Cause(event=f"{operation.kind} sent", actor=ACTOR, at=at, operation=operation, gateway_ref=ref)
    lifecycle.advance(writes, payment, Status.PROCESSING, cause)


def _discard(_: object) -> None:
    """The outcome is recorded."""


def _as_ours(run: Run, operation: Operation, seen: Outcome) -> tuple[Outcome, bool]:
    """What an outcome means for our operation, and whether its customer is not waited for any longer.

    A try that has failed is the end of a charge whose answer we never had: nobody has its client secret.
    After a restore that is not certain, and the customer might try again until it is cancelled.
    """
    failed: Failed | None = seen.failure if isinstance(seen, Waiting) else None
    if failed is None or operation.kind not in PRIMARY or operation.gateway_ref is not None:
        return seen, False
    return (seen, True) if run.after_restore else (failed, False)
