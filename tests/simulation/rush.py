"""Every fourth seed is in a rush: while one is held up at a bad moment, others get at the same thing."""

from collections.abc import Callable
from functools import partial
from typing import Final

from deploy.stripe_simulator import disputes, operations, refund_operations
from deploy.stripe_simulator.disputes import DISPUTE
from deploy.stripe_simulator.faults import FaultKind
from deploy.stripe_simulator.lookups import INTENT
from deploy.stripe_simulator.refunds import REFUND
from deploy.stripe_simulator.store import Facts, Page, Store
from tests.simulation.clock import DAY_S
from tests.simulation.harness import ACTORS
from tests.simulation.network import LIST_LAGS, TIMEOUT_AMID, TIMEOUT_BEFORE
from tests.simulation.schedule import Actor
from tests.simulation.shop import Shop
from tests.simulation.world import LEASE_S, RECOVERY_AFTER_S, World

EVERY: Final = 4
# Of the moments around a gateway call, and of those between a read and what is written upon it.
HELD_UP: Final = {
    "gateway": 0.4,
    "statement of payment_worker.locking.record_seen": 0.3,
    "statement of payment_worker.foreign": 0.2,
}
MEETS: Final = 0.6  # how likely others come at each moment, once
BEGINS: Final = 0.3  # how likely something begins while nobody is held up
# Heartbeats come on time in the shorter pause; in the longer one the holder's process hangs.
LAPSES_S: Final = (LEASE_S + 5, LEASE_S + 10)
FEW: Final = 2
ACTORS_MAX: Final = ACTORS - 5  # what is planned begins no others then
# What leaves a holder without a definite outcome, and what only together does harm.
TROUBLES: Final[tuple[dict[str, float], ...]] = (
    {TIMEOUT_BEFORE: 0.3},
    {TIMEOUT_AMID: 0.3},
    {FaultKind.LOCK_TIMEOUT: 0.3},
    {FaultKind.ERROR_AFTER: 0.25, LIST_LAGS: 0.6},
)
Act = Callable[[], None]
AtStripe = Callable[[str, Callable[[Store], object]], None]


def is_in_a_rush(world: World) -> bool:
    """Whether this seed is one of those."""
    return world.harness.seed % EVERY == 0


