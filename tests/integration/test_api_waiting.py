"""Waiting for the outcome: as long as was asked, woken in time, few at once, holding no connection."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import psycopg
import pytest

from tests.api import SOON_S, Answer, Api, Settler, api_settings
from tests.factories import payment_body
from tests.integration.conftest import NewApi
from tests.waiting import LONGEST_S, wait_until

QUICK_S = 8  # an answer that did not wait the nine seconds or more that it would have waited for
NO_REDIS = "redis://127.0.0.1:9/0"


@pytest.fixture
def callers() -> Iterator[ThreadPoolExecutor]:
    """Return threads for requests that wait."""
    with ThreadPoolExecutor(12) as callers:
        yield callers


@pytest.fixture(scope="module")
def hasty_api(session_database_url: str, session_redis_url: str) -> Iterator[Api]:
    """Return an application that waits a fifth of a second by default."""
    api = Api(api_settings(session_database_url, session_redis_url, WAIT_DEFAULT_S=0.2))
    yield api
    api.close()


@pytest.fixture
def _no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look again by himself: who finds the outcome was woken."""
    monkeypatch.setattr("payment_api.waiting.REREAD_S", 60)


def timed(api: Api, **headers: str) -> tuple[Answer, float]:
    """POST a payment that nobody settles; return the answer and the seconds that it took."""
    began = time.monotonic()
    return api.post(payment_body(), **headers), time.monotonic() - began


def waiting(api: Api) -> int:
    """Return how many requests are waiting in this API."""
    return sum(map(len, api.services.waiting._listener._waiting.values()))


def wait_for_waiters(api: Api, number: int) -> None:
    """Wait until so many requests wait."""
    wait_until(lambda: waiting(api) == number, SOON_S, f"{number} requests to wait")


def wait_for_subscription(api: Api) -> None:
    """Wait until the listener hears what is published."""
    wait_until(lambda: api.services.redis.pubsub_numsub("payments:changed")[0][1], SOON_S, "the subscription")


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"), ("Respond-Async", "respond-async"), ("wait=0", "wait=0"),
        ('wait="0"', "wait=0"), ("wait = 0", "wait=0"), ("handling=lenient, respond-async", "respond-async"),
        ("wait=0, respond-async", "wait=0"), ("respond-async, wait=30", "respond-async"),
    ],
)  # fmt: skip
def test_who_does_not_want_to_wait_is_answered_at_once(shared_api: Api, prefer: str, applied: str) -> None:
    """202 with Location as soon as the intent is recorded; the answer says which preference was honoured."""
    answer, took_s = timed(shared_api, Prefer=prefer)
    assert (answer.status, answer.headers["Preference-Applied"]) == (202, applied)
    assert answer.body["success"] is False
    assert answer.body["errorMessage"] == "Payment is still processing"
    assert answer.payment["status"] == "pending"
    assert answer.headers["Location"] == f"/payments/{answer.payment['id']}"
    assert shared_api.get(answer.headers["Location"]).payment == answer.payment
    assert took_s < QUICK_S


def test_wait_waits_that_long(api: Api) -> None:
    """wait=1 answers after a second when nothing has happened."""
    answer, took_s = timed(api, Prefer="wait=1")
    assert (answer.status, answer.headers["Preference-Applied"]) == (202, "wait=1")
    assert 1 <= took_s < 1 + QUICK_S


@pytest.mark.parametrize(
    "prefer",
    ["", "nonsense", "wait", "wait=", "wait=-1", "wait=soon", "wait=0.5", "wait=" + "9" * 20,
     "return=minimal", "respond_async", ",,,", "wait=0;wait"],
)  # fmt: skip
def test_a_preference_that_cannot_be_read_is_ignored(hasty_api: Api, prefer: str) -> None:
    """RFC 7240: what is not understood is not honoured, and never an error; the default wait holds."""
    answer, took_s = timed(hasty_api, Prefer=prefer)
    assert answer.status == 202
    assert "Preference-Applied" not in answer.headers
    assert 0.2 <= took_s < 0.2 + QUICK_S


def test_a_long_wait_is_cut_short(api: Api, settler: Settler) -> None:
    """Nobody waits for more than thirty seconds, and the answer says so."""
    for wanted, applied in (("29", 29), ("30", 30), ("31", 30), ("9" * 18, 30)):
        answer = settler.pay(api, payment_body(), Prefer=f"wait={wanted}")
        assert (answer.status, answer.headers["Preference-Applied"]) == (200, f"wait={applied}")


