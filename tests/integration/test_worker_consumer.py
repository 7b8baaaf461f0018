"""The consumer: every readable request becomes a task, every other one a dead letter, and none is lost."""

import base64
import functools
import json
import logging
import threading
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
import redis
from celery import Celery
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from kombu.exceptions import OperationalError
from structlog.testing import capture_logs

from payment_worker import consuming
from payment_worker.consumer import RequestConsumer
from payment_worker.consuming import TooManyDeadLetters
from payment_worker.queues import (
    OPERATIONS_PER_TASK,
    PAYMENTS_QUEUE,
    PROCESS_BATCH,
    Errand,
    dispatch,
    make_celery,
)
from shared.events import DEAD_LETTERS, PARTITIONS, Event, encode
from shared.kafka import Deliveries, make_consumer
from shared.payments import REQUESTED_BY, Announcement
from shared.settings import Settings
from tests.conftest import Servers
from tests.outages import held_down
from tests.topics import HASTY, Headers, kafka_of, make_topics, read_topics, reader, write
from tests.waiting import LONGEST_S, wait_until

SOON_S = 30.0
# A broker that has just come back may answer for others before it answers for its groups.
LOOKING_FOR_COORDINATOR = {
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
}
REQUESTED = str(Announcement.PAYMENT_REQUESTED)
CARD = "4242424242424242"
Dispatched = tuple[str, int, str | None]


EVERYTHING = PARTITIONS * len(set(REQUESTED_BY.values()))  # one topic a kind of request


class Subject:
    """A consumer in this process, with the Kafka consumer and the Celery application that it works with."""

    def __init__(self, settings: Settings, dispatching: Callable[..., None] | None = None) -> None:
        """Join the group; `dispatching` stands in the way of the real dispatch if it is given."""
        kafka = kafka_of(settings, **HASTY)
        self.settings = settings
        self.celery: Celery = make_celery(settings)
        self.kafka: Consumer = make_consumer(
            kafka, settings.kafka_topic_prefix + "payment-worker", "test-consumer"
        )
        self.stop = threading.Event()
        self._deliveries = Deliveries(kafka, "test-dead-letters")
        self.requests = RequestConsumer(
            self.kafka,
            dispatching or functools.partial(dispatch, self.celery),
            self._deliveries,
            settings.kafka_topic_prefix,
        )

    def handle(self, count: int) -> None:
        """Handle so many messages."""
        handled = 0

        def enough() -> bool:
            nonlocal handled
            handled += self.requests.run_once(self.stop)
            return handled >= count

        wait_until(enough, SOON_S, f"{count} messages")
        assert handled == count

    def committed(self) -> int:
        """How many messages the group is done with, over all partitions."""
        topic = self.settings.kafka_topic_prefix + REQUESTED
        places = [TopicPartition(topic, number) for number in range(PARTITIONS)]

        def asked() -> list[TopicPartition] | None:
            try:
                return self.kafka.committed(places, timeout=LONGEST_S)
            except KafkaException as error:
                if error.args[0].code() not in LOOKING_FOR_COORDINATOR:
                    raise
                return None

        return sum(max(place.offset, 0) for place in wait_until(asked, SOON_S, "the group's coordinator"))

    def close(self) -> None:
        """Leave the group and close the connections."""
        if not self.stop.is_set():
            self.stop.set()
            self.requests.run(self.stop)  # told to stop, it only closes
            self.celery.close()


NewSubject = Callable[..., Subject]


@pytest.fixture
def new_subject(settings: Settings) -> Iterator[NewSubject]:
    """Make consumers, which leave the group after the test."""
    make_topics(settings)
    made: list[Subject] = []

    def make(dispatching: Callable[..., None] | None = None) -> Subject:
        made.append(Subject(settings, dispatching))
        return made[-1]

    yield make
    for subject in made:
        subject.close()


def request(operation_id: str, **changes: Any) -> Event:
    """A request as the relay would announce it."""
    payment_id = uuid.uuid4()
    value = {
        "paymentId": str(payment_id),
        "amount": Decimal("10.00"),
        "amountMinor": 1000,
        "currency": "USD",
        "requestedAt": "2026-01-01T00:00:00.000Z",
    }
    facts: dict[str, Any] = {
        "id": uuid.uuid4(),
        "type": Announcement.PAYMENT_REQUESTED,
        "subject": payment_id,
        "sequence": 1,
        "time": datetime.now(UTC),
        "data": value,
        "correlation_id": "order-4711",
        "causation_id": operation_id,
    }
    return Event(**(facts | changes))


