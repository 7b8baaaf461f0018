"""An outside consumer in a process of its own: when did each outcome become visible on Kafka?"""

import multiprocessing
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.queues import Queue
from typing import Any

from confluent_kafka import Consumer, TopicPartition

from payment_worker.consuming import take
from shared.documents import parse_json

TOPICS = (
    *("payment-authorized", "payment-succeeded", "payment-failed", "payment-cancelled"),
    *("refund-succeeded", "refund-failed"),
)
ASSIGNED_TIMEOUT_S = 20


@dataclass(frozen=True, slots=True)
class Seen:
    """An outcome event: whose it is, and when it was first seen (seconds on the monotonic clock)."""

    order_id: str
    payment_id: str
    event_id: str
    operation_id: str
    topic: str
    at: float
    value: dict[str, Any]


class Outcomes:
    """The events seen so far, by order; `collect` fetches what is new from the consuming process."""

    def __init__(self, arriving: "Queue[list[Seen]]") -> None:
        self._arriving = arriving
        self.by_order: dict[str, list[Seen]] = {}
        self.first_at: dict[tuple[str, str], float] = {}  # by order and topic, seconds on the monotonic clock

    def collect(self) -> list[Seen]:
        """Take over everything that the consumer has seen so far; return what is new."""
        new: list[Seen] = []
        while True:
            try:
                new += self._arriving.get_nowait()
            except queue.Empty:
                break
        for seen in new:
            self.by_order.setdefault(seen.order_id, []).append(seen)
            self.first_at.setdefault((seen.order_id, seen.topic), seen.at)
        return new


@contextmanager
def watching(bootstrap_servers: str) -> Iterator[Outcomes]:
    """Watch the outcome topics from now on, within the block."""
    context = multiprocessing.get_context("spawn")
    # A queue and not a pipe: it takes in what nobody reads yet, so the watcher never waits for us.
    arriving: Queue[list[Seen]] = context.Queue()
    process = context.Process(target=_watch, args=(bootstrap_servers, arriving), daemon=True)
    process.start()
    try:
        arriving.get(timeout=ASSIGNED_TIMEOUT_S)
        yield Outcomes(arriving)
    finally:
        process.terminate()
        process.join()


def _watch(bootstrap_servers: str, arriving: "Queue[list[Seen]]") -> None:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap_servers,
            "group.id": "benchmark",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 40,  # as the service's own; shorter ones cost the broker more
        }
    )
    # Assigned, not subscribed: a group's join would take seconds and be no part of what is measured.
    metadata = consumer.list_topics(timeout=ASSIGNED_TIMEOUT_S).topics
    places = [TopicPartition(topic, number, 0) for topic in TOPICS for number in metadata[topic].partitions]
    consumer.assign(places)
    arriving.put([])
    while True:
        messages = take(consumer)
        at = time.monotonic()
        seen = [_seen(each, at) for each in messages if not each.error()]
        if seen:
            arriving.put(seen)


def _seen(message: Any, at: float) -> Seen:
    value = parse_json(message.value())
    headers = dict(message.headers())
    event_id, operation_id = headers["ce_id"].decode(), headers["ce_causationid"].decode()
    return Seen(value["orderId"], value["paymentId"], event_id, operation_id, message.topic(), at, value)
