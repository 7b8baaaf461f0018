"""The delivery contract's money: payment intents and refunds, from its document's own examples."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api import Answer, Api, Settler
from tests.delivery import Delivery, StripeSide
from tests.factories import new_uuid
from tests.integration.delivery.test_contract_delivery import assert_refused
from tests.waiting import LONGEST_S


def intent_body(customer: str, card: str, **overrides: Any) -> dict[str, Any]:
    """Return the document's own example for this customer."""
    return {
        "amount": 2500,
        "customerId": customer,
        "paymentMethodId": card,
        "orderId": f"order_{new_uuid()}",
        "currency": "usd",
        "returnUrl": "https://example.com/checkout/complete",
    } | overrides


@pytest.fixture
def payer(shop: Delivery, stripe: StripeSide) -> tuple[str, str]:
    """Return a customer and their card."""
    customer = shop.customer()
    return customer, shop.card(customer, stripe.new_card())


@pytest.fixture
def pay(api: Api, settler: Settler) -> Callable[..., Answer]:
    """Return a way to ask for a payment and have its charge carried out meanwhile."""
    return lambda body, **headers: settler.pay(api, body, path="/payment/payment-intent", **headers)


@pytest.fixture
def give_back(api: Api, settler: Settler) -> Callable[..., Answer]:
    """Return a way to ask for a refund and have it carried out meanwhile."""

    def refund(order_id: str, body: dict[str, Any]) -> Answer:
        with ThreadPoolExecutor(1) as caller:
            answer = caller.submit(api.post, body, path="/payment/refund")
            settler.settle(order_id)
            return answer.result(LONGEST_S)

    return refund


def test_create_a_payment_intent(
    payer: tuple[str, str], pay: Callable[..., Answer], stripe: StripeSide
) -> None:
    """Four fields; the amount is in minor units as it came; the charge is the customer's at Stripe."""
    paid = pay(intent_body(*payer))
    assert paid.status == 200
    (at_stripe,) = stripe.intents(payer[0])
    data = {"payment_intent_id": at_stripe["id"], "status": "succeeded", "amount": 2500, "currency": "usd"}
    assert paid.body == {"success": True, "data": data}
    assert (at_stripe["amount"], at_stripe["currency"]) == (2500, "usd")


def test_an_order_is_charged_once(
    payer: tuple[str, str], pay: Callable[..., Answer], api: Api, stripe: StripeSide
) -> None:
    """The same order again is the same payment; with another amount it is refused, naming no other."""
    body = intent_body(*payer)
    paid = pay(body, Idempotency_Key="order")
    path = "/payment/payment-intent"
    again = api.post(body, path=path)
    replayed = api.post(body, path=path, Idempotency_Key="order")
    assert again.body == replayed.body == paid.body
    assert (again.headers.get("Idempotent-Replayed"), replayed.headers["Idempotent-Replayed"]) == (
        None,
        "true",
    )
    assert_refused(api.post(body | {"amount": 2501}, path=path), 409, "PAYMENT_CONFLICT")
    assert len(stripe.intents(payer[0])) == 1


def test_a_declined_intent_is_402(shop: Delivery, pay: Callable[..., Answer]) -> None:
    """With the card's message; the order can be paid with another card then."""
    customer = shop.customer()
    body = intent_body(customer, "pm_card_chargeDeclined")
    assert_refused(pay(body), 402, "PAYMENT_METHOD_DECLINED", "declined")
    assert pay(body | {"paymentMethodId": "pm_card_visa"}).status == 200


def test_an_intent_that_needs_the_customer_says_so(shop: Delivery, pay: Callable[..., Answer]) -> None:
    """200 with the status and the client secret, with a way back and without."""
    customer = shop.customer()
    for more in ({}, {"returnUrl": None}):
        waits = pay(intent_body(customer, "pm_card_authenticationRequired", **more))
        assert (waits.status, waits.body["success"]) == (200, True)
        data = waits.body["data"]
        assert data["status"] == "requires_action"
        assert data["client_secret"].startswith(f"{data['payment_intent_id']}_secret_")
        assert set(data) == {"payment_intent_id", "status", "amount", "currency", "client_secret"}


def test_a_manual_intent_is_held(payer: tuple[str, str], pay: Callable[..., Answer]) -> None:
    """With captureMethod manual the money is only held, which Stripe calls so."""
    held = pay(intent_body(*payer, captureMethod="manual"))
    assert (held.status, held.body["data"]["status"]) == (200, "requires_capture")


def test_what_takes_too_long_is_pending(payer: tuple[str, str], api: Api) -> None:
    """202 with the order, and the same again; Prefer shortens the wait and is acknowledged."""
    body = intent_body(*payer)
    for _ in range(2):
        pending = api.post(body, path="/payment/payment-intent", Prefer="respond-async")
        assert pending.status == 202
        assert set(pending.body) == {"success", "pending", "message", "data"}
        assert (pending.body["success"], pending.body["pending"]) == (True, True)
        assert pending.body["data"] == {"orderId": body["orderId"], "status": "processing"}
        assert pending.headers["Preference-Applied"] == "respond-async"
    assert api.stored.counts()["payment"] == 1


