"""Rebuild the rows of a payment that were lost with a database, from what the gateway has of it."""

import uuid
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import exists, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from payment_worker.locking import lock, record_seen
from payment_worker.reconciling import runs
from payment_worker.reconciling.desk import Desk
from payment_worker.reconciling.runs import Run
from shared import lifecycle
from shared.commands.cancel import cancel_payment
from shared.commands.operations import Origin, further, lock_payment
from shared.database import Sessions, reading
from shared.gateways import Failed, GatewayUnavailable, Misconfigured, Outcome, Transient, Unknown, Waiting
from shared.gateways.ledger import Entry, Standing, Thing
from shared.models import Operation, Payment
from shared.payments import DEAD, PRIMARY, CaptureMethod, OperationKind, OperationState, Status
from shared.rows import Writes
from shared.telemetry import get_logger

log = get_logger(__name__)

ACTOR = "reconciliation"
REBUILT = "rebuilt from the gateway"
CREDIT_CARD = "credit_card"  # what a payment without this label was made with
ORIGIN = Origin(actor=ACTOR, correlation_id=None, traceparent=None)


class NotRebuilt(Exception):
    """The rows cannot be rebuilt; the message says why."""


def rebuild(desk: Desk, run: Run, intent_ref: str) -> None:
    """Insert the payment and the operation that a PaymentIntent names, and record how it stands.

    Both keep their ids. Of a payment that is there, and that nobody has asked to be charged that we know of,
    only the operation is inserted. Does nothing when both are there. Raises NotRebuilt, GatewayUnavailable.
    """
    entry = desk.entry(Thing.INTENT, intent_ref)
    if entry is None or entry.amount_minor is None:
        raise NotRebuilt("the gateway has no such PaymentIntent, or its amount cannot be told in our units")
    facts = _facts(desk, entry)
    seen = _outcomes(desk, run, facts["id"], intent_ref)
    for _ in range(2):
        known = desk.of_payment(facts["id"], after_restore=run.after_restore)
        if known is not None and not known.is_unasked:
            return
        try:
            (_insert_payment if known is None else _insert_operation)(desk, run, entry, facts, seen)
        except IntegrityError as error:
            _make_way(desk.worker.sessions, entry, error)
        else:
            log.info("a payment was rebuilt from the gateway", payment_id=str(facts["id"]), ref=intent_ref)
            desk.worker.announce_change(facts["id"])
            return
    raise NotRebuilt("the order or the cart has another payment")


def _facts(desk: Desk, entry: Entry) -> dict[str, Any]:
    ids = entry.ids
    try:
        payment_id = uuid.UUID(ids["payment_id"])
        uuid.UUID(ids["operation_id"])
    except (KeyError, ValueError):
        raise NotRebuilt("it carries no ids of ours") from None
    return {
        "id": payment_id,
        "customer_id": ids.get("customer_id"),
        "reservation_id": ids.get("reservation_id"),
        "amount_minor": entry.amount_minor,
        "currency": entry.currency,
        "captured_minor": 0,
        "refund_reserved_minor": 0,
        "refunded_minor": 0,
        "capture_method": CaptureMethod.MANUAL if entry.holds else CaptureMethod.AUTOMATIC,
        "gateway_customer": entry.customer_ref,
        "payment_method": ids.get("payment_method", CREDIT_CARD),
        "off_session": False,
        "status": Status.PENDING,
        "version": 1,
        "is_simulated": desk.worker.gateway.simulated,
        "labels": {},
        "created_at": entry.created_at,
    }


def _outcomes(desk: Desk, run: Run, payment_id: uuid.UUID, intent_ref: str) -> list[Outcome]:
    """How every PaymentIntent of the payment stands: of several one may have succeeded after another."""
    with reading(desk.worker.sessions) as session:
        refs = {intent_ref, *runs.intents_of(session, run, payment_id)}
    gateway = desk.worker.gateway
    seen = [desk.ask(lambda ref=ref: gateway.look_up(OperationKind.CHARGE, ref)) for ref in sorted(refs)]  # type: ignore[misc]
    for each in seen:
        if isinstance(each, Transient | Unknown | Misconfigured):
            raise GatewayUnavailable(each.reason)
    return seen


def _insert_payment(desk: Desk, run: Run, entry: Entry, facts: dict[str, Any], seen: list[Outcome]) -> None:
    """Insert the rows and record the outcome in one transaction.

    Raises IntegrityError where a live one stands in the way.
    """
    with desk.worker.sessions.begin() as session:
        row = _operation(Payment(**facts), entry)
        writes = Writes()
        writes.add(Payment, facts)
        writes.add(Operation, row)
        lifecycle.rebuild(writes, Payment(**facts), _rebuilt(run, entry, row))
        if not writes.send(session.connection()):
            raise NotRebuilt("a payment of this id is just being written")
        _go_on(desk, session, entry, row, seen)


