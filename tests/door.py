"""The Kafka door of a shop: a consumer of commands and notices in this process, and what it answers."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final, Self

from confluent_kafka import TopicPartition

from payment_worker.commands import CommandConsumer, Desk
from shared.events import DEAD_LETTERS, PARTITIONS, PAYMENT_REJECTED
from shared.kafka import Deliveries
from shared.orders import make_orders
from shared.payments import Command, Notice
from shared.settings import Settings
from tests.factories import as_json, new_uuid
from tests.shop import Shop
from tests.topics import PROMPT, Alone, Headers, Received, kafka_of, make_topics, read_topics, write
from tests.waiting import LONGEST_S, wait_until

SOON_S: Final = 30.0


class Door:
    """A consumer of commands and notices, the topics that it reads and the payments that it makes."""

    def __init__(self, shop: Shop, settings: Settings) -> None:
        """Take up what nobody has handled yet."""
        self.shop = shop
        self.settings = settings
        self.stop = threading.Event()
        self.kafka = Alone(kafka_of(settings), settings.kafka_topic_prefix, "payment-commands")
        self.consumer = CommandConsumer(
            self.kafka,
            Deliveries(kafka_of(settings, **PROMPT), "test-rejections"),
            settings.kafka_topic_prefix,
            Desk(shop.bench.sessions, settings, make_orders(settings)),
            [*Command, *Notice],
        )

    @classmethod
    def opened(cls, shop: Shop, settings: Settings, **changes: Any) -> Iterator[Self]:
        """Make the topics and one consumer, with other settings in place of some; it leaves afterwards."""
        make_topics(settings)
        door = cls(shop, replace(settings, **{name.lower(): value for name, value in changes.items()}))
        yield door
        door.close()

    def send(self, topic: Command | Notice, *values: Any, **headers: str) -> None:
        """Produce values, dicts or raw, with these headers (_ as they are) under one key, in their order."""
        named: Headers = [(name, value.encode()) for name, value in headers.items()]
        raw = [each if isinstance(each, bytes) else as_json(each).encode() for each in values]
        write(self.settings, topic, [(b"one key", each, named) for each in raw])

    def consume(self, count: int) -> None:
        """Handle so many messages."""
        handled = 0

        def enough() -> bool:
            nonlocal handled
            handled += self.consumer.run_once(self.stop)
            return handled >= count

        wait_until(enough, SOON_S, f"{count} messages")
        assert handled == count

    def handle(self, count: int) -> None:
        """Handle so many messages, and carry out what they ask for."""
        self.consume(count)
        self.shop.work()

    def ask(self, topic: Command | Notice, value: Any, **headers: str) -> None:
        """Produce a message and have it carried out."""
        self.send(topic, value, **headers)
        self.handle(1)

    def rejections(self, count: int) -> list[Received]:
        """Wait for so many answers to what was refused."""
        return read_topics(self.settings, PAYMENT_REJECTED, count=count)

    def letters(self, count: int) -> list[Received]:
        """Wait for so many dead letters."""
        return read_topics(self.settings, DEAD_LETTERS, count=count)

    def committed(self, topic: Command | Notice) -> int:
        """How many messages of a topic the group is done with."""
        name = self.settings.kafka_topic_prefix + topic
        places = [TopicPartition(name, number) for number in range(PARTITIONS)]
        return sum(max(place.offset, 0) for place in self.kafka.committed(places, timeout=LONGEST_S))

    def payments(self) -> list[Any]:
        """All payments, newest first."""
        return list(self.shop.api.get("/payments").body["payments"])

    def inbox(self) -> list[dict[str, Any]]:
        """What has come."""
        return self.shop.api.stored.rows("inbox")

    def close(self) -> None:
        """Stop consuming."""
        self.stop.set()
        self.consumer.run(self.stop)


def cart(**changes: Any) -> dict[str, Any]:
    """An AuthorizePayment command."""
    return {"cartId": new_uuid(), "customerId": new_uuid(), "amount": 10_000, "currency": "USD", **changes}
