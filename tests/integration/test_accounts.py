"""Accounts: guessing is slow, neither answers nor tables tell anything, keys and parameters may change."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import simplejson
from argon2 import extract_parameters

from payment_worker import retention
from shared.passwords import AT_ONCE, Passwords
from tests.accounts import PASSWORD, Payer, account_body
from tests.api import Answer, Api
from tests.delivery import new_email
from tests.integration.conftest import NewApi
from tests.integration.test_contract_accounts import assert_refused
from tests.keys import DATA_KEY
from tests.tokens import SECRET
from tests.waiting import LONGEST_S
from tests.worker import Bench

WRONG = "not the password"
NEW_KEY = "another key, with which the tests replace the first one"
STRETCH_S = 15 * 60


@pytest.fixture
def api(new_api: NewApi) -> Api:
    """Return an API that gives tokens, and lets few logins fail."""
    return new_api(JWT_SECRET=SECRET, LOGIN_FAILURES_PER_EMAIL=3, LOGIN_FAILURES_PER_ADDRESS=6)


@pytest.fixture
def email(api: Api) -> str:
    """Return the email address of an account."""
    body = account_body()
    assert Payer(api).user("register", body).status == 200
    return str(body["email"])


class Watched(Passwords):
    """The real hasher, which notes what it was asked."""

    def __init__(self) -> None:
        """Nothing was asked yet."""
        super().__init__()
        self.asked: list[str | None] = []

    def matches(self, stored: str | None, password: str) -> bool:
        """Note whose password it is, then look."""
        self.asked.append(stored)
        return super().matches(stored, password)


def statuses(answers: Sequence[Answer]) -> list[int]:
    """Return the answers' statuses, sorted."""
    return sorted(each.status for each in answers)


def let_time_pass(api: Api) -> None:
    """Let the stretch in which failures are counted end."""
    api.stored.change("UPDATE failed_logins SET ends_at = now()")


def watch(api: Api) -> Watched:
    """Have the API's hasher note what it is asked."""
    watched = Watched()
    accounts = replace(api.services.accounts, passwords=watched)
    api.app.extensions["services"] = replace(api.services, accounts=accounts)
    return watched


def test_a_wrong_password_and_an_unknown_address_are_the_same(api: Api, email: str) -> None:
    """The same answer, after the same work: a password is looked at either way."""
    watched, payer = watch(api), Payer(api)
    refused = [payer.login(email, WRONG), payer.login(new_email(), WRONG), payer.login(new_email())]
    for answer in refused:
        assert_refused(answer, 401, "WRONG_CREDENTIALS")
        assert answer.body == refused[0].body
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert [each is None for each in watched.asked] == [False, True, True]


def test_who_fails_too_often_has_to_wait(api: Api, email: str) -> None:
    """The right password, too, is not looked at then; after the stretch it is, in any case of the address."""
    payer = Payer(api)
    for _ in range(3):
        assert payer.login(email, WRONG).status == 401
    for password in (WRONG, PASSWORD):
        answer = payer.login(email.upper(), password)
        assert_refused(answer, 429, "TOO_MANY_ATTEMPTS")
        assert 1 <= int(answer.headers["Retry-After"]) <= STRETCH_S
    let_time_pass(api)
    assert payer.login(email.title()).status == 200


def test_an_address_that_nobody_has_is_throttled_alike(api: Api) -> None:
    """Or else waiting would tell which ones have accounts."""
    payer, nobody = Payer(api), new_email()
    assert [payer.login(nobody).status for _ in range(4)] == [401, 401, 401, 429]


def test_a_login_that_succeeds_starts_anew(api: Api, email: str) -> None:
    """Who mistypes now and then is never kept out, nor is anybody behind the same network address."""
    payer = Payer(api)
    for _ in range(4):
        assert [payer.login(email, each).status for each in (WRONG, WRONG, PASSWORD)] == [401, 401, 200]
        let_time_pass(api)
    for _ in range(8):
        assert payer.login(email).status == 200


def test_one_network_address_cannot_try_many_accounts(api: Api, email: str) -> None:
    """Past its limit no account is looked at for it, right password or not."""
    payer = Payer(api)
    assert [payer.login(new_email(), WRONG).status for _ in range(6)] == [401] * 6
    assert_refused(payer.login(email), 429, "TOO_MANY_ATTEMPTS")


def test_the_addresses_of_one_site_are_one(new_api: NewApi) -> None:
    """Whoever has an IPv6 address has 2^64 of them: a new one for each guess gets no further."""
    api = new_api(JWT_SECRET=SECRET, LOGIN_FAILURES_PER_ADDRESS=6, TRUSTED_PROXIES=1)

    def guess(address: str) -> int:
        body = {"email": new_email(), "password": WRONG}
        return api.post(body, path="/api/user/login", X_Forwarded_For=address).status

    assert [guess(f"2001:db8:0:7::{host}") for host in range(7)] == [401] * 6 + [429]
    assert guess("2001:db8:0:8::1") == 401


