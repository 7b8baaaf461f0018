"""The operators' command `payment-worker`: one subcommand a process."""

import functools
import signal
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from shared.settings import WORKER_NEEDS, BadSettings, Settings, load_settings
from shared.telemetry import configure_logging, get_logger

if TYPE_CHECKING:
    from shared.kafka import KafkaSettings

log = get_logger(__name__)

# Each command imports only what its process needs: Celery, the Kafka client and Stripe's SDK are tens of
# megabytes each, and a process that does without one starts faster and weighs less.
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


def _kafka(settings: Settings) -> "KafkaSettings":
    from shared.kafka import KafkaSettings

    return KafkaSettings(settings.kafka_bootstrap_servers, settings.kafka_config)


@main.command()
@_process("topics", "KAFKA_BOOTSTRAP_SERVERS")
def topics(settings: Settings) -> None:
    """Create the Kafka topics that are missing, each with its number of partitions."""
    from shared import events
    from shared.kafka import ensure_topics

    wanted = {settings.kafka_topic_prefix + name: count for name, count in events.topics().items()}
    created = ensure_topics(_kafka(settings), wanted, deadline_s=TOPICS_DEADLINE_S)
    log.info("topics are there", created=created, all=sorted(wanted))


@main.command()
@_process("relay", "DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS")
def relay(settings: Settings) -> None:
    """Carry events from the outbox to Kafka; one leads, others stand by."""
    from payment_worker.relay import Relay
    from shared.database import connect
    from shared.kafka import Deliveries

    stop = _stop_on_signal()
    engine = connect(settings.database_url, pool_size=1, application="payment-relay")
    deliveries = Deliveries(_kafka(settings), "payment-relay")
    Relay(engine, deliveries, settings.kafka_topic_prefix).run(stop)


@main.command()
@_process("consumer", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS")
def consumer(settings: Settings) -> None:
    """Turn payment requests on Kafka into tasks."""
    from payment_worker import queues
    from payment_worker.consumer import RequestConsumer
    from shared.kafka import Deliveries, make_consumer

    stop = _stop_on_signal()
    app = queues.make_celery(settings)
    kafka = _kafka(settings)
    group = settings.kafka_topic_prefix + "payment-worker"
    RequestConsumer(
        make_consumer(kafka, group, "payment-consumer"),
        functools.partial(queues.dispatch, app),
        Deliveries(kafka, "payment-dead-letters"),
        settings.kafka_topic_prefix,
    ).run(stop)


@main.command(name="tasks")
@click.option("--queues", default="payments,recovery", show_default=True, help="queues to work off")
@_process("tasks", *WORKER_NEEDS)
def run_tasks(settings: Settings, queues: str) -> None:
    """Charge: claim an operation, ask the gateway, record the outcome."""
    from payment_worker.tasks import run_worker

    sys.exit(run_worker(settings, queues.split(",")))


@main.command()
@_process("scheduler", "REDIS_URL")
def scheduler(settings: Settings) -> None:
    """Send the periodic tasks: recovery of what was lost, and the look for doubtful charges."""
    from payment_worker.queues import run_scheduler

    run_scheduler(settings)
