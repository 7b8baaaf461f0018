"""Claims on operations, kept alive by one heartbeat for everything that this process has in flight."""

import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from sqlalchemy import func, tuple_, update

from shared.database import Sessions, is_database_down, reason_of
from shared.models import Operation
from shared.telemetry import get_logger

log = get_logger(__name__)

RENEWALS_PER_LEASE = 3  # two heartbeats may be missed before another worker takes over


class Leases:
    """The operations that run in this process."""

    def __init__(self, sessions: Sessions, lease_s: float) -> None:
        """Nothing runs yet; `start` begins the heartbeat."""
        self._sessions = sessions
        self._lease_s = lease_s
        self._running: set[tuple[uuid.UUID, int]] = set()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def start(self) -> None:
        """Begin the heartbeat in a thread that ends with the process."""
        threading.Thread(target=self._beat, name="lease heartbeat", daemon=True).start()

    def stop(self) -> None:
        """End the heartbeat."""
        self._stop.set()

    @contextmanager
    def held(self, operation_id: uuid.UUID, attempt: int) -> Iterator[None]:
        """Keep the lease of this attempt alive within the block."""
        with self._lock:
            self._running.add((operation_id, attempt))
        try:
            yield
        finally:
            with self._lock:
                self._running.discard((operation_id, attempt))

    def renew(self) -> None:
        """Push out the leases of everything that runs here; an attempt that was overtaken stays overtaken."""
        with self._lock:
            running = list(self._running)
        if not running:
            return
        until = func.clock_timestamp() + timedelta(seconds=self._lease_s)
        with self._sessions.begin() as session:
            session.execute(
                update(Operation)
                .where(
                    tuple_(Operation.id, Operation.attempt).in_(running), Operation.lease_until.is_not(None)
                )
                .values(lease_until=until)
                .execution_options(synchronize_session=False)
            )

    def _beat(self) -> None:
        while not self._stop.wait(self._lease_s / RENEWALS_PER_LEASE):
            try:
                self.renew()
            # Whatever it is: a heart that stops once would leave this process without leases for good. The
            # gateway's idempotency key still protects what runs; another worker may take over.
            except Exception as error:
                if is_database_down(error):
                    log.warning("leases not renewed: the database is away", reason=reason_of(error))
                else:
                    log.exception("leases not renewed")
