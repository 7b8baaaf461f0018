"""The delivery contract, from its document's own examples: field by field, and what it refuses."""

from typing import Any

import pytest

from tests.api import JSON, NOWHERE, Answer, Api
from tests.delivery import KEY, Delivery, StripeSide, new_email
from tests.factories import as_json, new_uuid
from tests.integration.conftest import NewApi

DETAILS = {
    "cardholderName": "John Doe", "last4": "4242", "cardType": "visa", "expiryDate": "12/25",
    "isDefault": True,
}  # fmt: skip
NUMBER = "4242424242424242"


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
