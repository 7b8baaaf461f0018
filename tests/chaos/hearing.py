"""Hear every outcome on Kafka from outside, through crashes of the broker, and from its first message on."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import simplejson
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Message, TopicPartition

from deploy.local.demo.evidence import Heard
from deploy.local.ordering import OUTCOMES, Outcome, read
from tests.chaos.told import PROCESSED

REJECTED: Final = "payment-rejected"  # the answer to a command on Kafka that was refused
ASSIGN_S: Final = 5.0
POLL_S: Final = 0.1
END_S: Final = 10.0


class Hearing:
    """A consumer in a thread of its own; `heard`, `processed` and `rejected` are what it has heard so far."""

    def __init__(self, bootstrap_servers: str, tell: Callable[[Outcome], None]) -> None:
        """`tell` is called for each outcome, repeated ones too, in this thread."""
        self.heard = Heard()
        self.processed = Heard()  # the catalog's outcomes
        self.rejected: list[str] = []
        self._bootstrap_servers = bootstrap_servers
        self._tell = tell
        self._known: set[str] = set()
        self._stop, self._anew = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="hearing", daemon=True)

    def start(self) -> None:
        """Begin to listen."""
        self._thread.start()

    def ids(self) -> set[str]:
        """The ids of all events so far."""
        return self.heard.ids() | self.processed.ids()

    def start_anew(self) -> None:
        """Read everything again: a broker that has lost its data counts its messages from the first on."""
        self._anew.set()

    def stop(self) -> None:
        """Listen no more."""
        self._stop.set()
        self._thread.join(END_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._anew.clear()
            if consumer := self._consumer():
                try:
                    while not (self._stop.is_set() or self._anew.is_set()):
                        message = consumer.poll(POLL_S)
                        if message is not None and not message.error():
                            self._take(message)
                finally:
                    consumer.close()

    def _consumer(self) -> Consumer | None:
        """A consumer at the beginning of every partition; None while the broker does not know its topics."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap_servers,
                "group.id": "chaos",  # assigned, not subscribed: a group's join takes seconds
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "fetch.wait.max.ms": 10,
                "reconnect.backoff.max.ms": 1000,
                "log_level": 0,
            }
        )
        places: list[TopicPartition] = []
        with suppress(KafkaException, KeyError):
            known = consumer.list_topics(timeout=ASSIGN_S).topics
            places = [
                TopicPartition(topic, number, OFFSET_BEGINNING)
                for topic in (*OUTCOMES, PROCESSED, REJECTED)
                for number in known[topic].partitions
            ]
        if not places:
            consumer.close()
            return None
        consumer.assign(places)
        return consumer

    def _take(self, message: Message) -> None:
        if message.topic() == REJECTED:
            self._note_rejection(simplejson.loads(message.value() or b"{}"))
            return
        outcome = read(message)
        of_whom = self.processed if outcome.topic == PROCESSED else self.heard
        of_whom.note(outcome, "repeat" if outcome.event_id in self._known else "new")
        self._known.add(outcome.event_id)
        self._tell(outcome)

    def _note_rejection(self, answer: dict[str, Any]) -> None:
        says = f"{answer['command']} {answer['commandId']} was refused: {answer['errorMessage']}"
        if says not in self.rejected:
            self.rejected.append(says)
