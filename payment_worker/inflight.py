"""The threads that carry out operations: each has one of its own, and so many run at a time."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class InFlight:
    """The operations that this process has in hand. Celery's own threads only hand them out."""

    def __init__(self, limit: int) -> None:
        """At most `limit` at a time; threads are made as they are needed."""
        self._closed = False
        self._free = threading.BoundedSemaphore(limit)
        self._threads = ThreadPoolExecutor(limit, thread_name_prefix="operation")

    def begin(self, work: Callable[[], object]) -> bool:
        """Let a thread do this work. Waits while all are busy, so that what cannot run yet stays in Redis.

        False, and nothing done, once the process is about to end: the operation stays due in PostgreSQL.
        """
        self._free.acquire()
        if self._closed:
            self._free.release()
            return False
        self._threads.submit(self._do, work)
        return True

    def close(self, **_: object) -> None:
        """Let nothing more begin; may be called from a signal handler."""
        self._closed = True

    def finish(self) -> None:
        """Wait for everything that has begun."""
        self.close()
        self._threads.shutdown(wait=True)

    def _do(self, work: Callable[[], object]) -> None:
        try:
            work()
        finally:
            self._free.release()
