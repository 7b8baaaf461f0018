"""What ticketing tells of reservations, and whether one may be paid for now."""

from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.commands.cancel import cancel_payment
from shared.commands.operations import Origin
from shared.commands.received import ReceivedMessage, take_in
from shared.database import Sessions, reading
from shared.models import Payment
from shared.models_neighbours import Reservation
from shared.payments import PaymentConflict, PaymentError, Status
from shared.telemetry import get_logger

ACTIVE, EXPIRED = "active", "expired"
NOT_YET_PAID = (Status.PENDING, Status.PROCESSING, Status.REQUIRES_ACTION, Status.AUTHORIZED)
REASON = "the reservation has expired"

log = get_logger(__name__)


class ReservationRefused(PaymentError):
    """The reservation is unknown, another customer's, or not active any more."""

    code = "RESERVATION_VALIDATION_FAILED"

    def __init__(self, why: str) -> None:
        """Say why in the contract's words."""
        super().__init__(f"Reservation validation failed: {why}")


def check_reservation(session: Session, reservation_id: str, customer_id: str | None) -> None:
    """Return if the reservation may be paid for, and keep it so until the transaction ends.

    An expiry that comes meanwhile waits, and then finds the payment. Raises ReservationRefused.
    """
    query = select(Reservation, func.clock_timestamp()).where(Reservation.id == reservation_id)
    row = session.execute(query.with_for_update(read=True, of=Reservation)).one_or_none()
    if row is None:
        raise ReservationRefused("Reservation not found")
    reservation, now = row
    if reservation.customer_id != customer_id:
        raise ReservationRefused("Reservation does not belong to the specified customer")
    if reservation.status != ACTIVE:
        raise ReservationRefused(f"Reservation is in '{reservation.status}' state, expected 'active'")
    if reservation.expires_at <= now:
        raise ReservationRefused("Reservation has expired")


def record_reservation(
    session: Session,
    reservation_id: str,
    customer_id: str,
    status: str,
    *,
    expires_at: datetime | None = None,
    expired_at: datetime | None = None,
    reason: str | None = None,
) -> None:
    """Write down what is told, in whatever order it is: what is over is not made active by older news."""
    new = insert(Reservation).values(
        id=reservation_id,
        customer_id=customer_id,
        status=status,
        expires_at=expires_at,
        expired_at=expired_at,
        reason=reason,
        changed_at=func.clock_timestamp(),
    )
    told = new.excluded
    session.execute(
        new.on_conflict_do_update(
            index_elements=[Reservation.id],
            set_={
                "status": case((Reservation.status == ACTIVE, told.status), else_=Reservation.status),
                "expires_at": func.coalesce(Reservation.expires_at, told.expires_at),
                "expired_at": func.coalesce(Reservation.expired_at, told.expired_at),
                "reason": func.coalesce(told.reason, Reservation.reason),
                "changed_at": told.changed_at,
            },
        )
    )


def expire_reservation(
    sessions: Sessions,
    message: ReceivedMessage,
    reservation_id: str,
    customer_id: str,
    expired_at: datetime,
    reason: str | None,
) -> bool:
    """Write down that a reservation is over; whether it is, for one that was confirmed stays so."""
    with sessions.begin() as session:
        record_reservation(
            session, reservation_id, customer_id, EXPIRED, expired_at=expired_at, reason=reason
        )
        status = session.scalar(select(Reservation.status).where(Reservation.id == reservation_id))
    log.info("reservation told of", reservation_status=status, message_id=message.message_id)
    return status == EXPIRED


def cancel_unpaid(
    sessions: Sessions, reservation_id: str, origin: Origin, *, recovery_after_s: float
) -> None:
    """Give up what is not yet paid for a reservation; what is in flight is undone when its outcome is known.

    May be done again at will: a repeat finds nothing left to do.
    """
    with reading(sessions) as session:
        query = select(Payment.id).where(
            Payment.reservation_id == reservation_id, Payment.status.in_(NOT_YET_PAID)
        )
        found = session.scalars(query.order_by(Payment.id)).all()
    for payment_id in found:
        try:
            cancel_payment(
                sessions,
                payment_id,
                REASON,
                origin,
                recovery_after_s=recovery_after_s,
                undo_capture=True,
            )
        except PaymentConflict as error:
            log.info("paid before the reservation expired", payment_id=str(payment_id), reason=str(error))


def note_received(sessions: Sessions, message: ReceivedMessage) -> None:
    """Note that everything a message asks for is done. Raises AlreadyReceived."""
    with sessions.begin() as session:
        take_in(session, message)
