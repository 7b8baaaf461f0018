"""Write evidence in a thread of its own, so that no charge waits for object storage or fails with it."""

import queue
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from payment_worker.metrics import EVIDENCE
from shared.evidence import EvidenceStore
from shared.gateways.exchanges import Exchange
from shared.sealing import Sealer
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

WAITING = 1_000  # documents that may wait; past it they are dropped and counted
LAST_S = 5.0  # what is waiting at the end gets so long


def store_of(settings: Settings) -> EvidenceStore | None:
    """The store that the settings name; None when they name none."""
    return EvidenceStore(settings.evidence_url, Sealer.of(settings)) if settings.evidence_url else None


def make_evidence(settings: Settings) -> "EvidenceWriter | None":
    """What writes to the store that the settings name; None when they name none."""
    store = store_of(settings)
    return EvidenceWriter(store) if store else None


def purge(settings: Settings) -> int:
    """Remove the evidence of days that are over for longer than the setting says; return how many."""
    store = store_of(settings)
    if store is None:
        return 0
    before = datetime.now(UTC).date() - timedelta(days=settings.retention_evidence_days)
    if days := store.purge(before):
        log.info("old evidence purged", days=days)
    return days


class EvidenceWriter:
    """Takes what is to be kept and writes it when it can; one per process."""

    def __init__(self, store: EvidenceStore, waiting: int = WAITING) -> None:
        """The thread begins with the first document."""
        self._store = store
        self._queue: queue.Queue[tuple[str, dict[str, Any], list[Exchange]]] = queue.Queue(waiting)
        self._begin = threading.Lock()
        self._thread: threading.Thread | None = None

    def keep(self, reference: str, document: dict[str, Any], exchanges: list[Exchange]) -> None:
        """Have a document written soon, with its exchanges redacted. Never waits and never raises."""
        try:
            self._queue.put_nowait((reference, document, exchanges))
        except queue.Full:
            EVIDENCE.labels("dropped").inc()
            log.warning("evidence was dropped: too much of it waits", reference=reference)
            return
        self._start()

    def flush(self, within_s: float = LAST_S) -> bool:
        """Wait until nothing waits any more; False when that took too long."""
        until = time.monotonic() + within_s
        with self._queue.all_tasks_done:
            while self._queue.unfinished_tasks:
                left_s = until - time.monotonic()
                if left_s <= 0:
                    return False
                self._queue.all_tasks_done.wait(left_s)
        return True

    def _start(self) -> None:
        with self._begin:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            reference, document, exchanges = self._queue.get()
            try:
                told = [each.redacted() for each in exchanges]
                self._store.write(reference, {**document, "exchanges": told})
                EVIDENCE.labels("written").inc()
            except Exception as error:  # noqa: BLE001 - whatever object storage has, charges go on
                EVIDENCE.labels("failed").inc()
                log.warning("evidence was not written", reference=reference, error=type(error).__name__)
            finally:
                self._queue.task_done()
