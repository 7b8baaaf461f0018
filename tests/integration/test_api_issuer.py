"""Tokens of an outside issuer: its keys are fetched, kept and rolled over, and nobody else's are taken."""

import hashlib
import hmac
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from payment_api.jwks import FLOOR_S, FRESH_S, KEPT_S, REFRESH, Jwks, KeysUnavailable
from tests.api import NOWHERE, Api, ServedApi, api_settings, assert_refused
from tests.factories import new_uuid, payment_body
from tests.integration.conftest import NewApi
from tests.integration.test_api_auth import assert_unauthenticated, now
from tests.issuer import IssuerKey, KeyServer, ec_key, key_server, rsa_key
from tests.tokens import A_DAY_S, PREVIOUS, SECRET, bearer, encoded, token
from tests.waiting import wait_until

ISSUER, AUDIENCE = "https://issuer.example/", "payments"
OURS = {"iss": ISSUER, "aud": AUDIENCE}
RSA, EC, STRANGER, WEAK = rsa_key("rsa-1"), ec_key("ec-1"), rsa_key("rsa-1"), rsa_key("weak", 1024)
GENEROUS_S = 60


@pytest.fixture
def server() -> Iterator[KeyServer]:
    """Return an issuer's server that publishes two keys."""
    with key_server() as server:
        server.publish(RSA, EC)
        yield server


@pytest.fixture(scope="module")
def api(session_database_url: str, session_redis_url: str) -> Iterator[Api]:
    """Return an API that takes an issuer's tokens and those of our secret, for tests that store nothing."""
    with key_server() as server:
        server.publish(RSA, EC, WEAK)
        variables = {"AUTH": "required", "JWT_SECRET": SECRET, "JWKS_URL": server.url, "JWT_ISSUER": ISSUER}
        more = {"JWT_AUDIENCE": AUDIENCE, "STRIPE_API_URL": NOWHERE}
        api = Api(api_settings(session_database_url, session_redis_url, **variables, **more))
        yield api
        api.close()


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        """Begin somewhere."""
        self.now_s = 1000.0

    def __call__(self) -> float:
        """Read the clock."""
        return self.now_s


def signed_with_public_key(key: IssuerKey) -> str:
    """Return a token in HS256 whose secret is what everybody knows: the public key."""
    header = {"alg": "HS256", "typ": "JWT", "kid": key.key_id}
    text = f"{encoded(header)}.{encoded({'sub': 'x', 'role': 'operator', 'exp': 2**33, **OURS})}"
    return f"{text}.{encoded(hmac.digest(key.pem, text.encode(), hashlib.sha256))}"


@pytest.mark.parametrize("key", [RSA, EC], ids=["RS256", "ES256"])
@pytest.mark.parametrize("claims", [OURS, OURS | {"aud": ["another", AUDIENCE]}], ids=["ours", "for several"])
def test_a_good_token_of_the_issuer_is_taken(api: Api, key: IssuerKey, claims: dict[str, Any]) -> None:
    """By its key's algorithm, and for our name among others."""
    assert api.get("/payments", **key.bearer(new_uuid(), **claims)).status == 200


def test_its_claims_say_who_asks(new_api: NewApi, server: KeyServer) -> None:
    """A customer of the outside issuer makes its own payment and no other's; its name is in the history."""
    api = new_api(AUTH="required", JWKS_URL=server.url, JWT_ISSUER=ISSUER, JWT_AUDIENCE=AUDIENCE)
    me = new_uuid()
    assert api.post_async(payment_body(customerId=me), **EC.bearer(me, **OURS)).status == 202
    assert_refused(api.post_async(payment_body(), **EC.bearer(me, **OURS)), 403, "FORBIDDEN")
    assert [row["actor"] for row in api.stored.rows("timeline_entry")] == [me]