class Rush:
    """What comes next is planned a few choices ahead, so that it meets whoever is held up."""

    def __init__(
        self, world: World, shop: Shop, let_pass: Callable[[float], None], at_stripe: AtStripe
    ) -> None:
        """Nothing is planned. `let_pass` lets seconds go by, `at_stripe` does something at the gateway."""
        self._world, self._shop, self._chance = world, shop, world.chance
        self._let_pass, self._at_stripe = let_pass, at_stripe
        self._plan: list[Act] = []
        shop.few = FEW
        world.scheduler.held_up_shares = HELD_UP
        world.weather.shares = dict(self._chance.choice(TROUBLES))

    def next_act(self) -> Act | None:
        """What has to happen now, if anything."""
        if len(self._world.scheduler.actors) > ACTORS_MAX:
            return None
        if not self._plan:
            self._plan = self._planned()
        return self._plan.pop(0) if self._plan else None

    def _planned(self) -> list[Act]:
        held_up = [each for each in self._world.scheduler.actors if each.held_up and each.held_up_at]
        if held_up:
            if self._chance.random() >= MEETS:
                return []
            actor = self._chance.choice(held_up)
            place, actor.held_up_at = actor.held_up_at, ""
            return self._meanwhile(actor, place)
        if self._chance.random() >= BEGINS:
            return []
        if LIST_LAGS in self._world.weather.shares:
            return self._doubt()
        if self._chance.random() < 0.5 and self._paid():
            return [self._news, self._deliver, partial(self._drain, whole=False)]
        return [self._ask, partial(self._let_pass, RECOVERY_AFTER_S + 1), self._sweep, self._task]

    def _meanwhile(self, actor: Actor, place: str) -> list[Act]:
        """What others do while this one is held up there."""
        if not place.startswith("gateway"):
            return [self._ask, self._ask]
        if actor.name.startswith("task"):
            # What has not left yet must not leave a day later: no gateway knows its key then.
            is_done = place.startswith("gateway answer")
            lapse_s = self._chance.choice((*LAPSES_S, DAY_S) if is_done else LAPSES_S)
            return [partial(self._let_pass, lapse_s), self._sweep, self._task, self._task]
        return [partial(self._change, place), self._deliver, partial(self._drain, whole=True)]

    def _doubt(self) -> list[Act]:
        """A charge that is made, whose key replays a 500, and a look before the lists know of it."""
        task = partial(self._task, whole=True)
        due: list[Act] = [partial(self._let_pass, RECOVERY_AFTER_S + 1), self._sweep, task]
        return [self._ask, *due, *due, self._look, *due]

    def _look(self) -> None:
        worker = self._chance.choice(self._world.workers)
        self._world.whole("look", lambda: self._world.verify(worker))

    def _begin(self, name: str, work: Act) -> None:
        self._world.turn(self._world.begin(name, work))

    def _ask(self) -> None:
        if ask := self._shop.next_ask():
            self._world.scheduler.note(f"client: {ask.kind} {ask.amount_minor or ''} {ask.key or ''}")
            self._world.whole(f"client {ask.kind}", self._shop.send(ask))

    def _sweep(self) -> None:
        self._world.whole("sweep", self._world.recover)

    def _task(self, *, whole: bool = False) -> None:
        """What was queued last is what the sweep has found."""
        if self._world.queue.errands:
            errand, worker = self._world.queue.errands.pop(), self._chance.choice(self._world.workers)
            begin = self._world.whole if whole else self._begin
            begin("task", lambda: self._world.work_off(worker, errand))

    def _deliver(self) -> None:
        for sequence, event_id, kind in self._world.waiting_webhooks():
            work = partial(self._world.take_webhook, event_id, sequence, keep=False)
            self._world.whole(f"webhook {kind}", work)

    def _drain(self, *, whole: bool) -> None:
        worker = self._chance.choice(self._world.workers)
        begin = self._world.whole if whole else self._begin
        begin("inbox", lambda: self._world.drain_inbox(worker))

    def _all(self, kind: str) -> list[Facts]:
        return self._world.simulator.store.page(kind, Page(limit=100, oldest_first=True))[0]

    def _news(self) -> None:
        """Something that others do at the gateway, and of which it tells."""
        if not (paid := self._paid()):
            return
        intent = self._chance.choice(paid[-FEW:])["id"]
        asked = {"payment_intent": intent}
        if self._chance.random() < 0.5:
            self._at_stripe(
                f"bank: a dispute of {intent}",
                lambda store: disputes.open_dispute(store, refund_operations.charge_named(store, asked)),
            )
        else:
            self._at_stripe(
                f"dashboard: refund 100 {intent}",
                lambda store: refund_operations.create(store, "", {**asked, "amount": 100}),
            )

    def _paid(self) -> list[Facts]:
        return [each for each in self._all(INTENT) if each["status"] == "succeeded"]

    def _change(self, place: str) -> None:
        """What is just being looked at changes: of which kind it is, the path of the call says."""
        kind = next((each for each in (DISPUTE, REFUND) if each in place), INTENT)
        if not (found := self._all(kind)):
            return
        named = [each for each in found if each["id"] in place]
        target = self._chance.choice(named or found)["id"]
        acts: dict[str, tuple[str, Callable[[Store], object]]] = {
            DISPUTE: ("is lost", lambda store: disputes.move(store, target, "lost")),
            REFUND: ("has failed", lambda store: refund_operations.steer(store, target, "failed", None)),
            INTENT: ("is cancelled", lambda store: operations.cancel(store, target, {})),
        }
        what, act = acts[kind]
        self._at_stripe(f"meanwhile: {target} {what}", act)
