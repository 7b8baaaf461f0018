"""What becomes of a batch that the broker refuses for its size, while the broker goes away."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from shared import kafka
from shared.kafka import Deliveries, KafkaSettings, Outgoing

BATCH: list[Outgoing] = [(number, "topic", b"key", b"value", []) for number in range(50)]


class Narrow:
    """A producer of librdkafka's shape: refuses a batch for its size, and of single ones confirms some."""

    made = 0

    def __init__(self, takes: Callable[[int], bool]) -> None:
        """Single messages arrive while `takes` says so of the number of producers made and asked."""
        self._takes = takes
        self._reports: list[Any] = []

    def produce(self, _topic: str, *, on_delivery: Any, **_: object) -> None:
        """Keep the report for the next flush."""
        self._reports.append(on_delivery)

    def flush(self, _timeout_s: float) -> int:
        """Refuse all, when they are several; confirm the single one, or say that it is left."""
        reports, self._reports = self._reports, []
        for report in reports if len(reports) > 1 else ():
            report(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
        if len(reports) == 1:
            Narrow.made += 1
            if not self._takes(Narrow.made):
                return 1
            reports[0](None, None)
        return 0

    def purge(self) -> None:
        """Forget what is left."""


def test_a_broker_that_goes_away_in_mid_doubt_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not confirmed any more is left for the next turn, and not tried message by message."""
    monkeypatch.setattr(kafka, "Producer", lambda _: Narrow(lambda asked: asked <= 3))
    monkeypatch.setattr(kafka, "DELIVERY_TIMEOUT_S", 0.0)
    monkeypatch.setattr(Narrow, "made", 0)
    too_large: list[int] = []
    deliveries = Deliveries(KafkaSettings("broker:9092", {}), "test")
    assert deliveries.deliver(BATCH, too_large.append) == {0, 1, 2}
    assert (Narrow.made, too_large) == (4, [])
