"""The neighbours' doors: catalog, subscriptions, ticketing, order callback, webhooks; open in odd seeds.

Even seeds take the steps that they took before there were doors, so that what they have found stays found.
"""

import uuid
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from random import Random
from typing import Any, Final

from payment_worker.commands import ASKING_FOR_ORDERS, Desk
from shared.command_messages import Asked
from shared.notifications import ORDER_SERVICE
from shared.orders import Orders, OrderService
from shared.payments import Notice
from tests.simulation.complaints import COMPLAINTS
from tests.simulation.neighbours import FAILING, GONE, LOST, REFUSED, Manners, OrderDesk, Town, Way
from tests.simulation.notices import CATALOG, SUBSCRIPTIONS, TICKETING, Notices
from tests.simulation.notifying import ORDERS_URL, Couriers, Owner
from tests.simulation.schedule import State
from tests.simulation.shop import Order, Shop
from tests.simulation.world import COMMANDS, World

CALLBACK, WEBHOOKS, ORDER_CHECK = "order callback", "webhooks", "order check"
DOORS: Final = (CATALOG, SUBSCRIPTIONS, TICKETING, CALLBACK, WEBHOOKS)
OPEN_AT_ONCE: Final = (1, 2)
DEAD_SHARE: Final = 0.2  # of the seeds with webhooks: a subscriber that takes nothing, ever
INITIATED: Final = "initiated"
# Between the look at what a payment is for and its record others may sell, or end, the same.
HELD_UP: Final = {"commit of shared.commands.create": 0.5}
ROOM: Final = 10  # actors; beyond it those that are there go on first
Act = tuple[float, str, Callable[[], None]]

_DUE: Final = """
    SELECT 'news', min(now()) FROM notification_event
    UNION ALL
    SELECT 'delivery', min(due) FROM (
        SELECT CASE WHEN endpoint_id = ANY(%(dead)s) THEN max(next_attempt_at) ELSE min(next_attempt_at) END
        FROM notification_delivery
        WHERE state = 'pending' AND (endpoint_id = %(orders)s
            OR endpoint_id IN (SELECT id FROM notification_endpoint WHERE state = 'enabled'))
        GROUP BY endpoint_id
    ) each (due)
"""
_SOLD: Final = "SELECT id, status, cancel_requested_at FROM payment WHERE reservation_id = %s"


class WatchedDesk(Desk):
    """The real one; how the payments of a reservation stand is noted when its end was dealt with."""

    def __init__(self, world: World, orders: Orders | None) -> None:
        """With everything that is off by default."""
        self._world = world
        settings = replace(world.settings, reservations="on", inventory_refunds="on")
        super().__init__(world.harness.sessions, settings, orders)
        self.ended: dict[str, dict[uuid.UUID, tuple[str, Any]]] = {}  # by reservation

    def carry_out(self, asked: Asked) -> str | None:
        """As the real one."""
        refusal = super().carry_out(asked)
        if asked.command is Notice.RESERVATION_EXPIRED and asked.data["status"] == "expired" and not refusal:
            self._note(str(asked.data["reservationId"]))
        return refusal

    def _note(self, reservation_id: str) -> None:
        over = self._world.query(
            "SELECT 1 FROM reservation WHERE id = %s AND status = 'expired'", reservation_id
        )
        if over and reservation_id not in self.ended:
            rows = self._world.query(_SOLD, reservation_id)
            self.ended[reservation_id] = {row[0]: (row[1], row[2]) for row in rows}


