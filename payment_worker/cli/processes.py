"""One subcommand a process, and `topics`."""

import functools
import signal
import sys
import threading
from typing import TYPE_CHECKING

import click

from payment_worker.cli.command import main, with_settings
from shared.settings import WORKER_NEEDS, Settings
from shared.telemetry import get_logger

if TYPE_CHECKING:
    from redis import Redis

    from shared.kafka import KafkaSettings

log = get_logger(__name__)

# Each command imports only what its process needs: Celery, the Kafka client and Stripe's SDK are tens of
# megabytes each, and a process that does without one starts faster and weighs less.
TOPICS_DEADLINE_S = 60.0
COMMANDS_FETCH_WAIT_MS = 100  # of another service's commands, whose topics are many and mostly empty


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _kafka(settings: Settings) -> "KafkaSettings":
    from shared.kafka import KafkaSettings

    return KafkaSettings(settings.kafka_bootstrap_servers, settings.kafka_config)


@main.command()
@with_settings("topics", "KAFKA_BOOTSTRAP_SERVERS")
def topics(settings: Settings) -> None:
    """Create the Kafka topics that are missing, each with its number of partitions."""
    from shared import events
    from shared.kafka import ensure_topics

    wanted = {settings.kafka_topic_prefix + name: count for name, count in events.topics().items()}
    created = ensure_topics(_kafka(settings), wanted, deadline_s=TOPICS_DEADLINE_S)
    log.info("topics are there", created=created, all=sorted(wanted))


@main.command()
@with_settings("relay", "DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")
def relay(settings: Settings) -> None:
    """Carry events from the outbox to Kafka; one leads, others stand by."""
    from payment_worker.relay import Relay
    from shared.database import connect, connections_in_use
    from shared.health import HealthServer
    from shared.kafka import Deliveries
    from shared.metrics import POOL_IN_USE

    stop = _stop_on_signal()
    engine = connect(settings.database_url, pool_size=1, application="payment-relay")
    POOL_IN_USE.set_function(lambda: connections_in_use(engine))
    process = Relay(engine, Deliveries(_kafka(settings), "payment-relay"), settings.kafka_topic_prefix)
    HealthServer("relay", process.pulse, process.ready).start(settings.host, settings.health_port)
    process.run(stop)


@main.command()
@with_settings("consumer", "DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS", "DATA_KEY")
def consumer(settings: Settings) -> None:
    """Turn requests for operations into tasks, and carry out other services' commands."""
    from payment_worker import queues
    from payment_worker.commands import ASKING_FOR_ORDERS, CommandConsumer, Desk
    from payment_worker.consumer import RequestConsumer
    from payment_worker.consuming import Together
    from shared.database import connect, connections_in_use, make_sessions
    from shared.health import HealthServer
    from shared.kafka import Deliveries, make_consumer
    from shared.metrics import POOL_IN_USE
    from shared.orders import make_orders
    from shared.sealing import Sealer

    stop = _stop_on_signal()
    kafka, prefix = _kafka(settings), settings.kafka_topic_prefix
    requests = RequestConsumer(
        make_consumer(kafka, prefix + "payment-worker", "payment-consumer"),
        functools.partial(queues.dispatch, queues.make_celery(settings)),
        Deliveries(kafka, "payment-dead-letters"),
        prefix,
    )
    engine = connect(
        settings.database_url, pool_size=2, application="payment-commands", sealer=Sealer.of(settings)
    )
    POOL_IN_USE.set_function(lambda: connections_in_use(engine))
    desk = Desk(make_sessions(engine), settings, make_orders(settings))
    commands = CommandConsumer(
        make_consumer(kafka, prefix + "payment-commands", "payment-commands", COMMANDS_FETCH_WAIT_MS),
        Deliveries(kafka, "payment-rejections"),
        prefix,
        desk,
    )
    initiations = CommandConsumer(
        make_consumer(kafka, prefix + "payment-initiations", "payment-initiations", COMMANDS_FETCH_WAIT_MS),
        Deliveries(kafka, "payment-refusals"),
        prefix,
        desk,
        ASKING_FOR_ORDERS,
    )
    process = Together(requests, commands, initiations)
    HealthServer("consumer", process.pulse, process.ready).start(settings.host, settings.health_port)
    process.run(stop)


@main.command(name="tasks")
@click.option(
    "--queues",
    default="payments,refunds,recovery,notifications",
    show_default=True,
    help="queues to work off",
)
@with_settings("tasks", *WORKER_NEEDS)
def run_tasks(settings: Settings, queues: str) -> None:
    """Carry out operations: claim one, ask the gateway, record the outcome."""
    from payment_worker.tasks import run_worker

    sys.exit(run_worker(settings, queues.split(",")))


@main.command()
@with_settings("scheduler", "DATABASE_URL", "REDIS_URL")
def scheduler(settings: Settings) -> None:
    """Send the periodic tasks, and serve the figures that are looked up in the database."""
    from prometheus_client import REGISTRY

    from payment_worker.figures import Figures
    from payment_worker.queues import make_celery, run_scheduler
    from shared.database import connect, connections_in_use, make_sessions
    from shared.health import HealthServer, Pulse
    from shared.metrics import POOL_IN_USE
    from shared.wakeup import connect_redis

    engine = connect(settings.database_url, pool_size=1, application="payment-figures")
    POOL_IN_USE.set_function(lambda: connections_in_use(engine))
    client = connect_redis(settings.redis_url)
    REGISTRY.register(Figures(make_sessions(engine), client))
    pulse = Pulse()
    HealthServer(
        "scheduler", pulse, lambda: _redis_answers(client), waits=lambda: not _redis_answers(client)[0]
    ).start(settings.host, settings.health_port)
    run_scheduler(make_celery(settings), settings, pulse)


def _redis_answers(client: "Redis") -> tuple[bool, dict[str, str]]:
    from redis import RedisError

    try:
        client.ping()
    except RedisError as error:
        return False, {"redis": f"away ({type(error).__name__})"}
    return True, {"redis": "ok"}
