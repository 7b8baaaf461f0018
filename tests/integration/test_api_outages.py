"""The API while its database or Redis is away, starting or busy: clear answers, and recovery by itself."""

import signal
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from psycopg import sql

from tests.api import SOON_S, Answer, Api, ServedApi, Settler, assert_refused
from tests.conftest import Servers
from tests.factories import payment_body
from tests.integration.conftest import NewApi
from tests.waiting import LONGEST_S, wait_until

NO_DATABASE = "postgresql://nobody:nothing@127.0.0.1:9/none"
NO_REDIS = "redis://127.0.0.1:9/0"


def assert_unavailable(answer: Answer) -> None:
    """Hold an answer against what a client must see to come back later; nothing internal is in it."""
    assert_refused(answer, 503, "SERVICE_UNAVAILABLE")
    assert int(answer.headers["Retry-After"]) >= 1
    assert "nobody" not in answer.text
    assert "psycopg" not in answer.text


@contextmanager
def closed(servers: Servers, api: Api) -> Iterator[None]:
    """Let the server refuse and cut every connection to the API's database within the block."""
    name = sql.Identifier(api.stored.database_url.rpartition("/")[2])
    servers.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
    cut = sql.SQL("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = {}")
    servers.execute(cut.format(sql.Literal(name._obj[0])))
    try:
        yield
    finally:
        servers.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


@pytest.fixture
def caller() -> Iterator[ThreadPoolExecutor]:
    """Return a few threads for requests."""
    with ThreadPoolExecutor(4) as caller:
        yield caller


def test_neither_kafka_nor_stripe_is_needed_to_accept(served_api: ServedApi) -> None:
    """The process was given no Kafka and a gateway where nothing listens: it is ready, and accepts."""
    assert served_api.get("/readyz").body == {
        "status": "ready",
        "database": "ok",
        "redis": "ok",
        "paused": [],
    }
    assert served_api.post_async().status == 202


def test_a_database_that_is_down_at_start_is_told(new_api: NewApi) -> None:
    """The process lives and is not ready; every route that needs the database says: come back."""
    api = new_api(database_url=NO_DATABASE)
    assert_unavailable(api.post_async())
    assert_unavailable(api.post())
    assert_unavailable(api.get("/payments"))
    assert_unavailable(api.get(f"/payments/{uuid.uuid4()}"))
    assert api.get("/healthz").body == {"status": "ok"}
    ready = api.get("/readyz")
    assert (ready.status, ready.body["status"]) == (503, "not ready")
    assert ready.body["database"].startswith("away")
    assert api.get("/openapi.json").status == 200


def test_bad_input_is_told_before_the_database_is_asked(new_api: NewApi) -> None:
    """A client's mistake stays a client's mistake while the database is away."""
    api = new_api(database_url=NO_DATABASE)
    assert_refused(api.post_async(payment_body(amount=0)), 400, "VALIDATION_FAILED", "amount: ")


def test_a_database_without_tables_is_not_ready(servers: Servers, new_api: NewApi) -> None:
    """Before the migration has run, no traffic should come here; afterwards it may, without a restart."""
    from shared.migrations import upgrade

    name = f"test_{uuid.uuid4().hex}"
    servers.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    api = new_api(database_url=servers.database(name))
    assert api.get("/readyz").status == 503
    answer = api.post_async()
    assert answer.status in {500, 503}
    assert "relation" not in answer.text, "nothing internal is shown"
    upgrade(servers.database(name))
    assert api.get("/readyz").status == 200
    assert api.post_async().status == 202


def test_a_lost_database_is_told_and_found_again(servers: Servers, api: Api) -> None:
    """Connections that were open are noticed to be dead; when the database is back, so is the service."""
    body = payment_body()
    first = api.post_async(body)
    with closed(servers, api):
        for _ in range(3):
            assert_unavailable(api.post_async())
        assert_unavailable(api.get(f"/payments/{first.payment['id']}"))
        assert api.get("/readyz").status == 503
        assert api.get("/healthz").status == 200
    assert api.post_async(body).body == first.body
    assert api.get("/readyz").status == 200
    assert api.stored.counts()["payment"] == 1


