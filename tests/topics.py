"""Make a test's topics, write to them, and read what stands on them from their first message on."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from shared import events
from shared.documents import parse_json
from shared.kafka import KafkaSettings, ensure_topics
from shared.settings import Settings
from tests.waiting import wait_until

Headers = list[tuple[str, bytes]]

READY_S: Final = 20.0
# Quick to join and quick to give up: a test is not to wait for what production waits for.
HASTY: Final = {
    "session.timeout.ms": "1000",
    "heartbeat.interval.ms": "250",
    "delivery.timeout.ms": "1500",
    "request.timeout.ms": "1000",
}


@dataclass(frozen=True)
class Received:
    """A message as a consumer in another service sees it."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    headers: list[tuple[str, str]]
    raw: bytes

    @property
    def named(self) -> dict[str, str]:
        """The headers by name; fails when one comes twice."""
        assert len(dict(self.headers)) == len(self.headers)
        return dict(self.headers)

    @property
    def value(self) -> Any:
        """The JSON of the value, with exact decimals."""
        return parse_json(self.raw)


def kafka_of(settings: Settings, **extra: str) -> KafkaSettings:
    """Return where the test's broker is, with more librdkafka properties."""
    return KafkaSettings(settings.kafka_bootstrap_servers, {**settings.kafka_config, **extra})


def make_topics(settings: Settings) -> None:
    """Create every topic of the service under the test's prefix."""
    wanted = {settings.kafka_topic_prefix + name: count for name, count in events.topics().items()}
    ensure_topics(kafka_of(settings), wanted, deadline_s=READY_S)


def write(
    settings: Settings,
    topic: str,
    messages: Iterable[tuple[bytes | None, bytes | None, Headers]],
) -> None:
    """Produce (key, value, headers) to the test's topic, and wait until all are there."""
    producer = Producer({"bootstrap.servers": settings.kafka_bootstrap_servers, "acks": "all"})
    for key, value, headers in messages:
        producer.produce(settings.kafka_topic_prefix + topic, key=key, value=value, headers=[*headers])
    assert producer.flush(READY_S) == 0


@contextmanager
def reader(bootstrap_servers: str, topics: list[str]) -> Iterator[Callable[[], list[Received]]]:
    """Within the block, each call returns everything that stands on the topics so far."""
    seen: list[Received] = []
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "a reader that joins no group",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 10,
            "log_level": 0,
        }
    )
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    known = admin.list_topics(timeout=READY_S).topics
    consumer.assign(
        [
            TopicPartition(topic, partition, OFFSET_BEGINNING)
            for topic in topics
            for partition in known[topic].partitions
        ]
    )

    def read() -> list[Received]:
        seen.extend(_received(each) for each in consumer.consume(500, 0.05) if each.error() is None)
        return seen

    try:
        yield read
    finally:
        consumer.close()


def read_topics(settings: Settings, *names: str, count: int) -> list[Received]:
    """Wait until `count` messages stand on the test's topics and return them, in order per partition."""
    topics = [settings.kafka_topic_prefix + name for name in names]
    with reader(settings.kafka_bootstrap_servers, topics) as read:
        found = wait_until(
            lambda: messages if len(messages := read()) >= count else None,
            READY_S,
            f"{count} messages on {', '.join(names)}",
        )
    assert len(found) == count
    return sorted(found, key=lambda each: (each.topic, each.partition, each.offset))


def _received(message: Message) -> Received:
    headers = message.headers() or []
    pairs = headers.items() if isinstance(headers, dict) else headers
    return Received(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        key=_bytes(message.key()),
        headers=[(name, (_bytes(value) or b"").decode()) for name, value in pairs],
        raw=_bytes(message.value()) or b"",
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
