"""What only somebody beside the gateway can see: who asks it, holding what, and by what right."""

import uuid
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg

from payment_worker.leases import Leases
from shared.database import Sessions
from tests.simulation.clock import Clock
from tests.simulation.schedule import Actor, Scheduler

HELD, TWO_HOLDERS, PAUSED = "held", "two holders", "paused"
LEASE: Final = timedelta(seconds=15)
# The newest claim on an operation is in the history, too, unless it only asks how something stands.
_CLAIMED: Final = """
    SELECT attempt, lease_until,
        (SELECT max(at) FROM timeline_entry WHERE operation_id = operation.id AND event ~ ' sent( again)?$'),
        (SELECT since FROM pause WHERE pause.kind = operation.kind)
    FROM operation WHERE id = %s
"""


@dataclass
class Right:
    """Somebody carries out an operation, and until when it has the right to."""

    actor: Actor
    operation_id: uuid.UUID
    until: datetime


class Witness:
    """Watches the calls of one seed, and by what right they are made."""

    def __init__(self, database: psycopg.Connection[Any], clock: Clock, scheduler: Scheduler) -> None:
        """Nothing was seen yet."""
        self._database, self._clock, self._scheduler = database, clock, scheduler
        self._rights: list[Right] = []
        self.seen: list[tuple[str, str]] = []

    def called(self, what: str) -> None:
        """Somebody asks the gateway."""
        actor = self._scheduler.here
        if actor and actor.backends:
            self.seen.append((HELD, f"{actor.name}: {what}"))

    @contextmanager
    def claimed(self, operation_id: uuid.UUID, attempt: int) -> Iterator[None]:
        """Somebody has just claimed an operation, and carries it out within the block."""
        row = self._database.execute(_CLAIMED, (operation_id,)).fetchone()
        actor = self._scheduler.here
        if actor is None or row is None or row[0] != attempt or row[1] is None:
            yield  # overtaken already: it has no right any more
            return
        _, until, sent_at, paused_since = row
        for other in self._rights:
            if other.operation_id == operation_id and other.until > until - LEASE and not other.actor.dead:
                self.seen.append((TWO_HOLDERS, f"{actor.name} and {other.actor.name}: {operation_id}"))
        if paused_since and sent_at and paused_since < sent_at:
            self.seen.append((PAUSED, f"{actor.name}: {operation_id}, paused since {paused_since}"))
        right = Right(actor, operation_id, until)
        self._rights.append(right)
        try:
            yield
        finally:
            self._rights.remove(right)

    def renewed(self, actors: Collection[Actor | None]) -> None:
        """The leases of these were pushed out; whoever was overtaken has none any more.

        One that had lapsed may have been seen so by whoever claims next: it gives no right again.
        """
        now = self._clock.now()
        newest = {right.operation_id: right for right in self._rights}
        for right in newest.values():
            if right.actor in actors and right.until > now:
                right.until = now + LEASE


class WatchedLeases(Leases):
    """The real ones; the witness hears of each claim."""

    def __init__(self, sessions: Sessions, lease_s: float, witness: Witness) -> None:
        """Nothing runs yet."""
        super().__init__(sessions, lease_s)
        self._witness = witness

    @contextmanager
    def held(self, operation_id: uuid.UUID, attempt: int) -> Iterator[None]:
        """As the real one."""
        with self._witness.claimed(operation_id, attempt), super().held(operation_id, attempt):
            yield
