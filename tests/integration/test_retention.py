"""Retention: old idempotency keys go in batches; younger ones, and all history, stay."""

import uuid
from datetime import UTC, datetime, timedelta

from sqlalchemy import func, select

from payment_worker import retention
from shared.database import try_lock
from shared.models import IdempotencyKey, InboxMessage, InboxState, Operation, TimelineEntry
from shared.models_neighbours import InventoryAdjustment, Reservation
from tests.worker import Bench

KEEP = timedelta(days=30)


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


def stored(bench: Bench, table: type[IdempotencyKey] | type[TimelineEntry] | type[InboxMessage]) -> int:
    """How many rows the table has."""
    with bench.sessions() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_old_keys_go_and_young_ones_stay(bench: Bench) -> None:
    """More than two batches of old keys are purged in one run; history is not touched."""
    add_keys(bench, 2 * retention.BATCH + 5, KEEP + timedelta(hours=1))
    add_keys(bench, 3, KEEP - timedelta(hours=1))
    history = stored(bench, TimelineEntry)
    assert retention.purge(bench.sessions, bench.settings) == 2 * retention.BATCH + 5
    assert stored(bench, IdempotencyKey) == 3
    assert stored(bench, TimelineEntry) == history
    assert retention.purge(bench.sessions, bench.settings) == 0


def test_a_second_purge_at_the_same_time_does_nothing(bench: Bench) -> None:
    """Two schedulers may send the job; only one of the two does it."""
    add_keys(bench, 3, KEEP + timedelta(hours=1))
    with bench.sessions.begin() as session:
        assert try_lock(session, "retention")
        assert retention.purge(bench.sessions, bench.settings) == 0
    assert retention.purge(bench.sessions, bench.settings) == 3


def test_old_webhooks_go_when_they_are_done_with(bench: Bench) -> None:
    """Processed and ignored ones go; what waits for the worker or for a person stays, however old."""
    with bench.sessions.begin() as session:
        session.add_all(
            InboxMessage(
                source="stripe",
                message_id=f"evt_{state}_{age.days}",
                type="refund.created",
                state=state,
                attempts=0,
                next_attempt_at=datetime.now(UTC) if state is InboxState.RECEIVED else None,
                received_at=datetime.now(UTC) - age,
            )
            for state in InboxState
            for age in (KEEP + timedelta(days=1), KEEP - timedelta(days=1))
        )
    assert retention.purge(bench.sessions, bench.settings) == 2
    with bench.sessions() as session:
        left = set(session.scalars(select(InboxMessage.message_id)))
    assert {"evt_received_31", "evt_unmatched_31", "evt_failed_31"} < left
    assert len(left) == 2 * len(InboxState) - 2


def test_what_neighbours_have_told_goes_when_it_is_over(bench: Bench) -> None:
    """A reservation that may still be paid for stays, however long ago it was made."""
    ages = {"old": KEEP + timedelta(days=1), "young": KEEP - timedelta(days=1)}
    now = datetime.now(UTC)
    with bench.sessions.begin() as session:
        for name, age in ages.items():
            for status, ends in (("active", now + KEEP), ("late", now - age), ("expired", now - age)):
                session.add(
                    Reservation(
                        id=f"{name} {status}",
                        customer_id="c-1",
                        status="active" if status == "late" else status,
                        expires_at=ends,
                        changed_at=now - age,
                    )
                )
            session.add(InventoryAdjustment(message_id=name, product="p-1", received_at=now - age))
    assert retention.purge(bench.sessions, bench.settings) == 3
    with bench.sessions() as session:
        left = set(session.scalars(select(Reservation.id)))
        assert left == {"old active", "young active", "young late", "young expired"}
        assert set(session.scalars(select(InventoryAdjustment.message_id))) == {"young"}
