"""The whole service of one seed: its processes, and what is between them."""

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from kombu.exceptions import OperationalError

from deploy.stripe_simulator.endpoint import Endpoint
from deploy.stripe_simulator.simulator import ACTIONS, Simulator
from deploy.stripe_simulator.timers import run_due
from deploy.stripe_simulator.webhooks import sign
from payment_api.webhooks import store
from payment_worker import deadlines, recovery, webhooks
from payment_worker.breaker import Breaker
from payment_worker.budget import Budget
from payment_worker.commands import ASKING_FOR_ORDERS, OTHERS, CommandConsumer, Desk
from payment_worker.consumer import RequestConsumer
from payment_worker.gate import Gate
from payment_worker.processing import Worker
from payment_worker.queues import Errand, queue_of
from payment_worker.relay import Relay
from shared.gateways import GatewayUnavailable
from shared.gateways.stripe_webhooks import read, verify
from shared.payments import REQUESTED_BY
from shared.settings import Settings
from shared.wakeup import connect_redis
from tests.simulation.broker import Broker, SimulatedConsumer, SimulatedDeliveries, Troubles
from tests.simulation.harness import Harness
from tests.simulation.network import LATE_MAX_S, Network, Weather
from tests.simulation.schedule import Actor, Crash
from tests.simulation.witness import WatchedLeases, Witness

LEASE_S: Final = 15.0
RECOVERY_AFTER_S: Final = 5.0
VERIFY_ABSENCE_S: Final = 600.0
WEBHOOK_SECRET: Final = "whsec_of_the_simulation"
REQUEST_TOPICS: Final = sorted({str(each) for each in REQUESTED_BY.values()})
COMMAND_TOPICS: Final = sorted(map(str, OTHERS))
REQUESTS, COMMANDS = "requests", "commands"
# A task says so in the log, and nothing is lost by it.
SURVIVED: Final = (GatewayUnavailable, OperationalError)


@dataclass
class Queue:
    """The tasks in Redis."""

    errands: list[Errand] = field(default_factory=list)


