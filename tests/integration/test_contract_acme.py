"""The acme contract, field by field: AuthorizePayment holds the total of a cart, exactly once."""

from collections import Counter
from decimal import Decimal
from typing import Any

import pytest

from tests.api import Answer, Api, assert_refused
from tests.factories import as_json, new_uuid, payment_body
from tests.shop import Shop

PATH = "/payments/authorize"
NATIVE = {
    "id", "orderId", "customerId", "reservationId", "amount", "currency", "paymentMethod", "status",
    "errorCode", "errorMessage", "failureReason", "createdAt", "processedAt", "isSimulated",
    "simulatedResponse", "capturedAmount", "refundedAmount", "transactionId", "nextAction", "dispute",
}  # fmt: skip
BAD: dict[str, list[Any]] = {
    "cartId": [None, "", "cart-1", 5, True, "\x00", {}, "x" * 5_000],
    "customerId": ["", "me", 5, []],
    "orderId": ["", "order-1", 5],
    "amount": [
        None, 0, -1, 49, 10**12, 10**400, "15000", True, [], Decimal("15000.0"),
        Decimal("1.5"), Decimal("1e5"),
    ],
    "currency": [None, "usd", "US", "USDX", "USD\n", "XXX", "", 5],
    "paymentMethodId": ["tok_visa", "pm_", "pm_\x00", 5],
    **{name: ["x"] for name in ("captureMethod", "surprise", "amountMinor", "metadata")},
}  # fmt: skip


def command(**changes: Any) -> dict[str, Any]:
    """The command with everything that it requires; None leaves a field out."""
    body = {"cartId": new_uuid(), "amount": 15_000, "currency": "USD", **changes}
    return {name: value for name, value in body.items() if value is not None}


def authorize(shop: Shop, body: dict[str, Any]) -> Answer:
    """Send the command and let the worker carry it out while it waits."""
    return shop.served(lambda: shop.api.post(body, path=PATH))


def test_the_money_is_held(shop: Shop) -> None:
    """201 within the request: everything that the command said, held at the gateway and not taken."""
    body = command(customerId=new_uuid())
    answer = authorize(shop, body)
    assert answer.status == 201
    assert set(answer.body) == {"success", "errorMessage", "payment"}
    assert (answer.body["success"], answer.body["errorMessage"]) == (True, None)
    payment = answer.payment
    assert set(payment) == NATIVE | {"cartId", "amountMinor"}
    assert {name: payment[name] for name in ("cartId", "customerId", "currency", "orderId")} == {
        "cartId": body["cartId"],
        "customerId": body["customerId"],
        "currency": "USD",
        "orderId": None,
    }
    assert (payment["amountMinor"], payment["amount"]) == (15_000, Decimal("150.00"))
    assert (payment["status"], payment["capturedAmount"]) == ("authorized", Decimal("0.00"))
    assert answer.headers["Location"] == f"/payments/{payment['id']}"
    charge = shop.charge(payment["id"])
    assert (charge["amount"], charge["currency"], charge["captured"]) == (15_000, "usd", False)


def test_what_is_stored(shop: Shop) -> None:
    """PostgreSQL is the system of record: order, customer, amount in minor units, and status."""
    body = command(customerId=new_uuid(), orderId=new_uuid())
    authorize(shop, body)
    (row,) = shop.api.stored.rows("payment")
    assert (row["cart_id"], row["order_id"], row["customer_id"]) == (
        body["cartId"], body["orderId"], body["customerId"],
    )  # fmt: skip
    assert (row["amount_minor"], row["currency"], row["status"]) == (15_000, "USD", "authorized")


def test_the_customer_may_be_missing(shop: Shop) -> None:
    """A cart of nobody in particular is held all the same."""
    answer = authorize(shop, command())
    assert (answer.status, answer.payment["customerId"]) == (201, None)
    announced = {row.type: row.payload for row in shop.bench.outbox()}
    assert set(announced) == {"payment-requested", "payment-authorized"}
    for value in announced.values():
        assert (value["cartId"], value["customerId"]) == (answer.payment["cartId"], None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"amount": 1_013}, "card_declined"),
        ({"paymentMethodId": "pm_card_chargeDeclined"}, "generic_decline"),
    ],
)
def test_a_decline_is_402(shop: Shop, change: dict[str, Any], reason: str) -> None:
    """With the reason in the payment; the cart may then be held anew."""
    body = command(**change)
    answer = authorize(shop, body)
    assert (answer.status, answer.body["errorCode"]) == (402, "PAYMENT_METHOD_DECLINED")
    assert answer.body["success"] is False
    assert answer.body["errorMessage"] == f"Payment failed: {answer.payment['errorMessage']}"
    assert (answer.payment["status"], answer.payment["failureReason"]) == ("failed", reason)
    again = authorize(shop, body | {"paymentMethodId": "pm_card_visa", "amount": 2_500})
    assert (again.status, again.payment["cartId"]) == (201, body["cartId"])


