"""The delivery contract, from its document's own examples: field by field, and what it refuses."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.api import JSON, NOWHERE, Answer, Api, Settler
from tests.delivery import KEY, Delivery, StripeSide, new_email
from tests.factories import as_json, new_uuid
from tests.integration.conftest import NewApi
from tests.simulator import Simulator
from tests.waiting import LONGEST_S

DETAILS = {
    "cardholderName": "John Doe", "last4": "4242", "cardType": "visa", "expiryDate": "12/25",
    "isDefault": True,
}  # fmt: skip
NUMBER = "4242424242424242"


@pytest.fixture
def api(new_api: NewApi, simulator: Simulator) -> Api:
    """Return an application that reaches the simulator."""
    return new_api(STRIPE_API_URL=simulator.url, STRIPE_SECRET_KEY=KEY)


@pytest.fixture
def shop(api: Api) -> Delivery:
    """Return a client that knows only the contract."""
    return Delivery(api)


@pytest.fixture
def stripe(simulator: Simulator) -> StripeSide:
    """Return Stripe's side."""
    return StripeSide(simulator.url)


def assert_refused(answer: Answer, status: int, code: str, says: str = "") -> None:
    """Hold a refusal against the contract's envelope, with our errorCode beside it."""
    assert answer.status == status, answer.text
    assert answer.headers["X-Correlation-Id"]
    assert set(answer.body) == {"success", "message", "errorCode"}
    assert answer.body["success"] is False
    assert answer.body["errorCode"] == code
    assert says in answer.body["message"]


def test_create_and_find_a_customer(shop: Delivery, api: Api, stripe: StripeSide) -> None:
    """201 with the gateway's id and nothing else; found again by email; Stripe has the same customer."""
    email = new_email()
    made = shop.create(email=email, name="John Doe")
    assert made.status == 201
    customer_id = made.body["data"]["customerId"]
    assert made.body == {"success": True, "data": {"customerId": customer_id}}
    found = api.get(f"/payment/customer/{email}")
    assert (found.status, found.body) == (200, made.body)
    (at_stripe,) = stripe.customers(email)
    assert (at_stripe["id"], at_stripe["name"]) == (customer_id, "John Doe")


def test_an_email_address_is_one_customer_in_any_case(shop: Delivery, api: Api, stripe: StripeSide) -> None:
    """Created again, with other capitals and another name, it is the same customer."""
    email = new_email()
    first = shop.customer(email=email, name="John Doe")
    assert shop.customer(email=email.upper(), name="Johnny") == first
    assert api.get(f"/payment/customer/{email.title()}").body["data"] == {"customerId": first}
    assert len(stripe.customers(email)) == 1
    assert api.stored.counts()["customer"] == 1


def test_save_a_card(shop: Delivery, stripe: StripeSide) -> None:
    """Three fields, which are Stripe's; the card is the customer's at Stripe too."""
    customer, card = shop.customer(), stripe.new_card()
    saved = shop.save(customer, card)
    assert saved.status == 200
    data = {"payment_method_id": card, "card_last4": "4242", "card_brand": "visa"}
    assert saved.body == {"success": True, "data": data}
    assert stripe.cards(customer) == {card}


def test_save_a_card_with_details(shop: Delivery, stripe: StripeSide) -> None:
    """Six fields; the holder's name is the client's, the expiry date is Stripe's and not the client's."""
    customer, card = shop.customer(), stripe.new_card()
    saved = shop.save_details(customer, card, **DETAILS)
    assert saved.status == 200
    assert saved.body == {
        "success": True,
        "data": {
            "payment_method_id": card,
            "card_last4": "4242",
            "card_brand": "visa",
            "cardholder_name": "John Doe",
            "expiry_date": "12/34",
            "is_default": True,
        },
    }


def test_card_facts_come_from_stripe(shop: Delivery, stripe: StripeSide) -> None:
    """What the client says of the card is not believed; the name that Stripe knows wins."""
    customer = shop.customer()
    card = stripe.new_card("tok_mastercard", **{"billing_details[name]": "Jane Roe"})
    saved = shop.save_details(customer, card, **DETAILS | {"last4": "0000", "cardType": "amex"})
    assert saved.body["data"]["card_last4"] == "4444"
    assert saved.body["data"]["card_brand"] == "mastercard"
    assert saved.body["data"]["cardholder_name"] == "Jane Roe"


