"""Wait for a payment's outcome without holding a database connection, within a bounded number of slots."""

import threading
import time
import uuid
from collections.abc import Callable, Container
from typing import TypeVar

from payment_api.metrics import WAIT_SLOTS
from shared.database import Sessions, is_database_down, reading
from shared.models import Operation, Payment
from shared.payments import OPEN_OPERATION, UNSETTLED, Status
from shared.wakeup import Listener

# A wake-up may be lost with Redis: re-read at least this often.
REREAD_S = 1.0
SETTLED = frozenset(Status) - UNSETTLED

Row = TypeVar("Row", Payment, Operation)


class Waiting:
    """The requests of this process that wait."""

    def __init__(self, sessions: Sessions, listener: Listener, slots: int) -> None:
        """At most `slots` requests wait at once; a further one is told to come back."""
        self._sessions = sessions
        self._listener = listener
        self._closing = False
        self._slots = threading.BoundedSemaphore(slots) if slots else None

    def outcome(self, payment: Payment, wait_s: float, ends: Container[Status] = SETTLED) -> Payment | None:
        """The payment as it stands when its status is one of `ends` or after `wait_s` seconds.

        None at once with no slot free.
        """
        return self._bounded(payment, payment.id, wait_s, lambda row: row.status in ends)

    def operation(self, operation: Operation, wait_s: float) -> Operation | None:
        """The operation as it stands when ended or after `wait_s` seconds; None at once with no slot free."""
        return self._bounded(
            operation, operation.payment_id, wait_s, lambda row: row.state not in OPEN_OPERATION
        )

    def close(self) -> None:
        """Let every request go with what is known, within a second: the process is about to end."""
        self._closing = True
        self._listener.stop()

    def _bounded(
        self, row: Row, payment_id: uuid.UUID, wait_s: float, is_over: Callable[[Row], bool]
    ) -> Row | None:
        if wait_s <= 0 or is_over(row):
            return row
        if self._slots is None or not self._slots.acquire(blocking=False):
            return None
        try:
            with WAIT_SLOTS.track_inprogress():
                return self._wait(row, payment_id, wait_s, is_over)
        finally:
            self._slots.release()

    def _wait(self, row: Row, payment_id: uuid.UUID, wait_s: float, is_over: Callable[[Row], bool]) -> Row:
        until = time.monotonic() + wait_s
        # Subscribe first, then read: a change in between is seen either way.
        with self._listener.listening(payment_id) as changed:
            while True:
                changed.clear()
                row = self.read_anew(row)
                left_s = until - time.monotonic()
                if is_over(row) or left_s <= 0 or self._closing:
                    return row
                changed.wait(min(REREAD_S, left_s))

    def read_anew(self, row: Row) -> Row:
        """The row as it stands; while the database is away, what is known: an error would lie."""
        try:
            with reading(self._sessions) as session:
                return session.get_one(type(row), row.id)
        except Exception as error:
            if is_database_down(error):
                return row
            raise
