"""How many requests a principal and an address may make: counted together in Redis, and apart without it."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from payment_api.rate_limits import KEYS, REDIS_AGAIN_S, Limit, LocalCounters, RateLimits, site_of
from shared.wakeup import connect_redis
from tests.api import NOWHERE, Answer, Api, assert_refused
from tests.factories import new_uuid
from tests.integration.conftest import NewApi
from tests.issuer import ec_key
from tests.tokens import OTHER, SECRET, bearer
from tests.waiting import wait_until
from tests.webhooks import SECRET as WEBHOOK_SECRET
from tests.webhooks import event, send

NO_REDIS = "redis://127.0.0.1:9/0"
CLOSED = {"AUTH": "required", "JWT_SECRET": SECRET}
HOUR_S = 3600
GENEROUS_S = 60


def statuses(answers: list[Answer]) -> list[int]:
    """Return the statuses of some answers."""
    return [each.status for each in answers]


def assert_limited(answer: Answer) -> None:
    """Hold an answer against the one for too many requests."""
    assert_refused(answer, 429, "RATE_LIMITED")
    assert 1 <= int(answer.headers["Retry-After"]) <= HOUR_S
    assert answer.headers["RateLimit-Remaining"] == "0"


def test_a_principal_has_so_many_requests(new_api: NewApi) -> None:
    """Counted over processes and tokens by its sub; the next is refused, others are not, and each is told."""
    apis = [new_api(**CLOSED, RATE_LIMIT_PRINCIPAL="3/hour") for _ in range(2)]
    answers = [api.get("/payments", **bearer("busy", n=n)) for n, api in enumerate(apis * 2)]
    assert statuses(answers) == [200, 200, 200, 429]
    assert_limited(answers[3])
    assert [each.headers["RateLimit-Remaining"] for each in answers] == ["2", "1", "0", "0"]
    for each in answers:
        assert each.headers["RateLimit-Limit"] == "3"
        assert each.headers["RateLimit-Policy"] == "3;w=3600"
        assert 1 <= int(each.headers["RateLimit-Reset"]) <= HOUR_S
    assert apis[0].get("/payments", **bearer("another")).status == 200


def test_a_customer_has_fewer(new_api: NewApi) -> None:
    """A person needs less than a part of the shop, which is counted apart."""
    api = new_api(**CLOSED, RATE_LIMIT_CUSTOMER="1/hour", RATE_LIMIT_PRINCIPAL="3/hour")
    assert statuses([api.get("/payments", **bearer("ada")) for _ in range(2)]) == [200, 429]
    shop = bearer("shop", role="service")
    assert statuses([api.get("/payments", **shop) for _ in range(4)]) == [200, 200, 200, 429]


def test_an_address_has_so_many_requests(new_api: NewApi) -> None:
    """Whoever asks from there, with bad tokens too, so that nobody goes on guessing; elsewhere is free."""
    api = new_api(**CLOSED, RATE_LIMIT_ADDRESS="3/hour", TRUSTED_PROXIES=1)
    here = {"X-Forwarded-For": "203.0.113.7"}
    bad = api.get("/payments", **bearer("x", secret=OTHER), **here)
    answers = [api.get("/payments", **bearer(each), **here) for each in ("one", "two", "three")]
    assert statuses([bad, *answers]) == [401, 200, 200, 429]
    assert_limited(answers[2])
    assert_limited(api.get("/payments", **here))
    assert api.get("/payments", **bearer("three"), X_Forwarded_For="203.0.113.8").status == 200


def test_who_cannot_be_told_is_counted_by_the_address(new_api: NewApi) -> None:
    """An issuer that is away lets nobody ask as often as they like."""
    api = new_api(**CLOSED, JWKS_URL=f"{NOWHERE}/keys", RATE_LIMIT_ADDRESS="1/hour")
    answers = [api.get("/payments", **ec_key("k").bearer("x")) for _ in range(2)]
    assert_refused(answers[0], 503, "ISSUER_UNAVAILABLE")
    assert_limited(answers[1])


def test_the_refusal_is_in_the_contracts_words(new_api: NewApi) -> None:
    """Also where a contract words refusals in its own way."""
    api = new_api(**CLOSED, RATE_LIMIT_PRINCIPAL="1/hour")
    answers = [api.get("/payment/customer/a@b.example", **bearer("x")) for _ in range(2)]
    assert statuses(answers) == [404, 429]
    assert set(answers[1].body) == {"success", "message", "errorCode"}
    assert answers[1].body["errorCode"] == "RATE_LIMITED"


def test_nothing_is_done_for_a_request_too_many(new_api: NewApi) -> None:
    """It is neither read nor stored."""
    api = new_api(**CLOSED, RATE_LIMIT_PRINCIPAL="1/hour")
    staff = bearer("shop", role="service")
    assert statuses([api.post_async(**staff) for _ in range(3)]) == [202, 429, 429]
    assert api.stored.counts()["payment"] == 1


def test_probes_documents_and_webhooks_are_not_counted(new_api: NewApi) -> None:
    """They come as often as they come, and use nothing up."""
    api = new_api(
        **CLOSED,
        RATE_LIMIT_ADDRESS="1/hour",
        RATE_LIMIT_PRINCIPAL="1/hour",
        STRIPE_WEBHOOK_SECRET=WEBHOOK_SECRET,
    )
    for _ in range(3):
        for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/docs/assets/swagger-ui.css"):
            answer = api.get(path)
            assert answer.status == 200
            assert "RateLimit-Limit" not in answer.headers
        assert send(api, event()).status == 200
    assert api.get("/payments", **bearer("x")).status == 200


def test_who_needs_no_token_is_not_counted(new_api: NewApi) -> None:
    """On loopback without tokens everybody is one; a token counts there as elsewhere."""
    api = new_api(JWT_SECRET=SECRET, RATE_LIMIT_ADDRESS="1/hour", RATE_LIMIT_PRINCIPAL="1/hour")
    answers = [api.get("/payments") for _ in range(3)]
    assert statuses(answers) == [200] * 3
    assert "RateLimit-Limit" not in answers[0].headers
    assert statuses([api.get("/payments", **bearer("x")) for _ in range(2)]) == [200, 429]


def test_off_is_off(new_api: NewApi, redis_url: str) -> None:
    """Without limits Redis is not asked, and nothing is said of any."""
    api = new_api(**CLOSED, RATE_LIMIT_ADDRESS="off", RATE_LIMIT_PRINCIPAL="off", RATE_LIMIT_CUSTOMER="off")
    answer = api.get("/payments", **bearer("x"))
    assert (answer.status, "RateLimit-Limit" in answer.headers) == (200, False)
    with connect_redis(redis_url) as client:
        assert client.keys(f"{KEYS}*") == []


def test_a_crowd_gets_exactly_as_many(new_api: NewApi) -> None:
    """Sixty at once over two processes against a limit of twenty."""
    apis = [new_api(**CLOSED, RATE_LIMIT_PRINCIPAL="20/hour") for _ in range(2)]
    headers = bearer("crowd")
    with ThreadPoolExecutor(12) as callers:
        found = list(callers.map(lambda n: apis[n % 2].get("/payments", **headers).status, range(60)))
    assert (found.count(200), found.count(429)) == (20, 40)


def test_a_window_ends(redis_url: str) -> None:
    """Then the count begins anew, in Redis by its own clock; a counter that lost its end gets one again."""
    with connect_redis(redis_url) as client:
        limits = RateLimits(client, [Limit("principal", 1, HOUR_S)])
        found = (limits.count("x", None) for _ in itertools.count())
        first, second = next(found), next(found)
        assert (first and first.exceeded, second and second.exceeded) == (False, True)
        (key,) = client.keys(f"{KEYS}*")
        client.pexpire(key, 1)
        wait_until(lambda: (each := next(found)) and not each.exceeded, GENEROUS_S, "the window to end")
        client.persist(key)
        limits.count("x", None)
        assert 0 < client.pttl(key) <= HOUR_S * 1000


def test_what_stands_in_redis_names_nobody(new_api: NewApi, redis_url: str) -> None:
    """Neither a sub, which may be an email address, nor a network address; and it ends by itself."""
    new_api(**CLOSED).get("/payments", **bearer("ada@shop.example"))
    with connect_redis(redis_url) as client:
        keys = client.keys(f"{KEYS}*")
        assert len(keys) == 3
        assert not [key for key in keys if b"ada" in key or b"127" in key]
        assert all(0 < client.pttl(key) <= 60_000 for key in keys)


def test_without_redis_each_process_keeps_to_its_share(new_api: NewApi) -> None:
    """Requests are answered and still counted: four processes may let a quarter through each."""
    limits = {"RATE_LIMIT_PRINCIPAL": "8/hour", "WEB_WORKERS": 4}
    api = new_api(**CLOSED, **limits, REDIS_URL=NO_REDIS)
    answers = [api.get("/payments", **bearer("x")) for _ in range(3)]
    assert statuses(answers) == [200, 200, 429]
    assert_limited(answers[2])


class Gone(redis.Redis):
    """A Redis that can be away; counts how often it is asked."""

    away = False
    asked = 0

    def execute_command(self, *args: object, **options: object) -> object:
        """Carry a command, or fail as a lost connection does."""
        self.asked += 1
        if self.away:
            raise redis.ConnectionError("away")
        return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]


@pytest.fixture
def client(redis_url: str) -> Iterator[Gone]:
    """Return a client of this test's Redis."""
    with Gone.from_url(redis_url) as client:
        yield client