class World:
    """One seed's processes. `chance` is the seed's."""

    def __init__(self, harness: Harness) -> None:
        """Everything is empty, and nothing goes wrong yet."""
        self.harness = harness
        self.clock, self.scheduler = harness.clock, harness.scheduler
        self.chance: Random = harness.chance
        self.simulator = Simulator(None)
        self.simulator.webhooks.set_endpoint(Endpoint(url="https://api.invalid", secret=WEBHOOK_SECRET))
        self.weather = Weather(self.chance)
        self.witness = Witness(harness.database, self.clock, self.scheduler)
        self.network = Network(self.simulator, self.scheduler, self.weather, self.witness)
        harness.use(self.network)
        self.broker, self.troubles, self.queue = Broker(), Troubles(self.chance), Queue()
        self.settings = Settings(stripe_api_url="https://stripe.invalid")
        self.workers = [self._worker() for _ in range(2)]
        self.desk = Desk(harness.sessions, self.settings)
        self.deliveries = SimulatedDeliveries(self.broker, self.scheduler, self.troubles)
        self.stop = threading.Event()
        self.relay: Relay | None = None
        self.consumers: dict[str, Any] = {}
        self.running: list[tuple[Actor | None, Worker]] = []  # tasks, and whose they are
        self.problems: list[str] = []  # what went wrong in a way that nothing allows

    def _worker(self) -> Worker:
        sessions = self.harness.sessions
        # An unlimited budget: Redis is never asked.
        gate = Gate(sessions, Budget(connect_redis("redis://"), 0), Breaker(clock=self.clock.monotonic))
        return Worker(
            sessions=sessions,
            gateway=self.harness.gateway,
            gate=gate,
            leases=WatchedLeases(sessions, LEASE_S, self.witness),
            lease_s=LEASE_S,
            announce_change=lambda _: None,
        )

    # --- what the processes do, a round each ---

    def work_off(self, worker: Worker, errand: Errand) -> None:
        """A task: one attempt of one operation."""
        actor = self.scheduler.here
        try:
            self.running.append((actor, worker))
            self.witness.expected[actor] = errand[1]
            worker.process(uuid.UUID(errand[0]), errand[1])
        finally:
            self.running.remove((actor, worker))

    def recover(self) -> None:
        """A turn of the recovery sweep."""
        recovery.sweep(self.harness.sessions, lambda: len(self.queue.errands), self._dispatch_again)

    def _dispatch_again(self, due: list[recovery.Due]) -> None:
        for each in sorted(due):
            errand = (str(each.operation_id), each.attempt, each.correlation_id)
            self.dispatch([errand], queue_of(each.kind))

    def beat(self, worker: Worker) -> None:
        """A heartbeat of this worker: whatever it has in hand it keeps in hand."""
        worker.leases.renew()
        tasks = [actor for actor, whose in self.running if whose is worker]
        self.witness.renewed(tasks)

    def verify(self, worker: Worker) -> None:
        """A look for what is in doubt."""
        recovery.verify_doubtful(
            worker.sessions,
            worker.gateway,
            worker.gate,
            VERIFY_ABSENCE_S,
            worker.announce_change,
            worker.abandon_after,
        )

    def keep_deadlines(self, worker: Worker) -> None:
        """A turn of the deadlines."""
        deadlines.sweep(worker, RECOVERY_AFTER_S)

    def drain_inbox(self, worker: Worker) -> None:
        """Work off webhooks."""
        webhooks.drain(worker)

    def carry(self) -> None:
        """A round of the relay."""
        self.relay = self.relay or Relay(self.harness.engine, self.deliveries, "")  # type: ignore[arg-type]
        try:
            self.relay.run_once()
        except Crash:
            self.end_relay()
            raise

    def end_relay(self) -> None:
        """The relay's process is gone, and its connection with it; another one will begin."""
        relay, self.relay = self.relay, None
        if relay and relay._connection:
            # The server ends a session whose client is gone; here it only loses its lock, which is quicker.
            raw: Any = relay._connection.connection.dbapi_connection
            raw.execute("SELECT pg_advisory_unlock_all()")
            relay._connection.close()

    def consume(self, kind: str) -> None:
        """A round of one of the consumers."""
        try:
            if kind not in self.consumers:
                self.consumers[kind] = self._consumer(kind)
            self.consumers[kind].run_once(self.stop)
        except BaseException:
            # The process ends, and another one begins at what was committed.
            self.consumers.pop(kind, None)
            raise

    def _consumer(self, kind: str) -> Any:
        # Two of a group may be at the same message, until one has noticed that it is not its own any more.
        group = kind.partition(" ")[0]
        member: Any = SimulatedConsumer(self.broker, group, self.scheduler, self.troubles)
        deliveries: Any = self.deliveries
        if kind == REQUESTS:
            return RequestConsumer(member, self.dispatch, deliveries, "")
        topics = OTHERS if group == COMMANDS else ASKING_FOR_ORDERS
        return CommandConsumer(member, deliveries, "", self.desk, topics)

    def dispatch(self, errands: list[Errand], _queue: str) -> None:
        """Put operations into Redis. Raises OperationalError while it is away."""
        self.scheduler.point("dispatch to Redis")
        if self.troubles.draw(self.troubles.away):
            self.scheduler.note("Redis is AWAY")
            raise OperationalError("Redis is away")
        self.queue.errands += errands
        self.scheduler.note(f"queued {len(errands)}")

    def take_webhook(self, event_id: str, sequence: int, *, keep: bool) -> None:
        """The API takes a webhook; with `keep` its answer is lost, so that the gateway sends it again."""
        raw = self.simulator.store.kept_text(event_id).encode()
        moment = int(self.clock.time())
        verify(raw, sign(raw, [WEBHOOK_SECRET], moment), [WEBHOOK_SECRET], self.clock.time())
        store(self.harness.sessions, read(json.loads(raw)), None)
        self.scheduler.point("webhook answer")
        if not keep:
            self.mark_delivered(sequence)

    def mark_delivered(self, sequence: int, state: str = "delivered") -> None:
        """The gateway will not send it any more."""
        self.simulator.store.execute("UPDATE deliveries SET state = ? WHERE seq = ?", (state, sequence))

    def waiting_webhooks(self) -> list[tuple[int, str, str]]:
        """What the gateway still wants to deliver: sequence, event and type."""
        query = "SELECT seq, event_id, type FROM deliveries WHERE state = 'waiting' ORDER BY seq"
        return self.simulator.store.execute(query).fetchall()

    # --- what happens around them ---

    def advance(self, seconds: float) -> None:
        """Let time pass; requests that were on their way have arrived before much of it has."""
        if seconds > LATE_MAX_S:
            while self.network.late:
                self.network.arrive(0)
        self.clock.advance(seconds)
        run_due(self.simulator.store, ACTIONS)

    def begin(self, name: str, work: Callable[[], Any]) -> Actor:
        """Make an actor."""
        return self.scheduler.start(name, work)

    def turn(self, actor: Actor) -> None:
        """Give an actor its turn, and look what became of it when it is done."""
        self.scheduler.run(actor)
        if actor.error and not isinstance(actor.error, SURVIVED):
            self.problems.append(f"{actor.name} failed: {type(actor.error).__name__}: {actor.error}")
        if self.scheduler.deadlocks:
            self.problems.append("PostgreSQL has ended a deadlock")

    def whole(self, name: str, work: Callable[[], Any]) -> Any:
        """Do something from beginning to end, with nothing in between."""
        actor = self.begin(name, work)
        while actor in self.scheduler.actors:
            self.turn(self.scheduler.holder() or actor)
        return actor.result

    def query(self, statement: str, *values: Any) -> list[Any]:
        """Ask the database, unseen by the scheduler."""
        return self.harness.database.execute(statement, values).fetchall()
