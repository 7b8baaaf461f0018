"""Give money back, all of what is left or a part, as often as something is left."""

import uuid
from dataclasses import dataclass

from sqlalchemy import select

from shared.commands.idempotency import IdempotentRequest
from shared.commands.limits import check_chargeable
from shared.commands.operations import Asking, Origin, Requested, carry_out
from shared.commands.received import ReceivedMessage
from shared.database import Sessions
from shared.models import Operation, Payment
from shared.money import Money
from shared.payments import PAID, AmountExceeded, OperationKind, PaymentConflict, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class RefundPayment:
    """A checked command. Without an amount all that is left is refunded.

    With `reuse_open` an identical refund that is still under way answers the command.
    """

    amount_minor: int | None = None
    reason: str | None = None
    reuse_open: bool = False


def refund_payment(
    sessions: Sessions,
    payment_id: uuid.UUID,
    command: RefundPayment,
    origin: Origin,
    *,
    recovery_after_s: float,
    idempotent: IdempotentRequest | None = None,
    received: ReceivedMessage | None = None,
) -> Requested:
    """Reserve the money and record that it is to be given back.

    The payment's lock makes racing refunds follow each other, so that their sum never exceeds what was
    captured. Raises PaymentConflict when nothing was taken or all is given back, AmountExceeded for more than
    is left, InvalidCommand for a fraction that cannot be given back.
    """

    def work(asking: Asking) -> Operation:
        return _request(asking, command)

    return carry_out(
        sessions,
        payment_id,
        origin,
        work,
        recovery_after_s=recovery_after_s,
        idempotent=idempotent,
        received=received,
    )


def left_minor(payment: Payment) -> int:
    """How much can still be refunded, in minor units."""
    return max(0, payment.captured_minor - payment.refunded_minor - payment.refund_reserved_minor)


def _request(asking: Asking, command: RefundPayment) -> Operation:
    payment = asking.payment
    if payment.status not in PAID:
        raise PaymentConflict(f"A payment that is {payment.status} cannot be refunded")
    if payment.status is Status.REFUNDED:
        raise PaymentConflict("The payment is refunded already")
    if command.reuse_open and (open_one := _identical(asking, command)):
        return open_one
    left = left_minor(payment)
    amount_minor = left if command.amount_minor is None else command.amount_minor
    if amount_minor > left or not amount_minor:
        raise AmountExceeded(f"amount: {Money(left, payment.currency)} is left to refund")
    check_chargeable(Money(amount_minor, payment.currency))
    return asking.request(OperationKind.REFUND, amount_minor, command.reason)


def _identical(asking: Asking, command: RefundPayment) -> Operation | None:
    query = select(Operation).where(
        Operation.payment_id == asking.payment.id,
        Operation.kind == OperationKind.REFUND,
        Operation.finished_at.is_(None),
        Operation.target_ref.is_(None),
        Operation.reason.is_not_distinct_from(command.reason),
    )
    if command.amount_minor is not None:
        query = query.where(Operation.amount_minor == command.amount_minor)
    return asking.session.scalars(query.order_by(Operation.created_at)).first()
