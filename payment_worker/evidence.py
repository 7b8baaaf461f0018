"""Write evidence beside the charges, so that none of them waits for object storage or fails with it."""

import multiprocessing
import queue
import signal
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from typing import Any

from payment_worker.metrics import EVIDENCE
from shared.evidence import EvidenceStore
from shared.garbage import spare_what_stays
from shared.gateways.exchanges import Exchange
from shared.sealing import Sealer
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

WAITING = 1_000  # documents that may wait; past it they are dropped and counted
GATHER_S = 0.25  # what comes meanwhile is written together
LAST_S = 5.0  # what is waiting at the end gets so long

Kept = tuple[str, dict[str, Any], list[Exchange]]  # a reference, and what is to be found under it
Failures = list[tuple[str, str]]  # the references that could not be written, and why not
Write = Callable[[list[Kept]], Failures]


def store_of(settings: Settings) -> EvidenceStore | None:
    """The store that the settings name; None when they name none."""
    return EvidenceStore(settings.evidence_url, Sealer.of(settings)) if settings.evidence_url else None


def make_evidence(settings: Settings, *, aside: bool = False) -> "EvidenceWriter | None":
    """What writes to the store that the settings name; None when they name none.

    With `aside` a process of its own does, which is forked here: before there are threads.
    """
    if not settings.evidence_url:
        return None

    def open_store() -> Write:
        store = EvidenceStore(settings.evidence_url, Sealer.of(settings))
        return lambda kept: write(store, kept)

    return EvidenceWriter(Aside(open_store) if aside else open_store())


def purge(settings: Settings) -> int:
    """Remove the evidence of days that are over for longer than the setting says; return how many."""
    store = store_of(settings)
    if store is None:
        return 0
    before = datetime.now(UTC).date() - timedelta(days=settings.retention_evidence_days)
    if days := store.purge(before):
        log.info("old evidence purged", days=days)
    return days


def write(store: EvidenceStore, kept: list[Kept]) -> Failures:
    """Write each, redacted; whatever object storage has, the others are written and charges go on."""
    failures = []
    for reference, document, exchanges in kept:
        try:
            store.write(reference, {**document, "exchanges": [each.redacted() for each in exchanges]})
        except Exception as error:  # noqa: BLE001 - see above
            failures.append((reference, type(error).__name__))
    return failures


class Aside:
    """Writes in a process of its own: in this one it would hold up, by the interpreter's lock, who charges.

    The process ends with this one. Should it end before, what it did is done here.
    """

    def __init__(self, open_store: Callable[[], Write]) -> None:
        """Start the process; each of the two opens a store of its own when it needs one."""
        self._open_store = open_store
        self._write: Write | None = None
        self._pipe, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("fork")  # it shares the memory of what is loaded already
        arguments = (theirs, self._pipe, open_store)
        context.Process(target=_serve, args=arguments, name="evidence", daemon=True).start()
        theirs.close()

    def __call__(self, kept: list[Kept]) -> Failures:
        """Have these written; return those that could not be."""
        if self._write is None:
            try:
                self._pipe.send(kept)
                failures: Failures = self._pipe.recv()
            except (EOFError, OSError) as error:
                log.warning("the process that writes evidence has ended", error=type(error).__name__)
                self._write = self._open_store()
            else:
                return failures
        return self._write(kept)


def _serve(pipe: Connection, parents: Connection, open_store: Callable[[], Write]) -> None:
    parents.close()  # or its end would never be seen
    spare_what_stays()  # a look through what the two share would make it two
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    write_all = open_store()
    try:
        while True:
            pipe.send(write_all(pipe.recv()))
    except (EOFError, OSError):
        return


class EvidenceWriter:
    """Takes what is to be kept and has it written when it can; one per process."""

    def __init__(self, write_all: Write, waiting: int = WAITING) -> None:
        """The thread begins with the first document."""
        self._write_all = write_all
        self._queue: queue.Queue[Kept] = queue.Queue(waiting)
        self._hurry = threading.Event()  # somebody waits for the last of them
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
        self._hurry.set()
        with self._queue.all_tasks_done:
            written = self._queue.all_tasks_done.wait_for(lambda: not self._queue.unfinished_tasks, within_s)
        self._hurry.clear()
        return written

    def _start(self) -> None:
        with self._begin:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="evidence", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            kept = [self._queue.get()]
            while not self._queue.empty():
                kept.append(self._queue.get())
            self._write(kept)
            self._hurry.wait(GATHER_S)

    def _write(self, kept: list[Kept]) -> None:
        try:
            failures = self._write_all(kept)
        except Exception as error:  # noqa: BLE001 - this thread must live, whatever it was
            failures = [(reference, type(error).__name__) for reference, _, _ in kept]
        EVIDENCE.labels("written").inc(len(kept) - len(failures))
        for reference, why in failures:
            EVIDENCE.labels("failed").inc()
            log.warning("evidence was not written", reference=reference, error=why)
        for _ in kept:
            self._queue.task_done()
