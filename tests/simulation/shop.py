"""The clients: what they ask for over HTTP and Kafka, what they were answered, and what they send again."""

import functools
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

import simplejson
from sqlalchemy.orm import Session

from shared.commands.cancel import cancel_payment
from shared.commands.capture import CapturePayment, capture_payment
from shared.commands.create import Callback, CreatePayment, create_payment
from shared.commands.idempotency import IdempotentRequest, hash_request
from shared.commands.operations import Origin
from shared.commands.refund import RefundPayment, refund_payment
from shared.commands.reservations import check_reservation
from shared.money import Money
from shared.payments import CaptureMethod, Command, PaymentError
from tests.simulation.world import RECOVERY_AFTER_S, World

ORIGIN: Final = Origin(actor="client", correlation_id=None, traceparent=None)
# The simulator's rules by amount and by card: most are paid, some declined, some wait for the customer.
AMOUNTS: Final = (10_000, 10_000, 2_500, 2_500, 777, 777, 1_013, 5_066)
CARDS: Final = (
    *(None,) * 12,
    "pm_card_threeDSecure2Required",
    "pm_card_pendingRefund",
    "pm_card_refundFail",
    "pm_card_chargeDeclined",
    "pm_card_threeDSecureRequiredChargeDeclined",
)


FEW: Final = 4  # of the latest answers: what happens to one payment shall meet
# What can be done to a payment that stands like this.
APT: Final = {
    "authorized": ("capture", "capture", "cancel"),
    "succeeded": ("refund",),
    "partially_refunded": ("refund",),
    "refunded": ("pay", "refund", "cancel"),
}


@dataclass(frozen=True)
class Order:
    """What a client wants to be paid."""

    order_id: str | None
    cart_id: str | None
    customer_id: str
    amount_minor: int
    hold: bool
    card: str | None
    reservation_id: str | None = None
    callback: Callback | None = None


@dataclass(frozen=True)
class Ask:
    """One request: its kind, what it says, and the client's key if it has one."""

    kind: str
    order: Order | None = None
    payment_id: uuid.UUID | None = None
    amount_minor: int | None = None
    key: str | None = None
    reuse_open: bool = False

    def hashed(self) -> str:
        """What the API would make of the request's body."""
        return hash_request("POST", self.kind, [str(self.order), str(self.payment_id), self.amount_minor])


@dataclass(frozen=True)
class Answered:
    """A request that was accepted, and the client has heard of it."""

    ask: Ask
    payment_id: uuid.UUID
    operation_id: uuid.UUID | None
    replayed: bool


@dataclass(frozen=True)
class Message:
    """A command on Kafka."""

    topic: str
    value: bytes


