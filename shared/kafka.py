"""Thin wrappers of Kafka's producer and consumer, no business words: delivery reports, manual offsets."""

import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

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

_RECONNECT: Final = {"reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 1_000}
_OF_A_PRODUCER: Final = {
    "enable.idempotence": True,
    "acks": "all",
    "linger.ms": 2,
    "delivery.timeout.ms": int(DELIVERY_TIMEOUT_S * 1000),
    "request.timeout.ms": 5_000,
    **_RECONNECT,
}
# The short session timeout lets another take over within seconds after a crash.
_OF_A_CONSUMER: Final = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "earliest",
    "partition.assignment.strategy": "cooperative-sticky",
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 1_500,
    **_RECONNECT,
}
# What "never lost, in order" rests on, also under its other names, and what would have to be programmed for.
# The value that is ours anyway does no harm: vendors' ready-made files hold some of them.
_FIXED: Final[Mapping[str, Collection[str]]] = MappingProxyType(
    {
        "acks": ("all", "-1"),
        "request.required.acks": ("all", "-1"),
        "enable.idempotence": ("true",),
        "enable.auto.commit": ("false",),
        "enable.auto.offset.store": ("false",),
        "auto.offset.reset": ("earliest", "smallest", "beginning"),
        "partition.assignment.strategy": ("cooperative-sticky",),
        **dict.fromkeys(("bootstrap.servers", "metadata.broker.list", "group.id", "transactional.id"), ()),
        **dict.fromkeys(("delivery.timeout.ms", "message.timeout.ms", "delivery.report.only.error"), ()),
        **dict.fromkeys(("log_level", "logger", "enable.partition.eof"), ()),
    }
)
_PROPERTY: Final = re.compile(r"[a-z]+(?:\.[a-z]+)+")

Headers = Sequence[tuple[str, bytes]]
Outgoing = tuple[Any, str, bytes | None, bytes | None, Headers]
TooLarge = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class KafkaSettings:
    """Where the brokers are and what else librdkafka needs to reach them."""

    bootstrap_servers: str
    extra: Mapping[str, str]

    def with_properties(
        self, common: Mapping[str, Any] = MappingProxyType({}), **properties: Any
    ) -> dict[str, Any]:
        """The librdkafka configuration, with these properties (underscores for dots)."""
        ours = {name if name.endswith("_cb") else name.replace("_", "."): v for name, v in properties.items()}
        # Its own lines on standard error would be no JSON; what matters in them comes by error_cb too.
        own = {"bootstrap.servers": self.bootstrap_servers, "log_level": 0}
        return {**own, **common, **ours, **self.extra}


def why_not(extra: Mapping[str, str]) -> str | None:
    """Why neither the operator's properties nor a value of theirs will do; None if they will.

    A producer and a consumer are made with them, and without a broker to connect to. No value is told.
    """
    if ours := sorted(name for name, value in extra.items() if not _may_be_set(name, value)):
        return f"this service sets {', '.join(ours)} itself"
    settings = KafkaSettings("", extra)
    try:
        Producer(settings.with_properties(_OF_A_PRODUCER))
        Consumer(settings.with_properties(_OF_A_CONSUMER, group_id="none")).close()
    except (KafkaException, TypeError, ValueError, AttributeError) as error:
        return f"librdkafka refuses {', '.join(_properties_in(str(error), extra))}"
    return None


def _may_be_set(name: str, value: str) -> bool:
    return not name.endswith("_cb") and (name not in _FIXED or value in _FIXED[name])


def _properties_in(text: str, extra: Mapping[str, str]) -> list[str]:
    """The properties that an error is about, whose text may hold values, too; if it names none, all."""
    given = [name for name in extra if name and re.search(rf"(?<![\w.]){re.escape(name)}(?![\w.])", text)]
    values = [value for value in extra.values() if value]
    others = [each for each in _PROPERTY.findall(text) if not any(each in v or v in each for v in values)]
    return list(dict.fromkeys(given + others)) or sorted(extra)


class Deliveries:
    """Produces batches, says which messages were confirmed, and rebuilds a producer that has died."""

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        """Nothing is connected until the first batch."""
        self._settings = settings
        self._client_id = client_id
        self._producer: Producer | None = None
        self._fatal = self._cut_off = False
        self.rebuilds = 0

    def deliver(self, messages: Iterable[Outgoing], on_too_large: TooLarge | None = None) -> set[Any]:
        """Produce (id, topic, key, value, headers) and return the ids whose delivery was confirmed.

        An id that is missing from the answer may still arrive: deliver the same message again later.
        `on_too_large` is told the ids of those that will never be taken; the others go out without them.
        """
        delivered: set[Any] = set()
        doubted: list[Outgoing] = []  # refused for the size of the batch that they travelled in
        producer = self._ensure()
        count, broken = 0, ""
        for each in messages:
            message_id, topic, key, value, headers = each
            report = self._note(each, delivered, doubted)
            try:
                producer.produce(topic, value=value, key=key, headers=list(headers), on_delivery=report)
            except BufferError as error:  # full: the rest comes with the next call
                log.warning("not produced", error=str(error))
                break
            except (KafkaException, ProduceError) as error:
                log.warning("not produced", error=str(error))
                if _is_too_large(error.args[0]):
                    _tell(on_too_large, message_id)
                    continue
                broken = f"it takes nothing: {error}"
                break
            count += 1
        left = self._flush(producer)
        unconfirmed = count - len(delivered) - len(doubted)
        if broken or left or unconfirmed > 0:
            self._drop(broken or f"{unconfirmed} of {count} messages were not confirmed")
        return delivered | self._deliver_one_by_one(doubted, on_too_large)

    def _deliver_one_by_one(self, doubted: list[Outgoing], on_too_large: TooLarge | None) -> set[Any]:
        """A broker refuses a whole batch for its size: each alone shows which of them it does not take."""
        delivered: set[Any] = set()
        too_large: set[Any] = set()
        if len(doubted) == 1:
            _tell(on_too_large, doubted[0][0])
            return delivered

        def note(message_id: Any) -> None:
            too_large.add(message_id)
            if on_too_large:
                on_too_large(message_id)

        for each in doubted:
            delivered |= self.deliver([each], note)
            if each[0] not in delivered | too_large:
                break  # the broker is away by now, and would be waited for with each of the others
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
                    _OF_A_PRODUCER, client_id=self._client_id, error_cb=self._on_error
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
    def _note(
        message: Outgoing, delivered: set[Any], doubted: list[Outgoing]
    ) -> Callable[[KafkaError | None, Any], None]:
        def report(error: KafkaError | None, _message: Any) -> None:
            if error is None:
                delivered.add(message[0])
            elif _is_too_large(error):
                doubted.append(message)

        return report


def _is_too_large(error: object) -> bool:
    too_large = {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE}
    return isinstance(error, KafkaError) and error.code() in too_large


def _tell(on_too_large: TooLarge | None, message_id: Any) -> None:
    log.error("a message is too large for Kafka", id=str(message_id))
    if on_too_large:
        on_too_large(message_id)


def make_consumer(
    settings: KafkaSettings, group: str, client_id: str, fetch_wait_max_ms: int = 40, **properties: Any
) -> Consumer:
    """A consumer that commits only what it is told to, from the first message on.

    A fetch that finds nothing is answered after `fetch_wait_max_ms` at the latest. Apache Kafka answers as
    soon as there is something, the embedded broker often only then; and it spends a millisecond on each.
    """
    return Consumer(
        settings.with_properties(
            _OF_A_CONSUMER,
            group_id=group,
            client_id=client_id,
            fetch_wait_max_ms=fetch_wait_max_ms,
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
