"""The tasks: Redis only wakes workers up; PostgreSQL has the truth."""

import functools
import threading
import uuid
import warnings
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import celery.apps.worker
import redis
from celery import Celery, signals
from celery.exceptions import CPendingDeprecationWarning
from sqlalchemy.exc import SQLAlchemyError

from payment_worker import auditing, deadlines, recovery, retention, webhooks
from payment_worker.courier import Courier, make_courier
from payment_worker.evidence import make_evidence
from payment_worker.evidence import purge as purge_evidence
from payment_worker.gate import make_gate
from payment_worker.inflight import InFlight
from payment_worker.leases import Leases
from payment_worker.processing import Worker
from payment_worker.queues import (
    CHECK_INVARIANTS,
    DEADLINES,
    DRAIN_INBOX,
    FINISH_REMOVALS,
    NOTIFY,
    PAYMENTS_QUEUE,
    PROCESS,
    PROCESS_BATCH,
    PURGE,
    RECONCILE,
    RECOVER,
    REFUNDS_QUEUE,
    VERIFY,
    Errand,
    dispatch,
    make_celery,
    queue_of,
)
from payment_worker.reconciling import scheduled
from payment_worker.reconciling.desk import Desk
from shared.commands.pause import halted
from shared.commands.removal import finish_removals
from shared.database import Sessions, connect, connections_in_use, is_database_down, make_sessions, reason_of
from shared.garbage import spare_what_stays
from shared.gateways import GatewayUnavailable
from shared.gateways.stripe import StripeGateway
from shared.gateways.stripe_customers import StripeCustomers
from shared.gateways.stripe_ledger import StripeLedger
from shared.health import HealthServer, Pulse
from shared.metrics import POOL_IN_USE
from shared.sealing import Sealer
from shared.settings import Settings
from shared.telemetry import get_logger, log_context, say_at_once
from shared.wakeup import Announcer, connect_redis

log = get_logger(__name__)

# They hand operations out, or do a periodic task; the operations have threads of their own.
CELERY_THREADS = 8


def run_worker(settings: Settings, queues: list[str]) -> int:
    """Work off these queues until SIGTERM; running tasks are finished first. Returns the exit status."""
    evidence = make_evidence(settings, aside=True)
    app = make_celery(settings)
    engine = connect(
        settings.database_url,
        pool_size=settings.database_pool_size,
        application="payment-tasks",
        sealer=Sealer.of(settings),
    )
    POOL_IN_USE.set_function(lambda: connections_in_use(engine))
    sessions = make_sessions(engine)
    leases = Leases(sessions, settings.lease_s)
    gate = make_gate(sessions, settings)
    worker = Worker(
        sessions=sessions,
        gateway=StripeGateway(
            settings.stripe_secret_key,
            settings.stripe_api_url,
            pool_size=settings.task_threads,
            before_page=gate.next_page,
        ),
        gate=gate,
        leases=leases,
        lease_s=settings.lease_s,
        announce_change=Announcer(connect_redis(settings.redis_url)),
        evidence=evidence,
        abandon_after=timedelta(seconds=settings.action_timeout_s),
    )
    in_flight = InFlight(settings.task_threads)
    courier = make_courier(sessions, settings)
    for busy in (in_flight, courier):
        signals.worker_shutting_down.connect(busy.close, weak=False)
    register(app, worker, settings, in_flight, courier)
    _serve_health(settings, sessions)
    leases.start()
    spare_what_stays()
    # Told to stop, Celery would print bare words.
    celery.apps.worker.safe_say = lambda text, *_: say_at_once("celery.apps.worker", text)
    # What runs when the connection to Redis breaks goes on: cancelling a charge in flight would help nobody.
    warnings.filterwarnings("ignore", category=CPendingDeprecationWarning)
    # Threads: the work is waiting for the gateway. One process then holds one pool of connections.
    celery_worker = app.Worker(
        pool="threads",
        concurrency=CELERY_THREADS,
        queues=queues,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
        loglevel=settings.log_level.upper(),
    )
    celery_worker.start()
    in_flight.finish()
    courier.finish()
    if worker.evidence:
        worker.evidence.flush()
    leases.stop()
    engine.dispose()
    return int(celery_worker.exitcode or 0)


