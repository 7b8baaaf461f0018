"""What outlives a seed: one database with a clock of its own, one engine, and the threads."""

import math
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
import stripe
from psycopg import sql

from shared import database
from shared.database import connect, make_sessions
from shared.gateways.stripe import StripeGateway
from shared.migrations import upgrade
from shared.sealing import Sealer
from shared.telemetry import configure_logging
from tests.keys import DATA_KEY
from tests.simulation.clock import FUNCTIONS, Clock
from tests.simulation.hooks import watch
from tests.simulation.network import Network, Wire
from tests.simulation.pins import Ids, pinned, replacing
from tests.simulation.schedule import Scheduler

KEY: Final = "sk_test_simulation"
TEMPLATE: Final = "payments_simulated"
ACTORS: Final = 12
TABLES: Final = (
    "idempotency_key, timeline_entry, operation, payment, outbox, inbox, pause, saved_card, customer,"
    " reservation, inventory_adjustment, notification_endpoint, notification_event, notification_delivery,"
    " order_callback"
)
ERASE: Final = "; ".join(f"DELETE FROM {table}" for table in TABLES.split(", "))  # noqa: S608 - the names above
ERASE_EVERY: Final = 200  # seeds; deleting a few rows is quicker, and leaves dead ones behind
# Deliveries that were made due together would be taken by where their rows happen to lie: their ids decide.
TIES: Final = """
    CREATE FUNCTION sim.apart() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        NEW.next_attempt_at = NEW.next_attempt_at
            - ('x' || right(NEW.event_id::text, 4))::bit(16)::int * interval '1 microsecond';
        RETURN NEW;
    END $$;
    CREATE TRIGGER apart_when_made BEFORE INSERT ON notification_delivery
        FOR EACH ROW EXECUTE FUNCTION sim.apart();
    CREATE TRIGGER apart_when_due BEFORE UPDATE OF next_attempt_at ON notification_delivery
        FOR EACH ROW WHEN (NEW.next_attempt_at IS DISTINCT FROM OLD.next_attempt_at)
        EXECUTE FUNCTION sim.apart();
"""
# The clock's functions come before PostgreSQL's. Plans and the order of rows depend on nothing that was there
# before; nothing here has to outlive the process.
SETTINGS: Final = {
    "search_path": "sim, public, pg_catalog",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "synchronous_commit": "off",
    "deadlock_timeout": "200ms",
    "plan_cache_mode": "force_generic_plan",
}


def make_template(server_url: str) -> None:
    """Make the database that each simulating process copies."""
    with psycopg.connect(server_url, autocommit=True) as server:
        name = sql.Identifier(TEMPLATE)
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(name))
        server.execute(sql.SQL("CREATE DATABASE {}").format(name))
    url = of_database(server_url, TEMPLATE)
    upgrade(url)
    with psycopg.connect(url, autocommit=True) as template:
        template.execute(FUNCTIONS)
        template.execute(TIES)
        for table in TABLES.split(", "):
            template.execute(
                sql.SQL("ALTER TABLE {} SET (autovacuum_enabled = off)").format(sql.Identifier(table))
            )


def make_database(server_url: str, name: str) -> str:
    """Copy the template; return the copy's libpq URL."""
    with psycopg.connect(server_url, autocommit=True) as server:
        copy = sql.Identifier(name)
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(copy))
        server.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(copy, sql.Identifier(TEMPLATE)))
        for setting, value in SETTINGS.items():
            change = sql.SQL("ALTER DATABASE {} SET {} = {}")
            words = sql.SQL(", ").join(map(sql.Identifier, value.split(", ")))
            server.execute(change.format(copy, sql.Identifier(setting), words))
    return of_database(server_url, name)


def drop_database(server_url: str, name: str) -> None:
    """Remove a copy."""
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def of_database(server_url: str, name: str) -> str:
    """The libpq URL of another database of the same server."""
    return urlsplit(server_url)._replace(path=f"/{name}").geturl()


class Harness:
    """Everything that seeds share, one after the other."""

    def __init__(self, database_url: str) -> None:
        """Connect to a database that nobody else uses."""
        self.database: psycopg.Connection[Any] = psycopg.connect(database_url, autocommit=True)
        self.clock = Clock(self.database)
        self.chance = Random(0)
        self.ids = Ids(self.clock)
        self.threads = ThreadPoolExecutor(ACTORS + 4, thread_name_prefix="actor")
        self.scheduler = Scheduler(self.threads, self._blockers)
        self.engine = connect(
            database_url, pool_size=ACTORS + 4, application="simulation", sealer=Sealer(DATA_KEY)
        )
        # The connection that was used last has prepared most statements.
        pool: Any = self.engine.pool
        pool._pool.use_lifo = True
        self.sessions = make_sessions(self.engine)
        watch(self.engine, self.scheduler)
        self.wire = Wire()
        self.gateway = StripeGateway(KEY, "https://stripe.invalid")
        self.gateway._client = stripe.StripeClient(
            KEY,
            base_addresses={"api": "https://stripe.invalid"},
            http_client=self.wire,
            max_network_retries=0,
        )
        self._seeds = 0
        self.seed = 0

    def _blockers(self, backend: int) -> Collection[int]:
        row = self.database.execute("SELECT pg_blocking_pids(%s)", (backend,)).fetchone()
        return row[0] if row else ()

    def begin(self, seed: int) -> None:
        """Empty the database, and let `seed` decide from now on."""
        self.database.execute(ERASE if self._seeds % ERASE_EVERY else f"TRUNCATE {TABLES}")
        self._seeds += 1
        self.clock.begin()
        database._times.clear()
        self.seed = seed
        self.chance.seed(seed)
        self.ids.begin(Random(seed + 1))
        self.scheduler.begin(self.chance)

    def use(self, network: Network) -> None:
        """Send the gateway's requests over this network."""
        self.wire.network = network

    def close(self) -> None:
        """Let go of the connections and the threads."""
        self.threads.shutdown()
        self.engine.dispose()
        self.database.close()


@contextmanager
def harness(database_url: str) -> Iterator[Harness]:
    """A harness on this database for the length of the block."""
    configure_logging("simulation", "critical", "json")
    # Whoever is parked in the middle of a transaction is not to be ended for it; the simulated clock says
    # nothing of how long a connection has lain idle.
    with replacing({"shared.database.SERVER_TIMEOUTS_MS": {}, "shared.database.PING_AFTER_IDLE_S": math.inf}):
        made = Harness(database_url)
        try:
            with pinned(made.clock, made.ids, made.chance):
                yield made
        finally:
            made.close()
