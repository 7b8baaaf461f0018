"""Couriers and the endpoints that they serve: what owners ask for, and who carries what."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

from payment_worker.courier import Courier
from payment_worker.notices import Writer
from shared.commands.create import Callback
from shared.commands.deliveries import DeliveryNotFound, send_again, send_all_again
from shared.commands.endpoints import Wish, add_endpoint, change_endpoint, remove_endpoint, renew_secret
from shared.notifications import ORDER_TOKEN
from shared.sealing import Sealer
from tests.keys import DATA_KEY
from tests.simulation.neighbours import OUR_TOKEN, OrderDesk, SimulatedCaller, Subscriber, Town
from tests.simulation.world import World

OWNER: Final = "shop"
ORDERS_URL: Final = "https://orders.invalid"
CALLERS_TOKEN: Final = "token-of-a-client"
TOKEN_LASTS: Final = timedelta(hours=1)
MOST, EVER = 2, 4  # endpoints at a time, and in all
SOME_TYPES: Final = ["payment-succeeded", "payment-failed", "payment-processed", "refund-succeeded"]
Work = tuple[Callable[..., Any], tuple[Any, ...]]


class Hands:
    """Stands in for a courier's threads: what they are to do waits until the seed begins it."""

    def __init__(self, waiting: list[Work]) -> None:
        """Add to these."""
        self._waiting = waiting

    def submit(self, work: Callable[..., Any], *about: Any) -> None:
        """As an executor's."""
        self._waiting.append((work, about))


@dataclass
class Couriers:
    """The couriers of two processes, and what their threads have yet to do."""

    world: World
    callback: bool  # the order service is told, too
    town: Town
    orders: OrderDesk
    each: list[Courier] = field(default_factory=list)
    waiting: list[Work] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Begin with two."""
        self.sealer = Sealer(DATA_KEY)
        self.to_subscribers = SimulatedCaller(self.town.way, "subscriber", self.town.take)
        self.each = [self._courier() for _ in range(2)]

    def _courier(self) -> Courier:
        writer = Writer(
            sessions=self.world.harness.sessions,
            sealer=self.sealer,
            order_status_url=ORDERS_URL if self.callback else "",
            order_status_token=OUR_TOKEN,
        )
        to_orders = SimulatedCaller(self.orders.way, "order service", self.orders.take)
        made = Courier(self.world.harness.sessions, writer, self.to_subscribers, to_orders)  # type: ignore[arg-type]
        made._threads = Hands(self.waiting)  # type: ignore[assignment]
        return made

    def turn(self, number: int) -> None:
        """A courier looks what there is to be carried."""
        self.each[number].turn()

    def carry(self, chosen: int) -> Callable[[], Any]:
        """What one of the couriers' threads does."""
        work, about = self.waiting.pop(chosen)
        return lambda: work(*about)

    def carry_everything(self) -> None:
        """A turn, and all that it leads to, from beginning to end."""
        self.world.whole("courier", lambda: self.turn(0))
        while self.waiting:
            self.world.whole("delivery", self.carry(0))

    def callback_of(self, chance: Random) -> Callback:
        """What the API keeps of a request whose outcome the order service is to hear."""
        if chance.random() < 0.5:
            return Callback()
        until = self.world.clock.now() + TOKEN_LASTS
        return Callback(sealed_token=self.sealer.seal(CALLERS_TOKEN, ORDER_TOKEN), token_until=until)