class Doors:
    """The doors of one seed, as far as they are open in it."""

    def __init__(self, world: World, shop: Shop, seed: int) -> None:
        """What is open comes from a stream of its own; everything after that from the seed's."""
        own = Random(f"doors of {seed}")
        self.world, self.shop = world, shop
        self.open = frozenset(own.sample(DOORS, own.randint(*OPEN_AT_ONCE)))
        if CATALOG in self.open and own.random() < 0.6:
            self.open |= {ORDER_CHECK}
        way = Way(world.scheduler, world.witness)
        self.manners = Manners(world.chance, _troubles(own))
        self.orders = OrderDesk(way, self.manners, shop.orders)
        self.town = Town(world.clock, way, self.manners)
        self.couriers = Couriers(world, CALLBACK in self.open, self.town, self.orders)
        self.owner = Owner(world, self.couriers, dead_too=own.random() < DEAD_SHARE)
        self.notices = Notices(world, shop, self.open)
        self.desk = WatchedDesk(world, self._order_service())
        world.desk = self.desk
        shop.dress = self.dress
        self.asks = 0
        self._looked = 0
        if self.open & {SUBSCRIPTIONS, TICKETING}:
            world.scheduler.held_up_shares = HELD_UP
        COMPLAINTS.heard.clear()
        if SUBSCRIPTIONS in self.open:
            self.notices.give_a_card()

    def _order_service(self) -> Orders | None:
        if ORDER_CHECK not in self.open:
            return None
        service = OrderService(ORDERS_URL, timeout_s=3.0)
        service._pool = self.orders  # type: ignore[assignment]
        return service

    @property
    def notifies(self) -> bool:
        """Whether anybody may be told anything."""
        return bool(self.open & {CALLBACK, WEBHOOKS})

    def dress(self, order: Order) -> Order:
        """An order as it is with these doors: for a kept seat, or with an order service to be told."""
        order = self.notices.dress(order)
        if CALLBACK in self.open and order.order_id and self.world.chance.random() < 0.6:
            return replace(order, callback=self.couriers.callback_of(self.world.chance))
        return order

    # --- what may happen ---

    def acts(self) -> list[Act]:
        """What may happen at these doors, with how likely it is."""
        acts: list[Act] = []
        if self.open & {CATALOG, SUBSCRIPTIONS, TICKETING}:
            acts += [(4, "notice", self._notice), (4, "commands", self._commands)]
        if CATALOG in self.open:
            acts += [(4, "initiated", self._initiated)]
        if SUBSCRIPTIONS in self.open:
            acts += [(4, "subscribed again", self._meet)]
        if self.notifies:
            acts += [(3, "courier", self._courier), (8, "delivery", self._delivery)]
        if WEBHOOKS in self.open:
            acts += [(2, "owner", self._ask)]
        return acts

    def some_steps(self) -> None:
        """Before some steps: neighbours may want something in them."""
        self.asks += self.world.chance.randint(2, 7)

    def _may_ask(self) -> bool:
        self.asks -= 1
        return self.asks >= 0

    def _begin(self, name: str, work: Callable[[], Any]) -> None:
        self.world.turn(self.world.begin(name, work))

    def _is_free(self, name: str) -> bool:
        return not any(each.name.partition("#")[0] == name for each in self.world.scheduler.actors)

    def _notice(self) -> None:
        if not self._may_ask():
            return
        chance = self.world.chance
        is_being_paid = any(each.name.startswith("client pay") for each in self.world.scheduler.actors)
        if TICKETING in self.open and is_being_paid and chance.random() < 0.6:
            self.notices.end_reservation()
        else:
            self.notices.tell()
        if chance.random() < 0.6:
            self._commands()

    def _commands(self) -> None:
        self._consume(self.world.chance.choice((COMMANDS, f"{COMMANDS} 2")))

    def _meet(self) -> None:
        """While a charge is held up the newest subscription begins once more, for another consumer."""
        held_up = any(each.held_up and each.name.startswith(COMMANDS) for each in self.world.scheduler.actors)
        if held_up and self.notices.subscriptions and self._may_ask():
            self.notices.subscribe_again()
            self._commands()

    def _initiated(self) -> None:
        self._consume(self.world.chance.choice((INITIATED, f"{INITIATED} 2")))

    def _consume(self, kind: str) -> None:
        if self._is_free(kind):
            self._begin(kind, partial(self.world.consume, kind))

    def _courier(self) -> None:
        number = self.world.chance.randrange(2)
        name, statements = f"courier {number}", self.world.scheduler.statements
        if self._is_free(name) and statements > self._looked:
            self._begin(name, partial(self.couriers.turn, number))
            self._looked = self.world.scheduler.statements

    def _delivery(self) -> None:
        ready = [each for each in self.world.scheduler.actors if each.state is State.READY]
        if self.couriers.waiting and len(ready) < ROOM:
            chosen = self.world.chance.randrange(len(self.couriers.waiting))
            self._begin("delivery", self.couriers.carry(chosen))

    def _ask(self) -> None:
        actors = self.world.scheduler.actors
        if any(each.name.startswith("owner") for each in actors) or not self._may_ask():
            return
        if ask := self.owner.next_ask():
            self.world.scheduler.note(ask[0])
            self._begin(*ask)

    # --- afterwards ---

    def calm(self) -> None:
        """Everybody behaves, and whoever was disabled is told again, unless it takes nothing, ever."""
        self.manners.shares = {}
        while self.couriers.waiting:
            self.world.whole("delivery", self.couriers.carry(0))
        disabled = self.world.query("SELECT id FROM notification_endpoint WHERE state = 'disabled'")
        for subscriber in self.town.subscribers:
            if (subscriber.endpoint_id,) in disabled and not subscriber.is_dead:
                self.world.whole("owner enable", partial(self.owner.enable, subscriber))

    def deliver(self) -> None:
        """What has come over Kafka for these doors."""
        if self.world.broker.lag(INITIATED, ASKING_FOR_ORDERS):
            self.world.whole(INITIATED, partial(self.world.consume, INITIATED))

    def due(self) -> dict[str, datetime]:
        """When the next of what these doors wait for is due."""
        if not self.notifies:
            return {}
        dead = [each.endpoint_id for each in self.town.subscribers if each.is_dead and each.endpoint_id]
        names = {"dead": dead, "orders": ORDER_SERVICE}
        rows = self.world.harness.database.execute(_DUE, names).fetchall()
        return {name: at for name, at in rows if at is not None}

    def work_off(self, is_due: set[str]) -> None:
        """Carry what is due."""
        if is_due & {"news", "delivery"}:
            self.couriers.carry_everything()

    def counts(self) -> dict[str, int]:
        """What has happened at these doors."""
        counts = {f"door: {name}": 1 for name in self.open}
        counts |= {f"told: {name}": count for name, count in self.notices.counts.items()}
        counts |= {f"owner: {name}": count for name, count in self.owner.counts.items()}
        counts |= {f"neighbour: {name}": count for name, count in self.manners.met.items()}
        counts["webhooks taken"] = sum(len(each.told) for each in self.town.subscribers)
        counts["callbacks taken"] = len(self.orders.heard)
        return counts


def doors_of(world: World, shop: Shop, seed: int) -> Doors | None:
    """The doors of an odd seed."""
    return Doors(world, shop, seed) if seed % 2 else None


def _troubles(own: Random) -> dict[str, float]:
    share = own.choice((0.0, 0.3, 0.6))
    return dict.fromkeys((REFUSED, LOST, FAILING), share / 3) | {GONE: share / 8} if share else {}
