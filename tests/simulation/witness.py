"""What only somebody beside the gateway can see: who asks it, holding what, and by what right."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from tests.simulation.clock import Clock
from tests.simulation.schedule import Actor, Scheduler

HELD, TWO_HOLDERS, PAUSED = "held", "two holders", "paused"
LEASE: Final = timedelta(seconds=15)
# The operation of a key; the newest claim on it is in the history.
_RIGHT: Final = """
    SELECT operation.kind, claimed.at, pause.since
    FROM operation
    JOIN LATERAL (
        SELECT max(at) AS at FROM timeline_entry
        WHERE operation_id = operation.id AND event ~ ' sent( again)?$'
    ) claimed ON true
    LEFT JOIN pause ON pause.kind = operation.kind
    WHERE operation.id = %s
"""


@dataclass
class Holder:
    """Somebody who carries out an operation, and how long that is its right."""

    actor: Actor
    key: str
    until: datetime


class Witness:
    """Watches the calls of one seed."""

    def __init__(self, database: psycopg.Connection[Any], clock: Clock, scheduler: Scheduler) -> None:
        """Nothing was seen yet."""
        self._database, self._clock, self._scheduler = database, clock, scheduler
        self._holders: list[Holder] = []
        self.seen: list[tuple[str, str]] = []

    @contextmanager
    def watching(self, what: str, key: str | None) -> Iterator[None]:
        """Watch one call; a key says that something is to be done."""
        actor = self._scheduler.here
        if actor and actor.backends:
            self.seen.append((HELD, f"{actor.name}: {what}"))
        holder = self._right_of(actor, key, what) if actor and key else None
        try:
            yield
        finally:
            if holder:
                self._holders.remove(holder)

    def _right_of(self, actor: Actor, key: str, what: str) -> Holder | None:
        row = self._database.execute(_RIGHT, (key.partition(":")[0],)).fetchone()
        if row is None or row[1] is None:
            return None
        _, claimed_at, paused_since = row
        if paused_since and paused_since < claimed_at:
            self.seen.append((PAUSED, f"{actor.name}: {what}, paused since {paused_since}"))
        now = self._clock.now()
        for other in self._holders:
            if other.key == key and other.until > now and not other.actor.dead:
                self.seen.append((TWO_HOLDERS, f"{actor.name} and {other.actor.name}: {what}"))
        holder = Holder(actor, key, claimed_at + LEASE)
        self._holders.append(holder)
        return holder

    def renewed(self, actors: Sequence[Actor | None], at: datetime) -> None:
        """The leases of these were pushed out; whoever was overtaken has none any more."""
        for holder in self._holders:
            newest = [each for each in self._holders if each.key == holder.key][-1]
            if holder.actor in actors and holder is newest:
                holder.until = at + LEASE