def _serve_health(settings: Settings, sessions: Sessions) -> None:
    pulse = Pulse()

    def follow_the_loop(sender: Any, **_: object) -> None:
        sender.timer.call_repeatedly(1.0, pulse.beat)

    signals.worker_ready.connect(follow_the_loop, weak=False)
    # While Redis is away Celery does nothing but wait for it.
    client = connect_redis(settings.redis_url)
    HealthServer("tasks", pulse, lambda: _ready(sessions), lambda: not _answers(client)).start(
        settings.host, settings.health_port
    )


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _ready(sessions: Sessions) -> tuple[bool, dict[str, Any]]:
    try:
        return True, {"database": "ok", **halted(sessions)}
    except SQLAlchemyError as error:
        return False, {"database": f"away ({type(error).__name__})"}


def register(app: Celery, worker: Worker, settings: Settings, in_flight: InFlight, courier: Courier) -> None:
    """Give the application its tasks, bound to what they work with."""
    client = connect_redis(settings.redis_url)
    # Not shared: other applications of the process, a test's, have tasks of their own under these names.
    task = functools.partial(app.task, shared=False)

    def carry_out(operation_id: str, attempt: int, correlation_id: str | None) -> None:
        with log_context(operation_id=operation_id, correlation_id=correlation_id):
            _survive(lambda: worker.process(uuid.UUID(operation_id), attempt))

    @task(name=PROCESS)
    def process(*errand: Any) -> None:  # sent by the release before
        in_flight.begin(lambda: carry_out(*errand))

    @task(name=PROCESS_BATCH)
    def process_batch(errands: list[Errand]) -> None:
        for errand in errands:
            in_flight.begin(functools.partial(carry_out, *errand))

    @task(name=RECOVER)
    def recover() -> None:
        _survive(
            lambda: recovery.sweep(
                worker.sessions,
                lambda: sum(int(client.llen(queue)) for queue in (PAYMENTS_QUEUE, REFUNDS_QUEUE)),
                lambda due: _dispatch_again(app, due),
            )
        )

    _register_looks(task, worker, settings, courier)


def _register_looks(task: Any, worker: Worker, settings: Settings, courier: Courier) -> None:
    """The periodic tasks that take long now and then: one turn of each at a time in this process."""
    for name, work in _looks(worker, settings, courier).items():
        task(name=name)(_one_at_a_time(work))


def _looks(worker: Worker, settings: Settings, courier: Courier) -> dict[str, Callable[[], object]]:
    cards = StripeCustomers(settings.stripe_secret_key, settings.stripe_api_url, pool_size=1)
    desk = Desk(worker=worker, ledger=StripeLedger(settings.stripe_secret_key, settings.stripe_api_url))
    return {
        PURGE: lambda: (retention.purge(worker.sessions, settings), purge_evidence(settings)),
        FINISH_REMOVALS: lambda: finish_removals(worker.sessions, cards),
        VERIFY: lambda: recovery.verify_doubtful(
            worker.sessions,
            worker.gateway,
            worker.gate,
            settings.verify_absence_s,
            worker.announce_change,
            worker.abandon_after,
        ),
        DRAIN_INBOX: lambda: webhooks.drain(worker),
        NOTIFY: courier.turn,
        DEADLINES: lambda: deadlines.sweep(worker, settings.recovery_after_s),
        RECONCILE: lambda: scheduled.turn(desk, settings),
        CHECK_INVARIANTS: lambda: auditing.take_turn(worker.sessions),
    }


def _one_at_a_time(work: Callable[[], object]) -> Callable[[], None]:
    """Take a turn, unless the last one still goes on."""
    going_on = threading.Lock()

    def turn() -> None:
        if going_on.acquire(blocking=False):
            try:
                _survive(work)
            finally:
                going_on.release()

    return turn


def _dispatch_again(app: Celery, due: list[recovery.Due]) -> None:
    by_queue: dict[str, list[Errand]] = {}
    for each in due:
        errand = (str(each.operation_id), each.attempt, each.correlation_id)
        by_queue.setdefault(queue_of(each.kind), []).append(errand)
    for queue, errands in by_queue.items():
        dispatch(app, errands, queue)


def _survive(work: Callable[[], object]) -> None:
    """Do one task's work. Whatever goes wrong, nothing is lost: the operation stays due in PostgreSQL."""
    try:
        work()
    except GatewayUnavailable as error:
        log.warning("the gateway could not be asked; trying again later", reason=str(error))
    except Exception as error:
        if is_database_down(error):
            log.warning("the database is away; recovery will try again", reason=reason_of(error))
        else:
            log.exception("a task failed; recovery will try again")
