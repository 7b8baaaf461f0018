"""What the demo does to the stack while orders are on their way, scene by scene."""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import redis

from deploy.local.client import RunningStack
from deploy.local.demo import orders
from deploy.local.demo.evidence import Database, Heard, StripeControl
from deploy.local.demo.orders import Case, Kind
from deploy.local.demo.screen import Screen
from deploy.local.ordering import Payments
from payment_worker.queues import PAYMENTS_QUEUE

POLL_S = 0.03
SCENE_TIMEOUT_S = 30.0
SLOW_CHARGE_MS = 2_000.0  # long enough to kill somebody in the middle of it
SENDERS_MAX = 50


class NotInTime(Exception):
    """Something that must come about has not; the message says what."""


@dataclass(kw_only=True)
class Stage:
    """The running stack, and a hand on each of its sides."""

    stack: RunningStack
    payments: Payments
    stripe: StripeControl
    database: Database
    heard: Heard
    screen: Screen
    dead_worker: int = 0
    left_behind: list[str] = field(default_factory=list)  # orders whose claims the dead worker held

    def send(self, cases: Iterable[Case], *, wait: bool = False, times: int = 1) -> None:
        """Send orders at once, each `times` times, and keep the answers. Raises RequestException."""
        requests = [case for case in cases for _ in range(times)]
        pool = ThreadPoolExecutor(min(len(requests), SENDERS_MAX))
        try:
            answers = pool.map(lambda case: self.payments.send(case.order, wait=wait), requests)
            for case, answer in zip(requests, answers, strict=True):
                case.answers.append(answer)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # Ctrl-C waits for no answer

    def until(self, condition: Callable[[], bool], what: str, timeout_s: float = SCENE_TIMEOUT_S) -> None:
        """Wait until `condition` holds. Raises NotInTime, saying `what` has not come about."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                message = f"not after {timeout_s:.0f} s: {what}"
                raise NotInTime(message)
            time.sleep(POLL_S)

    def is_settled(self) -> bool:
        """Whether every operation has its outcome and every announced outcome was heard."""
        return self.database.open_count() == 0 and self.all_heard()

    def is_quiet(self) -> bool:
        """Whether everything announced so far was heard, and nothing can be announced for a second."""
        return self.database.busy_count(self.left_behind) == 0 and self.all_heard()

    def all_heard(self) -> bool:
        """Whether the ordering domain has read every outcome event ever written."""
        return self.database.announced() <= self.heard.ids()


def wait_for_answers(stage: Stage, kind: Kind) -> None:
    """Each order's answer is held back until its outcome is known: 200 charged, 422 declined."""
    stage.send(kind.cases, wait=True)


def disturb_stripe(stage: Stage, kind: Kind) -> None:
    """Each order's first request to Stripe meets its fault. Waits until recovery has cleared all of it up."""
    for case in kind.cases:
        stage.stripe.fault(case.fault or "", case.order.order_id)
    stage.send(kind.cases)
    stage.until(stage.is_settled, "every charge with a fault at Stripe has its outcome")


def send_duplicates(stage: Stage, kind: Kind) -> None:
    """The same order from fifty senders at once."""
    stage.send(kind.cases, wait=True, times=orders.DUPLICATES)


def kill_worker(stage: Stage, kind: Kind) -> None:
    """Kill the task worker when every charge was sent, and Stripe has made one that nobody has recorded."""
    ids = stage.left_behind = [case.order.order_id for case in kind.cases]
    stage.stripe.latency_ms(SLOW_CHARGE_MS)
    stage.send(kind.cases)

    def unrecorded() -> int:
        recorded = stage.database.statuses(ids)["succeeded"]
        return stage.stripe.charged(ids) - recorded

    stage.until(lambda: stage.database.statuses(ids)["pending"] == 0, "every charge is sent")
    stage.until(lambda: unrecorded() > 0, "Stripe has made a charge that is not recorded yet")
    stage.dead_worker = stage.stack.kill("tasks")
    under_way, made = stage.database.statuses(ids)["processing"], unrecorded()
    stage.stripe.latency_ms(None)
    stage.screen.say(
        f"kill -9 on the task worker, pid {stage.dead_worker}: {under_way} charges under way, "
        f"{made} of them already made at Stripe and not yet written down"
    )


def flush_valkey(stage: Stage, kind: Kind) -> None:
    """Flush Valkey while wake-ups wait in it: the worker, just killed, is not back yet to take them."""
    ids = [case.order.order_id for case in kind.cases]
    valkey = redis.Redis.from_url(stage.stack.endpoints.redis_url)

    def are_queued() -> bool:
        taken = len(ids) - stage.database.statuses(ids)["pending"]  # the new worker was quick
        return int(valkey.llen(PAYMENTS_QUEUE)) + taken >= len(ids)

    stage.send(kind.cases)
    stage.until(are_queued, "every order waits for the worker in Valkey")
    lost = int(valkey.llen(PAYMENTS_QUEUE))
    valkey.flushall()
    valkey.close()
    stage.screen.say(f"FLUSHALL on Valkey: {lost} messages for the task worker are lost")
    pid = stage.stack.wait_restarted("tasks", stage.dead_worker)
    stage.screen.say(
        f"the task worker is back as pid {pid}; recovery dispatches the lost orders when they are due, "
        "and the dead worker's charges when its lease on them ends (15 s)"
    )


def kill_broker(stage: Stage, kind: Kind) -> None:
    """Kill the broker, and send orders while it is away.

    It keeps everything in memory, so an event that it has confirmed and nobody has read yet would die with
    it (a Kafka cluster has replicas on disk against that). So it is killed at a moment when the ordering
    domain has read everything confirmed so far; what happens from then on waits in the outbox.
    """
    stage.until(stage.is_quiet, "the ordering domain has heard everything so far")
    pid = stage.stack.kill("broker")
    stage.screen.say(f"kill -9 on the broker, pid {pid}: topics, events and offsets are gone with its memory")
    stage.send(kind.cases)
    stage.screen.say(f"{len(kind.cases)} more orders are accepted without Kafka")
    pid = stage.stack.wait_restarted("broker", pid)
    stage.screen.say(f"the broker is back as pid {pid}, empty; the relay carries on from the outbox")


SCENES: tuple[tuple[Callable[[], Kind], Callable[[Stage, Kind], None]], ...] = (
    (orders.charged, wait_for_answers),
    (orders.declined_by_amount, wait_for_answers),
    (orders.declined_by_card, wait_for_answers),
    (orders.duplicates, send_duplicates),
    (orders.gateway_faults, disturb_stripe),
    (orders.killed_worker, kill_worker),
    (orders.flushed_valkey, flush_valkey),
    (orders.killed_broker, kill_broker),
)
