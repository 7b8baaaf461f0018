"""The simulated time, which PostgreSQL, the gateway and every module that looks at a clock share."""

from datetime import UTC, datetime
from typing import Any

import psycopg

BEGINNING = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY_S = 86_400.0
# In place of PostgreSQL's own, which the search path finds later. The clock ticks whenever it is read, so
# that two moments are never the same; `now()` is stable, as the real one is.
FUNCTIONS = """
    CREATE SCHEMA sim;
    CREATE SEQUENCE sim.clock MINVALUE 0;
    CREATE FUNCTION sim.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
        $$ SELECT 'epoch'::timestamptz + nextval('sim.clock') * interval '1 microsecond' $$;
    CREATE FUNCTION sim.now() RETURNS timestamptz LANGUAGE sql STABLE AS
        $$ SELECT 'epoch'::timestamptz + last_value * interval '1 microsecond' FROM sim.clock $$;
"""


class Clock:
    """Moves only when it is told to; stands in for the module `time`."""

    def __init__(self, database: psycopg.Connection[Any]) -> None:
        """Set PostgreSQL's clock over this connection."""
        self._database = database
        self.us = 0

    def begin(self) -> None:
        """Go back to the beginning."""
        self.us = int(BEGINNING.timestamp()) * 1_000_000
        self._set()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.us += max(1000, round(seconds * 1_000_000))
        self._set()

    def _set(self) -> None:
        self._database.execute("SELECT setval('sim.clock', %s)", (self.us,))

    def now(self) -> datetime:
        """The simulated time."""
        return datetime.fromtimestamp(self.us / 1_000_000, UTC)

    def time(self) -> float:
        """As time.time."""
        return self.us / 1_000_000

    def monotonic(self) -> float:
        """As time.monotonic."""
        return self.us / 1_000_000

    def sleep(self, seconds: float) -> None:
        """As time.sleep: the time passes at once."""
        self.advance(seconds)
