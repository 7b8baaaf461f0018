"""Read topics in order: what was handled is committed, what cannot be read goes to the dead letters."""

import functools
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaException, Message, TopicPartition

from payment_worker.letters import Place, compose
from payment_worker.metrics import CONSUMED, CONSUMER_LAG, DEAD_LETTERS
from payment_worker.queues import OPERATIONS_PER_TASK
from shared import events
from shared.health import Pulse
from shared.kafka import Deliveries, Outgoing
from shared.telemetry import get_logger

log = get_logger(__name__)

BATCH = 200
POLL_S = 0.1
RETRY_FIRST_S = 0.2
MEASURE_EVERY_S = 1.0
RETRY_LAST_S = 5.0
# So many unreadable messages in a row are no accident: somebody produces something else to our topic.
MAX_DEAD_IN_A_ROW = 1_000


class TooManyDeadLetters(Exception):
    """Nothing readable has come for too long; an operator must look at who produces to the topic."""


class TopicConsumer:
    """Reads some topics in the order of their partitions; `handle` is what a kind of consumer adds."""

    def __init__(
        self, consumer: Consumer, deliveries: Deliveries, topics: Sequence[str], topic_prefix: str
    ) -> None:
        """Join the group of `consumer`; `deliveries` carry the dead letters."""
        self._consumer = consumer
        self._deliveries = deliveries
        self._prefix = topic_prefix
        self._dead_in_a_row = 0
        self._measured = 0.0
        # Kept by callbacks: asking the consumer blocks while the group is being formed.
        self._partitions: set[tuple[str, int]] = set()
        self.pulse = Pulse()
        consumer.subscribe(
            [topic_prefix + each for each in topics],
            on_assign=self._take_on,
            on_revoke=self._give_up,
            on_lost=self._give_up,
        )

    def handle(self, messages: list[Message], stop: threading.Event) -> bool:
        """Do what a few messages ask for, in their order; False when stopped before the last one.

        They are committed together; whatever was done of them comes again when they are not.
        """
        raise NotImplementedError

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set, then leave the group. Raises TooManyDeadLetters."""
        try:
            while not stop.is_set():
                self.run_once(stop)
                self._measure()
        finally:
            self._consumer.close()
            self._deliveries.close()

    def run_once(self, stop: threading.Event) -> int:
        """Handle what has come and commit it; return how many messages were handled."""
        messages = [each for each in take(self._consumer) if _usable(each)]
        offsets: dict[tuple[str, int], int] = {}
        handled = 0
        for start in range(0, len(messages), OPERATIONS_PER_TASK):
            batch = messages[start : start + OPERATIONS_PER_TASK]
            if not self.handle(batch, stop):
                break  # stopped in the middle: the rest is not committed and comes again to another
            for message in batch:
                offsets[message.topic() or "", message.partition() or 0] = (message.offset() or 0) + 1
                CONSUMED.labels(message.topic()).inc()
            handled += len(batch)
        if offsets:
            self._commit([TopicPartition(*place, offset) for place, offset in offsets.items()])
        return handled

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready when the group has given it partitions; a spare beyond their number never is."""
        partitions = len(self._partitions)
        return partitions > 0, {"partitions": partitions}

    def _take_on(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._partitions |= {(place.topic, place.partition) for place in places}

    def _give_up(self, _: Consumer, places: list[TopicPartition]) -> None:
        self._partitions -= {(place.topic, place.partition) for place in places}

    def _measure(self) -> None:
        """Note the turn of the loop, and once a second how many messages wait."""
        self.pulse.beat()
        if time.monotonic() - self._measured < MEASURE_EVERY_S:
            return
        self._measured = time.monotonic()
        places = [TopicPartition(*place) for place in self._partitions]
        for place in self._consumer.position(places):
            # From the last fetch: asking the broker would block.
            _, high = self._consumer.get_watermark_offsets(place, cached=True)
            if place.offset >= 0 and high >= 0:
                CONSUMER_LAG.labels(place.topic, place.partition).set(max(0, high - place.offset))

    def _commit(self, offsets: list[TopicPartition]) -> None:
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except KafkaException as error:
            log.warning("offsets not committed; the messages come again", error=error.args[0].str())

    def insist(self, work: Callable[[], bool], stop: threading.Event) -> bool:
        """Do it, waiting out outages of what it needs; False when stopped before."""
        pause_s = RETRY_FIRST_S
        paused = False
        while not work():
            paused = True
            self._stay(pause_s)
            pause_s = min(RETRY_LAST_S, pause_s * 2)
            if stop.is_set():
                return False
        if paused:
            self._consumer.resume(self._consumer.assignment())
        return True

    def _stay(self, pause_s: float) -> None:
        """Remain in the group for a while without taking anything."""
        self.pulse.beat()
        self._consumer.pause(self._consumer.assignment())
        stray = self._consumer.poll(pause_s)
        if stray is not None and _usable(stray):
            # Of a partition that fell to us within this poll: put back, and paused with the next one.
            place = TopicPartition(stray.topic() or "", stray.partition() or 0, stray.offset() or 0)
            with suppress(KafkaException):  # it is another's again
                self._consumer.seek(place)

    def bury(self, message: Message, error: Exception, stop: threading.Event) -> bool:
        """Put what cannot be read with the dead letters; False when stopped before."""
        self._note_burial(message, error)
        letter = self._write_letter(message, error)
        cut = self._write_letter(message, error, kept=False)
        return self.insist(functools.partial(self.deliver, letter, cut), stop)

    def deliver(self, message: Outgoing, instead: Outgoing | None = None) -> bool:
        """Produce one message; False when the broker has not confirmed it.

        Of one that is too large for the broker goes what stands `instead`, or nothing: it holds up nobody.
        """
        too_large: list[object] = []
        if self._deliveries.deliver([message], too_large.append):
            return True
        return bool(too_large) and (instead is None or self.deliver(instead))

    def was_readable(self) -> None:
        """A message could be read: what is unreadable is not all that comes."""
        self._dead_in_a_row = 0

    def _note_burial(self, message: Message, error: Exception) -> None:
        self._dead_in_a_row += 1
        if self._dead_in_a_row > MAX_DEAD_IN_A_ROW:
            raise TooManyDeadLetters(f"{MAX_DEAD_IN_A_ROW} unreadable messages in a row on {message.topic()}")
        origin = str(_place_of(message))
        log.error("message buried", origin=origin, error=type(error).__name__, reason=str(error))
        DEAD_LETTERS.labels(message.topic()).inc()

    def _write_letter(self, message: Message, error: Exception, *, kept: bool = True) -> Outgoing:
        """An unreadable message as it came, with its origin and what is wrong, for the dead letters."""
        key, value, headers = compose(
            headers_of(message),
            as_bytes(message.key()),
            as_bytes(message.value()),
            origin=_place_of(message),
            sent_at=sent_at(message),
            error=error,
            kept=kept,
        )
        return 0, self._prefix + events.DEAD_LETTERS, key, value, headers


def take(consumer: Consumer, wait_s: float = POLL_S) -> list[Message]:
    """Wait for a message, then take what has come with it; asking for many at once would wait for many."""
    first = consumer.poll(wait_s)
    return [] if first is None else [first, *consumer.consume(BATCH - 1, 0)]


def headers_of(message: Message) -> list[tuple[str, bytes]]:
    """The headers of a message, in their order."""
    given = message.headers() or []
    pairs = given.items() if isinstance(given, dict) else given
    return [(name, value.encode() if isinstance(value, str) else value or b"") for name, value in pairs]


def _place_of(message: Message) -> Place:
    return Place(
        topic=message.topic() or "", partition=message.partition() or 0, offset=message.offset() or 0
    )


def sent_at(message: Message) -> datetime | None:
    """When a message was produced, as far as it says."""
    kind, milliseconds = message.timestamp()
    if kind == TIMESTAMP_NOT_AVAILABLE or milliseconds <= 0:
        return None
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def as_bytes(value: str | bytes | None) -> bytes | None:
    """A key or value as bytes, which the client library's types leave open."""
    return value.encode() if isinstance(value, str) else value


def _usable(message: Message) -> bool:
    if error := message.error():
        log.warning("kafka", error=error.str())
        return False
    return True


class Together:
    """Consumers side by side in one process, each in a thread of its own; when one fails, all end."""

    def __init__(self, *consumers: TopicConsumer) -> None:
        """Nothing runs yet."""
        self._consumers = consumers
        self._failures: list[BaseException] = []
        self.pulse = _SlowestPulse(consumers)

    def run(self, stop: threading.Event) -> None:
        """Consume until `stop` is set. Raises what the first one that failed has raised."""
        threads = [threading.Thread(target=self._run, args=(each, stop)) for each in self._consumers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self._failures:
            raise self._failures[0]

    def ready(self) -> tuple[bool, dict[str, Any]]:
        """Ready when each of them has partitions."""
        answers = [each.ready() for each in self._consumers]
        return all(ready for ready, _ in answers), {
            "partitions": sum(facts["partitions"] for _, facts in answers)
        }

    def _run(self, consumer: TopicConsumer, stop: threading.Event) -> None:
        try:
            consumer.run(stop)
        except BaseException as error:  # noqa: BLE001 - raised again by the thread that waits for this one
            self._failures.append(error)
        finally:
            stop.set()


class _SlowestPulse(Pulse):
    """The pulse of the consumer that has been silent for longest."""

    def __init__(self, consumers: Sequence[TopicConsumer]) -> None:
        self._pulses = [each.pulse for each in consumers]

    def silent_s(self) -> float:
        return max(each.silent_s() for each in self._pulses)
