"""Announce events again, each under its own id: from the history back into the outbox."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Text, cast, func, literal, select, text, tuple_
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import aliased

from shared.database import Sessions, reading
from shared.models import Operation, Outbox, TimelineEntry, plain
from shared.payments import Announcement

BATCH = 200  # payments
# What is announced now waits behind what is announced again: not more than a few seconds' worth.
MAX_WAITING = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which events: from `since` on and before `until`, where given only of this payment and of this type."""

    since: datetime
    until: datetime
    payment_id: uuid.UUID | None = None
    type: Announcement | None = None

    def conditions(self, entry: Any) -> list[ColumnElement[bool]]:
        """What a row of the history must fulfil."""
        conditions = [
            entry.announced_id.is_not(None),
            entry.at >= self.since,
            entry.at < self.until,
        ]
        if self.payment_id:
            conditions.append(entry.payment_id == self.payment_id)
        if self.type:
            conditions.append(entry.announced_type == str(self.type))
        return conditions


class Progress(NamedTuple):
    """How far it has come: payments whose first wanted event is before `reached` are done with."""

    announced: int
    reached: datetime


def count(sessions: Sessions, wanted: Wanted) -> dict[str, int]:
    """How many events of each type there are."""
    entry = TimelineEntry
    query = select(entry.announced_type, func.count()).where(*wanted.conditions(entry))
    with reading(sessions) as session:
        rows = session.execute(query.group_by(entry.announced_type).order_by(entry.announced_type))
        return {str(name): number for name, number in rows}


def waiting(sessions: Sessions) -> int:
    """How many events wait for the relay."""
    query = select(func.count()).select_from(Outbox).where(Outbox.parked_reason.is_(None))
    with reading(sessions) as session:
        return session.scalars(query).one()


def replay(sessions: Sessions, wanted: Wanted, make_room: Callable[[], None]) -> Iterator[Progress]:
    """Put the events into the outbox again, batch by batch, each in a transaction of its own.

    Payment by payment, each one's events in their order, so that none overtakes another. What still waits
    moves behind what is announced again before it. `make_room` is called before each batch and may wait.
    """
    entry, earlier = TimelineEntry, aliased(TimelineEntry)
    is_first = ~(
        select(earlier.sequence)
        .where(
            earlier.payment_id == entry.payment_id,
            earlier.sequence < entry.sequence,
            *wanted.conditions(earlier),
        )
        .exists()
    )
    firsts = (
        select(entry.at, entry.payment_id)
        .where(*wanted.conditions(entry), is_first)
        .order_by(entry.at, entry.payment_id)
        .limit(BATCH)
    )
    page = firsts
    while True:
        make_room()
        with sessions.begin() as session:
            payments = session.execute(page).all()
            if not payments:
                return
            ids = [payment_id for _, payment_id in payments]
            announced = len(session.execute(_insert(wanted, ids)).all())
        last = payments[-1]
        yield Progress(announced, last.at)
        page = firsts.where(tuple_(entry.at, entry.payment_id) > tuple_(last.at, last.payment_id))


def _insert(wanted: Wanted, payment_ids: list[uuid.UUID]) -> Any:
    entry = TimelineEntry
    again = {
        "id": entry.announced_id,
        "aggregatetype": literal("payment"),
        "aggregateid": entry.payment_id,
        "type": entry.announced_type,
        "payload": entry.announced_payload,
        "sequence": entry.sequence,
        "correlation_id": entry.correlation_id,
        "causation_id": cast(entry.operation_id, Text),
        "traceparent": Operation.traceparent,
        "created_at": entry.at,
    }
    rows = (
        select(*again.values())
        .outerjoin(Operation, Operation.id == entry.operation_id)
        .where(*wanted.conditions(entry), entry.payment_id.in_(payment_ids))
        .order_by(entry.payment_id, entry.sequence)
    )
    outbox = plain(Outbox)
    added = insert(outbox).from_select(list(again), rows)
    return added.on_conflict_do_update(index_elements=["id"], set_={"position": text("DEFAULT")}).returning(
        outbox.c.id
    )
