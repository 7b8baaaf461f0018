"""What neighbours tell over Kafka: orders to be paid, subscriptions, reservations, stocks; and again."""

import uuid
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import Random
from typing import Any, Final

import simplejson

from shared.commands.cards import SaveCard, save_card
from shared.commands.customers import CreateCustomer, create_customer
from shared.gateways.stripe_customers import StripeCustomers
from shared.payments import Command, Notice
from tests.simulation.shop import AMOUNTS, Order, Shop
from tests.simulation.world import World

CATALOG, SUBSCRIPTIONS, TICKETING = "catalog", "subscriptions", "ticketing"
FEW: Final = 4  # of the latest: what happens to one of them shall meet
RESERVED_FOR_S: Final = (60.0, 3_600.0, 172_800.0)
CARD: Final = "pm_card_visa"
OUT_OF_STOCK: Final = "Out of stock"


@dataclass(frozen=True)
class Message:
    """A message of a neighbour's, which it keeps for as long as it may have to send it again."""

    topic: str
    key: str
    said: dict[str, Any]
    id_in_header: bool


@dataclass(frozen=True)
class Subscription:
    """What a user has subscribed to, as its first message says; `began` tells one start from another."""

    id: str
    user_id: str
    price_minor: int
    began: str
    trial_days: int
    card: str | None


@dataclass(frozen=True)
class Seat:
    """A reservation."""

    id: str
    customer_id: str


