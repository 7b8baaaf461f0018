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
from shared.payments import OperationKind
from tests.simulation.clock import Clock
from tests.simulation.schedule import Actor, Scheduler

HELD, TWO_HOLDERS, PAUSED = "held", "two holders", "paused"
REPEATED, LEASE_LOST = "repeated", "lease lost"
LEASE: Final = timedelta(seconds=15)
# The newest claim on an operation is in the history, too, unless it only asks how something stands.
_CLAIMED: Final = """
    SELECT attempt, lease_until,
        (SELECT max(at) FROM timeline_entry WHERE operation_id = operation.id AND event ~ ' sent( again)?$'),
        (SELECT kind FROM pause WHERE pause.kind = operation.kind)
    FROM operation WHERE id = %s
"""


_LOST: Final = """
    SELECT id FROM operation
    WHERE id = %s AND lease_until IS NULL AND finished_at IS NULL AND state = 'in_flight'
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
        self.halts: dict[OperationKind, datetime] = {}
        self.expected: dict[Actor | None, int] = {}  # the attempts that a task's message knows of

    def halted(self, kinds: Collection[OperationKind]) -> None:
        """An operator was told that these kinds are halted: from this moment on nothing of them begins."""
        row = self._database.execute("SELECT clock_timestamp()").fetchone()
        for kind in kinds:
            self.halts.setdefault(kind, row[0] if row else self._clock.now())

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
        if self.expected.get(actor, attempt - 1) != attempt - 1:
            self.seen.append((REPEATED, f"attempt {attempt} of {operation_id}"))
        if actor is None or row is None or row[0] != attempt or row[1] is None:
            yield  # overtaken already: it has no right any more
            return
        _, until, sent_at, halted = row
        paused_since = self.halts.get(OperationKind(halted)) if halted else None
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
            self._look_at_others(operation_id)

    def _look_at_others(self, operation_id: uuid.UUID) -> None:
        """Whoever has the right to an operation that is still open has its lease, too."""
        now = self._clock.now()
        if any(
            other.operation_id == operation_id and other.until > now and not other.actor.dead
            for other in self._rights
        ):
            lost = self._database.execute(_LOST, (operation_id,)).fetchone()
            if lost:
                self.seen.append((LEASE_LOST, str(operation_id)))

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
