"""Record a new payment and its charge operation, or return the one that the order already has."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, exists, false, or_, select
from sqlalchemy.orm import Session

from shared import lifecycle
from shared.commands.customers import payer_of
from shared.commands.idempotency import IdempotentRequest, bind, find_bound
from shared.commands.operations import Origin, further, primary_kind
from shared.commands.received import ReceivedMessage, take_in, tie
from shared.database import Sessions, alone, database_now, new_id, reading
from shared.models import IdempotencyKey, Operation, Payment
from shared.models_notifications import OrderCallback
from shared.money import Money
from shared.payments import (
    DEAD,
    Announcement,
    CaptureMethod,
    InvalidCommand,
    PaymentConflict,
    PaymentError,
    Status,
)
from shared.rows import Writes

# Each round ends because a competing payment died between our insert and our look; twice is already rare.
MAX_ROUNDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """The order's service is to hear how the payment ends, with the caller's sealed token where one came."""

    sealed_token: bytes | None = None
    token_until: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CreatePayment:
    """A checked command: charge this customer this much, or hold it, for this order or cart.

    With `unasked` the payment is only recorded, and charged once `process_payment` asks for that.
    """

    money: Money
    order_id: str | None = None
    cart_id: str | None = None
    subscription_id: str | None = None
    customer_id: str | None = None
    capture_method: CaptureMethod = CaptureMethod.AUTOMATIC
    payment_method: str = "credit_card"
    reservation_id: str | None = None
    payment_method_id: str | None = None
    off_session: bool = False
    return_url: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    outcome_topic: Announcement | None = None  # where the outcome is told as well
    callback: Callback | None = None
    unasked: bool = False


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
    received: ReceivedMessage | None = None,
    before_new: Callable[[Session], None] | None = None,
) -> Created:
    """Record the intent in one transaction; idempotent by order, cart, subscription and the client's key.

    `before_new` is called in that transaction before a payment comes about, and may refuse it by raising.

    Raises PaymentConflict when the order or cart has a live payment with other facts or a refunded one,
    InvalidCommand for a saved card that is not this customer's, IdempotencyKeyReused,
    IdempotencyKeyInUse, and AlreadyReceived for a message that came before. Nothing is stored then.
    """
    due_after = timedelta(seconds=recovery_after_s)
    make = functools.partial(_New, command, origin, due_after, simulated=simulated)
    answer = functools.partial(_answer, command, make, before_new)
    if idempotent is None and received is None and before_new is None:
        with alone(sessions) as connection:
            return Created(answer(connection, Session(connection)), replayed=False)
    with sessions.begin() as session:
        if received:
            take_in(session, received)
        if idempotent and (bound := find_bound(session, idempotent)):
            return Created(session.get_one(Payment, bound.payment_id), replayed=True)
        payment = answer(session.connection(), session)
        if received:
            tie(session, received, payment.id)
        if idempotent:
            bind(session, idempotent, payment_id=payment.id)
        return Created(payment, replayed=False)


def _answer(
    command: CreatePayment,
    make: Callable[[datetime, str | None], "_New"],
    before_new: Callable[[Session], None] | None,
    connection: Connection,
    session: Session,
) -> Payment:
    try:
        payer = payer_of(session, command.customer_id, command.payment_method_id)
    except InvalidCommand:
        # The card may have been removed since the order was paid with it.
        if live := _live_as_asked(command, session):
            return live
        raise
    if before_new:
        if live := _live_as_asked(command, session):
            return live
        before_new(session)
    return _add_or_find(make(database_now(connection), payer), connection, session)


def is_known(sessions: Sessions, command: CreatePayment, idempotent: IdempotentRequest | None) -> bool:
    """Whether the command is answered by what is there: then nobody else need be asked about it."""
    with reading(sessions) as session:
        if idempotent and session.get(IdempotencyKey, (idempotent.principal, idempotent.key)):
            return True
        return session.scalar(select(exists().where(_same(command), Payment.status.not_in(DEAD)))) or False


class _New:
    """The rows of a new payment, as they will be written unless the order has a live one."""

    def __init__(
        self,
        command: CreatePayment,
        origin: Origin,
        due_after: timedelta,
        at: datetime,
        gateway_customer: str | None,
        *,
        simulated: bool,
    ) -> None:
        self.command = command
        self._facts = {
            "id": new_id(),
            "order_id": command.order_id,
            "cart_id": command.cart_id,
            "customer_id": command.customer_id,
            "reservation_id": command.reservation_id,
            "subscription_id": command.subscription_id,
            "outcome_topic": command.outcome_topic,
            "amount_minor": command.money.amount_minor,
            "currency": command.money.currency,
            "captured_minor": 0,
            "refund_reserved_minor": 0,
            "refunded_minor": 0,
            "capture_method": command.capture_method,
            "payment_method": command.payment_method,
            "payment_method_sealed": command.payment_method_id,
            "gateway_customer": gateway_customer,
            "off_session": command.off_session,
            "return_url": command.return_url,
            "status": Status.PENDING,
            "version": 1,
            "is_simulated": simulated,
            "labels": command.labels,
            "created_at": at,
        }
        self.payment = Payment(**self._facts)
        self._writes = Writes()
        self._writes.add(Payment, self._facts)
        if command.unasked:
            lifecycle.begin_unasked(self._writes, self.payment, origin.actor, at, origin.correlation_id)
        else:
            self._ask(origin, at, due_after)

    def _ask(self, origin: Origin, at: datetime, due_after: timedelta) -> None:
        """Add the charge or the hold. If its message is lost on its way, recovery finds it due."""
        primary = further(
            self.payment, primary_kind(self.payment), self.payment.amount_minor, at + due_after
        ) | {
            "correlation_id": origin.correlation_id,
            "traceparent": origin.traceparent,
            "created_at": at,
        }
        self._writes.add(Operation, primary)
        cause = lifecycle.Cause(
            event="payment requested", actor=origin.actor, at=at, operation=Operation(**primary)
        )
        lifecycle.begin(self._writes, self.payment, cause)
        if self.command.callback:
            token = {
                "sealed_token": self.command.callback.sealed_token,
                "token_until": self.command.callback.token_until,
            }
            facts = {"payment_id": self.payment.id, "order_id": self.command.order_id}
            self._writes.add(OrderCallback, facts | token)

    def add(self, connection: Connection) -> bool:
        """Write them; False when the order has a live payment."""
        return self._writes.send(connection)


def _add_or_find(new: _New, connection: Connection, session: Session) -> Payment:
    for _ in range(MAX_ROUNDS):
        if new.add(connection):
            return new.payment
        if live := _live_as_asked(new.command, session):
            return live
    raise PaymentError("The order's payments change too quickly; try again")


def _live(command: CreatePayment, session: Session) -> Payment | None:
    """The payment that the order or the cart has. Raises PaymentConflict when each has one of its own."""
    found = session.scalars(select(Payment).where(_same(command), Payment.status.not_in(DEAD))).all()
    if len(found) > 1:
        raise PaymentConflict("The order and the cart have a payment each")
    return found[0] if found else None


def _live_as_asked(command: CreatePayment, session: Session) -> Payment | None:
    live = _live(command, session)
    if live:
        _check_same_facts(live, command)
    return live


def _same(command: CreatePayment) -> ColumnElement[bool]:
    names = {
        Payment.order_id: command.order_id,
        Payment.cart_id: command.cart_id,
        Payment.subscription_id: command.subscription_id,
    }
    return or_(false(), *(column == name for column, name in names.items() if name is not None))


def _check_same_facts(live: Payment, command: CreatePayment) -> None:
    # Another customer is told nothing of how the payment stands.
    if live.status is Status.REFUNDED and live.customer_id == command.customer_id:
        raise PaymentConflict("The order's payment was refunded; it cannot be paid again")
    wanted = (command.money.amount_minor, command.money.currency, command.customer_id)
    if wanted != (live.amount_minor, live.currency, live.customer_id):
        whose = "cart" if command.cart_id and live.cart_id == command.cart_id else "order"
        if command.subscription_id:
            whose = "subscription"
        raise PaymentConflict(f"The {whose} already has a payment with another amount, currency or customer")
    # A shop that is told of a hold where it asked for a charge would ship what nobody has paid.
    if live.capture_method is not command.capture_method:
        how = "a hold" if live.capture_method is CaptureMethod.MANUAL else "a charge"
        raise PaymentConflict(f"The order already has a payment, which is {how}")
    if command.order_id not in {None, live.order_id}:
        raise PaymentConflict("The cart's payment is not for this order")