def test_list_the_cards(shop: Delivery, stripe: StripeSide) -> None:
    """The default first, then the newest first, each with the six fields; by either of the customer's ids."""
    client_id = new_uuid()
    customer = shop.customer(customerId=client_id)
    assert shop.cards(customer) == []
    first, second, third = (shop.card(customer, stripe.new_card()) for _ in range(3))
    facts = {"card_last4": "4242", "card_brand": "visa", "cardholder_name": None, "expiry_date": "12/34"}
    expected = [
        {"payment_method_id": card, **facts, "is_default": card == first} for card in (first, third, second)
    ]
    assert shop.cards(customer) == expected
    assert shop.cards(client_id) == expected


def test_delete_a_card(shop: Delivery, stripe: StripeSide) -> None:
    """The answer's data tell success too; the card is gone here and at Stripe, as often as it is deleted."""
    customer = shop.customer()
    card = shop.card(customer, stripe.new_card())
    for _ in range(2):
        deleted = shop.delete(customer, card)
        assert deleted.status == 200
        data = {"success": True, "message": "Payment method deleted successfully"}
        assert deleted.body == {"success": True, "data": data}
        assert shop.cards(customer) == []
        assert stripe.cards(customer) == set()


def test_exactly_one_card_is_the_default(shop: Delivery, stripe: StripeSide) -> None:
    """The first is at any rate; isDefault moves it; a deletion moves it to the newest; Stripe agrees."""
    customer = shop.customer()
    first = shop.card(customer, isDefault=False)
    assert shop.default(customer) == stripe.default(customer) == first
    second, third = (shop.card(customer, stripe.new_card()) for _ in range(2))
    assert shop.default(customer) == first
    fourth = shop.card(customer, stripe.new_card(), isDefault=True)
    assert shop.default(customer) == stripe.default(customer) == fourth
    shop.delete(customer, second)
    assert shop.default(customer) == fourth
    shop.delete(customer, fourth)
    assert shop.default(customer) == stripe.default(customer) == third
    assert shop.save_details(customer, first, isDefault=True).status == 200
    assert shop.default(customer) == stripe.default(customer) == first
    for card in (third, first):
        shop.delete(customer, card)
    assert stripe.default(customer) is None
    fifth = shop.card(customer, stripe.new_card())
    assert shop.default(customer) == stripe.default(customer) == fifth


def test_saving_a_card_again_changes_nothing(shop: Delivery, api: Api, stripe: StripeSide) -> None:
    """The same card is one card, also when a test token or the client's own doing brought it."""
    customer, ours = shop.customer(), stripe.new_card()
    stripe.attach(ours, customer)
    first = shop.save(customer, ours)
    assert (first.status, shop.save(customer, ours).body) == (200, first.body)
    by_token = shop.save(customer, "pm_card_amex")
    assert shop.save(customer, "pm_card_amex").body == by_token.body
    assert shop.save(customer, by_token.body["data"]["payment_method_id"]).body == by_token.body
    assert api.stored.counts()["saved_card"] == 2
    assert len(stripe.cards(customer)) == 2


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("customer", {}, "email"), ("customer", {"email": None}, "email"),
        ("customer", {"email": 7}, "email"),
        ("customer", {"email": "nobody"}, "email"), ("customer", {"email": "a@b.c" * 60}, "email"),
        ("customer", {"email": "a@example.com", "name": ""}, "name"),
        ("customer", {"email": "a@example.com", "name": "x" * 257}, "name"),
        ("customer", {"email": "a@example.com", "name": "a\0b"}, "name"),
        ("customer", {"email": "a@example.com", "customerId": 7}, "customerId"),
        ("customer", {"email": "a@example.com", "customerId": "cus_1"}, "customerId"),
        ("customer", {"email": "a@example.com", "surprise": 1}, "surprise"),
        ("payment-method", {"paymentMethodId": "pm_1"}, "customerId"),
        ("payment-method", {"customerId": "cus_1"}, "paymentMethodId"),
        ("payment-method", {"customerId": "cus_1", "paymentMethodId": "tok_1"}, "paymentMethodId"),
        ("payment-method", {"customerId": "cus_1", "paymentMethodId": "pm_1/detach"}, "paymentMethodId"),
        ("payment-method", {"customerId": ["cus_1"], "paymentMethodId": "pm_1"}, "customerId"),
        ("payment-method", {"customerId": "c", "paymentMethodId": "pm_1", "last4": "4242"}, "last4"),
        ("payment-method-details", {"customerId": "c", "paymentMethodId": "pm_1", "isDefault": "yes"},
         "isDefault"),
        ("payment-method-details", {"customerId": "c", "paymentMethodId": "pm_1", "last4": 4242}, "last4"),
        ("payment-method-details", {"customerId": "c", "paymentMethodId": "pm_1", "expiryDate": "13/25"},
         "expiryDate"),
    ],
    ids=str,
)  # fmt: skip
def test_bad_input_is_refused_by_its_field(api: Api, path: str, body: dict[str, Any], field: str) -> None:
    """400 naming the field, in the contract's envelope, and nothing is stored."""
    assert_refused(api.post(body, path=f"/payment/{path}"), 400, "VALIDATION_FAILED", field)
    if path == "payment-method":
        deleted = api.send("DELETE", f"/payment/{path}", as_json(body), {"Content-Type": JSON})
        assert_refused(deleted, 400, "VALIDATION_FAILED", field)
    assert api.stored.counts() == {}


