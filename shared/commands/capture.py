"""Take what a payment holds, all of it or a part; the rest is released."""

import uuid
from dataclasses import dataclass

from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError

from shared.commands.idempotency import IdempotentRequest
from shared.commands.limits import check_chargeable
from shared.commands.operations import Asking, Origin, Requested, carry_out, open_settlement
from shared.commands.received import ReceivedMessage
from shared.database import Sessions
from shared.models import Operation, Payment
from shared.money import Money
from shared.payments import DEAD, AmountExceeded, OperationKind, PaymentConflict, Status

ORDER_TAKEN = "The order has a payment already"


@dataclass(frozen=True, slots=True, kw_only=True)
class CapturePayment:
    """A checked command. Without an amount everything is captured.

    `order_id` binds a cart's payment to the order that now exists.
    """

    amount_minor: int | None = None
    order_id: str | None = None
    reason: str | None = None


def capture_payment(
    sessions: Sessions,
    payment_id: uuid.UUID,
    command: CapturePayment,
    origin: Origin,
    *,
    recovery_after_s: float,
    idempotent: IdempotentRequest | None = None,
    received: ReceivedMessage | None = None,
) -> Requested:
    """Record that a hold is to be captured.

    Raises PaymentConflict when the payment is not a hold, is being captured or cancelled, or the order has
    another payment; AmountExceeded for more than is held; InvalidCommand for a fraction that cannot be taken.
    """

    def work(asking: Asking) -> Operation:
        return _request(asking, command)

    try:
        return carry_out(
            sessions,
            payment_id,
            origin,
            work,
            recovery_after_s=recovery_after_s,
            idempotent=idempotent,
            received=received,
        )
    except IntegrityError as error:
        if "uq_payment_live_order" in str(error.orig):
            raise PaymentConflict(ORDER_TAKEN) from error
        raise


def _request(asking: Asking, command: CapturePayment) -> Operation:
    payment = asking.payment
    if payment.status is not Status.AUTHORIZED:
        raise PaymentConflict(f"A payment that is {payment.status} cannot be captured")
    if under_way := open_settlement(asking):
        raise PaymentConflict(f"A {under_way.kind} of this payment is under way already")
    amount_minor = payment.amount_minor if command.amount_minor is None else command.amount_minor
    if amount_minor > payment.amount_minor:
        held = Money(payment.amount_minor, payment.currency)
        raise AmountExceeded(f"amount: at most {held} can be captured")
    check_chargeable(Money(amount_minor, payment.currency))
    detail = {}
    if command.order_id:
        _bind_to_order(asking, command.order_id)
        detail["orderId"] = command.order_id
    # A cancel that the gateway has refused is overruled; else what is taken now would go back at once.
    payment.cancel_requested_at = None
    return asking.request(OperationKind.CAPTURE, amount_minor, command.reason, **detail)


def _bind_to_order(asking: Asking, order_id: str) -> None:
    payment = asking.payment
    if payment.order_id == order_id:
        return
    if payment.order_id:
        raise PaymentConflict("The payment belongs to another order")
    taken = exists().where(Payment.order_id == order_id, Payment.status.not_in(DEAD))
    if asking.session.scalar(select(taken)):
        raise PaymentConflict(ORDER_TAKEN)
    payment.order_id = order_id