class Shop:
    """All clients of one seed."""

    def __init__(self, world: World) -> None:
        """Nobody has asked for anything."""
        self._world = world
        self._chance: Random = world.chance
        self.orders: list[Order] = []
        self.asked: list[Ask] = []
        self.answered: list[Answered] = []
        self.refused: list[Ask] = []
        self.messages: dict[str, Message] = {}  # commands on Kafka, by id
        self.counts: dict[str, int] = {}
        self.few = FEW
        self.dress: Callable[[Order], Order] = lambda order: order  # what open doors add to one

    def next_ask(self) -> Ask | None:
        """Something that a client may want now, new or again."""
        chance = self._chance
        if self.asked and chance.random() < 0.2:
            again = chance.choice(self.asked)
            if again.key and chance.random() < 0.2:
                # A mistake of the client's: its key for something else.
                return replace(again, amount_minor=(again.amount_minor or 100) + 1)
            return again
        key = self._new_uuid() if chance.random() < 0.5 else None
        payment_id, kind = self._apt() if self.answered else (None, "pay")
        if kind == "pay":
            return Ask("pay", order=self._order(), key=key)
        parts = (None, None, 100, 300, 700, 9_000)
        return Ask(
            kind,
            payment_id=payment_id,
            amount_minor=chance.choice(parts) if kind != "cancel" else None,
            key=key,
            reuse_open=chance.random() < 0.2,
        )

    def _apt(self) -> tuple[uuid.UUID, str]:
        """A payment, and mostly something that can be done to it as it stands."""
        payment_id = self._chance.choice(self.answered[-self.few :]).payment_id
        if self._chance.random() < 0.3:
            return payment_id, self._chance.choice(("capture", "cancel", "refund", "pay", "pay"))
        ((status,),) = self._world.query("SELECT status FROM payment WHERE id = %s", payment_id)
        return payment_id, self._chance.choice(APT.get(status, ("pay", "pay", "cancel")))

    def _order(self) -> Order:
        chance = self._chance
        if self.orders and chance.random() < 0.5:
            known = chance.choice(self.orders)
            if chance.random() < 0.2:
                return replace(known, amount_minor=known.amount_minor + 100)
            return known
        hold = chance.random() < 0.4
        by_cart = hold and chance.random() < 0.5
        made = Order(
            order_id=None if by_cart else self._new_uuid(),
            cart_id=self._new_uuid() if by_cart else None,
            customer_id=self._new_uuid(),
            amount_minor=chance.choice(AMOUNTS),
            hold=hold,
            card=chance.choice(CARDS),
        )
        made = self.dress(made)
        self.orders.append(made)
        return made

    def _new_uuid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def send(self, ask: Ask) -> Callable[[], None]:
        """The work of the API for this request."""
        self.asked.append(ask)
        self.counts[ask.kind] = self.counts.get(ask.kind, 0) + 1

        def work() -> None:
            try:
                answered = self._carry_out(ask)
            except PaymentError as error:
                self._world.scheduler.note(f"refused: {type(error).__name__}")
                self.refused.append(ask)
                return
            self._world.scheduler.point("answer to the client")
            self.answered.append(answered)
            self._world.scheduler.note("answered")

        return work

    def _carry_out(self, ask: Ask) -> Answered:
        sessions = self._world.harness.sessions
        idempotent = ask.key and IdempotentRequest(principal="client", key=ask.key, request_hash=ask.hashed())
        common: dict[str, Any] = {"recovery_after_s": RECOVERY_AFTER_S, "idempotent": idempotent or None}
        if ask.order:
            if ask.order.reservation_id:
                common["before_new"] = reservation_guard(ask.order)
            created = create_payment(
                sessions, self._command(ask, ask.order), ORIGIN, simulated=True, **common
            )
            return Answered(ask, created.payment.id, None, created.replayed)
        if ask.payment_id is None:
            raise ValueError(ask)
        if ask.kind == "capture":
            capture = CapturePayment(amount_minor=ask.amount_minor)
            requested = capture_payment(sessions, ask.payment_id, capture, ORIGIN, **common)
        elif ask.kind == "cancel":
            requested = cancel_payment(sessions, ask.payment_id, None, ORIGIN, **common)
        else:
            refund = RefundPayment(amount_minor=ask.amount_minor, reuse_open=ask.reuse_open)
            requested = refund_payment(sessions, ask.payment_id, refund, ORIGIN, **common)
        operation_id = requested.operation.id if requested.operation else None
        return Answered(ask, requested.payment.id, operation_id, requested.replayed)

    @staticmethod
    def _command(ask: Ask, order: Order) -> CreatePayment:
        return CreatePayment(
            money=Money(ask.amount_minor or order.amount_minor, "USD"),
            order_id=order.order_id,
            cart_id=order.cart_id,
            customer_id=order.customer_id,
            capture_method=CaptureMethod.MANUAL if order.hold else CaptureMethod.AUTOMATIC,
            payment_method_id=order.card,
            reservation_id=order.reservation_id,
            callback=order.callback,
        )

    def send_message(self) -> None:
        """Another service sends a command over Kafka, now and then one that it has sent before."""
        chance = self._chance
        command, payment_id = Command.AUTHORIZE_PAYMENT, None
        if self.answered and chance.random() < 0.8:
            payment_id, kind = self._apt()
            command = Command.AUTHORIZE_PAYMENT if kind == "pay" else Command(f"{kind}-payment")
        value: dict[str, Any] = {"cartId": self._new_uuid(), "amount": 4_200, "currency": "USD"}
        if command is not Command.AUTHORIZE_PAYMENT:
            value = {"paymentId": str(payment_id)}
            if command is not Command.CANCEL_PAYMENT and chance.random() < 0.5:
                value["amount"] = chance.choice([1, 5, 7.5])
        message_id = self._new_uuid()
        self.messages[message_id] = Message(str(command), simplejson.dumps(value).encode())
        self.counts[str(command)] = self.counts.get(str(command), 0) + 1
        for _ in range(2 if chance.random() < 0.3 else 1):
            self._produce(message_id)
        self._world.scheduler.note(f"{command} {value}")

    def _produce(self, message_id: str) -> None:
        message = self.messages[message_id]
        headers = [("ce_id", message_id.encode())]
        self._world.broker.append(message.topic, None, message.value, headers)

    def send_messages_again(self) -> None:
        """Other services keep what they have sent: after the broker has lost it they send all of it again."""
        for message_id in self.messages:
            self._produce(message_id)


def reservation_guard(order: Order) -> Callable[[Session], None]:
    """What the API has asked of a reservation in the transaction that records the payment."""
    return functools.partial(
        check_reservation, reservation_id=str(order.reservation_id), customer_id=order.customer_id
    )
