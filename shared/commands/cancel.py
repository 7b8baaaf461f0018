"""Give a payment up: before it is sent, while it is held or waits for the customer, or once that is known."""

import uuid

from shared import lifecycle
from shared.commands.idempotency import IdempotentRequest
from shared.commands.operations import (
    Asking,
    Origin,
    Requested,
    carry_out,
    further,
    live_primary,
    open_settlement,
    primary_kind,
)
from shared.commands.received import ReceivedMessage
from shared.database import Sessions
from shared.models import Operation
from shared.payments import OperationKind, OperationState, PaymentConflict, Status

UNSENT = "cancelled before it was sent"
OPEN_TO_CANCEL = {Status.AUTHORIZED, Status.REQUIRES_ACTION}


def cancel_payment(
    sessions: Sessions,
    payment_id: uuid.UUID,
    reason: str | None,
    origin: Origin,
    *,
    recovery_after_s: float,
    idempotent: IdempotentRequest | None = None,
    received: ReceivedMessage | None = None,
    undo_capture: bool = False,
) -> Requested:
    """Cancel a payment that was not sent, ask the gateway to, or note that the outcome is to be undone.

    A payment that is cancelled already is answered as it is. Raises PaymentConflict for one that is paid or
    has failed, or while it is being captured: with `undo_capture` that outcome is to be undone, too.
    """

    def work(asking: Asking) -> Operation | None:
        return _cancel(asking, reason, undo_capture=undo_capture)

    return carry_out(
        sessions,
        payment_id,
        origin,
        work,
        recovery_after_s=recovery_after_s,
        idempotent=idempotent,
        received=received,
    )


def _cancel(asking: Asking, reason: str | None, *, undo_capture: bool) -> Operation | None:
    payment = asking.payment
    if payment.status is Status.CANCELLED:
        return None
    if payment.status in OPEN_TO_CANCEL:
        return _ask_gateway(asking, reason, undo_capture=undo_capture)
    if payment.status not in {Status.PENDING, Status.PROCESSING}:
        raise PaymentConflict(f"A payment that is {payment.status} cannot be cancelled")
    primary = live_primary(asking)
    if primary is None or payment.status is Status.PENDING:
        cause = asking.cause(UNSENT, _never_to_be_sent(asking, primary), **_told(reason))
        lifecycle.advance(asking.writes, payment, Status.CANCELLED, cause)
    else:
        _undo_later(asking, primary, reason)
    return None


def _undo_later(asking: Asking, under_way: Operation, reason: str | None) -> None:
    """Note that what is under way is to be undone when its outcome is known."""
    payment = asking.payment
    if payment.cancel_requested_at is None:
        payment.cancel_requested_at = asking.at
        lifecycle.note(asking.writes, payment, asking.cause("cancel requested", under_way, **_told(reason)))


def _told(reason: str | None) -> dict[str, str]:
    return {"reason": reason} if reason else {}


def _never_to_be_sent(asking: Asking, primary: Operation | None) -> Operation:
    """The payment's charge or hold, ended; made for a payment that nobody has asked to be charged."""
    ended = {
        "state": OperationState.FAILED,
        "finished_at": asking.at,
        "next_attempt_at": None,
        "outcome": {"errorCode": "CANCELED", "reason": UNSENT},
    }
    if primary is None:
        payment = asking.payment
        row = further(payment, primary_kind(payment), payment.amount_minor, asking.at)
        row |= {**ended, "correlation_id": asking.origin.correlation_id, "created_at": asking.at}
        asking.writes.add(Operation, row)
        return Operation(**row)
    # Nobody has claimed it: a claim would have to write the payment, which is locked here.
    asking.session.expunge(primary)
    for name, value in ended.items():
        setattr(primary, name, value)
    asking.writes.change(primary)
    return primary


def _ask_gateway(asking: Asking, reason: str | None, *, undo_capture: bool) -> Operation | None:
    under_way = open_settlement(asking)
    if under_way and under_way.kind is OperationKind.CANCEL:
        return under_way
    if under_way and undo_capture:
        _undo_later(asking, under_way, reason)
        return None
    if under_way:
        raise PaymentConflict("The payment is being captured")
    # Should it turn out to be paid meanwhile, the money goes back.
    asking.payment.cancel_requested_at = asking.payment.cancel_requested_at or asking.at
    return asking.request(OperationKind.CANCEL, asking.payment.amount_minor, reason)