@dataclass
class Notices:
    """All neighbours of one seed that tell us something."""

    world: World
    shop: Shop
    open: frozenset[str]
    sent: dict[str, Message] = field(default_factory=dict)
    subscriptions: list[Subscription] = field(default_factory=list)
    seats: list[Seat] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    user_with_card: str = ""

    @property
    def _chance(self) -> Random:
        return self.world.chance

    def tell(self) -> None:
        """Something has happened to a neighbour, and it tells us; now and then it repeats itself."""
        if self.sent and self._chance.random() < 0.15:
            self._produce(self._chance.choice(list(self.sent)))
            return
        kinds = {
            CATALOG: (self._initiate, self._initiate, self._initiate, self._change_stock, self._ask_by_order),
            SUBSCRIPTIONS: (self._subscribe, self._subscribe, self._subscribe),
            TICKETING: (self._reserve, self.end_reservation, self.end_reservation),
        }
        self._chance.choice([act for kind in sorted(self.open & set(kinds)) for act in kinds[kind]])()

    def tell_everything_again(self) -> None:
        """After the broker has lost it: whoever has sent something sends it again."""
        for message_id in self.sent:
            self._produce(message_id)

    def dress(self, order: Order) -> Order:
        """What a client buys may be a seat that is kept for it."""
        if TICKETING not in self.open or order.order_id is None or self._chance.random() < 0.3:
            return order
        # Mostly one that we may have heard of already.
        known = self.seats[-FEW:]
        seat = self._chance.choice(known) if known and self._chance.random() < 0.8 else self._reserve()
        return replace(order, reservation_id=seat.id, customer_id=seat.customer_id)

    def give_a_card(self) -> None:
        """A user saves a card, which is then the default; by the real commands, and nothing goes wrong."""
        self.user_with_card = self._new_uuid()
        cards = StripeCustomers("sk_test_simulation", "https://stripe.invalid", pool_size=1)
        cards._client = self.world.harness.gateway._client
        sessions = self.world.harness.sessions
        customer = CreateCustomer(
            email="ada@shop.example", name=None, client_customer_id=self.user_with_card, owner="shop"
        )

        def work() -> None:
            create_customer(sessions, cards, customer)
            save_card(sessions, cards, SaveCard(customer_id=self.user_with_card, token=CARD))

        self.world.whole("save a card", work)

    # --- the catalog ---

    def _initiate(self) -> None:
        known = [each for each in self.shop.orders if each.order_id and not each.hold]
        if known and self._chance.random() < 0.6:
            order = self._chance.choice(known)
        else:
            order = self._order()
            if self._chance.random() < 0.9:  # else nobody knows it
                self.shop.orders.append(order)
        wrong = 100 if self._chance.random() < 0.1 else 0
        self._send(
            Notice.PAYMENT_INITIATED,
            str(order.order_id),
            userId=order.customer_id,
            orderId=order.order_id,
            amount=(order.amount_minor + wrong) / 100,
            paymentMethod=self._chance.choice(("CreditCard", None)),
            paymentMethodId=order.card,
            timestamp=self.world.clock.now().isoformat(),
        )

    def _order(self) -> Order:
        card = self._chance.choice((None, None, "pm_card_threeDSecure2Required", "pm_card_chargeDeclined"))
        return Order(
            order_id=self._new_uuid(),
            cart_id=None,
            customer_id=self._new_uuid(),
            amount_minor=self._chance.choice(AMOUNTS),
            hold=False,
            card=card,
        )

    def _some_order(self) -> str | None:
        known = [each.order_id for each in self.shop.orders if each.order_id]
        return self._chance.choice(known) if known else None

    def _change_stock(self) -> None:
        reason = self._chance.choice((OUT_OF_STOCK, "counted again"))
        order_id = self._some_order()
        self._send(
            Notice.INVENTORY_ADJUSTED, "SKU-1", sku="SKU-1", quantity=-1, reason=reason, orderId=order_id
        )

    def _ask_by_order(self) -> None:
        if order_id := self._some_order():
            command = self._chance.choice((Command.CANCEL_PAYMENT, Command.REFUND_PAYMENT))
            self._send(command, order_id, orderId=order_id, reason="the customer has called")

    # --- subscriptions ---

    def _subscribe(self) -> None:
        chance = self._chance
        if self.subscriptions and chance.random() < 0.6:
            known = chance.choice(self.subscriptions)
            changes: tuple[dict[str, Any], ...] = (
                {},
                {"trial_days": 0},
                {"began": self._today()},
                {"price_minor": known.price_minor + 100},
            )
            subscription = replace(known, **chance.choices(changes, (6, 3, 1, 1))[0])
        else:
            subscription = self._subscription()
        self.subscriptions.append(subscription)
        self._tell_of_subscription(subscription)

    def subscribe_again(self) -> None:
        """The newest subscription is told of once more, by a message of its own."""
        self._tell_of_subscription(self.subscriptions[-1])

    def _tell_of_subscription(self, subscription: Subscription) -> None:
        plan = {"planId": "pro", "price": subscription.price_minor / 100, "currency": "USD"}
        data = {
            "subscriptionId": subscription.id,
            "userId": subscription.user_id,
            "plan": plan,
            "paymentMethodId": subscription.card,
            "trialPeriodDays": subscription.trial_days,
            "startDate": subscription.began,
        }
        self._send(Notice.USER_SUBSCRIPTION_STARTED, subscription.id, data=data)

    def _subscription(self) -> Subscription:
        chance = self._chance
        has_saved = chance.random() < 0.5
        return Subscription(
            id=self._new_uuid(),
            user_id=self.user_with_card if has_saved else self._new_uuid(),
            price_minor=chance.choice((*AMOUNTS, 0)),
            began=self._today(),
            trial_days=chance.choice((0, 0, 0, 14)),
            # Without one the user's default is charged; one user has none.
            card=None if has_saved else chance.choice((CARD, "pm_card_chargeDeclined", None)),
        )

    def _today(self) -> str:
        return self.world.clock.now().isoformat()

    # --- ticketing ---

    def _reserve(self) -> Seat:
        seat = Seat(self._new_uuid(), self._new_uuid())
        self.seats.append(seat)
        until = self.world.clock.now() + timedelta(seconds=self._chance.choice(RESERVED_FOR_S))
        self._tell_of_seat(Notice.RESERVATION_CREATED, seat, "active", expiresAt=until.isoformat())
        return seat

    def end_reservation(self) -> None:
        """A seat is no longer kept: it was not paid for in time, or it was sold."""
        if self.seats:
            seat = self._chance.choice(self._taken() or self.seats[-FEW:])
            status = self._chance.choice(("expired",) * 5 + ("confirmed",))
            now = self.world.clock.now().isoformat()
            self._tell_of_seat(Notice.RESERVATION_EXPIRED, seat, status, expiredAt=now)

    def _taken(self) -> list[Seat]:
        """Mostly the seat that is being paid for: what happens to one shall meet."""
        wanted = {each.order.reservation_id for each in self.shop.asked[-2:] if each.order}
        taken = [each for each in self.seats if each.id in wanted]
        return taken if self._chance.random() < 0.8 else []

    def _tell_of_seat(self, notice: Notice, seat: Seat, status: str, **at: str) -> None:
        self._send(notice, seat.id, reservationId=seat.id, customerId=seat.customer_id, status=status, **at)

    # --- the way to us ---

    def _new_uuid(self) -> str:
        return str(uuid.UUID(int=self._chance.getrandbits(128), version=4))

    def _send(self, topic: Notice | Command, key: str, **said: Any) -> None:
        message_id = self._new_uuid()
        given = {name: value for name, value in said.items() if value is not None}
        self.sent[message_id] = Message(str(topic), key, given, self._chance.random() < 0.5)
        self.counts[str(topic)] = self.counts.get(str(topic), 0) + 1
        for _ in range(2 if self._chance.random() < 0.3 else 1):
            self._produce(message_id)

    def _produce(self, message_id: str) -> None:
        notice = self.sent[message_id]
        headers = [("ce_correlationid", message_id.encode())]
        said = notice.said
        if notice.id_in_header:
            headers.append(("ce_id", message_id.encode()))
        else:
            said = {**said, "eventId": message_id}
        value = simplejson.dumps(said).encode()
        # Whatever its sender likes: messages of one thing may meet in two consumers.
        key = notice.key if message_id < "8" else message_id
        self.world.broker.append(notice.topic, key.encode(), value, headers)
        self.world.scheduler.note(f"told: {notice.topic} {said}")
