"""The gateway's books and ours side by side, in a simulator of its own: others' charges would be breaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import requests

from payment_worker.reconciling import breaks, pages, runs
from payment_worker.reconciling.breaks import Break
from payment_worker.reconciling.desk import Desk
from payment_worker.reconciling.runs import Run
from shared.gateways.stripe_ledger import StripeLedger
from shared.settings import Settings
from tests.api import Stored
from tests.stripe_process import CALL_S, Running
from tests.worker import Bench

HOUR: Final = timedelta(hours=1)


class Books(Bench):
    """A worker's bench, and a reconciliation over everything that this test has made."""

    def __init__(self, settings: Settings) -> None:
        """Begin with nothing in either of the books."""
        super().__init__(settings)
        requests.delete(f"{settings.stripe_api_url}/_control/objects", timeout=CALL_S).raise_for_status()
        self.stored = Stored(settings.database_url)
        self.desk = Desk(
            worker=self.worker,
            ledger=StripeLedger(settings.stripe_secret_key, settings.stripe_api_url),
        )

    def begin(self, *, ago: timedelta = HOUR, until_ago: timedelta = -HOUR, **how: Any) -> Run:
        """Begin a run over the last hour, without a margin."""
        now = datetime.now(UTC)
        return runs.begin(self.sessions, now - ago, now - until_ago, timedelta(), actor="test", **how)

    def compare(self, **how: Any) -> list[Break]:
        """Make a whole run and return the breaks that are open then."""
        pages.carry_on(self.desk, self.begin(**how))
        return self.open()

    def heal(self) -> list[Break]:
        """Make a whole run that does what is safe; return the breaks that are open then."""
        return self.compare(heals=True, applies=True)

    def open(self) -> list[Break]:
        """The breaks that are open, oldest first."""
        return list(breaks.each(self.sessions))

    def kinds(self, found: list[Break]) -> set[tuple[str, str]]:
        """What each break is about and of which kind it is."""
        return {(each.object, each.kind) for each in found}


@contextmanager
def make_books(settings: Settings) -> Iterator[Books]:
    """Set both up, and close the connections after the block."""
    books = Books(settings)
    try:
        yield books
    finally:
        books.engine.dispose()


def own_simulator(folder: Any) -> Running:
    """Start a simulator that no other test uses."""
    return Running(folder / "state.sqlite")
