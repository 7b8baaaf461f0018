"""Turn requests for operations into Celery tasks; the offset moves on only when the task is queued."""

import functools
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from kombu.exceptions import OperationalError

from payment_worker.metrics import CONSUMED, CONSUMER_LAG, DEAD_LETTERS
from payment_worker.queues import OPERATIONS_PER_TASK, Errand, queue_of
from shared import events
from shared.events import Event
from shared.health import Pulse
from shared.kafka import Deliveries
from shared.payments import REQUESTED_BY
from shared.telemetry import get_logger
from shared.tracing import span

log = get_logger(__name__)

BATCH = 200
POLL_S = 0.1
RETRY_FIRST_S = 0.2
MEASURE_EVERY_S = 1.0
RETRY_LAST_S = 5.0
# So many unreadable messages in a row are no accident: somebody produces something else to our topic.
MAX_DEAD_IN_A_ROW = 1_000

Dispatch = Callable[[list[Errand], str], None]
_QUEUES = {announcement: queue_of(kind) for kind, announcement in REQUESTED_BY.items()}
Letter = tuple[int, str, bytes | None, bytes | None, list[tuple[str, bytes]]]


class TooManyDeadLetters(Exception):
    """Nothing readable has come for too long; an operator must look at who produces to the topic."""


class RequestConsumer:
    """Reads requests and queues their operations; what cannot be read goes to the dead letters."""

    def __init__(
        self, consumer: Consumer, dispatch: Dispatch, deliveries: Deliveries, topic_prefix: str
    ) -> None:
        """`dispatch` puts operations, at most OPERATIONS_PER_TASK, in a queue; raises OperationalError."""
        self._consumer = consumer
        self._dispatch = dispatch
        self._deliveries = deliveries
        self._prefix = topic_prefix
        self._dead_in_a_row = 0
        self._measured = 0.0
        # Kept by callbacks: asking the consumer blocks while the group is being formed.
        self._partitions: set[tuple[str, int]] = set()
        self.pulse = Pulse()
        consumer.subscribe(
            [topic_prefix + each for each in sorted(set(REQUESTED_BY.values()))],
            on_assign=self._take_on,
            on_revoke=self._give_up,
            on_lost=self._give_up,
        )

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
            if not self._handle(batch, stop):
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

    def _insist(self, work: Callable[[], bool], stop: threading.Event) -> bool:
        """Do it, waiting out outages of Redis or the broker; False when stopped before."""
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

    def _handle(self, messages: list[Message], stop: threading.Event) -> bool:
        """Bury what cannot be read and queue the others as one task; False when stopped before."""
        requests: list[Event] = []
        for message in messages:
            try:
                requests.append(_request(message))
                self._dead_in_a_row = 0
            except events.InvalidEvent as error:
                letter = self._write_letter(message, error)
                if not self._insist(functools.partial(self._bury, letter), stop):
                    return False
        by_queue: dict[str, list[Event]] = {}
        for each in requests:
            by_queue.setdefault(_QUEUES[each.type], []).append(each)
        return all(
            self._insist(functools.partial(self._queue, queue, few), stop) for queue, few in by_queue.items()
        )

    def _queue(self, queue: str, requests: list[Event]) -> bool:
        try:
            self._dispatch([(str(each.causation_id), 0, each.correlation_id) for each in requests], queue)
        except OperationalError as error:
            log.warning("task not queued; trying again", error=type(error.__cause__ or error).__name__)
            return False
        for each in requests:
            ids = {"payment_id": str(each.subject), "operation_id": str(each.causation_id)}
            with span("queue", each.traceparent, **ids):
                log.info("task queued", **ids, correlation_id=each.correlation_id)
        return True

    def _bury(self, letter: Letter) -> bool:
        return bool(self._deliveries.deliver([letter]))

    def _write_letter(self, message: Message, error: Exception) -> Letter:
        """An unreadable message as it came, with its origin and what is wrong, for the dead letters."""
        self._dead_in_a_row += 1
        if self._dead_in_a_row > MAX_DEAD_IN_A_ROW:
            raise TooManyDeadLetters(f"{MAX_DEAD_IN_A_ROW} unreadable messages in a row on {message.topic()}")
        origin = {
            "dlq_topic": message.topic() or "",
            "dlq_partition": str(message.partition()),
            "dlq_offset": str(message.offset()),
            "dlq_error_class": type(error).__name__,
            "dlq_error_message": str(error),
        }
        log.error("message buried", **origin)
        DEAD_LETTERS.labels(message.topic()).inc()
        headers = [
            *_headers(message),
            *((name, value.encode()) for name, value in origin.items()),
        ]
        return 0, self._prefix + events.DEAD_LETTERS, message.key(), message.value(), headers


def take(consumer: Consumer) -> list[Message]:
    """Wait for a message, then take what has come with it; asking for many at once would wait for many."""
    first = consumer.poll(POLL_S)
    return [] if first is None else [first, *consumer.consume(BATCH - 1, 0)]


def _request(message: Message) -> Event:
    """The request that the message is. Raises InvalidEvent for anything else."""
    event = events.decode(_headers(message), message.value())
    if event.type not in _QUEUES or not event.causation_id:
        raise events.InvalidEvent("not a request that names its operation")
    try:
        return replace(event, causation_id=str(uuid.UUID(event.causation_id)))
    except ValueError:
        raise events.InvalidEvent("the operation's id is no uuid") from None


def _headers(message: Message) -> list[tuple[str, bytes]]:
    given = message.headers() or []
    pairs = given.items() if isinstance(given, dict) else given
    return [(name, value.encode() if isinstance(value, str) else value or b"") for name, value in pairs]


def _usable(message: Message) -> bool:
    if error := message.error():
        log.warning("kafka", error=error.str())
        return False
    return True
