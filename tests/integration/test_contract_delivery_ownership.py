"""The delivery contract's customers, cards and payments: a caller's own, and for a stranger none."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.api import Answer, Api, Client, Settler
from tests.delivery import KEY, Delivery, new_email
from tests.factories import new_uuid
from tests.integration.conftest import NewApi
from tests.simulator import Simulator
from tests.tokens import SECRET, bearer


class Caller(Client):
    """Somebody with a token."""

    def __init__(self, api: Api, subject: str, **claims: Any) -> None:
        """Send the token with every request."""
        self._api = api
        self._token = bearer(subject, **claims)

    def send(self, method: str, path: str, body: str | bytes, headers: dict[str, str]) -> Answer:
        """Carry one request."""
        return self._api.send(method, path, body, headers | self._token)


@pytest.fixture
def api(new_api: NewApi, simulator: Simulator) -> Api:
    """Return an API that wants tokens and reaches the simulator."""
    return new_api(AUTH="required", JWT_SECRET=SECRET, STRIPE_API_URL=simulator.url, STRIPE_SECRET_KEY=KEY)


def assert_refused(answer: Answer, status: int, code: str, says: str = "") -> None:
    """Hold an answer against the contract's refusals."""
    assert (answer.status, answer.body["success"], answer.body["errorCode"]) == (status, False, code)
    assert says in answer.body["message"]


def intent(customer: str, **more: Any) -> dict[str, Any]:
    """Return a body that charges an order with a test card."""
    card = {"paymentMethodId": "pm_card_visa", "orderId": new_uuid()}
    return {"amount": 2500, "customerId": customer, **card, **more}


def test_without_a_token_the_refusal_is_the_contracts(api: Api) -> None:
    """401 in this contract's words, and nothing is made."""
    refused = Delivery(api).create()
    assert_refused(refused, 401, "UNAUTHENTICATED", "A valid bearer token is needed")
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert api.stored.counts() == {}


def test_a_customer_registers_itself(api: Api, settler: Settler) -> None:
    """Under its own id, which it need not name; its cards and payments are its own to see."""
    me = new_uuid()
    caller = Caller(api, me)
    mine, email = Delivery(caller), new_email()
    customer = mine.customer(email=email)
    assert customer == mine.customer(email=email) == mine.customer(email=email, customerId=me)
    assert caller.get(f"/payment/customer/{email}").body["data"]["customerId"] == customer
    card = mine.card(customer)
    assert [each["payment_method_id"] for each in mine.cards(me)] == [card]
    paid = settler.pay(caller, intent(customer, paymentMethodId=card), path="/payment/payment-intent")
    assert paid.status == 200
    (shown,) = caller.get("/payments").body["payments"]
    assert (shown["customerId"], shown["status"]) == (me, "succeeded")
    assert mine.delete(customer, card).status == 200


def test_a_customer_registers_nobody_else(api: Api) -> None:
    """Neither under another id nor with an address that is taken."""
    shop, mine = Delivery(Caller(api, "shop", role="service")), Delivery(Caller(api, new_uuid()))
    assert_refused(mine.create(customerId=new_uuid()), 403, "FORBIDDEN", "customerId")
    assert api.stored.counts() == {}
    for known in ({}, {"customerId": new_uuid()}):
        email = new_email()
        shop.customer(email=email, **known)
        assert_refused(mine.create(email=email), 409, "CUSTOMER_CONFLICT", "email")


def test_a_strangers_customer_does_not_exist(api: Api) -> None:
    """Each route answers as for an id of nobody, and nothing changes; the owner and the shop go on."""
    email = new_email()
    mine, shop = Delivery(Caller(api, new_uuid())), Delivery(Caller(api, "shop", role="service"))
    customer = mine.customer(email=email)
    card = mine.card(customer)
    caller = Caller(api, new_uuid())
    stranger = Delivery(caller)
    before = api.stored.counts()
    asks: list[Callable[[str], Answer]] = [
        lambda each: stranger.save(each, "pm_card_amex"),
        lambda each: stranger.save_details(each, "pm_card_amex"),
        lambda each: stranger.delete(each, card),
        lambda each: caller.get(f"/payment/payment-methods/{each}"),
        lambda each: caller.post(intent(each), path="/payment/payment-intent"),
    ]
    for ask in asks:
        answer = ask(customer)
        assert_refused(answer, 404, "CUSTOMER_NOT_FOUND")
        assert answer.text == ask("cus_nobody").text
    assert_refused(caller.get(f"/payment/customer/{email}"), 404, "CUSTOMER_NOT_FOUND")
    assert api.stored.counts() == before
    assert [len(each.cards(customer)) for each in (mine, shop)] == [1, 1]


def test_a_strangers_payment_is_not_refunded(api: Api, settler: Settler) -> None:
    """404 as for a payment of nobody, and no refund; the shop may."""
    me = Caller(api, new_uuid())
    paid = settler.pay(me, intent(Delivery(me).customer()), path="/payment/payment-intent")
    ask = {"paymentIntentId": paid.body["data"]["payment_intent_id"]}
    stranger = Caller(api, new_uuid())
    refused = stranger.post(ask, path="/payment/refund")
    assert_refused(refused, 404, "PAYMENT_NOT_FOUND")
    assert refused.text == stranger.post({"paymentIntentId": "pi_nobody"}, path="/payment/refund").text
    assert [row["kind"] for row in api.stored.rows("operation")] == ["charge"]
    shop = Caller(api, "shop", role="merchant")
    assert shop.post(ask, path="/payment/refund", Prefer="respond-async").status == 202


def test_anothers_saved_card_pays_for_nobody(api: Api) -> None:
    """A customer that knows another's card is refused as if there were none."""
    owner = Delivery(Caller(api, new_uuid()))
    card = owner.card(owner.customer())
    me = new_uuid()
    caller = Caller(api, me)
    customer = Delivery(caller).customer()
    refused = caller.post(intent(customer, paymentMethodId=card), path="/payment/payment-intent")
    assert_refused(refused, 400, "VALIDATION_FAILED", "paymentMethodId")
    assert [row["id"] for row in api.stored.rows("payment")] == []
