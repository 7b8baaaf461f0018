"""What was done to a payment elsewhere, mostly at the gateway's dashboard: refunds and disputes."""

import uuid
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from payment_worker import outcomes
from payment_worker.marking import named, refusal
from payment_worker.processing import Worker
from payment_worker.refunding import count_refund
from payment_worker.standing import look_and_record
from shared import lifecycle
from shared.commands.operations import further
from shared.gateways import Dispute, Failed, Refunded, SeenRefund, Waiting
from shared.lifecycle import Cause
from shared.models import Operation, Payment
from shared.payments import Announcement, OperationKind, OperationState
from shared.rows import Writes

MADE_ELSEWHERE = "made at the gateway"
REBUILT = "rebuilt from the gateway"  # one of ours, whose row was lost
STATES = {Refunded: OperationState.SUCCEEDED, Failed: OperationState.FAILED}


class NotYet(Exception):
    """It cannot be recorded before something else is; come back later."""


def adopt_refunds(worker: Worker, primary_id: uuid.UUID, charge_ref: str, actor: str) -> None:
    """Bring the refunds of a charge to how the gateway has them.

    A refund that is not ours becomes an operation that never has to be sent; one of ours whose row was lost
    gets it again, under its old id. Raises GatewayUnavailable,
    Overtaken and NotYet; nothing is recorded then.
    """

    def record(
        session: Session, payment: Payment, primary: Operation, at: datetime, seen: list[SeenRefund]
    ) -> None:
        known = _refunds(session, payment)
        writes = Writes()
        lost = _lost(session, seen)
        # What has failed makes room for what succeeded, and ours for those that are new here.
        for each in sorted(seen, key=lambda each: (_known(known, each) is None, not _has_failed(each))):
            operation = _known(known, each)
            if operation is None:
                _add(writes, payment, primary, each, charge_ref, at, actor, lost.pop(each.operation_id, None))
            elif operation.gateway_ref != each.gateway_ref or not is_told(operation, each.outcome):
                outcomes.record(
                    writes,
                    payment,
                    operation,
                    each.outcome,
                    at,
                    abandon_after=worker.abandon_after,
                    actor=actor,
                )
        writes.change(payment, *known)
        writes.send_locked(session.connection())

    look_and_record(worker, primary_id, lambda: worker.gateway.refunds_of(charge_ref), record)


def _has_failed(seen: SeenRefund) -> bool:
    return isinstance(seen.outcome, Failed)


def is_told(operation: Operation, outcome: object) -> bool:
    """Whether a refund's outcome says nothing that our row does not."""
    if isinstance(outcome, Waiting):
        return operation.state not in {OperationState.REQUESTED, OperationState.IN_FLIGHT}
    return STATES.get(type(outcome)) is operation.state


def _refunds(session: Session, payment: Payment) -> list[Operation]:
    """The refunds of a locked payment, locked too and taken out of the session."""
    query = select(Operation).where(
        Operation.payment_id == payment.id, Operation.kind == OperationKind.REFUND
    )
    rows = list(session.scalars(query.order_by(Operation.id).with_for_update()))
    for row in rows:
        session.expunge(row)
    return rows


def _lost(session: Session, seen: list[SeenRefund]) -> dict[str | None, uuid.UUID]:
    """The operations that these refunds name and that we do not have, by their names."""
    named: dict[str | None, uuid.UUID] = {}
    for each in seen:
        with suppress(ValueError):
            named[each.operation_id] = uuid.UUID(each.operation_id or "")
    there = set(session.scalars(select(Operation.id).where(Operation.id.in_(named.values()))))
    return {name: operation_id for name, operation_id in named.items() if operation_id not in there}


def _known(rows: list[Operation], seen: SeenRefund) -> Operation | None:
    ours = [row for row in rows if row.gateway_ref == seen.gateway_ref]
    # One that has another refund already was carried out twice: that is its to tell, too.
    ours += [row for row in rows if str(row.id) == seen.operation_id]
    return ours[0] if ours else None