def test_a_recorded_payment_is_answered_although_the_database_goes(
    servers: Servers, api: Api, caller: ThreadPoolExecutor
) -> None:
    """Whoever waits when it happens is told what is known: recorded, and still open."""
    answer = caller.submit(api.post, payment_body(), Prefer="wait=2")
    wait_until(lambda: api.stored.counts().get("payment"), SOON_S, "the payment to be recorded")
    with closed(servers, api):
        assert_unavailable(api.get("/payments"))
        told = answer.result(LONGEST_S)
    assert (told.status, told.payment["status"]) == (202, "pending")
    assert told.headers["Location"] == f"/payments/{told.payment['id']}"
    assert api.get(told.headers["Location"]).payment == told.payment


def test_an_exhausted_pool_is_told(new_api: NewApi) -> None:
    """A request that gets no connection in time is told to come back, and the next one is served."""
    api = new_api(DATABASE_POOL_SIZE=1)
    api.pool._timeout = 0.1
    with api.services.sessions() as session:
        session.connection()
        assert api.pool.checkedout() == 1
        assert_unavailable(api.post_async())
        assert_unavailable(api.get("/payments"))
    assert api.post_async().status == 202


def test_killing_postgresql_loses_nothing_and_needs_no_restart(
    servers: Servers, served_api: ServedApi, caller: ThreadPoolExecutor
) -> None:
    """Killed with -9 under requests: each is answered 202 and then stored, or 503; then all goes on."""
    answers: list[tuple[dict[str, Any], Answer]] = []
    done: list[bool] = []

    def keep_posting() -> None:
        while not done:
            body = payment_body()
            answers.append((body, served_api.post_async(body)))

    posting = [caller.submit(keep_posting) for _ in range(4)]
    try:
        wait_until(lambda: len(answers) > 10, SOON_S, "some requests before")
        killed = servers.stack.kill("postgres")
        servers.stack.wait_restarted("postgres", killed)
        since = len(answers)
        wait_until(lambda: any(each.status == 202 for _, each in answers[since:]), SOON_S, "acceptance")
    finally:
        done.append(True)
    for each in posting:
        each.result(LONGEST_S)
    assert {answer.status for _, answer in answers} == {202, 503}
    for _, answer in answers:
        if answer.status == 503:
            assert_unavailable(answer)
    stored = {row["order_id"] for row in served_api.stored.rows("payment")}
    assert {body["orderId"] for body, answer in answers if answer.status == 202} <= stored
    assert served_api.process.poll() is None


def test_redis_is_not_needed(new_api: NewApi) -> None:
    """Without Redis the service is ready and accepts; it says that outcomes come a little later."""
    api = new_api(redis_url=NO_REDIS)
    ready = api.get("/readyz")
    assert (ready.status, ready.body["status"], ready.body["database"]) == (200, "ready", "ok")
    assert ready.body["redis"].startswith("away")
    assert api.post_async().status == 202


def test_killing_valkey_in_mid_wait_is_survived(
    servers: Servers, api: Api, settler: Settler, caller: ThreadPoolExecutor
) -> None:
    """The outcome is found by looking; when Valkey is back, the listener is subscribed again by itself."""
    body = payment_body()
    answer = caller.submit(api.post, body, Prefer="wait=20")
    wait_until(lambda: subscribers(api), SOON_S, "the subscription")
    killed = servers.stack.kill("valkey")
    settler.settle(body["orderId"])
    assert answer.result(LONGEST_S).status == 200
    servers.stack.wait_restarted("valkey", killed)
    wait_until(lambda: subscribers(api), SOON_S, "the subscription to be renewed")
    assert settler.pay(api, payment_body(), Prefer="wait=20").status == 200


def subscribers(api: Api) -> int:
    """Return how many listen for changes; none while Valkey is away."""
    try:
        return int(api.services.redis.pubsub_numsub("payments:changed")[0][1])
    except redis.RedisError:
        return 0


def test_a_graceful_stop_answers_those_who_wait(
    session_database_url: str, session_redis_url: str, caller: ThreadPoolExecutor
) -> None:
    """SIGTERM in the middle of a wait: the client is soon told 202, then the process ends with status 0."""
    api = ServedApi(session_database_url, session_redis_url, WEB_WORKERS=1)
    body = payment_body()
    try:
        answer = caller.submit(api.post, body, Prefer="wait=30")
        wait_until(
            lambda: body["orderId"] in {row["order_id"] for row in api.stored.rows("payment")},
            SOON_S,
            "the payment to be recorded",
        )
        api.process.send_signal(signal.SIGTERM)
        assert answer.result(LONGEST_S).status == 202
    finally:
        api.close()
