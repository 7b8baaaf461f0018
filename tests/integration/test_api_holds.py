"""Money that is held: captured in whole or in part, or let go, whoever asks first."""

from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from tests.api import Answer, assert_refused
from tests.factories import new_uuid, payment_body
from tests.shop import Shop

FORTY = Decimal("40.00")
HUNDRED = Decimal("100.00")
NOTHING = Decimal("0.00")
CHALLENGED = "pm_card_authenticationRequired"


def test_a_hold_is_a_success_and_takes_nothing(shop: Shop) -> None:
    """CaptureMethod manual: 200 with the money held at the gateway, and none of it taken."""
    body = payment_body(amount=HUNDRED, captureMethod="manual")
    answer = shop.served(lambda: shop.api.post(body, Prefer="wait=9"))
    assert (answer.status, answer.body["success"], answer.body["errorMessage"]) == (200, True, None)
    assert answer.payment["status"] == "authorized"
    assert (answer.payment["capturedAmount"], answer.payment["processedAt"]) == (NOTHING, None)
    charge = shop.charge(answer.payment["id"])
    assert (charge["captured"], charge["amount"]) == (False, 10_000)
    assert shop.announced(answer.payment["id"]) == ["payment-requested", "payment-authorized"]


def test_a_capture_takes_everything(shop: Shop) -> None:
    """202 at once with the operation and where to look; then the payment has succeeded, announced once."""
    payment_id = shop.hold()
    asked = shop.ask(payment_id, "capture")
    assert (asked.status, asked.headers["Location"]) == (202, f"/payments/{payment_id}")
    assert (asked.body["success"], asked.payment["status"]) == (False, "authorized")
    operation = asked.body["operation"]
    assert (operation["kind"], operation["state"]) == ("capture", "requested")
    assert (operation["amount"], operation["currency"]) == (HUNDRED, "USD")
    assert operation["finishedAt"] is None
    shop.work()
    assert shop.sums(payment_id) == ("succeeded", HUNDRED, NOTHING)
    assert shop.charge(payment_id)["amount_captured"] == 10_000
    assert shop.announced(payment_id)[2:] == ["capture-requested", "payment-succeeded"]
    shop.assert_history_is_whole(payment_id)


def test_a_partial_capture_releases_the_rest(shop: Shop) -> None:
    """What is captured counts; the released rest is no refund."""
    payment_id = shop.hold()
    answer = shop.served(lambda: shop.ask(payment_id, "capture", {"amount": FORTY}, Prefer="wait=9"))
    assert (answer.status, answer.body["success"]) == (200, True)
    assert answer.headers["Preference-Applied"] == "wait=9"
    assert "Location" not in answer.headers
    assert (answer.body["operation"]["state"], answer.body["operation"]["amount"]) == ("succeeded", FORTY)
    assert answer.body["operation"]["finishedAt"]
    assert shop.sums(payment_id) == ("succeeded", FORTY, NOTHING)
    assert shop.charge(payment_id)["amount_captured"] == 4_000
    assert shop.api.get(f"/payments/{payment_id}/refunds").body["refunds"] == []
    (announced,) = [row.payload for row in shop.bench.outbox() if row.type == "payment-succeeded"]
    assert (announced["amountMinor"], announced["authorizedAmountMinor"]) == (4_000, 10_000)


@pytest.mark.parametrize("amount", ["100.01", "100000000000.00", "1e20"])
def test_no_more_than_is_held_can_be_captured(shop: Shop, amount: str) -> None:
    """422 that says how much is held; nothing is stored."""
    payment_id = shop.hold()
    before = shop.api.stored.counts()
    answer = shop.ask(payment_id, "capture", f'{{"amount": {amount}}}')
    assert_refused(answer, 422, "AMOUNT_EXCEEDED", "100.00 USD")
    assert shop.api.stored.counts() == before


def test_what_is_not_held_cannot_be_captured(shop: Shop) -> None:
    """409 that names the present state: not sent yet, taken already, declined, cancelled."""
    pending = shop.start(captureMethod="manual")
    assert_refused(shop.ask(pending, "capture"), 409, "PAYMENT_CONFLICT", "pending")
    shop.ask(pending, "cancel")
    assert_refused(shop.ask(pending, "capture"), 409, "PAYMENT_CONFLICT", "cancelled")
    assert_refused(shop.ask(shop.pay(), "capture"), 409, "PAYMENT_CONFLICT", "succeeded")
    assert_refused(shop.ask(shop.pay(Decimal("9.13")), "capture"), 409, "PAYMENT_CONFLICT", "failed")
    waits = shop.pay(paymentMethodId=CHALLENGED, captureMethod="manual")
    assert_refused(shop.ask(waits, "capture"), 409, "PAYMENT_CONFLICT", "requires_action")


