"""Whose customers and cards a caller of the delivery contract may see and change."""

from typing import Any

import pytest

from tests.api import JSON, Answer, Api, Settler
from tests.delivery import KEY, new_email
from tests.factories import as_json, new_uuid
from tests.integration.conftest import NewApi
from tests.simulator import Simulator
from tests.tokens import SECRET, bearer

CARD = "pm_card_visa"


@pytest.fixture
def api(new_api: NewApi, simulator: Simulator) -> Api:
    """Return an application that reaches the simulator and wants a token with every request."""
    return new_api(STRIPE_API_URL=simulator.url, STRIPE_SECRET_KEY=KEY, AUTH="required", JWT_SECRET=SECRET)


def create(api: Api, caller: dict[str, str], **body: Any) -> Answer:
    """Create a customer as this caller."""
    return api.post({"email": new_email(), **body}, path="/payment/customer", **caller)


def requests_about(api: Api, customer: str, email: str, caller: dict[str, str]) -> list[Answer]:
    """Make every request about a customer and its card as this caller."""
    card = {"customerId": customer, "paymentMethodId": CARD}
    headers = {"Content-Type": JSON, **caller}
    order = {**card, "amount": 2500, "orderId": new_uuid()}
    return [
        api.get(f"/payment/customer/{email}", **caller),
        api.post(card, path="/payment/payment-method", **caller),
        api.post(card, path="/payment/payment-method-details", **caller),
        api.get(f"/payment/payment-methods/{customer}", **caller),
        api.send("DELETE", "/payment/payment-method", as_json(card | {"paymentMethodId": "pm_1"}), headers),
        api.post(order, path="/payment/payment-intent", Prefer="respond-async", **caller),
    ]


def test_nobody_gets_in_without_a_token(api: Api) -> None:
    """401 in the contract's own envelope, before anything is read."""
    for answer in requests_about(api, "cus_1", "a@example.com", {}):
        assert answer.status == 401
        assert set(answer.body) == {"success", "message", "errorCode"}
        assert answer.body["errorCode"] == "UNAUTHENTICATED"


@pytest.mark.parametrize("role", ["service", "merchant", "operator"])
def test_the_shop_may_do_everything(api: Api, role: str) -> None:
    """Who acts for the shop sees and changes every customer."""
    email, caller = new_email(), bearer(new_uuid(), role=role)
    made = create(api, bearer(new_uuid(), role="service"), email=email)
    customer = made.body["data"]["customerId"]
    statuses = [each.status for each in requests_about(api, customer, email, caller)]
    assert statuses == [200, 200, 200, 200, 404, 202]


def test_a_customer_has_itself_alone(api: Api) -> None:
    """A caller that is a customer may do all of this for itself; others' customers do not exist for it."""
    own_id, email = new_uuid(), new_email()
    made = create(api, bearer(own_id), email=email)
    customer = made.body["data"]["customerId"]
    assert [row["client_customer_id"] for row in api.stored.rows("customer")] == [own_id]
    for name in (customer, own_id):
        own = requests_about(api, name, email, bearer(own_id))
        assert [each.status for each in own] == [200, 200, 200, 200, 404, 202]
        cards, payments = api.stored.rows("saved_card"), api.stored.rows("payment")
        for stranger in (bearer(new_uuid()), bearer(customer)):
            others = requests_about(api, name, email, stranger)
            assert {(each.status, each.body["errorCode"]) for each in others} == {(404, "CUSTOMER_NOT_FOUND")}
        assert (api.stored.rows("saved_card"), api.stored.rows("payment")) == (cards, payments)


def test_a_customer_takes_no_other_ones_place(api: Api) -> None:
    """Neither under another's id nor by another's email address, with a client's id or without."""
    shop, email, named = bearer(new_uuid(), role="service"), new_email(), new_email()
    create(api, shop, email=email)
    create(api, shop, email=named, customerId=new_uuid())
    before = api.stored.rows("customer")
    thief = new_uuid()
    assert create(api, bearer(thief), customerId=new_uuid()).status == 403
    for address in (email, named, email.upper()):
        assert create(api, bearer(thief), email=address).status == 409
        assert create(api, bearer(thief), email=address, customerId=thief).status == 409
    assert api.stored.rows("customer") == before


def test_a_strangers_payment_is_not_refunded(api: Api, settler: Settler) -> None:
    """It does not exist for a stranger; giving back is the shop's to decide, not the payer's."""
    owner = new_uuid()
    customer = create(api, bearer(owner)).body["data"]["customerId"]
    body = {"customerId": customer, "paymentMethodId": CARD, "amount": 2500, "orderId": new_uuid()}
    paid = settler.pay(api, body, path="/payment/payment-intent", **bearer(owner))
    ask = {"paymentIntentId": paid.body["data"]["payment_intent_id"]}
    path = "/payment/refund"
    refused = api.post(ask, path=path, Prefer="respond-async", **bearer(new_uuid()))
    assert (refused.status, refused.body["errorCode"]) == (404, "PAYMENT_NOT_FOUND")
    refused = api.post(ask, path=path, Prefer="respond-async", **bearer(owner))
    assert (refused.status, refused.body["errorCode"]) == (403, "FORBIDDEN")
    assert [row["refund_reserved_minor"] for row in api.stored.rows("payment")] == [0]
    shop = bearer("shop", role="service")
    assert api.post(ask, path=path, Prefer="respond-async", **shop).status == 202