def test_redis_away_is_asked_now_and_then(client: Gone) -> None:
    """Not by every request, which might have to wait for it each time; when it is back it counts again."""
    now_s = 0.0
    limits = RateLimits(client, [Limit("principal", 10, HOUR_S)], processes=2, clock=lambda: now_s)

    def left() -> int:
        standing = limits.count("x", None)
        assert standing is not None
        return standing.left

    assert left() == 9
    client.away, client.asked = True, 0
    assert [left() for _ in range(3)] == [4, 3, 2]
    assert client.asked == 1
    now_s += REDIS_AGAIN_S
    assert [left() for _ in range(2)] == [1, 0]
    assert client.asked == 2
    client.away = False
    assert left() == -1
    now_s += REDIS_AGAIN_S
    assert left() == 8


def test_the_closest_limit_is_the_one_that_is_told(client: Gone) -> None:
    """Of an address's and a principal's: the one with fewer requests left."""
    limits = RateLimits(client, [Limit("principal", 3, HOUR_S), Limit("address", 6, HOUR_S)])
    told = [limits.count(who, "203.0.113.7") for who in "aabbcde"]
    assert [(each.limit.of, each.left) for each in told if each] == [
        ("principal", 2), ("principal", 1), ("principal", 2), ("principal", 1),
        ("address", 1), ("address", 0), ("address", -1),
    ]  # fmt: skip


