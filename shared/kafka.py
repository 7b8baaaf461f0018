"""Thin wrappers of Kafka's producer and consumer, no business words: delivery reports, manual offsets."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.error import ProduceError

from shared.metrics import PRODUCER_REBUILDS
from shared.telemetry import get_logger

log = get_logger(__name__)

# A healthy broker answers within milliseconds. Silent for this long, the producer itself is suspect:
# after a broker has come back without its memory an idempotent producer may never deliver again.
DELIVERY_TIMEOUT_S = 10.0
# The same once every connection was lost: the broker that comes back may be one without its memory.
CUT_OFF_TIMEOUT_S = 1.0
ADMIN_TIMEOUT_S = 10.0
FLUSH_SLICE_S = 0.2

Headers = Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the brokers are and what else librdkafka needs to reach them."""

    bootstrap_servers: str
    extra: Mapping[str, str]

    def with_properties(self, **properties: Any) -> dict[str, Any]:
        """The librdkafka configuration, with these properties (underscores for dots)."""
        ours = {name if name.endswith("_cb") else name.replace("_", "."): v for name, v in properties.items()}
        # Its own lines on standard error would be no JSON; what matters in them comes by error_cb too.
        return {"bootstrap.servers": self.bootstrap_servers, "log_level": 0, **ours, **self.extra}


class Deliveries:
    """Produces batches, says which messages were confirmed, and rebuilds a producer that has died."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        """Nothing is connected until the first batch."""
        self._settings = settings
        self._client_id = client_id
        self._producer: Producer | None = None
        self._fatal = self._cut_off = False
        self.rebuilds = 0

    def deliver(self, messages: Iterable[tuple[Any, str, bytes | None, bytes | None, Headers]]) -> set[Any]:
        """Produce (id, topic, key, value, headers) and return the ids whose delivery was confirmed.

        An id that is missing from the answer may still arrive: deliver the same message again later.
        """
        delivered: set[Any] = set()
        producer = self._ensure()
        count = 0
        for message_id, topic, key, value, headers in messages:
            try:
                producer.produce(
                    topic,
                    value=value,
                    key=key,
                    headers=list(headers),
                    on_delivery=self._note(message_id, delivered),
                )
            except (BufferError, KafkaException, ProduceError) as error:
                log.warning("not produced", error=str(error))
                break
            count += 1
        left = self._flush(producer)
        if left or len(delivered) < count:
            self._drop(f"{count - len(delivered)} of {count} messages were not confirmed")
        return delivered

    def _flush(self, producer: Producer) -> int:
        """Wait for the delivery reports, in slices, so that a producer gone fatal is noticed at once."""
        began = time.monotonic()
        self._fatal = self._cut_off = False
        try:
            while (left := int(producer.flush(FLUSH_SLICE_S))) and not self._fatal:
                if time.monotonic() - began > (CUT_OFF_TIMEOUT_S if self._cut_off else DELIVERY_TIMEOUT_S):
                    break
        except KafkaException as error:  # so may a producer say that it has gone fatal
            _log_error(error.args[0])
            return len(producer) or 1
        return left

    def close(self) -> None:
        """Forget the producer; what it had not confirmed will be delivered by another."""
        self._drop(None)

    def _ensure(self) -> Producer:
        if self._producer is None:
            self._producer = Producer(
                self._settings.with_properties(
                    client_id=self._client_id,
                    enable_idempotence=True,
                    acks="all",
                    linger_ms=2,
                    delivery_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
                    request_timeout_ms=5_000,
                    reconnect_backoff_ms=50,
                    reconnect_backoff_max_ms=1_000,
                    error_cb=self._on_error,
                )
            )
        return self._producer

    def _drop(self, reason: str | None) -> None:
        if self._producer is None:
            return
        if reason:
            self.rebuilds += 1
            PRODUCER_REBUILDS.inc()
            log.warning("producer rebuilt", reason=reason)
            self._producer.purge()
        self._producer = None

    def _on_error(self, error: KafkaError) -> None:
        self._fatal = self._fatal or error.fatal()
        self._cut_off = self._cut_off or error.code() == KafkaError._ALL_BROKERS_DOWN  # noqa: SLF001 - see below
        _log_error(error)

    @staticmethod
    def _note(message_id: Any, delivered: set[Any]) -> Callable[[KafkaError | None, Any], None]:
        def report(error: KafkaError | None, _message: Any) -> None:
            if error is None:
                delivered.add(message_id)

        return report


def make_consumer(
    settings: KafkaSettings, group: str, client_id: str, fetch_wait_max_ms: int = 40, **properties: Any
) -> Consumer:
    """A consumer that commits only what it is told to, from the first message on.

    The short session timeout lets another take over within seconds after a crash. A fetch that finds nothing
    is answered after `fetch_wait_max_ms` at the latest. Apache Kafka answers as soon as there is something,
    the embedded broker often only then; and it spends a millisecond on each fetch.
    """
    return Consumer(
        settings.with_properties(
            group_id=group,
            client_id=client_id,
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="earliest",
            partition_assignment_strategy="cooperative-sticky",
            session_timeout_ms=6_000,
            heartbeat_interval_ms=1_500,
            fetch_wait_max_ms=fetch_wait_max_ms,
            reconnect_backoff_ms=50,
            reconnect_backoff_max_ms=1_000,
            error_cb=_log_error,
            **properties,
        )
    )


def _log_error(error: KafkaError) -> None:
    """Log what librdkafka reports; of its many attempts to connect during an outage only the sum."""
    attempt = error.code() == KafkaError._TRANSPORT  # noqa: SLF001 - librdkafka's names begin like this
    (log.debug if attempt else log.warning)("kafka", error=error.str(), fatal=error.fatal())


def ensure_topics(settings: KafkaSettings, topics: Mapping[str, int], *, deadline_s: float) -> list[str]:
    """Create the topics (name to partitions) that are missing; return their names.

    Waits up to `deadline_s` seconds for the broker. Raises KafkaException when it stays away.
    """
    admin = AdminClient(settings.with_properties(client_id="payment-topics"))
    until = time.monotonic() + deadline_s
    while True:
        try:
            return _create(admin, topics, min(ADMIN_TIMEOUT_S, deadline_s))
        except KafkaException as error:
            if time.monotonic() > until:
                raise
            log.warning("topics not created yet", error=error.args[0].str())
            time.sleep(0.2)


def _create(admin: AdminClient, topics: Mapping[str, int], timeout_s: float) -> list[str]:
    created = []
    # How many copies are kept is the broker's default.
    wanted = [NewTopic(name, num_partitions=count) for name, count in topics.items()]
    answers = admin.create_topics(wanted, operation_timeout=timeout_s, request_timeout=timeout_s)
    for name, future in answers.items():
        try:
            future.result()
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
    return created
