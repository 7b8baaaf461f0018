"""Saved cards are charged only with their customer, and no more once they are removed."""

import pytest

from shared.commands.customers import payer_of
from shared.payments import InvalidCommand
from tests.api import Api, Settler
from tests.delivery import Delivery, StripeSide
from tests.factories import new_uuid, payment_body


def test_a_card_is_charged_only_with_its_customer(shop: Delivery, api: Api, stripe: StripeSide) -> None:
    """By the gateway's id or the client's own; another's or a removed one is refused; others are nobody's."""
    client_id = new_uuid()
    customer, other = shop.customer(customerId=client_id), shop.customer()
    card, gone = (shop.card(customer, stripe.new_card()) for _ in range(2))
    shop.delete(customer, gone)
    with api.services.sessions() as session:
        assert payer_of(session, customer, card) == payer_of(session, client_id, card) == customer
        for payer, method in ((other, card), (new_uuid(), card), (customer, gone)):
            with pytest.raises(InvalidCommand, match="paymentMethodId"):
                payer_of(session, payer, method)
        assert payer_of(session, customer, "pm_1nobodyknows") is None
    with api.services.sessions() as session:
        assert payer_of(session, customer, None) is payer_of(session, customer, "pm_card_visa") is None
        assert not session.in_transaction()  # nothing was read


def test_a_saved_card_is_charged_off_session(
    shop: Delivery, api: Api, stripe: StripeSide, settler: Settler
) -> None:
    """The charge is the customer's at Stripe; again and again; and never for another customer."""
    client_id = new_uuid()
    customer = shop.customer(customerId=client_id)
    card = shop.card(customer, stripe.new_card())
    for _ in range(2):
        body = payment_body(customerId=client_id, paymentMethodId=card, offSession=True)
        paid = settler.pay(api, body)
        assert (paid.status, paid.payment["status"]) == (200, "succeeded")
    assert [each["customer"] for each in stripe.intents(customer)] == [customer] * 2
    before = api.stored.counts()
    for other in (new_uuid(), shop_customer_id(shop)):
        refused = api.post_async(payment_body(customerId=other, paymentMethodId=card))
        assert (refused.status, refused.body["errorCode"]) == (400, "VALIDATION_FAILED")
        assert "paymentMethodId" in refused.body["errorMessage"]
    assert api.stored.counts() == before | {"customer": 2}


def shop_customer_id(shop: Delivery) -> str:
    """Make a customer with a client's id and return that id."""
    client_id = new_uuid()
    shop.customer(customerId=client_id)
    return client_id


def test_a_removed_card_is_charged_no_more(
    shop: Delivery, api: Api, stripe: StripeSide, settler: Settler
) -> None:
    """A new order is refused; the order that was paid with it has its payment still."""
    client_id = new_uuid()
    customer = shop.customer(customerId=client_id)
    card = shop.card(customer, stripe.new_card())
    body = payment_body(customerId=client_id, paymentMethodId=card)
    paid = settler.pay(api, body)
    shop.delete(customer, card)
    again = api.post(body)
    assert (again.status, again.payment["id"]) == (200, paid.payment["id"])
    assert api.post(body | {"orderId": new_uuid()}).status == 400
    assert api.stored.counts()["payment"] == 1


def test_a_charge_under_way_when_its_card_is_removed_fails(
    shop: Delivery, api: Api, stripe: StripeSide, settler: Settler
) -> None:
    """Recorded before the removal and carried out after it: Stripe refuses, and nothing is taken."""
    client_id = new_uuid()
    customer = shop.customer(customerId=client_id)
    card = shop.card(customer, stripe.new_card())
    body = payment_body(customerId=client_id, paymentMethodId=card)
    started = api.post_async(body)
    shop.delete(customer, card)
    settler.settle(body["orderId"])
    payment = api.get(f"/payments/{started.payment['id']}").payment
    assert (payment["status"], payment["capturedAmount"]) == ("failed", 0)


def test_off_session_a_needed_authentication_is_a_failure(shop: Delivery, api: Api, settler: Settler) -> None:
    """Nobody is there to authenticate: 422 with that code, and the order is free for another try."""
    client_id = new_uuid()
    card = shop.card(shop.customer(customerId=client_id), "pm_card_authenticationRequired")
    body = payment_body(customerId=client_id, paymentMethodId=card, offSession=True)
    failed = settler.pay(api, body)
    assert (failed.status, failed.payment["status"]) == (422, "failed")
    assert failed.payment["errorCode"] == "AUTHENTICATION_REQUIRED"
    there = settler.pay(api, body | {"offSession": False})
    assert (there.status, there.payment["status"]) == (202, "requires_action")