def test_counters_of_a_process_do_not_grow_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose window has ended go when there are many, and if that is not enough all of them."""
    monkeypatch.setattr("payment_api.rate_limits.MAX_COUNTED", 10)
    now_s = 0.0
    counters = LocalCounters(lambda: now_s)
    for n in range(9):
        counters.count(f"old {n}", 1)
    now_s = 2.0
    counters.count("kept", 100)
    for n in range(3):
        counters.count(f"new {n}", 100)
    assert counters.count("kept", 100)[0] == 2
    for _ in range(50):
        counters.count(new_uuid(), 100)
        assert len(counters._counted) <= 10


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("203.0.113.7", "203.0.113.8", False), ("2001:db8::1", "2001:db8::ffff", True),
        ("2001:db8:0:1::1", "2001:db8:0:2::1", False), ("::ffff:203.0.113.7", "203.0.113.7", True),
        ("fe80::1%eth0", "fe80::2%eth1", True), (None, "", True), (None, "unix", True),
    ],
)  # fmt: skip
def test_what_is_one_address(one: str | None, other: str | None, same: bool) -> None:  # noqa: FBT001 - a column
    """An IPv4 address, however it is written, and an IPv6 network, in which addresses are to spare."""
    assert (site_of(one) == site_of(other)) is same


def test_a_login_to_come_would_be_counted(new_api: NewApi, monkeypatch: pytest.MonkeyPatch) -> None:
    """A route that is open to strangers is counted by their address, without anybody thinking of it."""
    monkeypatch.setattr("payment_api.access._OPEN", ("/login",))
    api: Api = new_api(**CLOSED, RATE_LIMIT_ADDRESS="2/hour")
    api.app.add_url_rule("/login", view_func=lambda: "who?", methods=["POST"])
    assert statuses([api.post("{}", path="/login") for _ in range(3)]) == [200, 200, 429]