def as_message(event: Event) -> tuple[bytes, bytes, Headers]:
    """Key, value and headers of an event."""
    message = encode(event)
    return message.key, message.value, message.headers


def queued(settings: Settings) -> list[list[Any]]:
    """What the tasks in Redis are to carry out: operation, attempt and correlation id, oldest first."""
    with redis.Redis.from_url(settings.redis_url) as client:
        tasks = [json.loads(each) for each in client.lrange(PAYMENTS_QUEUE, 0, -1)][::-1]
    assert {each["headers"]["task"] for each in tasks} <= {PROCESS_BATCH}
    batches = [json.loads(base64.b64decode(each["body"]))[0][0] for each in tasks]
    assert all(0 < len(batch) <= OPERATIONS_PER_TASK for batch in batches)
    return [errand for batch in batches for errand in batch]


def test_each_request_is_queued(new_subject: NewSubject, settings: Settings) -> None:
    """Tasks carry ids only; the attempt number is that of an operation nobody has claimed."""
    operations = [str(uuid.uuid4()) for _ in range(3 * OPERATIONS_PER_TASK)]
    write(settings, REQUESTED, [as_message(request(each)) for each in operations])
    subject = new_subject()
    subject.handle(len(operations))
    assert sorted(queued(settings)) == sorted([each, 0, "order-4711"] for each in operations)
    assert subject.committed() == len(operations)


def test_a_strange_correlation_id_goes_no_further(new_subject: NewSubject, settings: Settings) -> None:
    """Neither a card number nor a text without end is logged or queued; the request counts all the same."""
    strange = [CARD, "x" * 200_000]
    requests = [request(str(uuid.uuid4()), correlation_id=each, traceparent=each) for each in strange]
    write(settings, REQUESTED, map(as_message, requests))
    subject = new_subject()
    with capture_logs() as lines:
        subject.handle(len(strange))
    assert sorted(queued(settings)) == sorted([each.causation_id, 0, None] for each in requests)
    assert not [each for each in strange if each in repr(lines)]


def test_a_later_release_may_say_more(new_subject: NewSubject, settings: Settings) -> None:
    """Fields and headers that we do not know are no reason to refuse a request."""
    operation_id = str(uuid.uuid4())
    event = request(operation_id)
    key, value, headers = as_message(event)
    more = json.dumps({**json.loads(value), "addedLater": {"a": 1}}).encode()
    write(settings, REQUESTED, [(key, more, [*headers, ("ce_later", b"1")])])
    new_subject().handle(1)
    assert queued(settings) == [[operation_id, 0, "order-4711"]]


def without(headers: Headers, name: str) -> Headers:
    """The headers but for one."""
    return [each for each in headers if each[0] != name]


def unreadable() -> dict[str, tuple[bytes | None, bytes | None, Headers]]:
    """Messages that nobody can act on, by what the dead letter says of each."""
    key, value, headers = as_message(request(str(uuid.uuid4())))
    broken = json.dumps({**json.loads(value), "currency": "dollars"}).encode()
    other = encode(request("-", data={**json.loads(value), "amount": 10})).headers
    return {
        "not readable: JSONDecodeError": (key, b"{", headers),
        "payment-requested: value breaks the rule type": (key, b"[1]", headers),
        "not readable: UnicodeDecodeError": (key, b"\xff\xfe", headers),
        "the header ce_type is missing": (None, value, []),
        "the header ce_id is missing": (key, value, without(headers, "ce_id")),
        "version 'v2' of the event type is not known here": (
            key,
            value,
            [*without(headers, "ce_type"), ("ce_type", b"payment-requested.v2")],
        ),
        "payment-requested: currency breaks the rule pattern": (key, broken, headers),
        "not a request that names its operation": (key, value, without(headers, "ce_causationid")),
        "not readable: ValueError": (key, value, [*without(headers, "ce_subject"), ("ce_subject", b"x")]),
        "the operation's id is no uuid": (key, value, other),
    }