@dataclass
class Owner:
    """Whoever has endpoints, and what it asks for; each a request that may be cut off."""

    world: World
    couriers: Couriers
    dead_too: bool  # one of its subscribers takes nothing, ever
    counts: dict[str, int] = field(default_factory=dict)
    removed: set[uuid.UUID] = field(default_factory=set)

    @property
    def _town(self) -> Town:
        return self.couriers.town

    def next_ask(self) -> tuple[str, Callable[[], None]] | None:
        """A request of the owner's, if it has any: its name, and the work of the API for it."""
        chance, so_far = self.world.chance, len(self._town.subscribers)
        known = [
            each
            for each in self._town.subscribers
            if each.endpoint_id and each.endpoint_id not in self.removed
        ]
        if so_far < EVER and (not known or (len(known) < MOST and chance.random() < 0.4)):
            return self._counted("register", self.register())
        if not known:
            return None
        subscriber = chance.choice(known)
        asks = {
            "disable": self._disable,
            "enable": self.enable,
            "rotate": self._rotate,
            "resend": self._resend,
            "resend all": self._resend_all,
            "remove": self._remove,
        }
        name = chance.choices(list(asks), (2, 3, 2, 2, 2, 0.5))[0]
        return self._counted(name, lambda: asks[name](subscriber))

    def _counted(self, name: str, work: Callable[[], None]) -> tuple[str, Callable[[], None]]:
        self.counts[name] = self.counts.get(name, 0) + 1
        return f"owner {name}", work

    def register(self) -> Callable[[], None]:
        """One more endpoint."""
        number = len(self._town.subscribers)
        wanted = self.world.chance.choice((None, None, SOME_TYPES))
        is_dead = self.dead_too and number == 0
        subscriber = Subscriber(
            url=f"https://subscriber{number}.invalid/hooks",
            wanted=["payment-succeeded"] if is_dead else wanted,
            is_dead=is_dead,
        )
        self._town.subscribers.append(subscriber)
        wish = Wish(fields={"url": subscriber.url, "event_types": subscriber.wanted, "description": None})

        def work() -> None:
            # Whoever dies before the answer leaves an endpoint whose secret nobody knows.
            subscriber.knows_its_secret = False
            couriers = self.couriers
            caller: Any = couriers.to_subscribers
            sessions = self.world.harness.sessions
            endpoint, secret = add_endpoint(sessions, wish, OWNER, caller, couriers.sealer)
            self.world.scheduler.point("answer to the owner")
            subscriber.secrets, subscriber.knows_its_secret = [secret], True
            subscriber.endpoint_id = endpoint.id
            subscriber.complete_since = self.world.harness.ids.uuid7()
            self.world.scheduler.note(f"{subscriber.url} is registered")

        return work

    def _change(self, subscriber: Subscriber, *, enabled: bool) -> None:
        change_endpoint(
            self.world.harness.sessions,
            self._id(subscriber),
            OWNER,
            Wish(fields={"enabled": enabled}),
            self.couriers.to_subscribers,  # type: ignore[arg-type]
        )
        self.world.scheduler.note(f"{subscriber.url} enabled: {enabled}")

    def _disable(self, subscriber: Subscriber) -> None:
        subscriber.may_miss()
        self._change(subscriber, enabled=False)

    def enable(self, subscriber: Subscriber) -> None:
        """It is to be told again."""
        subscriber.may_miss()
        self._change(subscriber, enabled=True)
        subscriber.failures.clear()
        # What it has answered before may still be on its way to disable it.
        if not subscriber.has_been_gone:
            subscriber.complete_since = self.world.harness.ids.uuid7()

    def _rotate(self, subscriber: Subscriber) -> None:
        subscriber.knows_its_secret = False
        sessions = self.world.harness.sessions
        _, secret = renew_secret(sessions, self._id(subscriber), OWNER, self.couriers.sealer)
        self.world.scheduler.point("answer to the owner")
        subscriber.secrets.append(secret)
        subscriber.knows_its_secret = True
        self.world.scheduler.note(f"{subscriber.url} has a new secret")

    def _resend(self, subscriber: Subscriber) -> None:
        if not subscriber.told:
            return
        again = self.world.chance.choice(subscriber.told).event_id
        subscriber.again.append(len(subscriber.told))
        try:
            send_again(self.world.harness.sessions, self._id(subscriber), again)
        except DeliveryNotFound:
            self.world.scheduler.note("refused: no such delivery")

    def _resend_all(self, subscriber: Subscriber) -> None:
        subscriber.again.append(len(subscriber.told))
        since = self.world.clock.now() - timedelta(seconds=self.world.chance.choice((10, 3600)))
        send_all_again(self.world.harness.sessions, self._id(subscriber), subscriber.wanted, since)
        self.world.scheduler.note(f"{subscriber.url} is told everything again")

    def _remove(self, subscriber: Subscriber) -> None:
        subscriber.may_miss()
        self.removed.add(self._id(subscriber))
        remove_endpoint(self.world.harness.sessions, self._id(subscriber), OWNER)

    @staticmethod
    def _id(subscriber: Subscriber) -> uuid.UUID:
        if subscriber.endpoint_id is None:
            raise LookupError(subscriber.url)
        return subscriber.endpoint_id
