"""The Celery application and its tasks: Redis only wakes workers up; PostgreSQL has the truth."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from celery import Celery, signals
from kombu import Queue

from payment_worker import recovery
from payment_worker.leases import Leases
from payment_worker.processing import Worker
from shared.database import connect, is_database_down, make_sessions
from shared.gateways import GatewayUnavailable
from shared.gateways.stripe import StripeGateway
from shared.settings import Settings
from shared.telemetry import get_logger, log_context
from shared.wakeup import Announcer, connect_redis

log = get_logger(__name__)

# Names, queues and arguments are a contract between processes of neighbouring releases.
PROCESS, RECOVER, VERIFY = "payments.process", "payments.recover", "payments.verify"
PAYMENTS_QUEUE, RECOVERY_QUEUE = "payments", "recovery"
QUEUES = (PAYMENTS_QUEUE, RECOVERY_QUEUE)

RECOVER_EVERY_S = 1.0
VERIFY_EVERY_S = 15.0
# Redelivery by Redis is not what recovers work here, so it stays out of the way: far above any task.
VISIBILITY_TIMEOUT_S = 3600


def make_celery(settings: Settings) -> Celery:
    """The application, configured and without tasks: enough to send them by name."""
    signals.setup_logging.connect(_keep_logging)
    app = Celery("payments", broker=settings.redis_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_queues=[Queue(name) for name in QUEUES],
        task_default_queue=PAYMENTS_QUEUE,
        task_publish_retry=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_limit=4,
        broker_transport_options={
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 15,
        },
        beat_schedule=_schedule(settings),
        enable_utc=True,
    )
    return app


def _schedule(settings: Settings) -> dict[str, Any]:
    verify_every_s = min(VERIFY_EVERY_S, settings.verify_absence_s)
    return {
        name: {
            "task": name,
            "schedule": timedelta(seconds=every_s),
            # A turn that nobody took in time is worth nothing: the next one comes.
            "options": {"queue": RECOVERY_QUEUE, "expires": 3 * every_s},
        }
        for name, every_s in ((RECOVER, RECOVER_EVERY_S), (VERIFY, verify_every_s))
    }


def dispatch(app: Celery, operation_id: str, attempt: int, correlation_id: str | None) -> None:
    """Queue one attempt of an operation. Raises kombu's OperationalError when Redis cannot be reached."""
    app.send_task(PROCESS, args=(operation_id, attempt, correlation_id), queue=PAYMENTS_QUEUE, retry=False)


def run_worker(settings: Settings, queues: list[str]) -> int:
    """Work off these queues until SIGTERM; running tasks are finished first. Returns the exit status."""
    app = make_celery(settings)
    engine = connect(
        settings.database_url, pool_size=settings.database_pool_size, application="payment-tasks"
    )
    sessions = make_sessions(engine)
    leases = Leases(sessions, settings.lease_s)
    worker = Worker(
        sessions=sessions,
        gateway=StripeGateway(settings.stripe_secret_key, settings.stripe_api_url),
        leases=leases,
        lease_s=settings.lease_s,
        announce_change=Announcer(connect_redis(settings.redis_url)),
    )
    register(app, worker, settings)
    leases.start()
    # Threads: the work is waiting for the gateway. One process then holds one pool of connections.
    celery_worker = app.Worker(
        pool="threads",
        concurrency=settings.task_threads,
        queues=queues,
        without_gossip=True,
        without_mingle=True,
        quiet=True,
        loglevel=settings.log_level.upper(),
    )
    celery_worker.start()
    leases.stop()
    engine.dispose()
    return int(celery_worker.exitcode or 0)


def run_scheduler(settings: Settings) -> None:
    """Send the periodic tasks until SIGTERM. A second scheduler does no harm: the tasks take locks."""
    app = make_celery(settings)
    # In memory: what has to be done next is in PostgreSQL, not in a schedule file.
    app.Beat(
        scheduler="celery.beat:Scheduler",
        quiet=True,
        remote_control=False,
        loglevel=settings.log_level.upper(),
    ).run()


def register(app: Celery, worker: Worker, settings: Settings) -> None:
    """Give the application its tasks, bound to what they work with."""
    client = connect_redis(settings.redis_url)

    @app.task(name=PROCESS)
    def process(operation_id: str, attempt: int, correlation_id: str | None) -> None:
        with log_context(operation_id=operation_id, correlation_id=correlation_id):
            _survive(lambda: worker.process(uuid.UUID(operation_id), attempt))

    @app.task(name=RECOVER)
    def recover() -> None:
        _survive(
            lambda: recovery.sweep(
                worker.sessions,
                lambda: int(client.llen(PAYMENTS_QUEUE)),
                lambda due: dispatch(app, str(due.operation_id), due.attempt, due.correlation_id),
            )
        )

    @app.task(name=VERIFY)
    def verify() -> None:
        _survive(
            lambda: recovery.verify_doubtful(
                worker.sessions, worker.gateway, settings.verify_absence_s, worker.announce_change
            )
        )


def _survive(work: Callable[[], object]) -> None:
    """Do one task's work. Whatever goes wrong, nothing is lost: the operation stays due in PostgreSQL."""
    try:
        work()
    except GatewayUnavailable as error:
        log.warning("the gateway could not be asked; trying again later", reason=str(error))
    except Exception as error:
        if is_database_down(error):
            log.warning("the database is away; recovery will try again", error=type(error).__name__)
        else:
            log.exception("a task failed; recovery will try again")


def _keep_logging(**_: object) -> None:
    """Being connected to the signal is enough to keep Celery from setting up logging of its own."""