BAD = {
    "a stranger's key under a known id": STRANGER.token("x", **OURS),
    "a key id that nobody knows": RSA.token("x", headers={"kid": "rsa-2"}, **OURS),
    "no key id": RSA.token("x", headers={}, **OURS),
    "the id of a key of another kind": RSA.token("x", headers={"kid": "ec-1"}, **OURS),
    "alg none with a key id": token("x", secret="", algorithm=None, headers={"kid": "rsa-1"}, **OURS),
    "HS256 signed with the public RSA key": signed_with_public_key(RSA),
    "HS256 signed with the public EC key": signed_with_public_key(EC),
    "RS384": token("x", secret=RSA.key, algorithm="RS384", headers={"kid": "rsa-1"}, **OURS),
    "PS256": token("x", secret=RSA.key, algorithm="PS256", headers={"kid": "rsa-1"}, **OURS),
    "a key that it brings along": STRANGER.token(
        "x", headers={"kid": "rsa-1", "jwk": STRANGER.published()}, **OURS
    ),
    "an address of keys that it brings along": STRANGER.token(
        "x", headers={"kid": "mine", "jku": "http://127.0.0.1:9/keys"}, **OURS
    ),
    "another issuer": RSA.token("x", **OURS | {"iss": "https://issuer.example"}),
    "no issuer": RSA.token("x", aud=AUDIENCE),
    "another audience": RSA.token("x", **OURS | {"aud": "other"}),
    "no audience": RSA.token("x", iss=ISSUER),
    "expired": RSA.token("x", **OURS, exp=now(-A_DAY_S)),
    "not yet valid": EC.token("x", **OURS, nbf=now(A_DAY_S)),
    "no exp": EC.token("x", **OURS, exp=None),
    "enormous": RSA.token("x", **OURS, more="x" * 9000),
    "our own secret, for another audience": token("x", **OURS | {"aud": "other"}),
    "our own secret, of no issuer": token("x", aud=AUDIENCE),
    "our own secret under a key id, as RS256": f"{encoded({'alg': 'RS256', 'kid': 'rsa-1'})}."
    + token("x", **OURS).partition(".")[2],
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
def test_every_bad_token_gets_the_same_answer(api: Api, text: str) -> None:
    """Whatever is wrong with it: one 401 without a hint."""
    assert_unauthenticated(api.get("/payments", Authorization=f"Bearer {text}"))


def test_our_own_tokens_are_taken_beside_the_issuers(api: Api, new_api: NewApi, server: KeyServer) -> None:
    """HS256 by our secret where there is one, and by nothing where there is none."""
    assert api.get("/payments", **bearer("x", **OURS)).status == 200
    alone = new_api(AUTH="required", JWKS_URL=server.url)
    assert_unauthenticated(alone.get("/payments", **bearer("x")))
    assert_unauthenticated(alone.get("/payments", **bearer("x", secret=RSA.pem.hex())))
    assert alone.get("/payments", **RSA.bearer("x")).status == 200


def test_a_key_is_rolled_over_without_a_gap(new_api: NewApi, server: KeyServer) -> None:
    """The new key is taken from its first token on, by a crowd, the old one as long as it is published."""
    old, new = RSA, rsa_key("rsa-2")
    api = new_api(AUTH="required", JWKS_URL=server.url, RATE_LIMIT_ADDRESS="off")
    clock = Clock()
    jwks = Jwks(server.url, clock)
    api.services.tokens._jwks = jwks
    both = (old.bearer("x"), new.bearer("x"))
    assert [api.get("/payments", **each).status for each in both] == [200, 401]
    server.publish(old, new)
    clock.now_s += FLOOR_S
    with ThreadPoolExecutor(10) as callers:
        statuses = list(callers.map(lambda n: api.get("/payments", **both[n % 2]).status, range(100)))
    assert statuses == [200] * 100
    assert server.asked == 2
    server.publish(new)
    clock.now_s += FRESH_S + 1
    assert api.get("/payments", **both[1]).status == 200
    wait_until(
        lambda: api.get("/payments", **both[0]).status == 401, GENEROUS_S, "the old key to be forgotten"
    )
    assert api.get("/payments", **both[1]).status == 200


def test_unknown_key_ids_do_not_flood_the_issuer(server: KeyServer) -> None:
    """However many are sent: one fetch, and the next only when the floor has passed."""
    clock = Clock()
    jwks = Jwks(server.url, clock)
    for _ in range(2):
        asked = server.asked
        assert [jwks.find(f"made-up-{n}") for n in range(50)] == [None] * 50
        assert server.asked == asked + 1
        clock.now_s += FLOOR_S


def test_a_slow_issuer_is_waited_for_by_one_thread(server: KeyServer) -> None:
    """Requests go on with the keys that are known, and leave no thread each behind."""
    clock = Clock()
    jwks = Jwks(server.url, clock)
    assert jwks.find("rsa-1") is not None
    asked = server.asked
    server.answers.clear()
    clock.now_s += FRESH_S + 1
    assert jwks.find("rsa-1") is not None
    wait_until(lambda: server.asked > asked, GENEROUS_S, "the issuer to be asked")
    assert all(jwks.find("rsa-1") for _ in range(50))
    assert len([each for each in threading.enumerate() if each.name == REFRESH]) <= 1


@pytest.mark.parametrize(
    "broken",
    [
        (503, b""),
        (200, b"no JSON"),
        (200, b"[]"),
        (200, b'{"keys": []}'),
        (302, b"{}"),
        (200, b"x" * 300_000),
    ],
    ids=["down", "no JSON", "no set", "empty", "elsewhere", "enormous"],
)
def test_an_outage_is_served_from_what_is_known(server: KeyServer, broken: tuple[int, bytes]) -> None:
    """For a day known keys stay good, and the issuer is asked on; then nothing is known any more."""
    clock = Clock()
    jwks = Jwks(server.url, clock)
    assert jwks.find("rsa-1") is not None
    server.status, server.body = broken
    clock.now_s += FRESH_S + 1
    asked = server.asked
    assert jwks.find("rsa-1") is not None
    wait_until(lambda: server.asked > asked, GENEROUS_S, "the issuer to be asked")
    clock.now_s += FLOOR_S
    assert jwks.find("new") is None
    assert jwks.find("rsa-1") is not None
    clock.now_s += KEPT_S
    with pytest.raises(KeysUnavailable):
        jwks.find("rsa-1")
    server.status = 200
    server.publish(RSA)
    clock.now_s += FLOOR_S
    assert jwks.find("rsa-1") is not None


def test_without_keys_nothing_is_known_of_a_token(new_api: NewApi) -> None:
    """An issuer that never answered: come back later, for the token may be good; our own tokens are taken."""
    api = new_api(AUTH="required", JWKS_URL=f"{NOWHERE}/keys", JWT_SECRET=SECRET)
    refused = api.get("/payments", **RSA.bearer("x"))
    assert_refused(refused, 503, "ISSUER_UNAVAILABLE")
    assert refused.headers["Retry-After"]
    assert api.get("/payments", **bearer("x")).status == 200


@pytest.mark.parametrize(
    "document",
    [
        RSA.published(use="enc"), RSA.published(alg="RS512"), RSA.published(alg="none"),
        RSA.published(kid=None), RSA.published(kid=7), RSA.published(n="!"), RSA.published(n=None),
        RSA.published(d="AQAB"), EC.published(crv="P-384"), EC.published(x="AAAA"), EC.published(alg="RS256"),
        WEAK.published(), {"kty": "oct", "k": encoded(b"x" * 32), "kid": "rsa-1", "alg": "HS256"}, {}, "text",
    ],
)  # fmt: skip
def test_unfit_keys_are_left_out(server: KeyServer, document: Any) -> None:
    """For other uses or algorithms, weak, broken, secret and private ones; their neighbours are used."""
    other = ec_key("other")
    server.publish(document, other)
    jwks = Jwks(server.url)
    assert jwks.find("other") is not None
    assert [jwks.find(key_id) for key_id in ("rsa-1", "ec-1", "weak")] == [None] * 3


def test_the_served_api_takes_the_issuers_tokens(
    session_database_url: str, session_redis_url: str, server: KeyServer
) -> None:
    """The process itself needs no secret of its own, and fetches the keys before anybody asks."""
    served = ServedApi(session_database_url, session_redis_url, AUTH="", JWKS_URL=server.url)
    try:
        wait_until(lambda: server.asked, GENEROUS_S, "the keys to be fetched")
        assert served.get("/payments", **EC.bearer("x")).status == 200
        assert_unauthenticated(served.get("/payments", **STRANGER.bearer("x")))
        assert_unauthenticated(served.get("/payments", **bearer("x", secret=PREVIOUS)))
    finally:
        served.close()
