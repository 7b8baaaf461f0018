"""Wait for a payment's outcome without holding a database connection, within a bounded number of slots."""

import threading
import time

from payment_api.metrics import WAIT_SLOTS
from shared.database import Sessions, is_database_down, reading
from shared.models import Payment
from shared.payments import UNSETTLED
from shared.wakeup import Listener

# A wake-up may be lost with Redis: re-read at least this often.
REREAD_S = 1.0


class Waiting:
    """The requests of this process that wait."""

    def __init__(self, sessions: Sessions, listener: Listener, slots: int) -> None:
        """At most `slots` requests wait at once; a further one is told to come back."""
        self._sessions = sessions
        self._listener = listener
        self._closing = False
        self._slots = threading.BoundedSemaphore(slots) if slots else None

    def outcome(self, payment: Payment, wait_s: float) -> Payment | None:
        """The payment as it stands when settled or after `wait_s` seconds; None at once with no slot free."""
        if wait_s <= 0 or payment.status not in UNSETTLED:
            return payment
        if self._slots is None or not self._slots.acquire(blocking=False):
            return None
        try:
            with WAIT_SLOTS.track_inprogress():
                return self._wait(payment, wait_s)
        finally:
            self._slots.release()

    def close(self) -> None:
        """Let every request go with what is known, within a second: the process is about to end."""
        self._closing = True
        self._listener.stop()

    def _wait(self, payment: Payment, wait_s: float) -> Payment:
        until = time.monotonic() + wait_s
        # Subscribe first, then read: a change in between is seen either way.
        with self._listener.listening(payment.id) as changed:
            while True:
                changed.clear()
                payment = self._read(payment)
                left_s = until - time.monotonic()
                if payment.status not in UNSETTLED or left_s <= 0 or self._closing:
                    return payment
                changed.wait(min(REREAD_S, left_s))

    def _read(self, payment: Payment) -> Payment:
        """Read it anew; while the database is away, what is known: it is recorded, so an error would lie."""
        try:
            with reading(self._sessions) as session:
                return session.get_one(Payment, payment.id)
        except Exception as error:
            if is_database_down(error):
                return payment
            raise
