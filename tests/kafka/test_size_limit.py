"""A broker that takes less than its clients believe: what is too large is told apart from what is not."""

from typing import Any

from confluent_kafka.admin import AdminClient, NewTopic

from shared.kafka import Deliveries
from shared.settings import Settings
from tests.topics import kafka_of, reader
from tests.waiting import LONGEST_S, wait_until

SOON_S = 30
LARGEST_BYTES = 2_000


def test_one_that_is_too_large_holds_up_no_other(settings: Settings) -> None:
    """The broker refuses the whole batch that it came in; the others arrive, and it is named."""
    kafka, topic = kafka_of(settings), settings.kafka_topic_prefix + "narrow"
    admin = AdminClient(kafka.with_properties())
    narrow = NewTopic(topic, num_partitions=1, config={"max.message.bytes": str(LARGEST_BYTES)})
    admin.create_topics([narrow])[topic].result(LONGEST_S)
    values = [b"a", b"b", b"x" * 2 * LARGEST_BYTES, b"c"]
    waiting: dict[int, Any] = {
        number: (number, topic, b"key", value, []) for number, value in enumerate(values)
    }
    too_large: set[int] = set()
    deliveries = Deliveries(kafka, "test")

    def none_is_left() -> bool:
        for number in deliveries.deliver(list(waiting.values()), too_large.add) | too_large:
            waiting.pop(number, None)
        return not waiting

    wait_until(none_is_left, SOON_S, "every message to arrive or to be refused")
    deliveries.close()
    assert too_large == {2}
    with reader(settings.kafka_bootstrap_servers, [topic]) as read:
        # Each at least once: what was doubted may come twice.
        wait_until(lambda: {each.raw for each in read()} >= {b"a", b"b", b"c"}, SOON_S, "all three")
        assert {each.raw for each in read()} == {b"a", b"b", b"c"}