def test_of_captures_that_race_one_is_taken_on(shop: Shop) -> None:
    """Twenty at once: one is carried out, the others hear that one is under way."""
    payment_id = shop.hold()
    answers = shop.at_once([lambda: shop.ask(payment_id, "capture", {"amount": FORTY})] * 20)
    assert sorted(each.status for each in answers) == [202] + [409] * 19
    shop.work()
    assert shop.sums(payment_id) == ("succeeded", FORTY, NOTHING)
    assert_refused(shop.ask(payment_id, "capture"), 409, "PAYMENT_CONFLICT", "succeeded")


def test_of_a_capture_and_a_cancel_that_race_one_happens(shop: Shop) -> None:
    """Whoever comes first: the hold is taken or let go, never both, and the other hears of it."""
    for payment_id in [shop.hold() for _ in range(5)]:
        calls = [partial(shop.ask, payment_id, what) for what in ("capture", "cancel")]
        capture, cancel = shop.at_once(calls)
        assert {capture.status, cancel.status} == {202, 409}
        shop.work()
        taken = capture.status == 202
        assert shop.payment(payment_id)["status"] == ("succeeded" if taken else "cancelled")
        charge = shop.charge(payment_id)
        assert (charge["amount_captured"], charge["refunded"]) == ((10_000, False) if taken else (0, True))


def test_a_capture_binds_the_order_of_a_cart(shop: Shop) -> None:
    """The payment of a cart is its order's from then on, for the list and for a second payment."""
    payment_id, order = shop.hold_cart(), new_uuid()
    assert shop.payment(payment_id)["orderId"] is None
    answer = shop.ask(payment_id, "capture", {"orderId": order})
    assert (answer.status, answer.payment["orderId"]) == (202, order)
    shop.work()
    (found,) = shop.api.get(f"/payments?orderId={order}").body["payments"]
    assert (found["id"], found["status"]) == (payment_id, "succeeded")
    again = shop.api.post_async(payment_body(orderId=order, amount=HUNDRED))
    assert_refused(again, 409, "PAYMENT_CONFLICT")
    shop.assert_history_is_whole(payment_id)


def test_an_order_that_has_a_payment_takes_no_cart(shop: Shop) -> None:
    """409, and the hold is as it was; its own order may be named again."""
    order, cart = new_uuid(), shop.hold_cart()
    shop.pay(orderId=order)
    assert_refused(shop.ask(cart, "capture", {"orderId": order}), 409, "PAYMENT_CONFLICT", "order")
    assert shop.sums(cart) == ("authorized", NOTHING, NOTHING)
    assert shop.payment(cart)["orderId"] is None
    bound = shop.hold(orderId=(own := new_uuid()))
    assert_refused(shop.ask(bound, "capture", {"orderId": new_uuid()}), 409, "PAYMENT_CONFLICT", "order")
    assert shop.ask(bound, "capture", {"orderId": own}).status == 202


def test_two_carts_that_race_for_an_order(shop: Shop) -> None:
    """The unique index decides: one is bound and captured, the other refused with nothing stored."""
    order, carts = new_uuid(), [shop.hold_cart() for _ in range(6)]
    answers = shop.at_once([partial(shop.ask, each, "capture", {"orderId": order}) for each in carts])
    assert sorted(each.status for each in answers) == [202] + [409] * 5
    shop.work()
    assert sorted(shop.payment(each)["status"] for each in carts) == ["authorized"] * 5 + ["succeeded"]


def test_what_was_not_sent_is_cancelled_at_once(shop: Shop) -> None:
    """200, the gateway never hears of it, and the order may be paid anew."""
    order = new_uuid()
    payment_id = shop.start(orderId=order)
    answer = shop.ask(payment_id, "cancel", {"reason": "changed their mind"})
    assert (answer.status, answer.body["success"], answer.body["errorMessage"]) == (200, True, None)
    assert (answer.payment["status"], answer.body["operation"]) == ("cancelled", None)
    assert answer.payment["processedAt"]
    shop.work()
    assert shop.bench.gateway.keys == []
    assert shop.announced(payment_id) == ["payment-requested", "payment-cancelled"]
    (entry,) = shop.api.get(f"/payments/{payment_id}/timeline").body["timeline"][1:]
    assert entry["detail"]["reason"] == "changed their mind"
    assert shop.pay(orderId=order) != payment_id
    assert shop.ask(payment_id, "cancel").status == 200
    shop.assert_history_is_whole(payment_id)


