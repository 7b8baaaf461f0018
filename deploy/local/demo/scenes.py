"""What the demo does to the stack while orders are on their way, scene by scene."""

from collections.abc import Callable
from contextlib import closing

import redis

from deploy.local.demo import life, orders
from deploy.local.demo.orders import Case, Kind
from deploy.local.demo.stage import NotInTime, Stage
from deploy.local.demo.wake_ups import operations_in
from payment_worker.queues import PAYMENTS_QUEUE

SLOW_CHARGE_MS = 2_000.0  # long enough to kill somebody in the middle of it
FLUSHES_MAX = 3  # a worker needs longer to come back than orders to be queued, save on an odd day


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
    """Flush Valkey while wake-ups wait in it: the worker, just killed, is not back yet to take them.

    Should it be back sooner than the orders are queued, it is killed once more and there are more orders.
    Raises NotInTime when not even then a message is lost: nothing would be shown.
    """
    with closing(redis.Redis.from_url(stage.stack.endpoints.redis_url)) as valkey:
        for repeat in range(FLUSHES_MAX):
            cases = _orders_without_worker(stage, kind) if repeat else kind.cases
            if _lose_wake_ups(stage, valkey, cases):
                break
        else:
            raise NotInTime(f"not in {FLUSHES_MAX} tries: FLUSHALL finds an order that waits in Valkey")
    pid = stage.stack.wait_restarted("tasks", stage.dead_worker)
    stage.screen.say(
        f"the task worker is back as pid {pid}; recovery dispatches the lost orders when they are due, "
        "and the dead worker's charges when its lease on them ends (15 s)"
    )


def _lose_wake_ups(stage: Stage, valkey: redis.Redis, cases: list[Case]) -> int:
    """Send orders and flush Valkey as soon as all of them are in it; how many wake-ups are lost with it."""
    ids = [case.order.order_id for case in cases]

    def are_queued() -> bool:
        waiting = operations_in(valkey.lrange(PAYMENTS_QUEUE, 0, -1))
        taken = len(ids) - stage.database.statuses(ids)["pending"]  # the new worker was quick
        return len(waiting) + taken >= len(ids)

    stage.send(cases)
    stage.until(are_queued, "every order waits for the worker in Valkey")
    in_one_step = valkey.pipeline(transaction=True)  # so that what is counted is what is lost
    in_one_step.lrange(PAYMENTS_QUEUE, 0, -1)
    in_one_step.flushall()
    lost = len(operations_in(in_one_step.execute()[0]))
    stage.screen.say(f"FLUSHALL on Valkey: the task worker's wake-ups for {lost} orders are lost")
    return lost


def _orders_without_worker(stage: Stage, kind: Kind) -> list[Case]:
    """Kill the task worker, which came back too soon, and add as many orders again."""
    stage.stack.wait_restarted("tasks", stage.dead_worker)
    stage.left_behind += [case.order.order_id for case in kind.cases]
    stage.dead_worker = stage.stack.kill("tasks")
    stage.screen.say(
        f"the task worker was back too soon; kill -9 on pid {stage.dead_worker}, and more orders"
    )
    cases = orders.flushed_valkey().cases
    kind.cases += cases
    stage.screen.begin(kind)
    return cases


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


def break_stripe(stage: Stage, kind: Kind) -> None:
    """Let Stripe answer 500 to every command, until each order's key can only ever replay its 500."""
    ids = [case.order.order_id for case in kind.cases]
    stage.stripe.outage("error_before")
    try:
        stage.send(kind.cases)
        stage.screen.say(f"Stripe answers 500 to everything; {len(ids)} more orders are accepted")
        stage.until(lambda: stage.database.doubtful(ids) == len(ids), "every order's key is spoiled")
    finally:
        stage.stripe.end_outage()
    stage.screen.say(
        "Stripe is well again, but replays its 500s: "
        "what two looks do not find there is charged under a new key"
    )


SCENES: tuple[tuple[Callable[[], Kind], Callable[[Stage, Kind], None]], ...] = (
    (orders.charged, wait_for_answers),
    (orders.declined_by_amount, wait_for_answers),
    (orders.declined_by_card, wait_for_answers),
    (orders.duplicates, send_duplicates),
    (orders.gateway_faults, disturb_stripe),
    (orders.killed_worker, kill_worker),
    (orders.flushed_valkey, flush_valkey),
    (orders.killed_broker, kill_broker),
    (life.whole_life, life.live),
    (orders.outage, break_stripe),
)
