"""What the seed may let happen next: whose turn it is, what begins or breaks, how much time passes."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Final

from deploy.stripe_simulator import disputes, operations, refund_operations
from deploy.stripe_simulator.errors import StripeError
from deploy.stripe_simulator.faults import FaultKind
from deploy.stripe_simulator.lookups import INTENT
from deploy.stripe_simulator.refunds import REFUND
from deploy.stripe_simulator.store import Page, Store
from shared.commands.pause import pause, resume
from shared.payments import OperationKind
from tests.simulation.clock import DAY_S
from tests.simulation.doors import Doors
from tests.simulation.harness import ACTORS
from tests.simulation.network import LIST_LAGS, NEVER_SENT, TIMEOUT_AMID, TIMEOUT_BEFORE
from tests.simulation.rush import Rush, is_in_a_rush
from tests.simulation.schedule import State
from tests.simulation.shop import Shop
from tests.simulation.world import COMMANDS, REQUESTS, World

TROUBLES: Final = (
    *(str(kind) for kind in FaultKind if kind is not FaultKind.UNAVAILABLE),
    NEVER_SENT,
    TIMEOUT_BEFORE,
    TIMEOUT_AMID,
    LIST_LAGS,
)
STEPS: Final = (12, 36)  # between two looks
IDLE_MAX: Final = 6  # steps in a row in which the database was not asked
HEARTS: Final = 0.6  # the share of seeds whose workers beat on time, except over long pauses
BEAT_S, BEATS_WITHIN_S = 5.0, 20.0
TRIES: Final = 20  # to find something that can happen now
PAUSES_S: Final = (0.05, 1.0, 6.0, 20.0, 70.0, 700.0, DAY_S)
Act = Callable[[], None]


class Chaos:
    """The choices of one seed. Which troubles there are at all differs from seed to seed."""

    def __init__(self, world: World, shop: Shop, doors: Doors | None = None) -> None:
        """Draw what this seed is like."""
        self._doors = doors
        self._world, self._shop, self._chance = world, shop, world.chance
        chance = world.chance
        scheduler = world.scheduler
        scheduler.crash_share = chance.choice((0.0, 0.01, 0.03, 0.06))
        scheduler.switch_share = chance.choice((0.05, 0.2, 0.4))
        some = chance.sample(TROUBLES, chance.randint(0, 3))
        world.weather.shares = dict.fromkeys(some, chance.choice((0.1, 0.3)))
        for name in ("lost_report", "not_taken", "twice", "lost_commit"):
            setattr(world.troubles, name, chance.choice((0.0, 0.0, 0.15)))
        world.troubles.away = chance.choice((0.0, 0.0, 0.2))
        self._asks = 0
        self._hearts = chance.random() < HEARTS
        self._acts = self._chosen_acts()
        self.counts: dict[str, int] = {}
        self._last: dict[str, tuple[int, int]] = {}
        self._days = self._webhooks = self._relayed = self._idle = 0
        self._rush = Rush(world, shop, self._pass, self._at_stripe) if is_in_a_rush(world) else None

    @property
    def _may_doubt(self) -> bool:
        """Whether something may be in doubt: a key is old, or has a 500 that is replayed."""
        shares = self._world.weather.shares
        return bool(self._days or FaultKind.ERROR_BEFORE in shares or FaultKind.ERROR_AFTER in shares)

    def _chosen_acts(self) -> list[tuple[float, str, Act]]:
        """What may happen in this seed, with how likely it is."""
        usual: list[tuple[float, str, Act]] = [
            (3, "client", self._client),
            (6, "task", self._task),
            (2, "sweep", self._sweep),
            (1, "look", self._look),
            (1, "deadlines", self._deadlines),
            (2, "inbox", self._inbox),
            (4, "relay", self._relay),
            (3, "consumer", self._consumer),
            (2, "webhook", self._webhook),
            (1, "time", self._time),
            (1, "late request", self._late),
            (1, "customer", self._customer),
        ]
        rare: list[tuple[float, str, Act]] = [
            (1.5, "message", self._message),
            (2, "heartbeat", self._heartbeat),
            (1, "dashboard", self._dashboard),
            (0.5, "bank", self._bank),
            (0.5, "redis wiped", self._wipe_redis),
            (0.5, "task repeated", self._repeat_task),
            (0.3, "broker loses its data", self._lose_broker),
            (0.5, "consumer rewinds", self._rewind),
            (0.3, "relay killed", self._kill_relay),
            (0.4, "pause", self._pause),
        ]
        usual += [each for each in rare if self._chance.random() < 0.5]
        return usual + (self._doors.acts() if self._doors else [])

    def some_steps(self) -> None:
        """Let some of it happen; less, when nobody wants anything any more."""
        self._asks += self._chance.randint(1, 5)
        self._idle = 0
        if self._doors:
            self._doors.some_steps()
        for _ in range(self._chance.randint(*STEPS) * (2 if self._rush else 1)):
            statements = self._world.scheduler.statements
            self.step()
            self._idle = 0 if self._world.scheduler.statements > statements else self._idle + 1
            if self._idle > IDLE_MAX and not self._world.scheduler.actors:
                return

    def step(self) -> None:
        """One choice."""
        world = self._world
        if holder := world.scheduler.holder():
            world.turn(holder)
            return
        world.scheduler.choice_goes_by()
        if self._rush and (act := self._rush.next_act()):
            act()
            return
        ready = [each for each in world.scheduler.actors if each.state is State.READY]
        is_full = len(ready) >= ACTORS - 2
        ready = ready if is_full else [each for each in ready if not each.held_up]
        if ready and (is_full or self._chance.random() < 0.5):
            world.turn(self._chance.choice(ready))
            return
        weights = [weight for weight, _, _ in self._acts]
        before = len(world.scheduler.trace)
        for _ in range(TRIES):
            _, name, act = self._chance.choices(self._acts, weights)[0]
            act()
            if len(world.scheduler.trace) > before:
                self.counts[name] = self.counts.get(name, 0) + 1
                break

    def _begin(self, name: str, work: Callable[[], Any]) -> None:
        self._world.turn(self._world.begin(name, work))

    def _worker(self) -> Any:
        return self._chance.choice(self._world.workers)

    def _client(self) -> None:
        if self._asks <= 0:
            return
        self._asks -= 1
        if ask := self._shop.next_ask():
            self._world.scheduler.note(f"client: {ask.kind} {ask.amount_minor or ''} {ask.key or ''}")
            self._begin(f"client {ask.kind}", self._shop.send(ask))

    def _message(self) -> None:
        if self._asks > 0:
            self._asks -= 1
            self._shop.send_message()

    def _task(self) -> None:
        queue = self._world.queue.errands
        if queue:
            errand = queue.pop(self._chance.randrange(len(queue)))
            worker = self._worker()
            self._begin("task", lambda: self._world.work_off(worker, errand))

    def _sweep(self) -> None:
        if self._is_new("sweep"):
            self._begin("sweep", self._world.recover)

    def _is_new(self, name: str, count: int = 0) -> bool:
        """Whether any time has passed since this was last done, or more has come: else nothing new is due."""
        now = (self._world.clock.us, count)
        is_new = self._last.get(name) != now
        self._last[name] = now
        return is_new

    def _look(self) -> None:
        worker = self._worker()
        if self._may_doubt and self._is_new("look"):
            self._begin("look", lambda: self._world.verify(worker))

    def _deadlines(self) -> None:
        worker = self._worker()
        if self._days and self._is_new("deadlines"):
            self._begin("deadlines", lambda: self._world.keep_deadlines(worker))

    def _inbox(self) -> None:
        worker = self._worker()
        if self._webhooks and self._is_new("inbox", self._webhooks):
            self._begin("inbox", lambda: self._world.drain_inbox(worker))

    def _heartbeat(self) -> None:
        worker = self._worker()
        if worker.leases._running:
            self._begin("heartbeat", lambda: self._world.beat(worker))

    def _relay(self) -> None:
        scheduler = self._world.scheduler
        is_new = scheduler.statements > self._relayed
        if is_new and not any(each.name.startswith("relay") for each in scheduler.actors):
            self._begin("relay", self._world.carry)
            self._relayed = scheduler.statements

    def _consumer(self) -> None:
        kind = self._chance.choice((REQUESTS, REQUESTS, COMMANDS))
        if not any(each.name.startswith(kind) for each in self._world.scheduler.actors):
            self._begin(kind, lambda: self._world.consume(kind))

    def _webhook(self) -> None:
        waiting = self._world.waiting_webhooks()
        if not waiting:
            return
        sequence, event_id, kind = self._chance.choice(waiting)
        if self._is_our_own(event_id) and self._chance.random() < 0.2:
            self._world.scheduler.note(f"webhook DROPPED: {kind}")
            self._world.mark_delivered(sequence, "dropped")
            return
        self._webhooks += 1
        keep = self._chance.random() < 0.2
        work = self._world.take_webhook
        self._begin(f"webhook {kind}", lambda: work(event_id, sequence, keep=keep))

    def _is_our_own(self, event_id: str) -> bool:
        """Whether a request of ours has led to it: our own row tells it, too."""
        event = self._world.simulator.store.find("event", event_id) or {}
        return bool(event.get("request", {}).get("idempotency_key"))

    def _time(self) -> None:
        weights = (8, 6, 5, 4, 2, 1, 0.4)
        seconds = self._chance.choices(PAUSES_S, weights)[0]
        self._pass(seconds)

    def _pass(self, seconds: float) -> None:
        self._world.scheduler.note(f"time: {seconds:g} s pass")
        self._days += seconds >= DAY_S
        if not self._hearts or seconds > BEATS_WITHIN_S:
            self._world.advance(seconds)
            return
        while seconds > 0:
            self._world.advance(min(seconds, BEAT_S))
            seconds -= BEAT_S
            for worker in self._world.workers:
                if worker.leases._running and not self._world.scheduler.waiting:
                    self._begin("heartbeat", partial(self._world.beat, worker))

    def _late(self) -> None:
        if late := self._world.network.late:
            self._world.scheduler.note("a late request arrives")
            self._world.network.arrive(self._chance.randrange(len(late)))

    def _customer(self) -> None:
        waiting = [each for each in self._all(INTENT) if each["status"] == "requires_action"]
        if waiting:
            intent, succeed = self._chance.choice(waiting), self._chance.random() < 0.7
            self._at_stripe(
                f"customer authenticates: {succeed}",
                lambda store: operations.authenticate(store, intent["id"], succeed=succeed),
            )

    def _all(self, kind: str) -> list[dict[str, Any]]:
        return self._world.simulator.store.page(kind, Page(limit=100, oldest_first=True))[0]

    def _at_stripe(self, what: str, act: Callable[[Store], object]) -> None:
        store = self._world.simulator.store
        with suppress(StripeError, ValueError), store.transaction():
            act(store)
            self._world.scheduler.note(what)

    def _dashboard(self) -> None:
        intents = self._all(INTENT)
        if not intents:
            return
        target = self._chance.choice(intents)["id"]
        some = self._chance.choice((None, 100, 300))
        kind = self._chance.choice(("refund", "capture", "cancel", "dispute"))
        asked = {"payment_intent": target, "amount": some} if some else {"payment_intent": target}
        acts: dict[str, Callable[[Store], object]] = {
            "refund": lambda store: refund_operations.create(store, "", asked),
            "capture": lambda store: operations.capture(
                store, target, {"amount_to_capture": some} if some else {}
            ),
            "cancel": lambda store: operations.cancel(store, target, {}),
            "dispute": lambda store: disputes.open_dispute(
                store, refund_operations.charge_named(store, {"payment_intent": target})
            ),
        }
        self._at_stripe(f"dashboard: {kind} {some or ''} {target}", acts[kind])

    def _bank(self) -> None:
        if found := self._all(REFUND):
            refund = self._chance.choice(found)
            status = self._chance.choice(("failed", "succeeded"))
            if not refund.get("_release"):
                self._at_stripe(
                    f"bank: a refund is {status}",
                    lambda store: refund_operations.steer(store, refund["id"], status, None),
                )

    def _wipe_redis(self) -> None:
        self._world.queue.errands.clear()
        self._world.scheduler.note("Redis WIPED")

    def _repeat_task(self) -> None:
        if queue := self._world.queue.errands:
            queue.append(self._chance.choice(queue))

    def _lose_broker(self) -> None:
        self._world.broker.lose_everything()
        self._world.consumers.clear()
        self._world.scheduler.note("the broker has LOST its data")

    def _rewind(self) -> None:
        committed = self._world.broker.committed
        for place in sorted(committed):
            committed[place] = self._chance.randint(0, committed[place])
        self._world.consumers.clear()
        self._world.scheduler.note("consumers begin at EARLIER offsets")

    def _kill_relay(self) -> None:
        if not any(each.name.startswith("relay") for each in self._world.scheduler.actors):
            self._world.end_relay()
            self._world.scheduler.note("relay KILLED")

    def _pause(self) -> None:
        kinds = [self._chance.choice(list(OperationKind))]
        sessions = self._world.harness.sessions
        witness = self._world.witness

        def halt() -> None:
            pause(sessions, kinds, "operator")
            witness.halted(kinds)

        def go_on() -> None:
            witness.halts.clear()
            resume(sessions, list(OperationKind))

        if self._chance.random() < 0.5:
            self._begin("pause", halt)
        else:
            self._begin("resume", go_on)
