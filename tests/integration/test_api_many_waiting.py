"""Two hundred clients wait for their outcomes at once, on the real server, and nobody else notices."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import psycopg
import pytest

from tests.api import SOON_S, Answer, ServedApi
from tests.factories import payment_body
from tests.waiting import wait_until

WAITING = 200
OTHERS = 20
SLOTS = "payment_api_wait_slots_in_use"


@pytest.fixture
def own_api(database_url: str, redis_url: str) -> Iterator[ServedApi]:
    """A server with every setting as it comes, and no worker behind it: nothing is ever settled."""
    # Each of the two processes could take all of them: which one a connection falls to is chance.
    api = ServedApi(
        database_url, redis_url, LOG_LEVEL="warning", WAIT_SLOTS=WAITING, WEB_THREADS=WAITING + 40
    )
    yield api
    if api.process.poll() is None:
        api.close()


def slots_in_use(api: ServedApi) -> float:
    """How many requests the server says are waiting."""
    lines = api.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(SLOTS))


def held_connections(database_url: str) -> int:
    """How many of the API's connections are in a transaction or a statement at this moment."""
    query = """
        SELECT count(*) FROM pg_stat_activity
        WHERE application_name = 'payment-api' AND datname = current_database() AND xact_start IS NOT NULL
    """
    with psycopg.connect(database_url) as connection:
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


def wait_patiently(api: ServedApi) -> Answer:
    """Ask for a payment and wait; come back where a crowded machine makes so many at once too many."""
    body = payment_body()
    while (answer := api.post(body, Prefer="wait=30")).status == HTTPStatus.SERVICE_UNAVAILABLE:
        pass
    return answer


def test_two_hundred_may_wait_at_once(own_api: ServedApi, database_url: str) -> None:
    """They hold no connection, others are answered meanwhile, and a stop lets them go with 202."""
    with ThreadPoolExecutor(WAITING) as callers:
        held = [callers.submit(wait_patiently, own_api) for _ in range(WAITING)]
        wait_until(lambda: slots_in_use(own_api) == WAITING, SOON_S, f"{WAITING} requests to wait")
        for _ in range(OTHERS):
            assert own_api.post_async(payment_body()).status == 202
        # They look again once a second, for a moment each: never all at once, and mostly none.
        wait_until(lambda: held_connections(database_url) == 0, SOON_S, "a moment without any connection")
        assert not any(each.done() for each in held)
        assert slots_in_use(own_api) == WAITING
        own_api.close()
        answers = [each.result() for each in held]
    assert [answer.status for answer in answers] == [202] * WAITING
    assert {answer.headers["Preference-Applied"] for answer in answers} == {"wait=30"}
