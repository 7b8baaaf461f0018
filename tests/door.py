"""The Kafka door in the test's own process: a consumer of commands, and the shop whose payments it makes."""

import threading
from typing import Any, Final

from confluent_kafka import TopicPartition

from payment_worker.commands import CommandConsumer, Desk
from shared.events import PARTITIONS, PAYMENT_REJECTED
from shared.kafka import Deliveries, make_consumer
from shared.payments import Command
from shared.settings import Settings
from tests.factories import as_json, new_uuid
from tests.shop import Shop
from tests.topics import HASTY, Headers, Received, kafka_of, read_topics, write
from tests.waiting import wait_until

SOON_S: Final = 30.0


class Door:
    """A consumer of commands in this process, the topics that it reads and the payments that it makes."""

    def __init__(self, shop: Shop, settings: Settings) -> None:
        """Join the group."""
        kafka = kafka_of(settings, **HASTY)
        self.shop = shop
        self.settings = settings
        self.stop = threading.Event()
        self.kafka = make_consumer(kafka, settings.kafka_topic_prefix + "payment-commands", "test-commands")
        self.consumer = CommandConsumer(
            self.kafka,
            Deliveries(kafka, "test-rejections"),
            settings.kafka_topic_prefix,
            Desk(shop.bench.sessions, settings),
        )

    def send(self, command: Command, *values: Any, **headers: str) -> None:
        """Produce values, dicts or raw, with these headers (_ as they are) under one key, in their order."""
        named: Headers = [(name, value.encode()) for name, value in headers.items()]
        raw = [each if isinstance(each, bytes) else as_json(each).encode() for each in values]
        write(self.settings, command, [(b"one key", each, named) for each in raw])

    def handle(self, count: int) -> None:
        """Handle so many messages, and carry out what they ask for."""
        handled = 0

        def enough() -> bool:
            nonlocal handled
            handled += self.consumer.run_once(self.stop)
            return handled >= count

        wait_until(enough, SOON_S, f"{count} messages")
        assert handled == count
        self.shop.work()

    def ask(self, command: Command, value: Any, **headers: str) -> None:
        """Produce a command and have it carried out."""
        self.send(command, value, **headers)
        self.handle(1)

    def rejections(self, count: int) -> list[Received]:
        """Wait for so many answers to refused commands."""
        return read_topics(self.settings, PAYMENT_REJECTED, count=count)

    def committed(self, command: Command) -> int:
        """How many messages of a topic the group is done with."""
        topic = self.settings.kafka_topic_prefix + command
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]
        return sum(max(place.offset, 0) for place in self.kafka.committed(places, timeout=SOON_S))

    def payments(self) -> list[Any]:
        """All payments, newest first."""
        return list(self.shop.api.get("/payments").body["payments"])

    def inbox(self) -> list[dict[str, Any]]:
        """What has come."""
        return self.shop.api.stored.rows("inbox")

    def close(self) -> None:
        """Leave the group."""
        self.stop.set()
        self.consumer.run(self.stop)


def cart(**changes: Any) -> dict[str, Any]:
    """An AuthorizePayment command."""
    return {"cartId": new_uuid(), "customerId": new_uuid(), "amount": 10_000, "currency": "USD", **changes}
