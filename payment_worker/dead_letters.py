"""Read the topic of dead letters, from its beginning to where it ends at present."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from payment_worker.consuming import as_bytes, headers_of, sent_at, take
from payment_worker.letters import DeadLetter, Place, Reason, read_letter
from shared import events
from shared.kafka import KafkaSettings, make_consumer

QUIET_S = 0.5
ANSWER_S = 30.0  # a broker that is silent for this long is away


class BrokerSilent(Exception):
    """The broker has not answered in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which letters: by what an operator calls them, or all that fit what is given."""

    places: frozenset[str] = frozenset()
    reason: Reason | None = None
    topic: str | None = None  # that the message came from, without the prefix
    since: datetime | None = None  # buried then or later

    def fits(self, letter: DeadLetter, prefix: str) -> bool:
        """Whether it is one of them."""
        if self.places and letter.place not in self.places:
            return False
        if self.reason and letter.reason is not self.reason:
            return False
        if self.topic and (letter.origin is None or letter.origin.topic != prefix + self.topic):
            return False
        return not self.since or (letter.buried_at is not None and letter.buried_at >= self.since)


def read(kafka: KafkaSettings, prefix: str, wanted: Wanted) -> Iterator[DeadLetter]:
    """Yield the letters that are wanted, each partition's in their order, none that come meanwhile.

    Raises BrokerSilent, and KafkaException for what the broker refuses.
    """
    # It joins no group and commits nothing: the letters stay where they are, for whoever looks next.
    consumer = make_consumer(
        kafka, prefix + "payment-dead-letters", "payment-dead-letters", enable_partition_eof=True
    )
    try:
        for message in _messages(consumer, prefix + events.DEAD_LETTERS):
            letter = _letter(message)
            if wanted.fits(letter, prefix):
                yield letter
    finally:
        consumer.close()


def _messages(consumer: Consumer, topic: str) -> Iterator[Message]:
    """What stands on the topic. Where its end is the embedded broker says wrongly, by a batch too early.

    So it is read until that end is passed and nothing more comes, or what comes is younger than the reading.
    """
    began, heard = datetime.now(UTC), time.monotonic()
    ends = _ends(consumer, topic)
    consumer.assign([TopicPartition(topic, number, low) for number, (low, _) in ends.items()])
    left = set(ends)
    while messages := _take(consumer, heard, left):
        heard = time.monotonic()
        for message in messages:
            number, offset = message.partition() or 0, message.offset() or 0
            error = message.error()
            if error and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's name
                raise KafkaException(error)
            end = ends[number][1]
            if error or offset + 1 >= end:
                left.discard(number)
            if error is None and (offset < end or (sent_at(message) or began) <= began):
                yield message
            elif error is None and not left:
                return


def _take(consumer: Consumer, heard: float, left: set[int]) -> list[Message]:
    """Some messages; none when nothing is missing and nothing more comes. Raises BrokerSilent."""
    while not (messages := take(consumer, QUIET_S)) and left:
        if time.monotonic() - heard > ANSWER_S:
            raise BrokerSilent(f"no dead letter has come for {ANSWER_S:.0f} s, where there must be some")
    return messages


def _ends(consumer: Consumer, topic: str) -> dict[int, tuple[int, int]]:
    """First and next offset of each partition that holds something."""
    try:
        # Of all topics: asking for one that does not exist may create it, with the wrong partitions.
        known = consumer.list_topics(timeout=ANSWER_S).topics.get(topic)
        partitions = known.partitions if known else {}
        found = {
            number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=ANSWER_S)
            for number in partitions
        }
    except KafkaException as error:
        raise BrokerSilent(error.args[0].str()) from None
    return {number: (low, high) for number, (low, high) in found.items() if low < high}


def _letter(message: Message) -> DeadLetter:
    place = Place(
        topic=message.topic() or "", partition=message.partition() or 0, offset=message.offset() or 0
    )
    return read_letter(
        place, sent_at(message), as_bytes(message.key()), as_bytes(message.value()), headers_of(message)
    )
