"""The schema's history: Alembic revisions, and the one function that brings a database up to date."""

import time
from collections.abc import Callable
from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, create_engine, func, select
from sqlalchemy.pool import NullPool

from shared.database import driver_url, leave_when_read_only

# Two that migrate at once would trip over each other: the second waits, then finds nothing to do.
LOCK = "payment-service migrations"
# A migration must not queue behind a long transaction and hold up everyone behind itself.
TIMEOUTS = "-c lock_timeout=2000"
TURN_TIMEOUT_S = 60.0  # longer than any revision is to take
LOOK_EVERY_S = 0.2


def config() -> Config:
    """Alembic's configuration, without an ini file."""
    alembic = Config()
    alembic.set_main_option("script_location", str(Path(__file__).parent))
    return alembic


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the schema up to `revision`; does nothing when it is there already."""
    _run(database_url, lambda alembic: command.upgrade(alembic, revision))


def downgrade(database_url: str, revision: str) -> None:
    """Take the schema back to `revision`."""
    _run(database_url, lambda alembic: command.downgrade(alembic, revision))


def _run(database_url: str, work: Callable[[Config], None]) -> None:
    engine = create_engine(
        driver_url(database_url),
        poolclass=NullPool,
        connect_args={"options": TIMEOUTS, "connect_timeout": 5},
    )
    leave_when_read_only(engine)
    with engine.connect() as connection:
        _wait_for_turn(connection)
        alembic = config()
        alembic.attributes["connection"] = connection
        work(alembic)


def _wait_for_turn(connection: Connection) -> None:
    """Let one migrate at a time.

    No transaction is open between two looks: an index that is made concurrently waits for every open one,
    so that a migration waiting for its turn inside one would be waited for in turn.
    """
    until = time.monotonic() + TURN_TIMEOUT_S
    while not connection.scalar(select(func.pg_try_advisory_lock(func.hashtextextended(LOCK, 0)))):
        connection.commit()
        if time.monotonic() > until:
            raise TimeoutError(f"another migration has not ended within {TURN_TIMEOUT_S:g} s")
        time.sleep(LOOK_EVERY_S)
    connection.commit()