def test_what_does_not_exist_is_404(shop: Delivery, api: Api) -> None:
    """Customers, cards and routes, each in the contract's envelope."""
    customer, other = shop.customer(), shop.customer()
    card = shop.card(other)
    for path in (
        "customer/nobody@example.com", "customer/%00", "payment-methods/cus_none", "payment-methods/%00",
    ):  # fmt: skip
        assert_refused(api.get(f"/payment/{path}"), 404, "CUSTOMER_NOT_FOUND")
    assert_refused(shop.save("cus_none", "pm_card_visa"), 404, "CUSTOMER_NOT_FOUND")
    assert_refused(shop.delete("cus_none", card), 404, "CUSTOMER_NOT_FOUND")
    assert_refused(shop.delete(customer, "pm_none"), 404, "PAYMENT_METHOD_NOT_FOUND")
    assert_refused(shop.delete(customer, card), 404, "PAYMENT_METHOD_NOT_FOUND")
    assert_refused(api.get("/payment/nothing"), 404, "NOT_FOUND")
    assert_refused(api.get("/payment/payment-method"), 405, "METHOD_NOT_ALLOWED")
    assert [each["payment_method_id"] for each in shop.cards(other)] == [card]


def test_what_is_not_json_is_refused(api: Api) -> None:
    """Malformed, of another type, too large, or with card data: refused as everywhere, in this envelope."""
    path = "/payment/customer"
    assert_refused(api.post("{", path=path), 400, "MALFORMED_JSON")
    assert_refused(api.post("{}", path=path, Content_Type="text/plain"), 415, "UNSUPPORTED_MEDIA_TYPE")
    assert_refused(api.post(" " * 70_000, path=path), 413, "PAYLOAD_TOO_LARGE")
    body = {"email": new_email(), "name": NUMBER}
    assert_refused(api.post(body, path=path), 400, "CARD_DATA_REFUSED", "name")
    details = {"customerId": "cus_1", "paymentMethodId": "pm_1", "cvc": "123"}
    assert_refused(api.post(details, path="/payment/payment-method-details"), 400, "CARD_DATA_REFUSED", "cvc")
    assert api.stored.counts() == {}


def test_a_declined_card_is_not_saved(shop: Delivery, api: Api, stripe: StripeSide) -> None:
    """402 with the issuer's words; nothing is stored, and no key is bound to it."""
    customer = shop.customer()
    before = api.stored.counts()
    for _ in range(2):
        refused = shop.save(customer, "pm_card_chargeDeclined", Idempotency_Key="once")
        assert_refused(refused, 402, "PAYMENT_METHOD_DECLINED", "declined")
    assert api.stored.counts() == before
    assert stripe.cards(customer) == set()
    assert shop.save(customer, "pm_card_visa", Idempotency_Key="once").status == 200