def test_a_hold_is_let_go(shop: Shop) -> None:
    """202 with the operation; then nothing is held, and the cart may be held anew."""
    payment_id = shop.hold()
    asked = shop.ask(payment_id, "cancel", {"reason": "out of stock"})
    assert (asked.status, asked.headers["Location"]) == (202, f"/payments/{payment_id}")
    operation = asked.body["operation"]
    assert (operation["kind"], operation["reason"]) == ("cancel", "out of stock")
    again = shop.ask(payment_id, "cancel")
    assert (again.status, again.body["operation"]["id"]) == (202, operation["id"])
    shop.work()
    assert shop.sums(payment_id) == ("cancelled", NOTHING, NOTHING)
    assert shop.charge(payment_id)["refunded"] is True
    assert shop.ask(payment_id, "cancel").status == 200
    assert shop.announced(payment_id)[-1] == "payment-cancelled"
    shop.assert_history_is_whole(payment_id)


def test_a_cancel_may_wait_for_its_effect(shop: Shop) -> None:
    """Prefer: wait answers 200 once the hold is gone."""
    payment_id = shop.hold()
    answer = shop.served(lambda: shop.ask(payment_id, "cancel", Prefer="wait=9"))
    assert (answer.status, answer.body["success"]) == (200, True)
    assert (answer.payment["status"], answer.body["operation"]["state"]) == ("cancelled", "succeeded")


def test_what_waits_for_the_customer_is_cancelled_at_the_gateway(shop: Shop) -> None:
    """The client secret is out: the order is free only when Stripe has cancelled the intent."""
    order = new_uuid()
    payment_id = shop.pay(orderId=order, paymentMethodId=CHALLENGED)
    assert shop.ask(payment_id, "cancel").status == 202
    assert shop.payment(payment_id)["status"] == "requires_action"
    shop.work()
    shown = shop.payment(payment_id)
    assert (shown["status"], shown["nextAction"]) == ("cancelled", None)
    assert shop.pay(orderId=order) != payment_id
    assert shop.payment(payment_id)["capturedAmount"] == NOTHING
    shop.assert_history_is_whole(payment_id)


@pytest.mark.parametrize("how", ["cancelled", "paid"])
def test_a_customer_may_pay_while_the_cancel_is_under_way(shop: Shop, how: str) -> None:
    """If the bank's answer is first, what was paid goes back; either way nothing is left taken."""
    payment_id = shop.pay(paymentMethodId=CHALLENGED)
    assert shop.ask(payment_id, "cancel").status == 202
    if how == "paid":
        shop.bench.simulator.act("authenticate", payment_intent=shop.intent(payment_id))
    shop.work()
    expected = ("cancelled", NOTHING, NOTHING) if how == "cancelled" else ("refunded", HUNDRED, HUNDRED)
    assert shop.sums(payment_id) == expected
    shop.assert_history_is_whole(payment_id)


@pytest.mark.parametrize(
    ("facts", "ends"),
    [
        ({}, ("refunded", HUNDRED, HUNDRED)),
        ({"captureMethod": "manual"}, ("cancelled", NOTHING, NOTHING)),
        ({"paymentMethodId": CHALLENGED}, ("cancelled", NOTHING, NOTHING)),
        ({"paymentMethodId": "pm_card_chargeDeclined"}, ("failed", NOTHING, NOTHING)),
    ],
    ids=["charge", "hold", "3-D Secure", "decline"],
)
def test_a_cancel_in_flight_is_carried_out_when_the_outcome_is_known(
    shop: Shop, facts: dict[str, Any], ends: tuple[str, Decimal, Decimal]
) -> None:
    """202 while the gateway thinks; then a charge goes back, a hold is let go, an intent is cancelled."""
    answers: list[Answer] = []
    payment_id = shop.start(**facts)

    def cancel_meanwhile() -> None:
        answers.extend(shop.ask(payment_id, "cancel", {"reason": "gone"}) for _ in range(2))

    shop.bench.gateway.before.append(cancel_meanwhile)
    shop.work()
    assert [each.status for each in answers] == [202, 202]
    assert [each.payment["status"] for each in answers] == ["processing"] * 2
    assert [each.body["operation"] for each in answers] == [None, None]
    assert shop.sums(payment_id) == ends
    shop.assert_history_is_whole(payment_id)
    last = shop.ask(payment_id, "cancel")
    assert last.status == (200 if ends[0] == "cancelled" else 409)


