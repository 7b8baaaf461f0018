"""The accounts contract at the wire: register, log in, pay, give back, log out, and what is refused."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import pytest

from payment_api.contracts.account_payments import STATUS_WORDS
from shared.payments import PAID, Status
from shared.settings import Settings
from tests.accounts import PASSWORD, Payer, account_body
from tests.api import JSON, NOWHERE, Answer, Api, api_settings
from tests.delivery import new_email
from tests.factories import new_uuid
from tests.integration.conftest import NewApi
from tests.integration.test_api_openapi import assert_documented
from tests.shop import Shop
from tests.tokens import SECRET, bearer
from tests.waiting import LONGEST_S
from tests.worker import make_bench

FIELDS: Final = {"id", "amount", "currency", "paymentMethod", "status", "createdAt", "updatedAt"}
MANY: Final = 8


@pytest.fixture
def shop(new_api: NewApi, settings: Settings) -> Iterator[Shop]:
    """Return an API with accounts, whose payments are carried out in this process."""
    with make_bench(settings) as bench:
        yield Shop(new_api(JWT_SECRET=SECRET), bench)


@pytest.fixture(scope="module")
def common(session_database_url: str, session_redis_url: str) -> Iterator[Api]:
    """Return an API for tests that do not mind what others have left in its database."""
    api = Api(
        api_settings(session_database_url, session_redis_url, JWT_SECRET=SECRET, STRIPE_API_URL=NOWHERE)
    )
    yield api
    api.close()


@pytest.fixture
def ada(shop: Shop) -> Payer:
    """Return somebody who has registered and logged in."""
    return Payer(shop.api).newcomer()


def assert_payment(answer: Answer, status: int, word: str, **facts: Any) -> dict[str, Any]:
    """Hold an answer against the contract's envelope, and its payment against the fields; return that."""
    assert answer.status == status, answer.text
    assert answer.headers["Content-Type"] == JSON
    assert isinstance(answer.body["message"], str)
    assert answer.body["success"] is (status in {200, 201})
    payment: dict[str, Any] = answer.body["result"]
    assert set(payment) == FIELDS
    assert payment["status"] == word
    assert payment | facts == payment
    uuid.UUID(payment["id"])
    assert datetime.fromisoformat(payment["createdAt"]) <= datetime.fromisoformat(payment["updatedAt"])
    return payment


def assert_refused(answer: Answer, status: int, code: str, field: str = "") -> None:
    """Hold an answer against the contract's envelope for refusals; `field` is what its message must name."""
    assert answer.status == status, answer.text
    assert answer.headers["X-Correlation-Id"]
    assert set(answer.body) == {"success", "message", "result", "errorCode"}
    assert answer.body["success"] is False
    assert answer.body["result"] is None
    assert answer.body["errorCode"] == code
    assert field in answer.body["message"]