def _insert_operation(desk: Desk, run: Run, entry: Entry, facts: dict[str, Any], seen: list[Outcome]) -> None:
    """Insert the charge or hold of a payment that knows of none, and record its outcome."""
    with desk.worker.sessions.begin() as session:
        payment, _ = lock_payment(session, facts["id"])
        asked = exists().where(Operation.payment_id == payment.id, Operation.kind.in_(PRIMARY))
        if payment.status is not Status.PENDING or session.scalar(select(asked)):
            raise NotRebuilt(f"the payment is {payment.status} here")
        row = _operation(payment, entry)
        writes = Writes()
        writes.add(Operation, row)
        lifecycle.note(writes, payment, _rebuilt(run, entry, row))
        writes.change(payment)
        writes.send_locked(session.connection())
        _go_on(desk, session, entry, row, seen)


def _rebuilt(run: Run, entry: Entry, row: dict[str, Any]) -> lifecycle.Cause:
    return lifecycle.Cause(
        event=REBUILT,
        actor=ACTOR,
        at=entry.created_at,
        operation=Operation(**row),
        gateway_ref=entry.ref,
        detail={"run": str(run.id)},
    )


def _go_on(desk: Desk, session: Session, entry: Entry, row: dict[str, Any], seen: list[Outcome]) -> None:
    """Let the payment go on from where its charge or hold was sent.

    The order is set together with the status that comes of it: a payment that has ended does not stand in
    the way of a live one.
    """
    payment, operation, at = lock(session, row["id"])
    payment.order_id, payment.cart_id = entry.ids.get("order_id"), entry.ids.get("cart_id")
    writes = Writes()
    sent = lifecycle.Cause(
        event=f"{operation.kind} sent", actor=ACTOR, at=at, operation=operation, gateway_ref=entry.ref
    )
    lifecycle.advance(writes, payment, Status.PROCESSING, sent)
    _record(desk, writes, session, payment, operation, at, seen)


def _record(
    desk: Desk,
    writes: Writes,
    session: Any,
    payment: Payment,
    operation: Operation,
    at: datetime,
    seen: list[Outcome],
) -> None:
    # A customer whose try has failed may still have the secret: not waited for, but cancelled at the gateway.
    has_failed = any(isinstance(each, Waiting) and isinstance(each.failure, Failed) for each in seen)
    abandon_after = timedelta(0) if has_failed else desk.worker.abandon_after
    record_seen(session, payment, operation, seen, at, writes, abandon_after=abandon_after, actor=ACTOR)


def _operation(payment: Payment, entry: Entry) -> dict[str, Any]:
    """The row of the charge or hold, as its claim has left it."""
    kind = OperationKind.AUTHORIZE if entry.holds else OperationKind.CHARGE
    row = further(payment, kind, payment.amount_minor, entry.created_at)
    return row | {
        "id": uuid.UUID(entry.ids["operation_id"]),
        "state": OperationState.IN_FLIGHT,
        "attempt": 1,
        "first_sent_at": entry.created_at,
        "created_at": entry.created_at,
    }


def _make_way(sessions: Sessions, entry: Entry, error: IntegrityError) -> None:
    """Call off the payment that the client has sent anew for the order, if it certainly was not charged.

    Raises NotRebuilt for one that was, or may have been, and when the lost payment took nothing.
    """
    live = _live(sessions, entry)
    if live is None:
        raise NotRebuilt(f"our rows do not allow it: {type(error.orig).__name__}") from error
    why = f"the order has payment {live.id} now"
    if live.status is not Status.PENDING or entry.standing not in {Standing.DONE, Standing.HELD}:
        raise NotRebuilt(f"{why}, which is {live.status}") from error
    reason = f"payment {entry.ids['payment_id']} had been made before the restore"
    cancel_payment(sessions, live.id, reason, ORIGIN, recovery_after_s=0)
    log.warning("called off: the order is paid", payment_id=str(live.id), by=entry.ids["payment_id"])


def _live(sessions: Sessions, entry: Entry) -> Payment | None:
    names = (Payment.order_id, entry.ids.get("order_id")), (Payment.cart_id, entry.ids.get("cart_id"))
    same = [column == value for column, value in names if value]
    if not same:
        return None
    with reading(sessions) as session:
        found = session.scalars(select(Payment).where(or_(*same), Payment.status.not_in(DEAD))).first()
        session.expunge_all()
        return found
