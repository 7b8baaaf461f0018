"""Make a test's topics, write to them, and read what stands on them from their first message on."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from shared import events
from shared.documents import parse_json
from shared.kafka import KafkaSettings, ensure_topics
from shared.settings import Settings
from tests.waiting import LONGEST_S, wait_until

Headers = list[tuple[str, bytes]]
Assigned = Callable[[Consumer, list[TopicPartition]], None]

READY_S: Final = 30.0
# The embedded broker forms a group after half of the session timeout, and after a second at the least.
HASTY: Final = {"session.timeout.ms": "2000", "heartbeat.interval.ms": "250"}
# An idempotent producer takes half a second to begin; that it is one matters where the broker goes away.
PROMPT: Final = {"enable.idempotence": "false"}


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


class Alone(Consumer):
    """A consumer that has every partition at once, for it waits for no others; it commits as a group does.

    A group takes a second to form, and forms anew when a machine is so busy that a heartbeat is late.
    """

    def __init__(self, kafka: KafkaSettings, prefix: str, group: str) -> None:
        """Commit in the name of this group, with production's settings as far as they matter here."""
        self._prefix = prefix
        super().__init__(
            kafka.with_properties(
                group_id=prefix + group,
                enable_auto_commit=False,
                enable_auto_offset_store=False,
                auto_offset_reset="earliest",
                fetch_wait_max_ms=10,
            )
        )

    def subscribe(self, topics: list[str], on_assign: Assigned, **_: Any) -> None:  # type: ignore[override]
        """Take all partitions of the topics."""
        counts = events.topics()
        places = [
            TopicPartition(topic, number)
            for topic in topics
            for number in range(counts[topic.removeprefix(self._prefix)])
        ]
        self.assign(places)
        on_assign(self, places)


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
    assert producer.flush(LONGEST_S) == 0


@contextmanager
def reader(
    bootstrap_servers: str, topics: list[str], counts: Mapping[str, int] | None = None
) -> Iterator[Callable[[], list[Received]]]:
    """Within the block, each call returns everything that stands on the topics so far.

    `counts` are the partitions of each topic, where they are known.
    """
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
    if counts is None:
        known = AdminClient({"bootstrap.servers": bootstrap_servers}).list_topics(timeout=LONGEST_S).topics
        counts = {topic: len(known[topic].partitions) for topic in topics}
    consumer.assign(
        [
            TopicPartition(topic, number, OFFSET_BEGINNING)
            for topic in topics
            for number in range(counts[topic])
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
    counts = {settings.kafka_topic_prefix + name: count for name, count in events.topics().items()}
    with reader(settings.kafka_bootstrap_servers, topics, counts) as read:
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
