"""What the catalog tells of its stocks, and what becomes of an order that cannot be delivered."""

from decimal import Decimal

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.commands.cancel import cancel_payment
from shared.commands.operations import Origin
from shared.commands.received import ReceivedMessage
from shared.commands.refund import RefundPayment, refund_payment
from shared.database import Sessions, reading
from shared.models import Payment
from shared.models_neighbours import InventoryAdjustment
from shared.payments import DEAD, PAID, AmountExceeded, PaymentConflict, Status
from shared.telemetry import get_logger

MAX_ROUNDS = 3  # between the look and the lock a payment may have been paid, or captured

log = get_logger(__name__)


def record_adjustment(
    session: Session,
    message_id: str,
    product: str,
    quantity: Decimal | int | None,
    reason: str | None,
    order_id: str | None,
) -> None:
    """Write an adjustment down, once for each message."""
    row = {
        "message_id": message_id,
        "product": product,
        "quantity": quantity,
        "reason": reason,
        "order_id": order_id,
        "received_at": func.clock_timestamp(),
    }
    session.execute(insert(InventoryAdjustment).values(row).on_conflict_do_nothing())


def undo_order(
    sessions: Sessions,
    order_id: str,
    reason: str,
    origin: Origin,
    received: ReceivedMessage,
    *,
    recovery_after_s: float,
) -> bool:
    """Void or refund what the order's payment has, once for each message; False when there is nothing.

    What is in flight is undone when its outcome is known. Raises AlreadyReceived.
    """
    for _ in range(MAX_ROUNDS):
        payment = _live(sessions, order_id)
        if payment is None or payment.status is Status.REFUNDED:
            return False
        try:
            if payment.status in PAID:
                refund_payment(
                    sessions,
                    payment.id,
                    RefundPayment(reason=reason),
                    origin,
                    recovery_after_s=recovery_after_s,
                    received=received,
                )
            else:
                cancel_payment(
                    sessions,
                    payment.id,
                    reason,
                    origin,
                    recovery_after_s=recovery_after_s,
                    received=received,
                )
        except AmountExceeded:
            return False  # everything is on its way back already
        except PaymentConflict as error:
            log.info("the payment has changed meanwhile", payment_id=str(payment.id), reason=str(error))
        else:
            return True
    raise PaymentConflict("The order's payment is being captured or changes too quickly; refund it by hand")


def _live(sessions: Sessions, order_id: str) -> Payment | None:
    query = select(Payment).where(Payment.order_id == order_id, Payment.status.not_in(DEAD))
    with reading(sessions) as session:
        return session.scalar(query)