@pytest.mark.parametrize(
    ("path", "change", "field"),
    [
        *(("payment-intent", {"amount": bad}, "amount") for bad in (25.5, "2500", 0, -1, True, None, 10**12)),
        ("payment-intent", {"currency": "usdollar"}, "currency"),
        ("payment-intent", {"currency": "xxx"}, "currency"),
        ("payment-intent", {"orderId": 7}, "orderId"), ("payment-intent", {"orderId": ""}, "orderId"),
        ("payment-intent", {"customerId": None}, "customerId"),
        ("payment-intent", {"paymentMethodId": "tok_1"}, "paymentMethodId"),
        ("payment-intent", {"captureMethod": "later"}, "captureMethod"),
        ("payment-intent", {"returnUrl": "javascript:alert(1)"}, "returnUrl"),
        ("payment-intent", {"surprise": 1}, "surprise"),
        *(("refund", {"amount": bad}, "amount") for bad in (10.5, "1000", 0, -1, True)),
        ("refund", {"paymentIntentId": None}, "paymentIntentId"), ("refund", {"reason": 7}, "reason"),
        ("refund", {"reason": "x" * 501}, "reason"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_money_is_refused_by_its_field(
    shop: Delivery, api: Api, path: str, change: dict[str, Any], field: str
) -> None:
    """No guessing of decimals: what is no positive integer is 400, and nothing is stored."""
    body = (
        intent_body(shop.customer(), "pm_card_visa")
        if path == "payment-intent"
        else {"paymentIntentId": "pi_1"}
    )
    refused = api.post(body | change, path=f"/payment/{path}")
    assert_refused(refused, 400, "VALIDATION_FAILED", field)
    assert "payment" not in api.stored.counts()


def test_amounts_are_never_guessed(payer: tuple[str, str], pay: Callable[..., Answer]) -> None:
    """2500 of a currency without decimals is 2500 of it."""
    paid = pay(intent_body(*payer, currency="JPY"))
    assert (paid.body["data"]["amount"], paid.body["data"]["currency"]) == (2500, "jpy")


def test_an_intent_is_only_for_a_customer_and_their_card(
    shop: Delivery, payer: tuple[str, str], api: Api
) -> None:
    """An unknown customer is 404, another customer's card 400; nothing is stored."""
    path = "/payment/payment-intent"
    unknown = api.post(intent_body("cus_none", "pm_card_visa"), path=path)
    assert_refused(unknown, 404, "CUSTOMER_NOT_FOUND")
    other = api.post(intent_body(shop.customer(), payer[1]), path=path)
    assert_refused(other, 400, "VALIDATION_FAILED", "paymentMethodId")
    assert "payment" not in api.stored.counts()


def test_refund(
    payer: tuple[str, str], pay: Callable[..., Answer], give_back: Callable[..., Answer], api: Api
) -> None:
    """Five fields; parts add up, the rest by default; over the rest is 400; the reason is kept."""
    body = intent_body(*payer)
    intent = pay(body).body["data"]["payment_intent_id"]
    ask = {"paymentIntentId": intent, "amount": 1000, "reason": "customer_requested"}
    first = give_back(body["orderId"], ask)
    assert first.status == 200
    refund_id = first.body["data"]["refund_id"]
    assert refund_id.startswith("re_")
    assert first.body == {
        "success": True,
        "data": {
            "refund_id": refund_id,
            "status": "succeeded",
            "amount": 1000,
            "currency": "usd",
            "payment_intent": intent,
        },
    }
    over = api.post(ask | {"amount": 1501}, path="/payment/refund")
    assert_refused(over, 400, "VALIDATION_FAILED", "amount")
    second = give_back(body["orderId"], ask)
    rest = give_back(body["orderId"], {"paymentIntentId": intent})
    amounts = [each.body["data"]["amount"] for each in (first, second, rest)]
    assert amounts == [1000, 1000, 500]
    assert len({each.body["data"]["refund_id"] for each in (first, second, rest)}) == 3
    (row,) = [each for each in api.stored.rows("operation") if each["gateway_ref"] == refund_id]
    assert row["reason"] == "customer_requested"
    assert [each["refunded_minor"] for each in api.stored.rows("payment")] == [2500]


def test_an_open_refund_is_not_made_twice(
    payer: tuple[str, str], pay: Callable[..., Answer], api: Api
) -> None:
    """Without a key the same refund is the same while it is open; with other words it is another one."""
    intent = pay(intent_body(*payer)).body["data"]["payment_intent_id"]
    ask = {"paymentIntentId": intent, "amount": 1000}
    for _ in range(2):
        pending = api.post(ask, path="/payment/refund", Prefer="respond-async")
        assert pending.status == 202
        assert pending.body["data"] == {"payment_intent": intent, "status": "processing"}
    kinds = [each["kind"] for each in api.stored.rows("operation")]
    assert kinds.count("refund") == 1
    api.post(ask, path="/payment/refund", Prefer="respond-async", Idempotency_Key="second")
    kinds = [each["kind"] for each in api.stored.rows("operation")]
    assert kinds.count("refund") == 2


def test_what_cannot_be_refunded_is_refused(
    payer: tuple[str, str], pay: Callable[..., Answer], api: Api
) -> None:
    """An unknown payment is 404; one that took no money says how it stands."""
    unknown = api.post({"paymentIntentId": "pi_none"}, path="/payment/refund")
    assert_refused(unknown, 404, "PAYMENT_NOT_FOUND")
    held = pay(intent_body(*payer, captureMethod="manual")).body["data"]["payment_intent_id"]
    refused = api.post({"paymentIntentId": held}, path="/payment/refund")
    assert_refused(refused, 409, "PAYMENT_CONFLICT", "authorized")