def test_what_cannot_be_read_is_buried_as_it_came(
    new_subject: NewSubject, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """Key, value and headers are kept, its origin and what is wrong are added, and the offset moves on."""
    letters = unreadable()
    good = str(uuid.uuid4())
    write(settings, REQUESTED, [*letters.values(), as_message(request(good))])
    subject = new_subject()
    with caplog.at_level(logging.ERROR):
        subject.handle(len(letters) + 1)
    assert [each[0] for each in queued(settings)] == [good]
    assert subject.committed() == len(letters) + 1
    buried = read_topics(settings, DEAD_LETTERS, count=len(letters))
    assert sorted(each.named["dlq_error_message"] for each in buried) == sorted(letters)
    origins, classes = set(), set()
    for each in buried:
        key, value, headers = letters[each.named["dlq_error_message"]]
        assert (each.key, each.raw) == (key, value)
        assert each.headers[: len(headers)] == [(name, text.decode()) for name, text in headers]
        added = dict(each.headers[len(headers) :])
        assert added.pop("dlq_topic") == settings.kafka_topic_prefix + REQUESTED
        classes.add(added.pop("dlq_error_class"))
        assert datetime.fromisoformat(added.pop("dlq_time")).tzinfo is not None
        del added["dlq_error_message"]
        origins.add((int(added.pop("dlq_partition")), int(added.pop("dlq_offset"))))
        assert added == {}
    assert len(origins) == len(letters)  # each points at a message of its own
    assert classes == {"UnreadableMessage", "HeaderMissing", "UnknownVersion", "SchemaBroken", "InvalidEvent"}


def test_a_topic_full_of_rubbish_stops_the_consumer(
    new_subject: NewSubject,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """So many in a row are no accident: it stops and says so instead of burying for ever."""
    monkeypatch.setattr(consuming, "MAX_DEAD_IN_A_ROW", 3)
    write(settings, REQUESTED, [(b"same key", b"rubbish", [])] * 5)
    with caplog.at_level(logging.ERROR), pytest.raises(TooManyDeadLetters, match=REQUESTED):
        new_subject().handle(5)


def test_a_request_waits_for_redis(new_subject: NewSubject, settings: Settings, servers: Servers) -> None:
    """While Redis is away the task is tried again and the offset stays; then all are queued, in order."""
    operations = [str(uuid.uuid4()) for _ in range(3)]
    write(settings, REQUESTED, [(b"same key", *as_message(request(each))[1:]) for each in operations])
    outcomes: list[str] = []
    failed_twice = threading.Event()

    def watch(errands: list[Errand], queue: str) -> None:
        try:
            dispatch(subject.celery, errands, queue)
        except Exception as error:
            outcomes.append(type(error).__name__)
            if len(outcomes) > 1:
                failed_twice.set()
            raise
        outcomes.extend("queued" for _ in errands)

    subject = new_subject(watch)
    with held_down(servers.stack, "valkey"):
        thread = threading.Thread(target=subject.handle, args=(3,))
        thread.start()
        assert failed_twice.wait(LONGEST_S)
        assert subject.committed() == 0
    thread.join(LONGEST_S)
    assert not thread.is_alive()
    assert outcomes == ["OperationalError"] * (len(outcomes) - 3) + ["queued"] * 3
    assert [each[0] for each in queued(settings)] == operations
    assert subject.committed() == 3


def test_what_falls_to_a_waiting_consumer_is_not_passed_over(
    new_subject: NewSubject, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two wait for Redis and one of them leaves: its partitions' first messages count with the other, too."""
    monkeypatch.setattr(consuming, "RETRY_LAST_S", consuming.RETRY_FIRST_S)
    redis_is_back, attempts = threading.Event(), [0]
    done: list[str] = []

    def in_vain(_errands: list[Errand], _queue: str) -> None:
        raise OperationalError("Redis is away")

    def dispatching(errands: list[Errand], _queue: str) -> None:
        attempts[0] += 1
        if not redis_is_back.is_set():
            raise OperationalError("Redis is away")
        done.extend(operation_id for operation_id, _, _ in errands)

    waiting, leaving = new_subject(dispatching), new_subject(in_vain)

    def both_have_a_share() -> bool:
        for subject in (waiting, leaving):
            subject.requests.run_once(subject.stop)
        return len(waiting.kafka.assignment()) == len(leaving.kafka.assignment()) == EVERYTHING // 2

    wait_until(both_have_a_share, SOON_S, "both to have a share")
    operations = [str(uuid.uuid4()) for _ in range(30)]
    write(settings, REQUESTED, [as_message(request(each)) for each in operations])
    thread = threading.Thread(target=waiting.handle, args=(30,))
    thread.start()
    # Both keep asking: one that falls silent holds up the group when it is formed once more.
    other = threading.Thread(target=leaving.requests.run, args=(leaving.stop,))
    other.start()
    wait_until(lambda: attempts[0] > 1, SOON_S, "it to wait for Redis")
    leaving.stop.set()
    other.join(LONGEST_S)
    wait_until(lambda: len(waiting.kafka.assignment()) == EVERYTHING, SOON_S, "it to have everything")
    so_far = attempts[0]
    wait_until(lambda: attempts[0] > so_far + 1, SOON_S, "it to wait on")
    redis_is_back.set()
    thread.join(LONGEST_S)
    assert not thread.is_alive()
    assert sorted(done) == sorted(operations)


def test_a_dead_letter_waits_for_the_broker(
    new_subject: NewSubject, settings: Settings, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    """A consumer that is stopped before it could bury a message does not commit it: another will."""
    write(settings, REQUESTED, [(b"key", b"rubbish", [])])
    subject, stopping = new_subject(), threading.Event()
    deliver_first_while_down(subject, servers, stopping.set)
    handled = []

    def ended() -> bool:
        handled.append(subject.requests.run_once(stopping))
        return stopping.is_set()

    with caplog.at_level(logging.ERROR):
        wait_until(ended, SOON_S, "the stop")
    make_topics(settings)
    assert sum(handled) == 0
    assert subject.committed() == 0  # an embedded broker has forgotten all; Apache Kafka would know better


def test_a_dead_letter_is_delivered_when_the_broker_is_back(
    new_subject: NewSubject, settings: Settings, servers: Servers, caplog: pytest.LogCaptureFixture
) -> None:
    """The consumer stays with the message until its letter stands on the topic."""
    write(settings, REQUESTED, [(b"key", b"rubbish", [])])
    subject = new_subject()
    delivered = deliver_first_while_down(subject, servers, lambda: make_topics(settings))
    with caplog.at_level(logging.ERROR):
        subject.handle(1)
    assert delivered[0] == set()
    topic = settings.kafka_topic_prefix + DEAD_LETTERS
    with reader(settings.kafka_bootstrap_servers, [topic]) as read:
        letters = wait_until(read, SOON_S, "the letter")
        assert {(each.key, each.raw) for each in letters} == {(b"key", b"rubbish")}


def deliver_first_while_down(
    subject: Subject, servers: Servers, afterwards: Callable[[], object]
) -> list[set[Any]]:
    """Hold the broker down for the first delivery; return what each of them will have confirmed."""
    deliveries: Any = subject.requests._deliveries
    real, confirmed = deliveries.deliver, list[set[Any]]()

    def deliver(*arguments: Any) -> set[Any]:
        if confirmed:
            confirmed.append(real(*arguments))
            return confirmed[-1]
        with held_down(servers.stack, "broker"):
            confirmed.append(real(*arguments))
        afterwards()
        return confirmed[-1]

    deliveries.deliver = deliver
    return confirmed


def test_a_dead_letter_fits_the_broker(
    new_subject: NewSubject, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """What is too large for the broker is buried without its content, and what comes next is handled."""
    good = str(uuid.uuid4())
    large = b"rubbish" * 1_000
    write(settings, REQUESTED, [(b"key", large, []), (b"key", *as_message(request(good))[1:])])
    subject = new_subject()
    few_bytes = kafka_of(settings, **HASTY, **{"message.max.bytes": "2000"})
    subject.requests._deliveries = Deliveries(few_bytes, "test-dead-letters")
    with caplog.at_level(logging.ERROR):
        subject.handle(2)
    assert [each[0] for each in queued(settings)] == [good]
    (letter,) = read_topics(settings, DEAD_LETTERS, count=1)
    assert (letter.raw, letter.named["dlq_cut_bytes"]) == (b"", str(len(b"key" + large)))
    assert letter.named["dlq_error_class"] == "MessageTooLarge"


def test_a_consumer_takes_up_where_the_last_one_stopped(new_subject: NewSubject, settings: Settings) -> None:
    """What was committed is not handled again by the next of the group; what came since is."""
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    write(settings, REQUESTED, [as_message(request(first))])
    earlier = new_subject()
    earlier.handle(1)
    earlier.close()
    write(settings, REQUESTED, [as_message(request(second))])
    later = new_subject()
    later.handle(1)
    assert [each[0] for each in queued(settings)] == [first, second]
