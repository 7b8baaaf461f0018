"""The customer's bank asks: the payment waits, says what must be done, and ends as the customer does it."""

from decimal import Decimal

import pytest

from tests.factories import new_uuid, payment_body
from tests.shop import Shop

HUNDRED, NOTHING = Decimal("100.00"), Decimal("0.00")
CHALLENGED = "pm_card_authenticationRequired"
BACK = "https://shop.example/back"


def answer_the_bank(shop: Shop, payment_id: str, *, succeed: bool = True) -> None:
    """Let the customer pass or fail the bank's question, and the worker hear of it."""
    shop.bench.simulator.act("authenticate", payment_intent=shop.intent(payment_id), succeed=succeed)
    shop.look_again()


@pytest.mark.parametrize("return_url", [None, BACK])
def test_who_waits_hears_what_the_customer_must_do(shop: Shop, return_url: str | None) -> None:
    """202 as soon as it is known, with a page to go to where there is a way back, else with a secret."""
    body = payment_body(amount=HUNDRED, paymentMethodId=CHALLENGED, returnUrl=return_url)
    answer = shop.served(lambda: shop.api.post(body, Prefer="wait=30"))
    assert (answer.status, answer.body["success"], answer.payment["status"]) == (
        202,
        False,
        "requires_action",
    )
    assert answer.body["errorMessage"] == "The customer must act before the payment can go on"
    assert answer.headers["Location"] == f"/payments/{answer.payment['id']}"
    action = answer.payment["nextAction"]
    assert action["type"] == ("redirect" if return_url else "confirm")
    assert action["clientSecret"].startswith(shop.intent(answer.payment["id"]))
    assert ("redirectUrl" in action) is bool(return_url)


@pytest.mark.parametrize(("method", "ends"), [("automatic", "succeeded"), ("manual", "authorized")])
def test_a_customer_who_passes_pays(shop: Shop, method: str, ends: str) -> None:
    """Charged, or held, once; nothing more to do, and the order shows it."""
    body = payment_body(amount=HUNDRED, paymentMethodId=CHALLENGED, captureMethod=method)
    payment_id = shop.api.post_async(body).payment["id"]
    shop.work()
    answer_the_bank(shop, payment_id)
    again = shop.api.post(body)
    assert (again.status, again.payment["id"]) == (200, payment_id)
    assert (again.payment["status"], again.payment["nextAction"]) == (ends, None)
    assert again.payment["capturedAmount"] == (HUNDRED if ends == "succeeded" else NOTHING)
    assert shop.charge(payment_id)["amount"] == 10_000
    shop.assert_history_is_whole(payment_id)


def test_a_customer_who_fails_may_try_again(shop: Shop) -> None:
    """The failed try is shown, the payment stays payable, and with another card it succeeds."""
    payment_id = shop.pay(paymentMethodId=CHALLENGED)
    answer_the_bank(shop, payment_id, succeed=False)
    shown = shop.payment(payment_id)
    assert (shown["status"], shown["nextAction"]["type"]) == ("requires_action", "confirm")
    assert shown["errorCode"]
    assert shown["failureReason"]
    shop.bench.simulator.act("confirm", payment_intent=shop.intent(payment_id), payment_method="pm_card_visa")
    shop.look_again()
    shown = shop.payment(payment_id)
    assert (shown["status"], shown["errorCode"], shown["nextAction"]) == ("succeeded", None, None)
    shop.assert_history_is_whole(payment_id)


def test_a_customer_who_has_failed_may_be_given_up(shop: Shop) -> None:
    """The order is free only once the gateway has cancelled what the customer could still pay."""
    order = new_uuid()
    payment_id = shop.pay(paymentMethodId=CHALLENGED, orderId=order)
    answer_the_bank(shop, payment_id, succeed=False)
    body = payment_body(orderId=order, amount=HUNDRED)
    assert shop.api.post_async(body).status == 409
    assert shop.ask(payment_id, "cancel").status == 202
    assert shop.api.post_async(body).status == 409
    shop.work()
    assert shop.payment(payment_id)["status"] == "cancelled"
    assert shop.api.post_async(body).status == 202


def test_a_held_payment_after_the_bank_can_be_captured(shop: Shop) -> None:
    """The way of a hold goes on as without the bank's question."""
    payment_id = shop.pay(paymentMethodId=CHALLENGED, captureMethod="manual")
    answer_the_bank(shop, payment_id)
    assert shop.ask(payment_id, "capture", {"amount": Decimal("60.00")}).status == 202
    shop.work()
    assert shop.sums(payment_id) == ("succeeded", Decimal("60.00"), NOTHING)
