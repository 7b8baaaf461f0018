"""Start the real servers once for all tests, and give each test its own database, key space and topics."""

import itertools
import os
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import hypothesis
import psycopg
import pytest
import redis
from psycopg import sql

from deploy.local.client import RunningStack, running_stack, without_settings
from deploy.local.postgres import FSYNC
from shared.settings import WORKER_NEEDS, Settings, load_settings
from tests.keys import DATA_KEY
from tests.simulator import Simulator

# Other processes share the machine: an example that takes long now and then is no failure.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")

# Nobody cuts the power: no stack that a test starts waits for the disk, unless that is what is looked at.
os.environ.setdefault(FSYNC, "off")

# No setting that somebody exports for a service of their own reaches a test, or what it starts.
for _name in set(os.environ) - set(without_settings()):
    del os.environ[_name]

LOGICAL_DATABASES = 16  # of Valkey and Redis, by default
SERVERS_UP_S = 180
# What differs from one run to the next: uuids, tokens, moments.
CHANGING = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|eyJ[\w.-]+|\b\d{10}\b")


@dataclass(frozen=True)
class Servers:
    """Where the session's servers answer."""

    database_url: str
    redis_url: str
    kafka_bootstrap_servers: str
    stripe_api_url: str
    stack: RunningStack  # to kill a server; a test that does waits until it is back

    def execute(self, statement: sql.Composed) -> None:
        """Run one statement outside of any transaction on the server's own database."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statement)

    def database(self, name: str) -> str:
        """Return the libpq URL of another database of the same server."""
        return urlsplit(self.database_url)._replace(path=f"/{name}").geturl()


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name a case without what differs from run to run: two processes must know it by the same name."""
    return CHANGING.sub("~", val) if isinstance(val, str) and CHANGING.search(val) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse a unit test that asks for the servers: unit tests run without any."""
    for item in items:
        if "unit" in item.path.parts and "servers" in getattr(item, "fixturenames", ()):
            raise pytest.UsageError(f"{item.nodeid} is a unit test and may not use the servers")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """PostgreSQL, Valkey, the broker and the simulator, on free ports, in a state folder of their own."""
    state_dir = tmp_path_factory.mktemp("servers")
    with running_stack(state_dir, only_servers=True, timeout_s=SERVERS_UP_S) as stack:
        yield Servers(
            database_url=stack.endpoints.database_url,
            redis_url=stack.endpoints.redis_url,
            kafka_bootstrap_servers=stack.endpoints.kafka_bootstrap_servers,
            stripe_api_url=str(stack.endpoints.stripe_api_url),
            stack=stack,
        )


@pytest.fixture(scope="session")
def template_database(servers: Servers) -> str:
    """Return the name of a migrated, empty database, to be cloned."""
    from shared.migrations import upgrade

    name = "payments_template"
    servers.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    upgrade(servers.database(name))
    return name


@pytest.fixture
def database_url(servers: Servers, template_database: str) -> Iterator[str]:
    """Return the libpq URL of this test's own migrated database; commits, locks and crashes are real."""
    name = f"test_{uuid.uuid4().hex}"
    identifiers = sql.Identifier(name), sql.Identifier(template_database)
    servers.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*identifiers))
    yield servers.database(name)
    servers.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


_logical_databases = itertools.cycle(range(1, LOGICAL_DATABASES))


@pytest.fixture
def redis_url(servers: Servers) -> str:
    """Return the URL of an empty logical database, which none of the fourteen tests before has used.

    Published messages know no logical databases: a test may hear another's wake-ups, as may happen anyway.
    """
    url = urlsplit(servers.redis_url)._replace(path=f"/{next(_logical_databases)}").geturl()
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


@pytest.fixture
def kafka_topic_prefix() -> str:
    """Return a prefix under which no topic exists yet."""
    return f"test-{uuid.uuid4().hex[:12]}."


@pytest.fixture
def simulator(servers: Servers) -> Iterator[Simulator]:
    """Return the controls of the Stripe simulator, which has neither faults nor latency before and after."""
    controls = Simulator(servers.stripe_api_url)
    controls.reset()
    yield controls
    controls.reset()


@pytest.fixture
def environment(
    servers: Servers,
    database_url: str,
    redis_url: str,
    kafka_topic_prefix: str,
    simulator: Simulator,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, str]:
    """Return the environment variables of a service of this test's own; they are also set in this process."""
    variables = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": servers.kafka_bootstrap_servers,
        "KAFKA_TOPIC_PREFIX": kafka_topic_prefix,
        "STRIPE_API_URL": simulator.url,
        "STRIPE_SECRET_KEY": "sk_test_" + "0" * 24,
        "DATA_KEY": DATA_KEY,
        "LOG_FORMAT": "json",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def settings(environment: dict[str, str]) -> Settings:
    """Return the settings that this test's environment gives."""
    return load_settings(WORKER_NEEDS)


@pytest.fixture
def repository() -> Path:
    """Return the folder of the checkout, where `python -m deploy.local` is to be run."""
    return Path(__file__).parents[1]
