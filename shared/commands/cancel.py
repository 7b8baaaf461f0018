"""Give a payment up: before it is sent, while it is held or waits for the customer, or once that is known."""

import uuid

from sqlalchemy import select

from shared import lifecycle
from shared.commands.idempotency import IdempotentRequest
from shared.commands.operations import Asking, Origin, Requested, carry_out, open_settlement
from shared.commands.received import ReceivedMessage
from shared.database import Sessions
from shared.models import Operation
from shared.payments import PRIMARY, OperationKind, OperationState, PaymentConflict, Status

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
) -> Requested:
    """Cancel a payment that was not sent, ask the gateway to, or note that the outcome is to be undone.

    A payment that is cancelled already is answered as it is. Raises PaymentConflict for one that is paid or
    has failed, or while it is being captured.
    """

    def work(asking: Asking) -> Operation | None:
        return _cancel(asking, reason)

    return carry_out(
        sessions,
        payment_id,
        origin,
        work,
        recovery_after_s=recovery_after_s,
        idempotent=idempotent,
        received=received,
    )


def _cancel(asking: Asking, reason: str | None) -> Operation | None:
    payment = asking.payment
    if payment.status is Status.CANCELLED:
        return None
    if payment.status in OPEN_TO_CANCEL:
        return _ask_gateway(asking, reason)
    if payment.status not in {Status.PENDING, Status.PROCESSING}:
        raise PaymentConflict(f"A payment that is {payment.status} cannot be cancelled")
    primary = asking.session.scalars(
        select(Operation).where(
            Operation.payment_id == payment.id,
            Operation.kind.in_(PRIMARY),
            Operation.state != OperationState.FAILED,
        )
    ).one()
    asking.session.expunge(primary)
    told = {"reason": reason} if reason else {}
    if payment.status is Status.PENDING:
        # Nobody has claimed it: a claim would have to write the payment, which is locked here.
        primary.state = OperationState.FAILED
        primary.finished_at = asking.at
        primary.next_attempt_at = None
        primary.outcome = {"errorCode": "CANCELED", "reason": "cancelled before it was sent"}
        asking.writes.change(primary)
        cause = asking.cause("cancelled before it was sent", primary, **told)
        lifecycle.advance(asking.writes, payment, Status.CANCELLED, cause)
    elif payment.cancel_requested_at is None:
        payment.cancel_requested_at = asking.at
        lifecycle.note(asking.writes, payment, asking.cause("cancel requested", primary, **told))
    return None


def _ask_gateway(asking: Asking, reason: str | None) -> Operation:
    under_way = open_settlement(asking)
    if under_way and under_way.kind is OperationKind.CANCEL:
        return under_way
    if under_way:
        raise PaymentConflict("The payment is being captured")
    # Should it turn out to be paid meanwhile, the money goes back.
    asking.payment.cancel_requested_at = asking.payment.cancel_requested_at or asking.at
    return asking.request(OperationKind.CANCEL, asking.payment.amount_minor, reason)