def test_a_card_that_cannot_be_saved_is_refused(shop: Delivery, api: Api, stripe: StripeSide) -> None:
    """400 naming it: unknown, another customer's, removed before; nothing is stored."""
    customer, other = shop.customer(), shop.customer()
    theirs, gone = shop.card(other, stripe.new_card()), shop.card(customer, stripe.new_card())
    shop.delete(customer, gone)
    before = api.stored.rows("saved_card")
    for card in ("pm_1nobodyknows", theirs, gone):
        assert_refused(shop.save(customer, card), 400, "VALIDATION_FAILED", "paymentMethodId")
    assert api.stored.rows("saved_card") == before
    assert stripe.cards(other) == {theirs}


def test_an_id_of_the_client_is_one_customer(shop: Delivery, api: Api) -> None:
    """It can be given later; never to a second customer, and never a second one to a customer."""
    first, second, email = new_uuid(), new_uuid(), new_email()
    customer = shop.customer(email=email)
    assert shop.customer(email=email, customerId=first) == customer
    assert shop.customer(email=email) == customer
    assert shop.customer(email=email, customerId=first.upper()) == customer
    assert shop.cards(first.upper()) == []
    assert_refused(shop.create(email=email, customerId=second), 409, "CUSTOMER_CONFLICT", "email")
    assert_refused(shop.create(customerId=first), 409, "CUSTOMER_CONFLICT", "customerId")
    other = new_email()
    shop.customer(email=other)
    assert_refused(shop.create(email=other, customerId=first), 409, "CUSTOMER_CONFLICT", "customerId")
    assert [row["client_customer_id"] for row in api.stored.rows("customer")].count(first) == 1
    assert api.stored.counts()["customer"] == 2


def test_an_idempotency_key_repeats_what_it_did(shop: Delivery, api: Api, stripe: StripeSide) -> None:
    """A repeat says so; another body is refused; a card that was removed meanwhile is not saved anew."""
    body, key = {"email": new_email()}, new_uuid()
    answers = [api.post(body, path="/payment/customer", Idempotency_Key=key) for _ in range(2)]
    assert answers[0].body == answers[1].body
    assert [each.headers.get("Idempotent-Replayed") for each in answers] == [None, "true"]
    other = api.post({"email": new_email()}, path="/payment/customer", Idempotency_Key=key)
    assert_refused(other, 422, "IDEMPOTENCY_KEY_REUSED")
    customer = answers[0].body["data"]["customerId"]
    saved, again = (shop.save(customer, "pm_card_visa", Idempotency_Key="card") for _ in range(2))
    assert saved.body == again.body
    assert [each.headers.get("Idempotent-Replayed") for each in (saved, again)] == [None, "true"]
    shop.delete(customer, saved.body["data"]["payment_method_id"])
    removed = shop.save(customer, "pm_card_visa", Idempotency_Key="card")
    assert_refused(removed, 404, "PAYMENT_METHOD_NOT_FOUND")
    assert stripe.cards(customer) == set()


def test_without_a_key_for_stripe_only_these_routes_are_closed(new_api: NewApi) -> None:
    """503 that names the setting; payments are taken, and nothing is stored of the customer."""
    api = new_api()
    assert_refused(Delivery(api).create(), 503, "GATEWAY_NOT_CONFIGURED", "STRIPE_SECRET_KEY")
    assert_refused(Delivery(api).delete("cus_1", "pm_1"), 503, "GATEWAY_NOT_CONFIGURED")
    assert "customer" not in api.stored.counts()
    assert api.post_async().status == 202


def test_stripe_away_is_503_and_a_repeat_completes_it(new_api: NewApi, shop: Delivery) -> None:
    """Who cannot reach Stripe is told to come back; until then the customer is not shown."""
    away, email = new_api(STRIPE_API_URL=NOWHERE, STRIPE_SECRET_KEY=KEY), new_email()
    refused = Delivery(away).create(email=email)
    assert_refused(refused, 503, "GATEWAY_UNAVAILABLE")
    assert refused.headers["Retry-After"]
    assert_refused(away.get(f"/payment/customer/{email}"), 404, "CUSTOMER_NOT_FOUND")
    customer = shop.customer(email=email)
    assert_refused(Delivery(away).save(customer, "pm_card_visa"), 503, "GATEWAY_UNAVAILABLE")
    assert shop.cards(customer) == []
    card = shop.card(customer)
    assert_refused(Delivery(away).delete(customer, card), 503, "GATEWAY_UNAVAILABLE")
    assert shop.cards(customer) == []
    assert shop.delete(customer, card).status == 200


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