def test_register_log_in_and_log_out(shop: Shop) -> None:
    """Each answer has exactly the contract's fields; the token is good until the logout, and no longer."""
    stranger, body = Payer(shop.api), account_body(name="Grace Hopper")
    registered = stranger.user("register", body)
    assert registered.status == 200
    assert set(registered.body) == {"success", "message", "result"}
    assert registered.body["success"] is True
    logged_in = stranger.login(body["email"])
    assert logged_in.status == 200
    assert set(logged_in.body) == {"success", "message", "userName", "token"}
    assert logged_in.body["userName"] == "Grace Hopper"
    grace = Payer(shop.api, {"Authorization": f"Bearer {logged_in.body['token']}"})
    payment_id = grace.payment()
    assert grace.user("logout").body == {"success": True, "message": "Logged out", "result": None}
    for answer in (grace.create(), grace.status(payment_id), grace.user("logout")):
        assert_refused(answer, 401, "UNAUTHENTICATED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    again = stranger.login(body["email"]).body["token"]
    assert Payer(shop.api, {"Authorization": f"Bearer {again}"}).status(payment_id).status == 200


@pytest.mark.parametrize("path", ["/api/payment", "/api/payment/create"])
def test_a_payment_is_created_processed_and_refunded(shop: Shop, ada: Payer, path: str) -> None:
    """Pending until it is processed, which alone reaches the gateway; then Completed, then Refunded."""
    body: dict[str, Any] = {"amount": Decimal("150.50"), "currency": "USD", "paymentMethod": "credit_card"}
    shown = assert_payment(ada.create(path, **body, email="ada@shop.example"), 201, "Pending", **body)
    payment_id = shown["id"]
    shop.work()
    shop.look_again()
    assert ada.status(payment_id).body["result"] == shown
    assert shop.bench.simulator.charges(payment_id=payment_id) == []
    assert shop.announced(payment_id) == []

    done = shop.served(ada.asking(payment_id, "process"))
    assert_payment(done, 200, "Completed", **body, id=payment_id, createdAt=shown["createdAt"])
    assert ada.status(payment_id).body["result"] == done.body["result"]
    assert shop.charge(payment_id)["amount"] == 15050
    back = shop.served(ada.asking(payment_id, "refund"))
    assert_payment(back, 200, "Refunded", **body, id=payment_id)
    assert shop.sums(payment_id) == ("refunded", Decimal("150.50"), Decimal("150.50"))
    assert shop.announced(payment_id) == [
        "payment-requested", "payment-succeeded", "refund-requested", "refund-succeeded",
    ]  # fmt: skip
    shop.assert_history_is_whole(payment_id)


def test_a_declined_payment_is_failed(shop: Shop, ada: Payer) -> None:
    """422 with the payment, and the reason in words; it is not processed again."""
    payment_id = ada.payment(amount=Decimal("20.13"))
    answer = shop.served(ada.asking(payment_id, "process"))
    assert_payment(answer, 422, "Failed", id=payment_id)
    assert answer.body["message"] == "Payment failed: Your card was declined"
    assert answer.body["errorCode"] == "PAYMENT_FAILED"
    assert_payment(ada.status(payment_id), 200, "Failed")
    assert_refused(ada.ask(payment_id, "process"), 409, "PAYMENT_CONFLICT")
    assert_refused(ada.ask(payment_id, "refund"), 409, "PAYMENT_CONFLICT")


def test_the_contract_has_four_words() -> None:
    """What is open is Pending, what money was taken for is Completed, unless all of it went back."""
    words = {status: STATUS_WORDS.get(status, "Pending") for status in Status}
    assert {status for status, word in words.items() if word in {"Completed", "Refunded"}} == PAID
    assert {status for status, word in words.items() if word == "Failed"} == {"failed", "cancelled"}
    assert words[Status.PARTIALLY_REFUNDED] == "Completed"
    assert {status for status, word in words.items() if word == "Pending"} == {
        "pending", "processing", "requires_action", "authorized",
    }  # fmt: skip


def test_a_payment_is_processed_once_however_many_ask(shop: Shop, ada: Payer) -> None:
    """Of many at once one has it charged, and the others are told that it is; so it is with refunds."""
    payment_id = ada.payment()
    for what, refused in (("process", 409), ("refund", 422)):
        ask = [
            ada.asking(payment_id, what, Prefer="respond-async", Idempotency_Key=new_uuid())
            for _ in range(MANY)
        ]
        assert sorted(each.status for each in shop.at_once(ask)) == [202] + [refused] * (MANY - 1)
        shop.work()
    assert shop.sums(payment_id) == ("refunded", Decimal(150), Decimal(150))
    assert len(shop.bench.simulator.charges(payment_id=payment_id)) == 1
    shop.assert_history_is_whole(payment_id)


def test_who_does_not_wait_is_told_where_to_look(shop: Shop, ada: Payer) -> None:
    """202 with the payment as it stands; a refund like one that is still open is that one."""
    payment_id = ada.payment()
    for what, word in (("process", "Pending"), ("refund", "Completed")):
        answer = ada.ask(payment_id, what, Prefer="respond-async")
        assert_payment(answer, 202, word)
        assert answer.headers["Preference-Applied"] == "respond-async"
        assert answer.headers["Location"] == f"/api/payment/{payment_id}/status"
        assert shop.api.get(answer.headers["Location"], **ada.headers).status == 200
        if what == "refund":
            assert_payment(ada.ask(payment_id, what, Prefer="wait=0"), 202, word)
        shop.work()
    assert_payment(ada.status(payment_id), 200, "Refunded")
    assert [row["kind"] for row in shop.api.stored.rows("operation")] == ["charge", "refund"]


def with_card(shop: Shop, payment_id: str, card: str) -> None:
    """Have a payment charged to another of the gateway's test cards."""
    shop.api.stored.change("UPDATE payment SET payment_method_id = %s WHERE id = %s", card, payment_id)


def test_a_payment_that_waits_for_the_customer_is_pending(shop: Shop, ada: Payer) -> None:
    """202 at once, and the message says what it waits for."""
    payment_id = ada.payment()
    with_card(shop, payment_id, "pm_card_authenticationRequired")
    answer = shop.served(ada.asking(payment_id, "process"))
    assert_payment(answer, 202, "Pending")
    assert "customer must act" in answer.body["message"]
    assert_refused(ada.ask(payment_id, "process"), 409, "PAYMENT_CONFLICT")


def test_a_refund_that_fails_can_be_asked_for_again(shop: Shop, ada: Payer) -> None:
    """422 with the payment, which is still Completed, and the bank's reason."""
    payment_id, key = ada.payment(), new_uuid()
    with_card(shop, payment_id, "pm_card_pendingRefund")
    shop.served(ada.asking(payment_id, "process"))
    ada.ask(payment_id, "refund", Prefer="respond-async", Idempotency_Key=key)
    shop.work()
    (row,) = [each for each in shop.api.stored.rows("operation") if each["kind"] == "refund"]
    failed = {"refund": row["gateway_ref"], "status": "failed", "failure_reason": "lost_or_stolen_card"}
    shop.bench.simulator.act("refund", **failed)
    shop.look_again()
    refused = ada.ask(payment_id, "refund", Idempotency_Key=key)
    assert_payment(refused, 422, "Completed")
    assert refused.body["errorCode"] == "OPERATION_FAILED"
    assert refused.body["message"].startswith("Refund failed: ")
    assert ada.ask(payment_id, "refund", Prefer="respond-async").status == 202


def test_a_repeat_with_the_same_key_shows_the_same_payment(shop: Shop, ada: Payer) -> None:
    """Each POST of a payment takes Idempotency-Key; a repeat shows how it now stands, whatever came of it."""
    key = {"Idempotency-Key": new_uuid()}
    first, second = ada.create(headers=key), ada.create(headers=key)
    assert [each.status for each in (first, second)] == [201, 201]
    assert first.body == second.body
    assert second.headers["Idempotent-Replayed"] == "true"
    assert_refused(ada.create(headers=key, amount=7), 422, "IDEMPOTENCY_KEY_REUSED")
    payment_id, keys = first.body["result"]["id"], {what: new_uuid() for what in ("process", "refund")}
    for what, word in (("process", "Completed"), ("refund", "Refunded")):
        answer = shop.served(ada.asking(payment_id, what, Idempotency_Key=keys[what]))
        assert_payment(answer, 200, word)
        assert_payment(ada.ask(payment_id, what, Idempotency_Key=keys[what]), 200, word)
    assert_payment(ada.ask(payment_id, "process", Idempotency_Key=keys["process"]), 200, "Refunded")


def test_nothing_is_refunded_before_it_is_paid(shop: Shop, ada: Payer) -> None:
    """An unprocessed payment, one that is under way and one that was refunded are conflicts."""
    payment_id = ada.payment()
    assert_refused(ada.ask(payment_id, "refund"), 409, "PAYMENT_CONFLICT", "pending")
    ada.ask(payment_id, "process", Prefer="respond-async")
    assert_refused(ada.ask(payment_id, "refund"), 409, "PAYMENT_CONFLICT")
    assert_refused(ada.ask(payment_id, "process"), 409, "PAYMENT_CONFLICT", "already")
    shop.work()
    shop.served(ada.asking(payment_id, "refund"))
    assert_refused(ada.ask(payment_id, "refund"), 409, "PAYMENT_CONFLICT", "refunded already")
    assert_refused(ada.ask(payment_id, "process"), 409, "PAYMENT_CONFLICT", "already")


def test_an_unprocessed_payment_can_be_given_up(shop: Shop, ada: Payer) -> None:
    """By its owner, on the native route; it is Failed then and was never sent."""
    payment_id = ada.payment()
    answer = shop.api.send("POST", f"/payments/{payment_id}/cancel", b"", ada.headers)
    assert (answer.status, answer.payment["status"]) == (200, "cancelled")
    assert_payment(ada.status(payment_id), 200, "Failed")
    assert_refused(ada.ask(payment_id, "process"), 409, "PAYMENT_CONFLICT", "cancelled")
    assert shop.announced(payment_id) == ["payment-cancelled"]
    shop.assert_history_is_whole(payment_id)
    assert shop.bench.simulator.charges(payment_id=payment_id) == []


def test_a_payment_is_its_accounts_and_the_operators(shop: Shop, ada: Payer) -> None:
    """For everybody else there is none, on every route; who operates the service may do as its owner may."""
    payment_id = ada.payment()
    for stranger in (Payer(shop.api).newcomer(), Payer(shop.api, bearer(new_uuid()))):
        for what in ("process", "refund"):
            assert_refused(stranger.ask(payment_id, what), 404, "PAYMENT_NOT_FOUND")
        assert_refused(stranger.status(payment_id), 404, "PAYMENT_NOT_FOUND")
        assert shop.api.get(f"/payments/{payment_id}", **stranger.headers).status == 404
    operator = Payer(shop.api, bearer("root", role="operator"))
    for what, word in (("process", "Completed"), ("refund", "Refunded")):
        assert_payment(shop.served(operator.asking(payment_id, what)), 200, word)
    assert_payment(ada.status(payment_id), 200, "Refunded")
    assert [each["id"] for each in shop.api.get("/payments", **ada.headers).body["payments"]] == [payment_id]


def test_what_was_paid_for_an_order_is_the_shops_to_give_back(shop: Shop) -> None:
    """Who paid for an order or a cart cannot have the money back by this contract either; the shop can."""
    customer_id = new_uuid()
    customer = Payer(shop.api, bearer(customer_id))
    service = Payer(shop.api, bearer("shop", role="service"))
    payment_id = shop.pay(customerId=customer_id)
    assert_payment(customer.status(payment_id), 200, "Completed")
    held_id = shop.hold_cart(customerId=customer_id)
    shop.ask(held_id, "capture", Prefer="respond-async")
    shop.work()
    for each in (payment_id, held_id):
        assert_refused(customer.ask(each, "refund"), 403, "FORBIDDEN", "shop")
    assert shop.requested() == []
    assert_payment(shop.served(service.asking(payment_id, "refund")), 200, "Refunded")


def test_a_token_is_needed_even_where_none_is_required(shop: Shop, ada: Payer) -> None:
    """The token says who pays: without one nothing is shown, made or stored, whatever AUTH is."""
    assert not shop.api.services.settings.auth_required
    payment_id, nobody = ada.payment(), Payer(shop.api)
    before = shop.api.stored.counts()
    for answer in (
        nobody.create(),
        nobody.create("/api/payment/create"),
        nobody.ask(payment_id, "process"),
        nobody.ask(payment_id, "refund"),
        nobody.status(payment_id),
        nobody.user("logout"),
        Payer(shop.api, {"Authorization": "Bearer x"}).create(amount=-1),
    ):
        assert_refused(answer, 401, "UNAUTHENTICATED")
    assert shop.api.stored.counts() == before


BAD_ACCOUNTS = [
    ({"name": None}, "name"), ({"email": None}, "email"), ({"password": None}, "password"),
    ({"phoneNumber": None}, "phoneNumber"), ({"name": ""}, "name"), ({"name": "x" * 257}, "name"),
    ({"name": "a\x00b"}, "name"), ({"name": ["Ada"]}, "name"), ({"email": "nobody"}, "email"),
    ({"email": "a@b@c.example"}, "email"), ({"email": f"{'x' * 250}@a.example"}, "email"),
    ({"email": {"$ne": ""}}, "email"), ({"password": "seven77"}, "password"), ({"password": ""}, "password"),
    ({"password": "x" * 257}, "password"), ({"password": 12345678}, "password"),
    ({"phoneNumber": "call me"}, "phoneNumber"), ({"phoneNumber": "+1" * 30}, "phoneNumber"),
    ({"role": "operator"}, "role"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field"), BAD_ACCOUNTS, ids=str)
def test_a_bad_account_is_refused_by_its_field(shared_api: Api, change: dict[str, Any], field: str) -> None:
    """400 that names the field, and nothing is stored."""
    before = shared_api.stored.counts().get("account", 0)
    assert_refused(Payer(shared_api).register(**change), 400, "VALIDATION_FAILED", field)
    assert shared_api.stored.counts().get("account", 0) == before


BAD_PAYMENTS = [
    ({"amount": None}, "amount"), ({"amount": 0}, "amount"), ({"amount": "150"}, "amount"),
    ({"amount": Decimal("1.005")}, "amount"), ({"amount": -5}, "amount"), ({"amount": True}, "amount"),
    ({"amount": 10**12}, "amount"), ({"currency": None}, "currency"), ({"currency": "XXX"}, "currency"),
    ({"currency": "dollars"}, "currency"), ({"paymentMethod": None}, "paymentMethod"),
    ({"paymentMethod": "cash"}, "paymentMethod"), ({"email": "nobody"}, "email"), ({"tip": 1}, "tip"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "field"), BAD_PAYMENTS, ids=str)
def test_a_bad_payment_is_refused_by_its_field(common: Api, change: dict[str, Any], field: str) -> None:
    """400 that names the field, and nothing is stored."""
    body = {"amount": 150, "currency": "USD", "paymentMethod": "credit_card"} | change
    given = {name: value for name, value in body.items() if value is not None}
    payer, before = Payer(common, bearer("x")), common.stored.counts()
    assert_refused(payer._post("/api/payment", given), 400, "VALIDATION_FAILED", field)
    assert common.stored.counts() == before


@pytest.mark.parametrize(
    "method", ["credit_card", "Credit Card", "creditCard", "CREDIT-CARD", " Credit card"]
)
def test_a_method_of_payment_is_known_however_it_is_written(common: Api, method: str) -> None:
    """The contract does not say how; currencies are taken in either case, too."""
    answer = Payer(common, bearer("x")).create(paymentMethod=method, currency="usd")
    assert_payment(answer, 201, "Pending", paymentMethod="credit_card", currency="USD")


def test_what_no_route_takes(shop: Shop, ada: Payer) -> None:
    """Other bodies, other ids and ids that are none, each in the contract's own words."""
    assert_refused(Payer(shop.api).user("register", "{"), 400, "MALFORMED_JSON")
    assert_refused(Payer(shop.api).user("login", " " * 70_000), 413, "PAYLOAD_TOO_LARGE")
    huge = account_body(password="x" * 1_000_000)  # a megabyte of password costs no hash
    assert_refused(Payer(shop.api).user("register", huge), 413, "PAYLOAD_TOO_LARGE")
    assert_refused(shop.api.send("POST", "/api/user/login", b"x", {}), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert_refused(Payer(shop.api).register(name="4242 4242 4242 4242"), 400, "CARD_DATA_REFUSED", "name")
    assert_refused(ada.status("x"), 400, "VALIDATION_FAILED", "id")
    assert_refused(ada.status(new_uuid()), 404, "PAYMENT_NOT_FOUND")
    assert_refused(ada.ask(new_uuid(), "process"), 404, "PAYMENT_NOT_FOUND")
    assert_refused(ada.user("signup", {}), 404, "NOT_FOUND")
    payment_id = ada.payment()
    other = {"paymentId": new_uuid()}
    assert_refused(ada.ask(payment_id, "process", other), 400, "VALIDATION_FAILED", "paymentId")
    assert (
        ada.ask(payment_id, "process", {"paymentId": payment_id.upper()}, Prefer="respond-async").status
        == 202
    )


def test_one_email_address_has_one_account(new_api: NewApi) -> None:
    """Of many who register with it at once, in any case, one gets it and the others are told."""
    api, email = new_api(), new_email()
    written = [email, email.upper(), email.title(), email] * 2
    with ThreadPoolExecutor(len(written)) as callers:
        calls = [callers.submit(Payer(api).register, email=each) for each in written]
        answers = [each.result(LONGEST_S) for each in calls]
    assert sorted(each.status for each in answers) == [200] + [409] * (len(written) - 1)
    for refused in (each for each in answers if each.status == 409):
        assert_refused(refused, 409, "ACCOUNT_EXISTS", "email")
    assert api.stored.counts() == {"account": 1}


def test_without_a_secret_nobody_logs_in(new_api: NewApi) -> None:
    """An API that could not sign the token says so, rather than giving one that nobody takes."""
    body, api = account_body(), new_api()
    Payer(api).user("register", body)
    assert_refused(Payer(api).login(body["email"], PASSWORD), 503, "ACCOUNTS_NOT_CONFIGURED", "JWT_SECRET")


def test_answers_are_as_documented(new_api: NewApi, shop: Shop) -> None:
    """Each status of each route fits its schema in the OpenAPI document."""
    api = new_api(JWT_SECRET=SECRET, LOGIN_FAILURES_PER_EMAIL=1)
    document = api.get("/openapi.json").body
    stranger, body = Payer(api), account_body()
    users = [("register", stranger.user("register", body | change)) for change in ({}, {}, {"email": "x"})]
    users += [("login", stranger.login(body["email"], each)) for each in (PASSWORD, "wrong", "wrong")]
    payer = stranger.newcomer()
    created = [payer.create(amount=each, headers={"Idempotency-Key": "k"}) for each in (1, 1, 2, 0)]
    paid, declined, path = payer.payment(), payer.payment(amount=Decimal("1.13")), "/api/payment"
    later = {"Prefer": "respond-async"}
    further = [(what, payer.ask(each, what, **later)) for what, each in (("refund", paid), ("process", "x"))]
    for what, each in (("process", paid), ("process", declined), ("refund", paid)):
        keyed = payer.asking(each, what, Idempotency_Key=f"{what}-{each}")
        further += [(what, payer.ask(each, what, **later, Idempotency_Key=f"{what}-{each}"))]
        shop.work()
        further += [(what, keyed()), (what, payer.ask(each, what, Idempotency_Key=new_uuid()))]
    for answer in created:
        assert_documented(document, answer, path, "post")
        assert_documented(document, answer, f"{path}/create", "post")
    for what, answer in further:
        assert_documented(document, answer, f"{path}/{{payment_id}}/{what}", "post")
    for each in (paid, new_uuid()):
        assert_documented(document, payer.status(each), f"{path}/{{payment_id}}/status")
    users += [("logout", payer.user("logout")) for _ in range(2)]
    for what, answer in users:
        assert_documented(document, answer, f"/api/user/{what}", "post")
    assert [each.status for _, each in users] == [200, 409, 400, 200, 401, 429, 200, 401]
    assert [each.status for each in created] == [201, 201, 422, 400]
    assert [each.status for _, each in further] == [409, 400, 202, 200, 409, 202, 422, 409, 202, 200, 409]
