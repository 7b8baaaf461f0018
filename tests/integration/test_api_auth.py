"""Who may ask: bearer tokens, what is wrong with bad ones, and where none is needed."""

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from payment_api.server import Server
from payment_api.tokens import LONGEST, BadToken, Tokens
from shared.settings import Settings
from tests.api import NOWHERE, Answer, Api, ServedApi, api_settings, assert_refused
from tests.factories import as_json, new_uuid, payment_body
from tests.integration.conftest import NewApi
from tests.tokens import A_DAY_S, OTHER, PREVIOUS, SECRET, bearer, encoded, signed, token

ROUTES = [("GET", "/payments"), ("POST", "/payments")] + [
    ("GET", f"/payments/{{id}}{suffix}") for suffix in ("", "/timeline")
]
OPEN = ["/healthz", "/readyz", "/openapi.json", "/docs", "/docs/assets/swagger-ui.css"]
SHORT = 10  # what is longer than this is part of a token


@pytest.fixture(scope="module", params=["required", "optional"])
def either(
    request: pytest.FixtureRequest, session_database_url: str, session_redis_url: str
) -> Iterator[Api]:
    """Return an API that wants tokens, and one that does without, for tests that store nothing."""
    given = {"AUTH": request.param, "JWT_SECRET": SECRET, "STRIPE_API_URL": NOWHERE}
    api = Api(api_settings(session_database_url, session_redis_url, **given))
    yield api
    api.close()


def assert_unauthenticated(answer: Answer) -> None:
    """Hold an answer against the one that all bad tokens get."""
    assert_refused(answer, 401, "UNAUTHENTICATED")
    assert answer.body["errorMessage"] == "A valid bearer token is needed"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def now(offset_s: int) -> int:
    """Return a moment as tokens write it."""
    return int(time.time()) + offset_s


