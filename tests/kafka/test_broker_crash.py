"""A broker that keeps its log: what a crash of Apache Kafka leaves, and what it costs its clients."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from shared.kafka import Deliveries, ensure_topics, make_consumer
from shared.settings import Settings
from tests.conftest import Servers
from tests.stacks import environment
from tests.topics import kafka_of
from tests.waiting import wait_until

SOON_S = 30


def numbered(topic: str, numbers: range) -> list[Any]:
    """Messages that say which they are."""
    return [(number, topic, b"key", b"%d" % number, []) for number in numbers]


def take(consumer: Consumer, count: int) -> list[int]:
    """Wait for so many messages, and then for the end of what there is; which they are."""
    found: list[int] = []

    def nothing_more() -> bool:
        messages = consumer.consume(count, 0.5)
        found.extend(int(each.value() or b"-1") for each in messages if each.error() is None)
        return len(found) >= count and not messages

    wait_until(nothing_more, SOON_S, f"{count} messages")
    return found


def test_messages_and_offsets_survive_a_crash(servers: Servers, settings: Settings) -> None:
    """After kill -9 every confirmed message is there, and a group goes on where it had committed."""
    kafka, topic = kafka_of(settings), settings.kafka_topic_prefix + "kept"
    ensure_topics(kafka, {topic: 1}, deadline_s=SOON_S)
    deliveries = Deliveries(kafka, "test")
    assert deliveries.deliver(numbered(topic, range(100))) == set(range(100))
    reader = make_consumer(kafka, topic, "test")
    reader.subscribe([topic])
    assert take(reader, 100) == list(range(100))
    reader.commit(offsets=[TopicPartition(topic, 0, 60)], asynchronous=False)
    reader.close()

    servers.stack.wait_restarted("broker", servers.stack.kill("broker"))

    assert ensure_topics(kafka, {topic: 1}, deadline_s=SOON_S) == []
    more = numbered(topic, range(100, 110))
    wait_until(
        lambda: len(deliveries.deliver(more)) == len(more), SOON_S, "delivery to the broker that is back"
    )
    deliveries.close()
    again = make_consumer(kafka, topic, "test")
    again.subscribe([topic])
    # What was not confirmed at once may have come twice.
    assert sorted(set(take(again, 50))) == list(range(60, 110))
    again.close()


def test_a_broker_that_is_not_known_is_refused(tmp_path: Path, repository: Path) -> None:
    """BROKER names one of the two; the stack does not start otherwise, and says what it expects."""
    refused = subprocess.run(
        [sys.executable, "-m", "deploy.local"],
        cwd=repository,
        env=environment(tmp_path, BROKER="another"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2
    assert "BROKER is 'another', expected embedded or apache" in refused.stderr


def test_what_is_missing_is_named(repository: Path) -> None:
    """Without Java the command fails and says what to install."""
    failed = subprocess.run(
        [sys.executable, "-m", "deploy.kafka"],
        cwd=repository,
        env={**os.environ, "JAVA_HOME": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert "Java 17 or newer is not installed" in failed.stderr
