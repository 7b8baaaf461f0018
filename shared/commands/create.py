"""Record a new payment and its charge operation, or return the one that the order already has."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import Connection, select
from sqlalchemy.orm import Session

from shared import lifecycle
from shared.commands.idempotency import IdempotentRequest, bind, find_bound
from shared.database import Sessions, alone, database_now, new_id
from shared.models import Operation, Payment
from shared.money import Money
from shared.payments import (
    DEAD,
    CaptureMethod,
    OperationKind,
    OperationState,
    PaymentConflict,
    PaymentError,
    Status,
)
from shared.rows import Writes

# Each round ends because a competing payment died between our insert and our look; twice is already rare.
MAX_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePayment:
    """A checked command: charge this customer this much for this order."""

    order_id: str
    customer_id: str
    money: Money
    payment_method: str
    reservation_id: str | None = None
    payment_method_id: str | None = None
    off_session: bool = False
    return_url: str | None = None
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who sent a command, and the trace it belongs to."""

    actor: str
    correlation_id: str | None
    traceparent: str | None


@dataclass(frozen=True, slots=True)
class Created:
    """The payment that answers a command, and whether its idempotency key was used before."""

    payment: Payment
    replayed: bool


def create_payment(
    sessions: Sessions,
    command: CreatePayment,
    origin: Origin,
    *,
    simulated: bool,
    recovery_after_s: float,
    idempotent: IdempotentRequest | None = None,
) -> Created:
    """Record the intent in one transaction; idempotent by order and by the client's key.

    Raises PaymentConflict when the order has a live payment with other facts or a refunded one,
    IdempotencyKeyReused and IdempotencyKeyInUse. Nothing is stored then.
    """

    def new(connection: Connection) -> _New:
        due_after = timedelta(seconds=recovery_after_s)
        return _New(command, origin, database_now(connection), due_after, simulated=simulated)

    if idempotent is None:
        with alone(sessions) as connection:
            payment = _add_or_find(new(connection), connection, Session(connection))
            return Created(payment, replayed=False)
    with sessions.begin() as session:
        if bound := find_bound(session, idempotent):
            return Created(bound, replayed=True)
        connection = session.connection()
        payment = _add_or_find(new(connection), connection, session)
        bind(session, idempotent, payment)
        return Created(payment, replayed=False)


class _New:
    """The rows of a new payment, as they will be written unless the order has a live one."""

    def __init__(
        self,
        command: CreatePayment,
        origin: Origin,
        at: datetime,
        due_after: timedelta,
        *,
        simulated: bool,
    ) -> None:
        self.command = command
        self._facts = {
            "id": new_id(),
            "order_id": command.order_id,
            "customer_id": command.customer_id,
            "reservation_id": command.reservation_id,
            "amount_minor": command.money.amount_minor,
            "currency": command.money.currency,
            "captured_minor": 0,
            "refund_reserved_minor": 0,
            "refunded_minor": 0,
            "capture_method": CaptureMethod.AUTOMATIC,
            "payment_method": command.payment_method,
            "payment_method_id": command.payment_method_id,
            "off_session": command.off_session,
            "return_url": command.return_url,
            "status": Status.PENDING,
            "version": 1,
            "is_simulated": simulated,
            "labels": command.labels,
            "created_at": at,
        }
        charge = {
            "id": new_id(),
            "payment_id": self._facts["id"],
            "kind": OperationKind.CHARGE,
            "amount_minor": command.money.amount_minor,
            "state": OperationState.REQUESTED,
            "attempt": 0,
            "key_number": 1,
            "dispatch_count": 0,
            "needs_review": False,
            # If the message is lost on its way, recovery finds the operation due.
            "next_attempt_at": at + due_after,
            "correlation_id": origin.correlation_id,
            "traceparent": origin.traceparent,
            "created_at": at,
        }
        self.payment = Payment(**self._facts)
        self._writes = Writes()
        self._writes.add(Payment, self._facts)
        self._writes.add(Operation, charge)
        cause = lifecycle.Cause(
            event="payment requested", actor=origin.actor, at=at, operation=Operation(**charge)
        )
        lifecycle.begin(self._writes, self.payment, cause)

    def add(self, connection: Connection) -> bool:
        """Write them; False when the order has a live payment."""
        return self._writes.send(connection)


def _add_or_find(new: _New, connection: Connection, session: Session) -> Payment:
    for _ in range(MAX_ROUNDS):
        if new.add(connection):
            return new.payment
        order_id = new.command.order_id
        live = session.scalar(
            select(Payment).where(Payment.order_id == order_id, Payment.status.not_in(DEAD))
        )
        if live:
            _check_same_facts(live, new.command)
            return live
    raise PaymentError("The order's payments change too quickly; try again")


def _check_same_facts(live: Payment, command: CreatePayment) -> None:
    if live.status is Status.REFUNDED:
        raise PaymentConflict("The order's payment was refunded; it cannot be paid again")
    same = (live.amount_minor, live.currency, live.customer_id) == (
        command.money.amount_minor,
        command.money.currency,
        command.customer_id,
    )
    if not same:
        raise PaymentConflict("The order already has a payment with another amount, currency or customer")