GOOD = {"sub": "x", "role": "operator", "exp": 2**33}
BAD: dict[str, str] = {
    "another secret": token("x", secret=OTHER),
    "alg none": token("x", secret="", algorithm=None),
    "alg None": signed(GOOD, {"alg": "None", "typ": "JWT"}),
    "alg of another case": signed(GOOD, {"alg": "hs256"}),
    "no alg": signed(GOOD, {"typ": "JWT"}),
    "alg that is a list": signed(GOOD, {"alg": ["HS256"]}),
    "a header that is a list": signed(GOOD, []),
    "a key of its own": signed(GOOD, {"alg": "RS256", "jwk": {"kty": "oct", "k": encoded(b"x" * 32)}}),
    "claims that are a list": signed([]),
    "claims that are no JSON": signed(b"{"),
    "a deep header": f"{encoded(b'[' * 2900)}.e30.",
    "alg HS512": token("x", algorithm="HS512"),
    "alg HS384": token("x", algorithm="HS384"),
    "alg RS256 over a secret": f"{encoded({'alg': 'RS256'})}.{token('x').partition('.')[2]}",
    "a critical extension": token("x", headers={"crit": ["x"], "x": 1}),
    "an empty signature": f"{token('x').rpartition('.')[0]}.",
    "another signature": f"{token('x').rpartition('.')[0]}.{token('y').rpartition('.')[2]}",
    "expired": token("x", exp=now(-A_DAY_S)),
    "no exp": token("x", exp=None),
    "exp that is no number": token("x", exp="soon"),
    "endless exp": token("x", exp=float("inf")),
    "not yet valid": token("x", nbf=now(A_DAY_S)),
    "issued in the future": token("x", iat=now(A_DAY_S)),
    "no sub": token(None),
    "an empty sub": token(""),
    "a sub that is a number": signed(GOOD | {"sub": 7}),
    "a sub that is a list": signed(GOOD | {"sub": ["x"]}),
    "no sub at all": signed(GOOD | {"sub": None}),
    "a sub of two words": token("two words"),
    "a sub with a line break": token("x\ny"),
    "a long sub": token("x" * 256),
    "an unknown role": token("x", role="admin"),
    "a role that is a list": token("x", role=["operator"]),
    "a scope that is a list": token("x", scope=["payments:read"]),
    "for another audience": token("x", aud="another service"),
    "one part": "abc",
    "two parts": "abc.def",
    "three parts of nothing": "..",
    "four parts": f"{token('x')}.x",
    "longer than any of ours": token("x", more="x" * LONGEST),
    "not ASCII": "é" * 40,
    "nothing": "",
}  # fmt: skip
HEADERS = [
    "", "Bearer", "Bearer ", "Basic dTpw", f"Basic {token('x')}", f"Token {token('x')}", token("x"),
    f"Bearer{token('x')}", f"Bearer {token('x')}, Bearer {token('y')}", f"Bearer {token('x')} x",
    f"Bearer\t{token('x')}", f'Bearer "{token("x")}"', f"Bearer {token('x')}=",
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_a_token_nothing_is_answered(closed: Api, method: str, path: str) -> None:
    """Neither what is there nor what is wrong with the request, and nothing is stored."""
    for found in (path.format(id=new_uuid()), path.format(id="x"), f"{path}?surprise=1"):
        for body in (as_json(payment_body()), "{", "x" * 70_000):
            assert_unauthenticated(closed.send(method, found, body, {"Content-Type": "application/json"}))
    assert closed.stored.counts() == {}


@pytest.mark.parametrize("path", OPEN)
def test_probes_and_documents_are_open(closed: Api, path: str) -> None:
    """Who looks after the service or reads how to use it has no token; a bad one does no harm there."""
    assert closed.get(path).status == 200
    assert closed.get(path, Authorization="Bearer x").status == 200


@pytest.mark.parametrize(
    "header",
    [f"Bearer {each}" for each in BAD.values()] + HEADERS,
    ids=[*BAD, *map(str, range(len(HEADERS)))],
)
def test_every_bad_token_gets_the_same_answer(either: Api, header: str) -> None:
    """Whatever is wrong with it, also where none is needed; the answer gives no hint, the log no token."""
    with capture_logs(processors=[merge_contextvars]) as lines:
        assert_unauthenticated(either.get("/payments", Authorization=header))
    assert [line["status"] for line in lines] == [401]
    assert not [part for part in header.split() if len(part) > SHORT and part in str(lines)]


def test_the_bad_tokens_are_bad_for_their_own_reason(closed: Api) -> None:
    """What they are made from is taken as long as nothing is wrong with it."""
    assert closed.get("/payments", Authorization=f"Bearer {signed(GOOD)}").status == 200


@given(st.one_of(st.text(), st.from_regex(r"Bearer [A-Za-z0-9_-]{0,80}(\.[A-Za-z0-9_-]{0,80}){0,4}")))
def test_no_header_breaks_the_reader(header: str) -> None:
    """Whatever is sent is a bad token, never another error."""
    with pytest.raises(BadToken):
        Tokens([SECRET]).read(header)


def test_without_a_secret_no_token_is_taken(new_api: NewApi) -> None:
    """An empty secret is none: neither what is signed with nothing is taken nor what is signed with any."""
    api = new_api()
    assert api.services.settings.jwt_secret == ""
    for text in (token("x"), token("x", secret="", algorithm=None)):
        assert_unauthenticated(api.get("/payments", Authorization=f"Bearer {text}"))


@pytest.mark.parametrize(
    "claims",
    [
        {}, {"nbf": now(-A_DAY_S), "iat": now(-A_DAY_S)},
        {"role": "customer"}, {"role": "operator"}, {"scope": ""}, {"scope": "payments:read x"}, {"jti": "x"},
        {"name": "somebody"},
    ],
    ids=lambda claims: " ".join(sorted(claims)) or "none",
)  # fmt: skip
def test_a_good_token_is_taken(either: Api, claims: dict[str, Any]) -> None:
    """Optional claims may be there, and the scheme's case does not count."""
    good = token("x", **claims)
    for header in (f"Bearer {good}", f"bearer {good}", f"BEARER  {good}"):
        assert either.get("/payments", Authorization=header).status == 200


def test_clocks_may_differ_by_seconds(closed: Api) -> None:
    """A token that has just expired, or comes from a moment that is not quite there, is taken."""
    for claims in ({"exp": now(-1)}, {"nbf": now(5)}, {"iat": now(5)}):
        assert closed.get("/payments", **bearer("x", **claims)).status == 200


def test_a_secret_is_replaced_without_a_gap(closed: Api, new_api: NewApi) -> None:
    """Tokens of the previous secret are good while it is known, and refused once it is not."""
    old, new = bearer("x", secret=PREVIOUS), bearer("x")
    assert [closed.get("/payments", **each).status for each in (old, new)] == [200, 200]
    assert_unauthenticated(closed.get("/payments", **bearer("x", secret=PREVIOUS, exp=now(-A_DAY_S))))
    after = new_api(AUTH="required", JWT_SECRET=SECRET)
    assert [after.get("/payments", **each).status for each in (old, new)] == [401, 200]


def test_where_tokens_are_optional_nobody_is_local(new_api: NewApi) -> None:
    """Without a header everything may be seen, in the name `local`; with one only what the token allows."""
    api = new_api(JWT_SECRET=SECRET)
    me = new_uuid()
    payment = api.post_async(payment_body()).payment["id"]
    assert [row["actor"] for row in api.stored.rows("timeline_entry")] == ["local"]
    assert api.get(f"/payments/{payment}").status == 200
    assert api.get(f"/payments/{payment}", **bearer(me)).status == 404
    assert api.get("/payments", **bearer(me)).body["payments"] == []
    assert_unauthenticated(api.get("/payments", Authorization=""))


def test_the_served_api_wants_tokens_by_default(session_database_url: str, session_redis_url: str) -> None:
    """The process itself, told nothing but a secret: 401 without a token, and with one that is too big."""
    served = ServedApi(session_database_url, session_redis_url, AUTH="", JWT_SECRET=SECRET)
    try:
        assert_unauthenticated(served.get("/payments"))
        assert_unauthenticated(served.get("/payments", Authorization="Bearer " + "x" * 8000))
        assert served.get("/payments", Authorization="Bearer " + "x" * 100_000).status in {400, 431}
        assert served.get("/payments", **bearer("x")).status == 200
    finally:
        served.close()


@pytest.mark.parametrize(("host", "listens_on"), [("::1", "::1"), ("127.0.0.1", "127.0.0.1")])
def test_loopback_is_loopback(host: str, listens_on: str) -> None:
    """Also as IPv6, which gunicorn would take for every address of the machine."""
    settings = Settings(host=host, port=5004, auth="optional")
    assert Server(settings).cfg.address == [(listens_on, 5004)]
    assert socket.getaddrinfo(host, None)