def _add(
    writes: Writes,
    payment: Payment,
    primary: Operation,
    seen: SeenRefund,
    charge_ref: str,
    at: datetime,
    actor: str,
    lost_id: uuid.UUID | None,
) -> None:
    amount_minor, is_own = seen.money.amount_minor, charge_ref == payment.gateway_ref
    waits = isinstance(seen.outcome, Waiting)
    if is_own and not payment.captured_minor:
        raise NotYet("refunded before it is known here to be paid")
    if is_own and waits and payment.refund_reserved_minor + amount_minor > payment.captured_minor:
        # One of ours stands in its way, which the gateway is about to refuse.
        raise NotYet("more is reserved than can be refunded")
    target_ref = None if is_own else charge_ref
    row = _row(payment, primary, seen, target_ref, at) | ({"id": lost_id} if lost_id else {})
    whence = REBUILT if lost_id else MADE_ELSEWHERE
    writes.add(Operation, row)
    operation = Operation(**row)
    cause = Cause(event="", actor=actor, at=at, operation=operation, gateway_ref=seen.gateway_ref)
    if isinstance(seen.outcome, Refunded) and is_own:
        count_refund(writes, payment, cause, f"refund {whence}", amount_minor)
        return
    if waits and is_own:
        payment.refund_reserved_minor += amount_minor
    how = "waiting" if waits else str(row["state"])
    lifecycle.note(writes, payment, named(cause, f"refund {whence}", state=how))


def _row(
    payment: Payment, primary: Operation, seen: SeenRefund, target_ref: str | None, at: datetime
) -> dict[str, Any]:
    """An operation as if we had asked for the refund; one that waits is polled like ours."""
    reason = seen.reason or MADE_ELSEWHERE
    row = further(
        payment, OperationKind.REFUND, seen.money.amount_minor, at, reason=reason, target_ref=target_ref
    ) | {"gateway_ref": seen.gateway_ref, "created_at": at, "correlation_id": primary.correlation_id}
    match seen.outcome:
        case Refunded():
            told: dict[str, Any] = {"transactionId": seen.gateway_ref}
        case Failed() as failed:
            told = refusal(failed)
        case _:
            return row | {"state": OperationState.REQUIRES_ACTION}
    state = STATES[type(seen.outcome)]
    return row | {"state": state, "finished_at": at, "next_attempt_at": None, "outcome": told}


def adopt_dispute(worker: Worker, primary_id: uuid.UUID, dispute_ref: str, actor: str) -> None:
    """Bring the payment's dispute to how the gateway has it, and announce a change of its status.

    Raises GatewayUnavailable and Overtaken.
    """

    def record(session: Session, payment: Payment, primary: Operation, at: datetime, seen: Dispute) -> None:
        if dispute_status(payment, seen.gateway_ref) == seen.status:
            return
        writes = Writes()
        payment.dispute = moved(payment.dispute or {}, seen)
        cause = Cause(
            event=f"dispute {seen.status}",
            actor=actor,
            at=at,
            operation=primary,
            gateway_ref=seen.gateway_ref,
            detail={"reason": seen.reason},
        )
        lifecycle.note(writes, payment, cause, Announcement.PAYMENT_DISPUTED)
        writes.change(payment)
        writes.send_locked(session.connection())

    look_and_record(worker, primary_id, lambda: worker.gateway.dispute(dispute_ref), record)


def dispute_status(payment: Payment, dispute_ref: str) -> str | None:
    """The status that is known of a dispute; a payment may have had others before."""
    dispute = payment.dispute or {}
    if dispute.get("id") == dispute_ref:
        return str(dispute["status"])
    status: str | None = dispute.get("others", {}).get(dispute_ref)
    return status


def moved(before: dict[str, Any], seen: Dispute) -> dict[str, Any]:
    """The dispute that has moved last, with the statuses of the payment's other ones."""
    others = dict(before.get("others", {}))
    if before:
        others[before["id"]] = before["status"]
    others.pop(seen.gateway_ref, None)
    moved = {"id": seen.gateway_ref, "reason": seen.reason, "status": seen.status}
    return {**moved, "others": others} if others else moved