def test_what_was_not_looked_at_has_not_failed(api: Api, email: str) -> None:
    """A login that was told to come back while others were looked at counts for nobody."""
    passwords = Passwords(patience_s=0.01)
    accounts = replace(api.services.accounts, passwords=passwords)
    api.app.extensions["services"] = replace(api.services, accounts=accounts)
    for _ in range(AT_ONCE):
        assert passwords._turns.acquire(timeout=LONGEST_S)
    for _ in range(7):
        assert_refused(Payer(api).login(email), 503, "TOO_BUSY")
    for _ in range(AT_ONCE):
        passwords._turns.release()
    assert Payer(api).login(email).status == 200
    assert [Payer(api).login(email, WRONG).status for _ in range(4)] == [401] * 3 + [429]


def test_guesses_that_race_do_not_get_past_the_limit(api: Api, email: str) -> None:
    """Of many at once no more are looked at than may fail."""
    watched = watch(api)
    with ThreadPoolExecutor(12) as callers:
        calls = [callers.submit(Payer(api).login, email, WRONG) for _ in range(12)]
        answers = [each.result(LONGEST_S) for each in calls]
    assert statuses(answers) == [401] * 3 + [429] * 9
    assert len(watched.asked) == 3


def test_failed_logins_are_forgotten(api: Api, email: str, bench: Bench) -> None:
    """The counts are purged a day after they have ended."""
    Payer(api).login(email, WRONG)
    api.stored.change("UPDATE failed_logins SET ends_at = now() - interval '23 hours'")
    assert retention.purge(bench.sessions, bench.settings) == 0
    api.stored.change("UPDATE failed_logins SET ends_at = now() - interval '25 hours'")
    assert retention.purge(bench.sessions, bench.settings) == 2


def test_nothing_of_a_person_can_be_read_in_the_database(api: Api) -> None:
    """Neither name, address, telephone number nor password, in any table, nor where a login came from."""
    body = account_body(name="Margaret Hamilton", phoneNumber="+1 617 555 0123", password="lunar lander 1969")
    payer = Payer(api)
    payer.user("register", body)
    payer.login(body["email"], WRONG)
    token = payer.login(body["email"], body["password"]).body["token"]
    Payer(api, {"Authorization": f"Bearer {token}"}).payment(email=body["email"])
    stored = b"".join(
        value if isinstance(value, bytes) else simplejson.dumps(value, default=str).encode()
        for table in api.stored.counts()
        for row in api.stored.rows(table)
        for value in row.values()
    )
    (account,) = api.stored.rows("account")
    assert str(account["id"]).encode() in stored
    for said in (*body.values(), "127.0.0.1", token):
        assert str(said).encode() not in stored


def test_a_hash_with_old_parameters_is_replaced(api: Api, email: str) -> None:
    """With the next login, when the password is at hand; the new one is as good."""
    cheap = Passwords(time_cost=1, memory_kib=64).hash(PASSWORD)
    api.stored.change("UPDATE account SET password_hash = %s", cheap)
    payer = Payer(api)
    assert payer.login(email, WRONG).status == 401
    assert api.stored.rows("account")[0]["password_hash"] == cheap
    assert payer.login(email).status == 200
    renewed = api.stored.rows("account")[0]["password_hash"]
    assert extract_parameters(renewed) == extract_parameters(Passwords().hash("x"))
    assert payer.login(email).status == 200
    assert api.stored.rows("account")[0]["password_hash"] == renewed


def test_a_logout_counts_in_every_process(api: Api, new_api: NewApi, email: str) -> None:
    """A token that was given by one process is taken by another, until a third has taken it back."""
    others = [new_api(JWT_SECRET=SECRET, AUTH="required") for _ in range(2)]
    token = Payer(api).login(email).body["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert [each.get("/payments", **headers).status for each in others] == [200, 200]
    assert Payer(others[0], headers).user("logout").status == 200
    assert [each.get("/payments", **headers).status for each in (api, *others)] == [401] * 3


def test_accounts_outlive_a_change_of_keys(api: Api, new_api: NewApi, email: str) -> None:
    """While the key is replaced an account is found under both, and stays the only one of its address."""
    body = account_body(email=email)
    turning = new_api(JWT_SECRET=SECRET, DATA_KEY=NEW_KEY, DATA_KEY_PREVIOUS=DATA_KEY)
    before = new_api(JWT_SECRET=SECRET, DATA_KEY=DATA_KEY, DATA_KEY_PREVIOUS=NEW_KEY)
    assert Payer(turning).login(email).status == 200
    assert_refused(Payer(turning).user("register", body), 409, "ACCOUNT_EXISTS")
    fresh = [account_body() for _ in range(4)]
    with ThreadPoolExecutor(8) as callers:
        calls = [
            callers.submit(Payer(each).user, "register", one) for one in fresh for each in (turning, before)
        ]
        assert statuses([each.result(LONGEST_S) for each in calls]) == [200] * 4 + [409] * 4
    assert [Payer(each).login(one["email"]).status for one in fresh for each in (turning, before)] == [
        200
    ] * 8
