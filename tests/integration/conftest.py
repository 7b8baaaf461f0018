"""Give tests of the Payment API an application, a served one, and a worker to settle its payments."""

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest
from psycopg import sql

from shared.settings import Settings, load_settings
from tests.api import NOWHERE, Api, ServedApi, Settler, api_settings
from tests.books import Books, make_books, own_simulator
from tests.conftest import Servers
from tests.door import Door
from tests.shop import Shop
from tests.simulator import Simulator
from tests.stripe_process import Running
from tests.tokens import PREVIOUS, SECRET
from tests.topics import make_topics
from tests.worker import Bench, make_bench

NewApi = Callable[..., Api]


@pytest.fixture
def new_api(database_url: str, redis_url: str) -> Iterator[NewApi]:
    """Make an application on this test's database, with further settings or other ones."""
    with ExitStack() as stack:

        def make(**variables: Any) -> Api:
            given = {"database_url": database_url, "redis_url": redis_url, "STRIPE_API_URL": NOWHERE}
            api = Api(api_settings(**(given | variables)))
            stack.callback(api.close)
            return api

        yield make


@pytest.fixture
def bench(settings: Settings) -> Iterator[Bench]:
    """A worker on this test's own database."""
    with make_bench(settings) as made:
        yield made


@pytest.fixture
def api(new_api: NewApi) -> Api:
    """Return an application on this test's own database. It could reach neither Kafka nor a gateway."""
    return new_api()


@pytest.fixture
def closed(new_api: NewApi) -> Api:
    """Return an API that wants a token with every request; its secret is just being replaced."""
    return new_api(AUTH="required", JWT_SECRET=SECRET, JWT_SECRET_PREVIOUS=PREVIOUS)


@pytest.fixture(scope="session")
def session_database_url(servers: Servers, template_database: str) -> Iterator[str]:
    """Return the libpq URL of a migrated database that some tests share."""
    name = f"test_{uuid.uuid4().hex}"
    identifiers = sql.Identifier(name), sql.Identifier(template_database)
    servers.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*identifiers))
    yield servers.database(name)
    servers.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def session_redis_url(servers: Servers) -> str:
    """Return the URL of the logical database that is given to no single test."""
    return urlsplit(servers.redis_url)._replace(path="/0").geturl()


@pytest.fixture(scope="session")
def shared_api(session_database_url: str, session_redis_url: str) -> Iterator[Api]:
    """Return an application for tests that do not mind what others have left in its database."""
    api = Api(api_settings(session_database_url, session_redis_url, STRIPE_API_URL=NOWHERE))
    yield api
    api.close()


@pytest.fixture(scope="session")
def served_api(session_database_url: str, session_redis_url: str) -> Iterator[ServedApi]:
    """Return `payment-api serve` as a process of its own, with few connections, for such tests."""
    api = ServedApi(
        session_database_url,
        session_redis_url,
        STRIPE_API_URL=NOWHERE,
        DATABASE_POOL_SIZE=4,
        LOG_FORMAT="json",
    )
    yield api
    api.close()


@pytest.fixture
def settler(settings: Settings) -> Iterator[Settler]:
    """Return the worker's code on this test's database, with the simulator as its gateway."""
    settler = Settler(settings)
    yield settler
    settler.close()


@pytest.fixture
def shop(new_api: NewApi, settings: Settings) -> Iterator[Shop]:
    """Return an API whose payments are really carried out, one operation after the other, in this process."""
    with make_bench(settings) as bench:
        yield Shop(new_api(), bench)


@pytest.fixture
def new_door(shop: Shop, settings: Settings) -> Iterator[Callable[[], Door]]:
    """Make consumers, which leave the group after the test."""
    make_topics(settings)
    made: list[Door] = []

    def make() -> Door:
        made.append(Door(shop, settings))
        return made[-1]

    yield make
    for door in made:
        door.close()


@pytest.fixture
def door(new_door: Callable[[], Door]) -> Door:
    """Return the only consumer."""
    return new_door()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A simulator for the tests of this module."""
    started = own_simulator(tmp_path_factory.mktemp("stripe"))
    yield started
    assert started.stop() == 0


@pytest.fixture
def books(environment: dict[str, str], gateway: Running, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    """Empty books on both sides."""
    monkeypatch.setenv("STRIPE_API_URL", gateway.url)
    Simulator(gateway.url).reset()
    with make_books(load_settings(("STRIPE_SECRET_KEY",))) as books:
        yield books
