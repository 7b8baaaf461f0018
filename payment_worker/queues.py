"""The Celery application that all processes share: names, queues and how Redis is used."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from celery import Celery, signals
from kombu import Queue

from payment_worker.beat import OrderlyBeat, StoppableScheduler
from shared.health import Pulse
from shared.payments import OperationKind
from shared.settings import Settings

# Names, queues and arguments are a contract between processes of neighbouring releases.
PROCESS, RECOVER, VERIFY = "payments.process", "payments.recover", "payments.verify"
PROCESS_BATCH, PURGE = "payments.process_batch", "payments.purge"
FINISH_REMOVALS = "customers.finish_removals"
DRAIN_INBOX, DEADLINES = "payments.inbox", "payments.deadlines"
NOTIFY = "notifications.turn"
RECONCILE = "payments.reconcile"
CHECK_INVARIANTS = "payments.invariants"
PAYMENTS_QUEUE, REFUNDS_QUEUE, RECOVERY_QUEUE = "payments", "refunds", "recovery"
NOTIFICATIONS_QUEUE = "notifications"
QUEUES = (PAYMENTS_QUEUE, REFUNDS_QUEUE, RECOVERY_QUEUE, NOTIFICATIONS_QUEUE)

RECOVER_EVERY_S = 1.0
INBOX_EVERY_S = 1.0
NOTIFY_EVERY_S = 1.0
DEADLINES_EVERY_S = 5.0
VERIFY_EVERY_S = 15.0
PURGE_EVERY_S = 3600.0
FINISH_REMOVALS_EVERY_S = 60.0
# How often it is looked whether one is due, or was interrupted: PostgreSQL knows when the last one was.
RECONCILE_LOOK_EVERY_S = 60.0
CHECK_INVARIANTS_EVERY_S = 60.0

# A task costs Celery and Redis the same for one operation as for many; what dies with it recovery must find.
OPERATIONS_PER_TASK = 20

# An operation's id, the number of attempts that the sender knew of, and the correlation id.
Errand = tuple[str, int, str | None]


def make_celery(settings: Settings) -> Celery:
    """The application, configured and without tasks: enough to send them by name."""
    signals.setup_logging.connect(_keep_logging)
    app = Celery("payments", broker=broker_url(settings.redis_url), set_as_current=False)
    app.conf.update(
        broker_transport="payment_worker.transport:Transport",
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
            # No second copy of running tasks in Redis: what a dead worker had in hand is still due in
            # PostgreSQL, and recovery finds it sooner than a visibility timeout would end.
            "ack_emulation": False,
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 15,
            # A sender hears at once that Redis is away, and tries again in its own time.
            "max_retries": 0,
        },
        beat_schedule=_schedule(settings),
        enable_utc=True,
    )
    return app


def broker_url(redis_url: str) -> str:
    """The address for Celery, which over TLS would check no certificate unless told to."""
    parts = urlsplit(redis_url)
    if parts.scheme != "rediss" or "ssl_cert_reqs" in parse_qs(parts.query):
        return redis_url
    return urlunsplit(parts._replace(query="&".join(filter(None, (parts.query, "ssl_cert_reqs=required")))))


def _schedule(settings: Settings) -> dict[str, Any]:
    verify_every_s = min(VERIFY_EVERY_S, settings.verify_absence_s)
    return {
        name: {
            "task": name,
            "schedule": timedelta(seconds=every_s),
            # A turn that nobody took in time is worth nothing: the next one comes.
            "options": {
                "queue": NOTIFICATIONS_QUEUE if name == NOTIFY else RECOVERY_QUEUE,
                "expires": 3 * every_s,
            },
        }
        for name, every_s in (
            (RECOVER, RECOVER_EVERY_S),
            (VERIFY, verify_every_s),
            (PURGE, PURGE_EVERY_S),
            (FINISH_REMOVALS, FINISH_REMOVALS_EVERY_S),
            (DRAIN_INBOX, INBOX_EVERY_S),
            (DEADLINES, DEADLINES_EVERY_S),
            (NOTIFY, NOTIFY_EVERY_S),
            (RECONCILE, RECONCILE_LOOK_EVERY_S),
            (CHECK_INVARIANTS, CHECK_INVARIANTS_EVERY_S),
        )
    }


def queue_of(kind: OperationKind) -> str:
    """Where operations of this kind wait: a rush of refunds holds up no charge, and no charge a refund."""
    return REFUNDS_QUEUE if kind is OperationKind.REFUND else PAYMENTS_QUEUE


def dispatch(app: Celery, errands: Sequence[Errand], queue: str = PAYMENTS_QUEUE) -> None:
    """Queue one attempt of each operation. Raises kombu's OperationalError when Redis cannot be reached.

    Some may have been queued then; a second time does no harm.
    """
    for start in range(0, len(errands), OPERATIONS_PER_TASK):
        batch = errands[start : start + OPERATIONS_PER_TASK]
        app.send_task(
            PROCESS_BATCH,
            args=(batch,),
            # Nobody reads what Celery would make of the arguments for a log.
            argsrepr=f"{len(batch)} operations",
            queue=queue,
            retry=False,
        )


def run_scheduler(app: Celery, settings: Settings, pulse: Pulse) -> None:
    """Send the periodic tasks until SIGTERM. A second scheduler does no harm: the tasks take locks."""

    class PulsingScheduler(StoppableScheduler):
        """Shows that it lives."""

        def tick(self, *args: Any, **kwargs: Any) -> float:
            """Send what is due; the loop has turned."""
            pulse.beat()
            return float(super().tick(*args, **kwargs))

    OrderlyBeat(
        app=app,
        scheduler_cls=PulsingScheduler,
        quiet=True,
        remote_control=False,
        loglevel=settings.log_level.upper(),
    ).run()


def _keep_logging(**_: object) -> None:
    """Being connected to the signal is enough to keep Celery from setting up logging of its own."""
