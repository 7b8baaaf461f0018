"""Retention: old idempotency keys go in batches; younger ones, and all history, stay."""

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select

from payment_worker import retention
from shared.database import try_lock
from shared.models import IdempotencyKey, Operation, TimelineEntry
from shared.settings import Settings
from tests.worker import Bench, make_bench

KEEP = timedelta(days=30)


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    """A worker's bench on this test's own database."""
    with make_bench(settings) as bench:
        yield bench


def add_keys(bench: Bench, count: int, age: timedelta) -> None:
    """Store keys of this age, all bound to one payment."""
    operation_id = bench.order()
    with bench.sessions.begin() as session:
        payment_id = session.get_one(Operation, operation_id).payment_id
        session.add_all(
            IdempotencyKey(
                principal="local",
                key=str(uuid.uuid4()),
                request_hash="x",
                payment_id=payment_id,
                created_at=datetime.now(UTC) - age,
            )
            for _ in range(count)
        )


def stored(bench: Bench, table: type[IdempotencyKey] | type[TimelineEntry]) -> int:
    """How many rows the table has."""
    with bench.sessions() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_old_keys_go_and_young_ones_stay(bench: Bench) -> None:
    """More than two batches of old keys are purged in one run; history is not touched."""
    add_keys(bench, 2 * retention.BATCH + 5, KEEP + timedelta(hours=1))
    add_keys(bench, 3, KEEP - timedelta(hours=1))
    history = stored(bench, TimelineEntry)
    assert retention.purge(bench.sessions, KEEP) == 2 * retention.BATCH + 5
    assert stored(bench, IdempotencyKey) == 3
    assert stored(bench, TimelineEntry) == history
    assert retention.purge(bench.sessions, KEEP) == 0


def test_a_second_purge_at_the_same_time_does_nothing(bench: Bench) -> None:
    """Two schedulers may send the job; only one of the two does it."""
    add_keys(bench, 3, KEEP + timedelta(hours=1))
    with bench.sessions.begin() as session:
        assert try_lock(session, "retention")
        assert retention.purge(bench.sessions, KEEP) == 0
    assert retention.purge(bench.sessions, KEEP) == 3