def test_an_open_one_is_202(shop: Shop) -> None:
    """Recorded, with where to look; the customer may have to act first."""
    body = command(paymentMethodId="pm_card_authenticationRequired")
    asked = shop.api.post(body, path=PATH, Prefer="respond-async")
    assert (asked.status, asked.payment["status"], asked.body["success"]) == (202, "pending", False)
    assert asked.body["errorMessage"] == "Payment is still processing"
    assert asked.headers["Location"] == f"/payments/{asked.payment['id']}"
    assert asked.headers["Preference-Applied"] == "respond-async"
    shop.work()
    waits = shop.api.post(body, path=PATH)
    assert (waits.status, waits.payment["status"]) == (202, "requires_action")
    assert waits.payment["nextAction"]["type"] == "confirm"
    shop.bench.simulator.act("authenticate", payment_intent=shop.intent(asked.payment["id"]))
    shop.look_again()
    assert shop.api.post(body, path=PATH).status == 201


def test_a_cancelled_one_says_so(shop: Shop) -> None:
    """Who still waits hears that the hold was given up."""
    body = command()
    asked = shop.api.post(body, path=PATH, Prefer="respond-async", Idempotency_Key="once")
    shop.ask(asked.payment["id"], "cancel")
    answer = shop.api.post(body, path=PATH, Prefer="respond-async", Idempotency_Key="once")
    assert (answer.status, answer.body["errorCode"]) == (422, "PAYMENT_CANCELLED")
    assert answer.headers["Idempotent-Replayed"] == "true"


def test_a_cart_is_held_once(shop: Shop) -> None:
    """Fifty commands at once for one cart: one payment, one hold at the gateway, the same answer to all."""
    body = command()
    calls = [lambda: shop.api.post(body, path=PATH, Prefer="respond-async")] * 50
    answers = shop.at_once(calls)
    assert Counter(each.status for each in answers) == {202: 50}
    assert len({each.payment["id"] for each in answers}) == 1
    shop.work()
    assert shop.api.post(body, path=PATH).status == 201
    assert len(shop.api.stored.rows("payment")) == 1
    assert shop.charge(answers[0].payment["id"])["amount"] == 15_000


@pytest.mark.parametrize(
    "change", [{"amount": 14_999}, {"currency": "EUR"}, {"customerId": new_uuid()}, {"orderId": new_uuid()}]
)
def test_the_same_cart_with_other_facts_is_409(shop: Shop, change: dict[str, Any]) -> None:
    """Whatever differs, the hold stays as it is."""
    body = command(customerId=new_uuid())
    held = authorize(shop, body).payment
    assert_refused(shop.api.post(body | change, path=PATH), 409, "PAYMENT_CONFLICT", "cart")
    assert shop.api.post(body, path=PATH).payment == held


def test_the_order_that_the_cart_becomes(shop: Shop) -> None:
    """Captured in the order's name, and the command again shows it as it stands."""
    body, order = command(), new_uuid()
    held = authorize(shop, body).payment
    assert shop.ask(held["id"], "capture", {"orderId": order}).status == 202
    shop.work()
    again = shop.api.post(body, path=PATH)
    assert (again.status, again.payment["status"], again.payment["orderId"]) == (201, "succeeded", order)
    native = shop.api.post(payment_body(orderId=order, customerId=new_uuid(), amount=Decimal("150.00")))
    assert_refused(native, 409, "PAYMENT_CONFLICT", "order")


def test_a_later_step_fails(shop: Shop) -> None:
    """The hold is let go, and the cart may be held anew."""
    body = command()
    held = authorize(shop, body).payment
    assert shop.ask(held["id"], "cancel").status == 202
    shop.work()
    assert authorize(shop, body).payment["id"] != held["id"]


@pytest.mark.parametrize(
    ("field", "value"),
    [(field, value) for field, values in BAD.items() for value in values],
    ids=lambda value: repr(value)[:30],
)
def test_bad_input_is_400(shared_api: Api, field: str, value: Any) -> None:
    """The message names the field, and nothing is stored."""
    before = shared_api.stored.counts()
    body = command() | {field: value}
    if value is None:
        del body[field]
    answer = shared_api.post(as_json(body), path=PATH)
    assert_refused(answer, 400, "VALIDATION_FAILED", field)
    assert shared_api.stored.counts() == before


def test_null_is_as_good_as_left_out(shop: Shop) -> None:
    """For what need not be there."""
    body = command() | {"customerId": None, "orderId": None, "paymentMethodId": None}
    assert authorize(shop, body).status == 201
