"""Events are announced again under their own ids, in each payment's order, and do nothing a second time."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update

from payment_worker import replay as module
from payment_worker.relay import Relay
from payment_worker.replay import Wanted, count, replay
from shared.database import connect
from shared.events import rfc3339
from shared.kafka import Deliveries
from shared.models import TimelineEntry
from shared.settings import Settings
from tests.factories import new_uuid
from tests.life import refund
from tests.operating import operate
from tests.topics import Received, kafka_of, make_topics, read_topics
from tests.worker import Bench, make_bench

TOPICS = ("payment-requested", "payment-succeeded", "refund-requested", "refund-succeeded")
LONG_AGO = "2020-01-01T00:00:00Z"


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    """A worker on this test's own database, whose topics exist."""
    make_topics(settings)
    with make_bench(settings) as bench:
        yield bench


@pytest.fixture
def relay(bench: Bench) -> Iterator[Relay]:
    """A relay that leads."""
    engine = connect(bench.settings.database_url, pool_size=1, application="test relay")
    deliveries = Deliveries(kafka_of(bench.settings), "test-relay")
    made = Relay(engine, deliveries, bench.settings.kafka_topic_prefix)
    yield made
    made.close()
    deliveries.close()
    engine.dispose()


def drain(relay: Relay) -> None:
    """Carry until nothing is left."""
    while relay.run_once():
        pass


def lived(bench: Bench) -> uuid.UUID:
    """A payment with four events, and a trace."""
    charged = bench.order(10_000, correlation_id="trace me")
    bench.attempt(charged)
    bench.attempt(refund(bench, charged, 4_000).id)
    return charged


def wanted(**which: Any) -> Wanted:
    """Everything until now, unless something else is said."""
    now = datetime.now(UTC) + timedelta(minutes=1)
    return Wanted(**{"since": now - timedelta(days=1), "until": now, **which})


def by_sequence(messages: list[Received]) -> list[tuple[dict[str, str], bytes]]:
    """Headers, without the trace's span that the relay makes at each sending, and values."""
    told = [
        ({name: value for name, value in each.headers if name != "traceparent"}, each.raw)
        for each in messages
    ]
    return sorted(told, key=lambda each: (each[0]["ce_subject"], int(each[0]["ce_sequence"])))


def test_what_is_announced_again_is_the_same(bench: Bench, relay: Relay) -> None:
    """Every header and every value, of requests and of outcomes, comes twice."""
    lived(bench)
    drain(relay)
    assert bench.outbox() == []
    status, said = operate("events", "replay", "--since", LONG_AGO)
    assert (status, "4 announced again" in said) == (0, True)
    drain(relay)
    twice = by_sequence(read_topics(bench.settings, *TOPICS, count=8))
    assert twice[0::2] == twice[1::2]
    assert len({headers["ce_id"] for headers, _ in twice}) == 4


def test_a_payments_events_keep_their_order(
    bench: Bench, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over many batches, with clocks that went back, and with the latest still waiting from before."""
    monkeypatch.setattr(module, "BATCH", 2)
    operations = [lived(bench) for _ in range(3)]
    with bench.sessions.begin() as session:  # a clock that was put back by a minute in the middle
        back = update(TimelineEntry).where(TimelineEntry.sequence == 3)
        session.execute(back.values(at=TimelineEntry.at - timedelta(minutes=1)))
    for _ in range(2):
        relay.run_once()
    assert len(bench.outbox()) == 6
    batches = list(replay(bench.sessions, wanted(), lambda: None))
    assert [each.announced for each in batches] == [8, 4]
    waiting = bench.outbox()
    assert len(waiting) == 12
    for each in operations:
        payment_id = bench.payment(each).id
        sequences = [row.sequence for row in waiting if row.aggregateid == payment_id]
        assert sequences == sorted(sequences)
        bench.assert_history_is_whole(each)


def test_requests_that_come_again_do_nothing(bench: Bench, relay: Relay) -> None:
    """The worker is told of attempt 0 of an operation that is finished, and leaves it alone."""
    lived(bench)
    entries = len(bench.timeline(lived(bench)))
    drain(relay)
    keys = list(bench.gateway.keys)
    list(replay(bench.sessions, wanted(), lambda: None))
    requests = [row for row in bench.outbox() if row.type.endswith("-requested")]
    assert len(requests) == 4
    for row in requests:
        operation_id = uuid.UUID(row.causation_id)
        assert bench.worker.process(operation_id, 0) is None
        assert len(bench.timeline(operation_id)) == entries
    assert bench.gateway.keys == keys


def test_a_request_that_was_lost_is_carried_out_once(bench: Bench, relay: Relay) -> None:
    """What nobody has claimed yet is what replaying requests is for."""
    operation_id = bench.order()
    drain(relay)
    list(replay(bench.sessions, wanted(), lambda: None))
    (row,) = bench.outbox()
    for _ in range(2):
        bench.worker.process(uuid.UUID(row.causation_id), 0)
    assert len(bench.successes(operation_id)) == 1


def test_only_what_was_asked_for(bench: Bench, relay: Relay) -> None:
    """By time, by payment and by type; a dry run only counts."""
    first, second = lived(bench), lived(bench)
    drain(relay)
    begins = bench.timeline(second)[0].at
    assert count(bench.sessions, wanted(since=begins)) == dict.fromkeys(TOPICS, 1)
    assert sum(count(bench.sessions, wanted(until=begins)).values()) == 4
    of_first = ("--payment", str(bench.payment(first).id), "--type", "refund-succeeded")
    status, said = operate("events", "replay", "--since", LONG_AGO, *of_first, "--dry-run")
    assert (status, "refund-succeeded: 1" in said, "nothing was done" in said) == (0, True, True)
    assert bench.outbox() == []
    operate("events", "replay", "--since", rfc3339(bench.timeline(first)[0].at), *of_first)
    (row,) = bench.outbox()
    assert (row.type, row.aggregateid) == ("refund-succeeded", bench.payment(first).id)
    assert operate("events", "replay", "--since", "yesterday")[0] == 2
    assert operate("events", "replay", "--since", LONG_AGO, "--payment", new_uuid())[0] == 0


def test_it_waits_for_room(bench: Bench, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    """No batch is added before there is room, so that new events do not wait long."""
    monkeypatch.setattr(module, "BATCH", 1)
    for _ in range(3):
        lived(bench)
    drain(relay)
    depths: list[int] = []

    def make_room() -> None:
        depths.append(module.waiting(bench.sessions))
        drain(relay)

    assert sum(each.announced for each in replay(bench.sessions, wanted(), make_room)) == 12
    assert depths == [0, 4, 4, 4]
