"""Record a new payment and its charge operation, or return the one that the order already has."""

from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import bindparam, func, inspect, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared import lifecycle
from shared.commands.idempotency import IdempotentRequest, bind, find_bound
from shared.database import Sessions, new_id
from shared.models import ORDER_IS_LIVE, Operation, Payment, plain
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

# Each round ends because a competing payment died between our insert and our look; twice is already rare.
MAX_ROUNDS = 5

_COLUMNS = [
    (attribute.key, attribute.columns[0])
    for attribute in inspect(Payment).column_attrs
    if attribute.key != "created_at"
]
# Made once: the database's clock gives the time, and nothing comes back when the order is taken.
_ADD_PAYMENT = (
    insert(plain(Payment))
    .values(
        {
            **{column.name: bindparam(column.name) for _, column in _COLUMNS},
            "created_at": func.clock_timestamp(),
        }
    )
    .on_conflict_do_nothing(index_elements=["order_id"], index_where=ORDER_IS_LIVE)
    .returning(plain(Payment).c.created_at)
)
_ADD_OPERATION = insert(plain(Operation))


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
    with sessions.begin() as session:
        if idempotent and (bound := find_bound(session, idempotent)):
            return Created(bound, replayed=True)
        payment, is_new = _insert_or_find(session, command, simulated=simulated)
        if is_new:
            operation = _charge(session, payment, origin, recovery_after_s)
            lifecycle.begin(
                session,
                payment,
                lifecycle.Cause(
                    event="payment requested",
                    actor=origin.actor,
                    at=payment.created_at,
                    operation=operation,
                ),
            )
        if idempotent:
            bind(session, idempotent, payment)
        return Created(payment, replayed=False)


def _insert_or_find(session: Session, command: CreatePayment, *, simulated: bool) -> tuple[Payment, bool]:
    for _ in range(MAX_ROUNDS):
        if payment := _insert(session, command, simulated=simulated):
            return payment, True
        live = session.scalar(
            select(Payment).where(Payment.order_id == command.order_id, Payment.status.not_in(DEAD))
        )
        if live:
            _check_same_facts(live, command)
            return live, False
    raise PaymentError("The order's payments change too quickly; try again")


def _insert(session: Session, command: CreatePayment, *, simulated: bool) -> Payment | None:
    """Insert unless the order has a live payment; waits for one that is just being inserted."""
    payment = Payment(
        id=new_id(),
        order_id=command.order_id,
        customer_id=command.customer_id,
        reservation_id=command.reservation_id,
        amount_minor=command.money.amount_minor,
        currency=command.money.currency,
        captured_minor=0,
        refunded_minor=0,
        capture_method=CaptureMethod.AUTOMATIC,
        payment_method=command.payment_method,
        payment_method_id=command.payment_method_id,
        off_session=command.off_session,
        return_url=command.return_url,
        status=Status.PENDING,
        version=1,
        is_simulated=simulated,
        labels=command.labels,
    )
    values = {column.name: getattr(payment, key) for key, column in _COLUMNS}
    created_at = session.connection().execute(_ADD_PAYMENT, values).scalar()
    if created_at is None:
        return None
    payment.created_at = created_at
    return payment


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


def _charge(session: Session, payment: Payment, origin: Origin, recovery_after_s: float) -> Operation:
    values = {
        "id": new_id(),
        "payment_id": payment.id,
        "kind": OperationKind.CHARGE,
        "amount_minor": payment.amount_minor,
        "state": OperationState.REQUESTED,
        # If the message is lost on its way, recovery finds the operation due.
        "next_attempt_at": payment.created_at + timedelta(seconds=recovery_after_s),
        "correlation_id": origin.correlation_id,
        "traceparent": origin.traceparent,
        "created_at": payment.created_at,
    }
    session.connection().execute(_ADD_OPERATION, values)
    return Operation(**values)