def test_a_cancel_in_flight_may_be_waited_for(shop: Shop) -> None:
    """200 when the money has gone back, and the payment shows it."""
    payment_id = shop.start()
    answers = []

    def cancel_meanwhile() -> None:
        waits = shop.ask(payment_id, "cancel", Prefer="wait=1")
        answers.append(waits)

    shop.bench.gateway.before.append(cancel_meanwhile)
    shop.work()
    assert (answers[0].status, answers[0].headers["Preference-Applied"]) == (202, "wait=1")
    assert shop.sums(payment_id) == ("refunded", HUNDRED, HUNDRED)


def test_what_is_paid_or_failed_cannot_be_cancelled(shop: Shop) -> None:
    """409 that names the state: money that was taken is refunded instead."""
    assert_refused(shop.ask(shop.pay(), "cancel"), 409, "PAYMENT_CONFLICT", "succeeded")
    assert_refused(shop.ask(shop.pay(Decimal("9.13")), "cancel"), 409, "PAYMENT_CONFLICT", "failed")
    payment_id = shop.hold()
    shop.ask(payment_id, "capture")
    assert_refused(shop.ask(payment_id, "cancel"), 409, "PAYMENT_CONFLICT", "captured")


def test_a_capture_overrules_a_cancel_that_the_gateway_has_refused(shop: Shop) -> None:
    """What is taken after that stays taken."""
    payment_id = shop.hold()
    shop.api.stored.change("UPDATE payment SET cancel_requested_at = now()")  # as such a cancel leaves it
    assert shop.ask(payment_id, "capture").status == 202
    shop.work()
    assert shop.sums(payment_id) == ("succeeded", HUNDRED, NOTHING)


def test_a_hold_that_was_let_go_at_stripe_cannot_be_taken(shop: Shop) -> None:
    """The capture has failed, 422, and the payment is as it is at the gateway: cancelled."""
    payment_id = shop.hold()
    shop.bench.simulator.act("dashboard/cancel", payment_intent=shop.intent(payment_id))
    answer = shop.served(lambda: shop.ask(payment_id, "capture", Prefer="wait=9"))
    assert (answer.status, answer.body["errorCode"]) == (422, "OPERATION_FAILED")
    assert answer.body["errorMessage"].startswith("Capture failed: ")
    assert answer.body["operation"]["state"] == "failed"
    assert answer.payment["status"] == "cancelled"
    shop.assert_history_is_whole(payment_id)


@pytest.mark.parametrize("what", ["capture", "cancel"])
def test_a_key_is_bound_to_its_operation(shop: Shop, what: str) -> None:
    """A repeat shows the same operation as it now stands; another body or route is refused."""
    payment_id, key = shop.hold(), new_uuid()
    first = shop.ask(payment_id, what, Idempotency_Key=key)
    shop.work()
    again = shop.ask(payment_id, what, "{}", Idempotency_Key=key)
    assert (first.status, again.status) == (202, 200)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.body["operation"]["id"] == first.body["operation"]["id"]
    assert again.body["operation"]["state"] == "succeeded"
    other = {"amount": FORTY} if what == "capture" else {"reason": "x"}
    assert_refused(shop.ask(payment_id, what, other, Idempotency_Key=key), 422, "IDEMPOTENCY_KEY_REUSED")
    elsewhere = shop.ask(payment_id, "refunds", Idempotency_Key=key)
    assert_refused(elsewhere, 422, "IDEMPOTENCY_KEY_REUSED")
    assert len(shop.api.stored.rows("idempotency_key")) == 1


def test_a_refused_request_binds_no_key(shop: Shop) -> None:
    """The key is free for the request that can be carried out."""
    payment_id, key = shop.start(captureMethod="manual"), new_uuid()
    assert_refused(shop.ask(payment_id, "capture", Idempotency_Key=key), 409, "PAYMENT_CONFLICT")
    shop.work()
    assert shop.ask(payment_id, "capture", Idempotency_Key=key).status == 202


def test_many_repeats_of_one_key_are_one_capture(shop: Shop) -> None:
    """Racing repeats get the operation or hear that it is just being made."""
    payment_id, key = shop.hold(), new_uuid()
    answers = shop.at_once([lambda: shop.ask(payment_id, "capture", Idempotency_Key=key)] * 10)
    assert {each.status for each in answers} <= {202, 409}
    taken = {each.body["operation"]["id"] for each in answers if each.status == 202}
    assert len(taken) == 1
    assert {each.body["errorCode"] for each in answers if each.status == 409} <= {"IDEMPOTENCY_KEY_IN_USE"}
