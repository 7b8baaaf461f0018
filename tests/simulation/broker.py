"""Kafka in memory, as ours see it: partitions, offsets, what is lost and what comes twice."""

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from shared.events import PARTITIONS
from shared.kafka import Outgoing, TooLarge
from tests.simulation.schedule import Scheduler

Headers = list[tuple[str, bytes]]


@dataclass(frozen=True)
class Record:
    """A message as a consumer gets it."""

    in_topic: str
    in_partition: int
    at_offset: int
    of_key: bytes | None
    content: bytes | None
    with_headers: Headers

    def topic(self) -> str:
        """As confluent_kafka.Message.topic, and so are the others."""
        return self.in_topic

    def partition(self) -> int:
        """The number of the partition."""
        return self.in_partition

    def offset(self) -> int:
        """The place in the partition."""
        return self.at_offset

    def key(self) -> bytes | None:
        """The key."""
        return self.of_key

    def value(self) -> bytes | None:
        """The value."""
        return self.content

    def headers(self) -> Headers:
        """The headers."""
        return self.with_headers

    def error(self) -> None:
        """No message of ours is an error."""


@dataclass
class Broker:
    """The partitions, and what each group has committed."""

    logs: dict[tuple[str, int], list[Record]] = field(default_factory=dict)
    committed: dict[tuple[str, str, int], int] = field(default_factory=dict)
    ever: list[Record] = field(default_factory=list)  # also what was lost later: an outsider has seen it
    losses: int = 0

    def append(self, topic: str, key: bytes | None, value: bytes | None, headers: Iterable[Any]) -> None:
        """Keep a message."""
        place = topic, zlib.crc32(key or b"") % PARTITIONS
        log = self.logs.setdefault(place, [])
        record = Record(*place, len(log), key, value, list(headers))
        log.append(record)
        self.ever.append(record)

    def lose_everything(self) -> None:
        """Come back without data and without offsets."""
        self.logs.clear()
        self.committed.clear()
        self.losses += 1

    def lag(self, group: str, topics: Sequence[str]) -> int:
        """How many messages a group has not committed yet."""
        return sum(
            len(log) - self.committed.get((group, *place), 0)
            for place, log in self.logs.items()
            if place[0] in topics
        )


@dataclass
class Troubles:
    """What may go wrong between us and the broker, as shares of the calls."""

    chance: Random
    lost_report: float = 0.0  # the message is there, and nobody says so
    not_taken: float = 0.0
    twice: float = 0.0
    lost_commit: float = 0.0
    away: float = 0.0  # Redis

    def draw(self, share: float) -> bool:
        """Whether it happens now."""
        return share > 0 and self.chance.random() < share


class SimulatedDeliveries:
    """What a relay produces with: `shared.kafka.Deliveries` as far as callers see."""

    def __init__(self, broker: Broker, scheduler: Scheduler, troubles: Troubles) -> None:
        """Produce to this broker."""
        self._broker = broker
        self._scheduler = scheduler
        self._troubles = troubles

    def deliver(self, messages: Iterable[Outgoing], _on_too_large: TooLarge | None = None) -> set[Any]:
        """Produce and return the ids whose delivery was confirmed; nothing is too large here."""
        delivered = set()
        for message_id, topic, key, value, headers in messages:
            self._scheduler.point(f"produce to {topic}")
            if self._troubles.draw(self._troubles.not_taken):
                self._scheduler.note(f"NOT TAKEN by the broker: {topic}")
                continue
            for _ in range(2 if self._troubles.draw(self._troubles.twice) else 1):
                self._broker.append(topic, key, value, headers)
            self._scheduler.note(f"produced {topic}")
            if self._troubles.draw(self._troubles.lost_report):
                self._scheduler.note("REPORT LOST")
                continue
            delivered.add(message_id)
        self._scheduler.point("delivery reports")
        return delivered

    def close(self) -> None:
        """Nothing is open."""


class SimulatedConsumer:
    """A member of a group: `confluent_kafka.Consumer` as far as ours use it."""

    def __init__(self, broker: Broker, group: str, scheduler: Scheduler, troubles: Troubles) -> None:
        """Begin where the group has come to."""
        self._broker, self._group = broker, group
        self._scheduler, self._troubles = scheduler, troubles
        self._topics: list[str] = []
        self._positions: dict[tuple[str, int], int] = {}
        self._losses = broker.losses

    def subscribe(self, topics: list[str], **_: object) -> None:
        """Read these from now on."""
        self._topics = topics

    def poll(self, _timeout_s: float = 0) -> Record | None:
        """The next message of some partition that has one; which, the seed decides."""
        waiting = [
            (place, position)
            for place, log in sorted(self._broker.logs.items())
            if place[0] in self._topics and (position := self._position(place)) < len(log)
        ]
        if not waiting:
            return None
        place, position = self._troubles.chance.choice(waiting)
        self._positions[place] = position + 1
        return self._broker.logs[place][position]

    def _position(self, place: tuple[str, int]) -> int:
        return self._positions.get(place, self._broker.committed.get((self._group, *place), 0))

    def consume(self, count: int, _timeout_s: float) -> list[Record]:
        """What else there is, at most so many."""
        few: list[Record] = []
        while len(few) < count and (record := self.poll()) is not None:
            few.append(record)
        return few

    def commit(self, *, offsets: list[TopicPartition], **_: object) -> None:
        """Keep the offsets for the group. Raises KafkaException when that is lost."""
        self._scheduler.point("offset commit")
        if self._losses != self._broker.losses or self._troubles.draw(self._troubles.lost_commit):
            self._scheduler.note("OFFSET COMMIT LOST")
            raise KafkaException(KafkaError(KafkaError._ALL_BROKERS_DOWN))
        for each in offsets:
            self._broker.committed[self._group, each.topic, each.partition] = each.offset
        self._scheduler.note("offsets committed")

    def assignment(self) -> list[TopicPartition]:
        """Everything: the group has one member."""
        return []

    def pause(self, _places: list[TopicPartition]) -> None:
        """Nothing more is given out until `resume`; whoever pauses polls only to stay in the group."""

    def resume(self, _places: list[TopicPartition]) -> None:
        """Go on."""

    def seek(self, place: TopicPartition) -> None:
        """Go back to a message."""
        self._positions[place.topic, place.partition] = place.offset

    def close(self) -> None:
        """Leave the group."""
