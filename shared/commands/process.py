"""Have a payment charged that was only recorded so far."""

import uuid

from shared.commands.idempotency import IdempotentRequest
from shared.commands.operations import Asking, Origin, Requested, carry_out, live_primary, primary_kind
from shared.database import Sessions
from shared.models import Operation
from shared.payments import PaymentConflict, Status

ALREADY = "The payment was processed already"


def process_payment(
    sessions: Sessions,
    payment_id: uuid.UUID,
    origin: Origin,
    *,
    recovery_after_s: float,
    idempotent: IdempotentRequest | None = None,
) -> Requested:
    """Add the payment's charge or hold and ask the worker for it, as creating a payment mostly does at once.

    From here on it is a payment like every other. Raises PaymentConflict when that was asked for before,
    whatever came of it.
    """
    return carry_out(
        sessions, payment_id, origin, _ask, recovery_after_s=recovery_after_s, idempotent=idempotent
    )


def _ask(asking: Asking) -> Operation:
    payment = asking.payment
    if payment.status is Status.CANCELLED:
        raise PaymentConflict("The payment was cancelled")
    if payment.status is not Status.PENDING or live_primary(asking):
        raise PaymentConflict(ALREADY)
    return asking.request(primary_kind(payment), payment.amount_minor, None)
