"""The operators' command `payment-worker`: one subcommand a process."""

import functools
import signal
import sys
import threading
from collections.abc import Callable

import click

from payment_worker import tasks
from payment_worker.consumer import RequestConsumer
from payment_worker.relay import Relay
from shared import events
from shared.database import connect
from shared.kafka import Deliveries, KafkaSettings, ensure_topics, make_consumer
from shared.settings import WORKER_NEEDS, BadSettings, Settings, load_settings
from shared.telemetry import configure_logging, get_logger

log = get_logger(__name__)

TOPICS_DEADLINE_S = 60.0


@click.group()
def main() -> None:
    """Drive charges against the gateway and announce their outcomes."""


def _process(name: str, *needs: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Read the settings that a process needs and set up its logs; a bad setting ends it at once."""

    def decorate(body: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(body)
        def run(**options: object) -> None:
            try:
                settings = load_settings(needs)
            except BadSettings as error:
                click.echo(f"payment-worker {name} does not start:\n{error}", err=True)
                sys.exit(2)
            configure_logging(name, settings.log_level, settings.log_format)
            body(settings, **options)

        return run

    return decorate


def _stop_on_signal() -> threading.Event:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    return stop


def _kafka(settings: Settings) -> KafkaSettings:
    return KafkaSettings(settings.kafka_bootstrap_servers, settings.kafka_config)


@main.command()
@_process("topics", "KAFKA_BOOTSTRAP_SERVERS")
def topics(settings: Settings) -> None:
    """Create the Kafka topics that are missing, each with its number of partitions."""
    wanted = {settings.kafka_topic_prefix + name: count for name, count in events.topics().items()}
    created = ensure_topics(_kafka(settings), wanted, deadline_s=TOPICS_DEADLINE_S)
    log.info("topics are there", created=created, all=sorted(wanted))


@main.command()
@_process("relay", "DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")
def relay(settings: Settings) -> None:
    """Carry events from the outbox to Kafka; one leads, others stand by."""
    stop = _stop_on_signal()
    engine = connect(settings.database_url, pool_size=1, application="payment-relay")
    deliveries = Deliveries(_kafka(settings), "payment-relay")
    Relay(engine, deliveries, settings.kafka_topic_prefix).run(stop)


@main.command()
@_process("consumer", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")
def consumer(settings: Settings) -> None:
    """Turn payment requests on Kafka into tasks."""
    stop = _stop_on_signal()
    app = tasks.make_celery(settings)
    kafka = _kafka(settings)
    group = settings.kafka_topic_prefix + "payment-worker"
    RequestConsumer(
        make_consumer(kafka, group, "payment-consumer"),
        functools.partial(tasks.dispatch, app),
        Deliveries(kafka, "payment-dead-letters"),
        settings.kafka_topic_prefix,
    ).run(stop)


@main.command(name="tasks")
@click.option("--queues", default=",".join(tasks.QUEUES), show_default=True, help="queues to work off")
@_process("tasks", *WORKER_NEEDS)
def run_tasks(settings: Settings, queues: str) -> None:
    """Charge: claim an operation, ask the gateway, record the outcome."""
    sys.exit(tasks.run_worker(settings, queues.split(",")))


@main.command()
@_process("scheduler", "REDIS_URL")
def scheduler(settings: Settings) -> None:
    """Send the periodic tasks: recovery of what was lost, and the look for doubtful charges."""
    tasks.run_scheduler(settings)