@pytest.mark.usefixtures("_no_second_look")
@pytest.mark.parametrize(("amount", "status"), [("150.00", 200), ("150.13", 422)])
def test_an_outcome_wakes_the_one_who_waits(
    api: Api, settler: Settler, callers: ThreadPoolExecutor, amount: str, status: int
) -> None:
    """The worker's word arrives, and with it the answer, success or not, long before the wait is over."""
    body = payment_body(amount=Decimal(amount))
    answer = callers.submit(api.post, body, Prefer="wait=30")
    wait_for_waiters(api, 1)
    wait_for_subscription(api)
    settler.settle(body["orderId"])
    assert answer.result(LONGEST_S).status == status


@pytest.mark.usefixtures("_no_second_look")
def test_every_waiting_request_for_a_payment_is_woken(
    api: Api, settler: Settler, callers: ThreadPoolExecutor
) -> None:
    """Ten clients ask for the same order: one charge answers them all."""
    body = payment_body()
    answers = [callers.submit(api.post, body, Prefer="wait=30") for _ in range(10)]
    wait_for_waiters(api, 10)
    wait_for_subscription(api)
    settler.settle(body["orderId"])
    assert {answer.result(LONGEST_S).status for answer in answers} == {200}
    assert len({answer.result().text for answer in answers}) == 1
    assert waiting(api) == 0


def test_a_payment_that_needs_the_customer_is_answered_at_once(api: Api, settler: Settler) -> None:
    """The wait ends when it is the customer's turn: 202 with what there is to do."""
    body = payment_body(paymentMethodId="pm_card_authenticationRequired")
    answer = settler.pay(api, body, Prefer="wait=9")
    assert (answer.status, answer.payment["status"]) == (202, "requires_action")
    assert answer.payment["nextAction"]["type"] in {"redirect", "confirm"}
    assert "customer must act" in answer.body["errorMessage"]
    assert answer.headers["Location"] == f"/payments/{answer.payment['id']}"
    again = api.post(body, Prefer="wait=9")
    assert (again.status, again.payment) == (202, answer.payment)


def test_an_outcome_is_found_without_redis(
    new_api: NewApi, settler: Settler, callers: ThreadPoolExecutor
) -> None:
    """Nobody can be woken, so everybody looks every second."""
    api, body = new_api(redis_url=NO_REDIS), payment_body()
    answer = callers.submit(api.post, body, Prefer="wait=30")
    wait_for_waiters(api, 1)
    settler.settle(body["orderId"])
    assert answer.result(LONGEST_S).status == 200


def test_only_so_many_may_wait(new_api: NewApi, settler: Settler, callers: ThreadPoolExecutor) -> None:
    """Past the bound a request is answered at once and not told that its wish was honoured."""
    api, body = new_api(WAIT_SLOTS=2), payment_body()
    held = [callers.submit(api.post, body, Prefer="wait=9") for _ in range(2)]
    wait_for_waiters(api, 2)
    answer, took_s = timed(api, Prefer="wait=9")
    assert (answer.status, took_s < QUICK_S) == (202, True)
    assert "Preference-Applied" not in answer.headers
    settler.settle(body["orderId"])
    assert {each.result(LONGEST_S).status for each in held} == {200}
    paid = settler.pay(api, payment_body(), Prefer="wait=9")
    assert paid.status == 200, "the slots are free again"


def test_nobody_may_wait_where_there_are_no_slots(new_api: NewApi) -> None:
    """WAIT_SLOTS=0 turns waiting off."""
    answer, took_s = timed(new_api(WAIT_SLOTS=0), Prefer="wait=9")
    assert (answer.status, took_s < QUICK_S) == (202, True)


def test_no_connection_is_held_while_waiting(
    new_api: NewApi, settler: Settler, callers: ThreadPoolExecutor
) -> None:
    """Eight requests wait on a pool of one connection, which stays free for others."""
    api, body = new_api(DATABASE_POOL_SIZE=1), payment_body()
    answers = [callers.submit(api.post, body, Prefer="wait=9") for _ in range(8)]
    wait_for_waiters(api, 8)
    wait_until(lambda: api.pool.checkedout() == 0, SOON_S, "the connection to be free")
    wait_until(lambda: connections(api) == ["idle"], SOON_S, "the connection to be outside of a transaction")
    for _ in range(5):
        assert api.post_async().status == 202
    settler.settle(body["orderId"])
    assert {answer.result(LONGEST_S).status for answer in answers} == {200}


def connections(api: Api) -> list[str]:
    """Return the states of the API's connections, as its database sees them."""
    query = """SELECT state FROM pg_stat_activity
               WHERE datname = current_database() AND application_name = 'payment-api'"""
    with psycopg.connect(api.stored.database_url) as connection:
        return [state for (state,) in connection.execute(query)]
