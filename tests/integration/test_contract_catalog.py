"""The catalog contract at the wire: what it tells us on Kafka, what it hears, and GetPaymentStatus."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from shared.documents import parse_json, render_json
from shared.events import check, rfc3339
from shared.payments import Announcement, Notice
from shared.sealing import Sealer
from shared.settings import Settings
from tests.api import Api, assert_refused
from tests.door import Door
from tests.factories import new_uuid, payment_body
from tests.keys import DATA_KEY
from tests.order_service import OrderServiceStub
from tests.shop import Shop
from tests.tokens import bearer

NewApi = Callable[..., Api]
INITIATED, SUBSCRIBED, ADJUSTED = (
    Notice.PAYMENT_INITIATED,
    Notice.USER_SUBSCRIPTION_STARTED,
    Notice.INVENTORY_ADJUSTED,
)
PROCESSED = Announcement.PAYMENT_PROCESSED
PRICE = Decimal("100.50")


@pytest.fixture
def door(shop: Shop, settings: Settings) -> Iterator[Door]:
    """Return a consumer of notices, which takes care of orders that are out of stock."""
    yield from Door.opened(shop, settings, INVENTORY_REFUNDS="on")


def initiated(**changes: Any) -> dict[str, Any]:
    """A PaymentInitiated with everything that the catalog sends; None leaves a field out."""
    value = {
        "userId": new_uuid(),
        "orderId": "789e1234-b56c-78d9-e012-3456789fghij",
        "amount": PRICE,
        "paymentMethod": "CreditCard",
        "timestamp": rfc3339(datetime.now(UTC)),
        **changes,
    }
    return {name: each for name, each in value.items() if each is not None}


def subscribed(**changes: Any) -> dict[str, Any]:
    """A UserSubscriptionStarted with a test card."""
    data = {
        "subscriptionId": "sub-1",
        "userId": "user-1",
        "plan": {"planId": "pro", "price": Decimal("20.00"), "currency": "USD"},
        "paymentMethodId": "pm_card_visa",
        "startDate": "2026-03-04",
        **changes,
    }
    return {"eventId": new_uuid(), "eventType": "UserSubscriptionStarted", "data": data}


def announced(door: Door, payment_id: str) -> list[Any]:
    """What was told of a payment in the catalog's words."""
    rows = [row for row in door.shop.bench.outbox() if str(row.aggregateid) == payment_id]
    return [parse_json(render_json(row.payload)) for row in rows if row.type == PROCESSED]


def status_of(door: Door, order_id: str) -> Any:
    """GetPaymentStatus."""
    answer = door.shop.api.get(f"/orders/{order_id}/payment-status")
    assert answer.status == 200, answer.text
    return answer.body


def test_a_payment_is_made_and_told_of_in_the_catalogs_words(door: Door) -> None:
    """As POST /payments makes one: PaymentProcessed and GetPaymentStatus, field by field."""
    value = initiated(currency="EUR", paymentId="p-1", surprise="is ignored")
    door.send(INITIATED, value, ce_id="i-1", ce_correlationid="checkout-7")
    door.consume(1)
    open_one = {
        "orderId": value["orderId"],
        "paymentStatus": "pending",
        "amount": PRICE,
        "currency": "EUR",
        "paymentMethod": "CreditCard",
        "transactionId": None,
        "paymentDate": None,
    }
    assert status_of(door, value["orderId"]) == open_one
    door.shop.work()
    (payment,) = door.payments()
    assert (payment["status"], payment["customerId"]) == ("succeeded", value["userId"])
    assert (payment["orderId"], payment["paymentMethod"]) == (value["orderId"], "credit_card")
    (told,) = announced(door, payment["id"])
    check(PROCESSED, told)
    assert told == {
        "transactionId": payment["transactionId"],
        "paymentId": payment["id"],
        "userId": value["userId"],
        "orderId": value["orderId"],
        "subscriptionId": None,
        "amount": PRICE,
        "currency": "EUR",
        "paymentMethod": "CreditCard",
        "status": "confirmed",
        "confirmationDetails": {"gatewayResponse": "Approved", "transactionId": payment["transactionId"]},
        "timestamp": payment["processedAt"],
    }
    paid = {"transactionId": payment["transactionId"], "paymentDate": payment["processedAt"]}
    assert status_of(door, value["orderId"]) == {**open_one, "paymentStatus": "completed", **paid}
    assert {row.correlation_id for row in door.shop.bench.outbox()} == {"checkout-7"}
    assert door.shop.announced(payment["id"]) == ["payment-requested", "payment-succeeded", PROCESSED]
    door.shop.assert_history_is_whole(payment["id"])


def test_every_end_is_told_once(door: Door) -> None:
    """Declined and cancelled are failed to the catalog; what it did not ask for, it is not told of."""
    door.send(INITIATED, declined := initiated(orderId="o-13", amount=Decimal("9.13")))
    door.send(INITIATED, given_up := initiated(orderId="o-2", paymentMethod=None))
    door.consume(2)
    ids = {each["orderId"]: each["id"] for each in door.payments()}
    door.shop.ask(ids["o-2"], "cancel")
    door.shop.work()
    (told,) = announced(door, ids["o-13"])
    assert (told["status"], told["transactionId"], told["amount"]) == ("failed", None, declined["amount"])
    assert told["confirmationDetails"] == {
        "gatewayResponse": door.shop.payment(ids["o-13"])["errorMessage"],
        "transactionId": None,
    }
    (told,) = announced(door, ids["o-2"])
    assert (told["status"], told["paymentMethod"]) == ("failed", "credit_card")
    assert told["userId"] == given_up["userId"]
    assert {status_of(door, order)["paymentStatus"] for order in ids} == {"failed"}
    assert announced(door, door.shop.pay()) == []
    for each in ids.values():
        door.shop.assert_history_is_whole(each)


def test_refunds_are_told_by_the_status(door: Door) -> None:
    """In part it is still completed; and PaymentProcessed is told no second time."""
    door.ask(INITIATED, initiated(orderId="o-1"))
    (payment,) = door.payments()
    for amount, status in (("0.50", "completed"), (None, "refunded")):
        door.shop.ask(payment["id"], "refunds", {"amount": Decimal(amount)} if amount else {})
        door.shop.work()
        shown = status_of(door, "o-1")
        assert (shown["paymentStatus"], shown["amount"]) == (status, PRICE)
        assert shown["transactionId"] == payment["transactionId"]
    assert len(announced(door, payment["id"])) == 1


def test_a_payment_is_made_once(door: Door) -> None:
    """By message id, by order, and by the order that POST /payments has paid already."""
    value = initiated(orderId=new_uuid().upper())
    for number in range(3):
        door.send(INITIATED, value, ce_id="one")
        door.send(INITIATED, value, ce_id=f"another-{number}")
    door.send(INITIATED, value | {"eventId": "one"})
    door.handle(7)
    (payment,) = door.payments()
    assert payment["orderId"] == value["orderId"].lower()
    assert len(announced(door, payment["id"])) == 1
    paid = door.shop.pay()
    body = door.shop.payment(paid)
    same = initiated(orderId=body["orderId"], userId=body["customerId"], amount=body["amount"])
    door.ask(INITIATED, same)
    assert len(door.payments()) == 2
    door.ask(INITIATED, same | {"amount": Decimal("1.00")}, ce_id="other-facts")
    (answer,) = door.rejections(1)
    assert (answer.value["commandId"], answer.value["errorCode"]) == ("other-facts", "PAYMENT_CONFLICT")
    assert (answer.value["command"], answer.value["orderId"]) == ("payment-initiated", body["orderId"])


REFUSED: list[tuple[Notice, dict[str, Any], str]] = [
    (INITIATED, initiated(amount=Decimal("-5.00")), "amount"),
    (INITIATED, initiated(amount=0), "amount"),
    (INITIATED, initiated(amount=Decimal("1.001")), "amount"),
    (INITIATED, initiated(amount=10**15), "amount"),
    (INITIATED, initiated(currency="usd"), "currency"),
    (INITIATED, initiated(paymentMethod="Barter"), "paymentMethod"),
    (INITIATED, initiated(timestamp="soon"), "timestamp"),
    (INITIATED, initiated(timestamp=rfc3339(datetime.now(UTC) + timedelta(days=1))), "timestamp"),
    (SUBSCRIBED, subscribed(plan={"price": Decimal("-1.00")}), "data.plan.price"),
    (SUBSCRIBED, subscribed(trialPeriodDays=-1), "data.trialPeriodDays"),
    (SUBSCRIBED, subscribed(startDate="2999-01-01"), "data.startDate"),
    (SUBSCRIBED, subscribed(paymentMethodId=None), "data.paymentMethodId"),
    (ADJUSTED, {"sku": None, "adjustedQuantity": -1}, "productId"),
]
UNREADABLE: list[tuple[Notice, Any]] = [
    (INITIATED, b""), (INITIATED, b"null"), (INITIATED, {}), (INITIATED, initiated(amount="100.50")),
    (INITIATED, initiated(userId=5)), (INITIATED, initiated(orderId="\x00")),
    (SUBSCRIBED, b"[]"), (SUBSCRIBED, {"data": None}), (SUBSCRIBED, subscribed(subscriptionId="")),
    (SUBSCRIBED, subscribed(plan={"planId": "pro"})), (SUBSCRIBED, subscribed(trialPeriodDays="7")),
    (ADJUSTED, {}), (ADJUSTED, {"sku": "x", "adjustedQuantity": "3"}), (ADJUSTED, {"data": {}}),
]  # fmt: skip


def test_bad_messages_are_refused_or_buried_and_the_offset_moves_on(door: Door) -> None:
    """Readable ones by payment-rejected, which names the field; others as dead letters; no charge."""
    for number, (notice, value, _) in enumerate(REFUSED):
        door.send(notice, value, ce_id=f"r-{number}")
    for notice, value in UNREADABLE:
        door.send(notice, value)
    door.send(INITIATED, initiated(), ce_type="payment-initiated.v2")
    door.send(INITIATED, initiated(orderId="o-1", comment="4242 4242 4242 4242"), ce_id="card")
    count = len(REFUSED) + len(UNREADABLE) + 2
    door.handle(count)
    answers = {each.value["commandId"]: each.value for each in door.rejections(len(REFUSED) + 1)}
    for number, (notice, _, field) in enumerate(REFUSED):
        answer = answers[f"r-{number}"]
        assert (answer["command"], answer["errorCode"]) == (notice, "VALIDATION_FAILED")
        assert answer["errorMessage"].startswith(field)
    assert answers["card"]["errorCode"] == "CARD_DATA_REFUSED"
    classes = {each.named["dlq_error_class"] for each in door.letters(len(UNREADABLE) + 1)}
    assert classes == {"UnreadableMessage", "SchemaBroken", "UnknownVersion"}
    assert sum(door.committed(notice) for notice in Notice) == count
    assert set(door.shop.api.stored.counts()) == {"inbox"}


def test_an_order_is_looked_up_before_it_is_charged(shop: Shop, settings: Settings) -> None:
    """As over HTTP: refused when it is not as asked; while the order service is away the message waits."""
    orders = OrderServiceStub()
    for door in Door.opened(shop, settings, ORDER_SERVICE_URL=orders.url):
        value = initiated(orderId="o / 1")
        door.ask(INITIATED, value, ce_id="unknown")
        orders.orders["o%20%2F%201"] = {"userId": "somebody else", "totalAmount": value["amount"]}
        door.ask(INITIATED, value, ce_id="not-owned")
        orders.orders["o%20%2F%201"] |= {"userId": value["userId"], "totalAmount": 5}
        door.ask(INITIATED, value, ce_id="mismatch")
        codes = {each.value["commandId"]: each.value["errorCode"] for each in door.rejections(3)}
        assert codes == {
            "unknown": "ORDER_NOT_FOUND",
            "not-owned": "ORDER_NOT_OWNED",
            "mismatch": "ORDER_VALIDATION_FAILED",
        }
        assert door.payments() == []
        orders.orders["o%20%2F%201"] |= {"totalAmount": value["amount"]}
        orders.troubles = [(500, ""), (500, "")]
        door.ask(INITIATED, value, ce_id="waits", ce_correlationid="checkout-8")
        assert [each["status"] for each in door.payments()] == ["succeeded"]
        assert orders.asked[-1][1]["X-Correlation-Id"] == "checkout-8"
        orders.close()
        door.ask(INITIATED, value, ce_id="waits")
        door.ask(INITIATED, value, ce_id="the-same-order")
        assert len(door.payments()) == 1


def test_a_subscription_is_charged_once(door: Door) -> None:
    """With the plan's price, off session; its outcome is told; a renewal is a subscription of its own."""
    value = subscribed()
    for _ in range(2):
        door.send(SUBSCRIBED, value)
        door.send(SUBSCRIBED, value | {"eventId": new_uuid()})
    door.handle(4)
    (payment,) = door.payments()
    assert (payment["status"], payment["amount"]) == ("succeeded", Decimal("20.00"))
    assert (payment["orderId"], payment["customerId"]) == (None, "user-1")
    (told,) = announced(door, payment["id"])
    assert (told["subscriptionId"], told["orderId"], told["status"]) == ("sub-1", None, "confirmed")
    (row,) = door.shop.api.stored.rows("payment")
    assert (row["off_session"], row["subscription_id"]) == (True, "sub-1")
    door.send(SUBSCRIBED, subscribed(startDate="2026-04-04"), ce_id="next-month")
    door.send(SUBSCRIBED, subscribed(plan={"price": Decimal("30.00")}), ce_id="dearer")
    door.send(SUBSCRIBED, subscribed(subscriptionId="sub-1/2026-04", startDate="2026-04-04"))
    door.handle(3)
    codes = {each.value["commandId"]: each.value["errorCode"] for each in door.rejections(2)}
    assert codes == {"next-month": "PAYMENT_CONFLICT", "dearer": "PAYMENT_CONFLICT"}
    assert len(door.payments()) == 2


def test_a_trial_charges_nothing_and_what_failed_may_be_charged_again(door: Door) -> None:
    """Until the sender's next message says that the trial is over; a free plan costs nothing either."""
    door.send(SUBSCRIBED, subscribed(trialPeriodDays=14))
    door.send(SUBSCRIBED, subscribed(subscriptionId="free", plan={"price": 0}))
    door.handle(2)
    assert door.payments() == []
    door.ask(SUBSCRIBED, subscribed(trialPeriodDays=0, paymentMethodId="pm_card_chargeDeclined"))
    door.ask(SUBSCRIBED, subscribed(trialPeriodDays=None))
    assert [each["status"] for each in door.payments()] == ["succeeded", "failed"]


def test_a_subscription_is_paid_with_the_users_saved_card(
    door: Door, new_api: NewApi, settings: Settings
) -> None:
    """The default one, whichever id the user has; another's card is refused."""
    shop_api = new_api(STRIPE_API_URL=settings.stripe_api_url, STRIPE_SECRET_KEY=settings.stripe_secret_key)
    user, stranger = new_uuid(), new_uuid()
    cards = {}
    for each in (user, stranger):
        customer = {"email": f"{each}@shop.example", "customerId": each}
        assert shop_api.post(customer, path="/payment/customer").status == 201
        card = {"customerId": each, "paymentMethodId": "pm_card_mastercard"}
        saved = shop_api.post(card, path="/payment/payment-method")
        cards[each] = saved.body["data"]["payment_method_id"]
    door.send(SUBSCRIBED, subscribed(userId=user, paymentMethodId=None))
    door.send(
        SUBSCRIBED, subscribed(subscriptionId="s-2", userId=user, paymentMethodId=cards[stranger]), ce_id="x"
    )
    door.handle(2)
    (payment,) = door.payments()
    assert payment["status"] == "succeeded"
    (row,) = door.shop.api.stored.rows("payment")
    assert Sealer(DATA_KEY).open(row["payment_method_sealed"], "payment.payment_method") == cards[user]
    assert row["gateway_customer"].startswith("cus_")
    (answer,) = door.rejections(1)
    assert answer.value["errorMessage"].startswith("paymentMethodId")


def adjusted(**changes: Any) -> dict[str, Any]:
    """An InventoryAdjusted."""
    return {"sku": "SKU-1", "adjustedQuantity": -3, "reason": "OutOfStock", **changes}


def test_an_order_that_is_out_of_stock_is_undone(door: Door) -> None:
    """Paid: refunded. Held, or not yet sent: cancelled. In flight: undone when the outcome is known."""
    paid, held, waits = (new_uuid() for _ in range(3))
    ids = {paid: door.shop.pay(orderId=paid), held: door.shop.hold(orderId=held)}
    ids[waits] = door.shop.start(orderId=waits)
    for order in (paid, held, waits):
        door.send(ADJUSTED, adjusted(orderId=order), ce_id=order)
        door.send(ADJUSTED, {"data": adjusted(orderId=order, reason="out of stock: flood")})
        door.send(ADJUSTED, adjusted(orderId=order), ce_id=order)
    door.send(ADJUSTED, adjusted(orderId="nobody's"))
    door.handle(10)
    statuses = {order: door.shop.payment(each)["status"] for order, each in ids.items()}
    assert statuses == {paid: "refunded", held: "cancelled", waits: "cancelled"}
    in_flight = door.shop.start(orderId=(order := new_uuid()))
    door.send(ADJUSTED, adjusted(orderId=order))
    door.shop.bench.gateway.before.append(lambda: door.consume(1))
    door.shop.work()
    assert door.shop.payment(in_flight)["status"] == "refunded"
    for each in (*ids.values(), in_flight):
        door.shop.assert_history_is_whole(each)


def test_adjustments_are_recorded_and_mostly_that_is_all(door: Door, settings: Settings) -> None:
    """Without an order, for another reason, or with INVENTORY_REFUNDS off, no payment is touched."""
    order = new_uuid()
    payment_id = door.shop.pay(orderId=order)
    door.send(ADJUSTED, adjusted(), ce_id="no-order")
    door.send(
        ADJUSTED,
        adjusted(orderId=order, reason="customer_return", adjustedQuantity=Decimal("4.5")),
        ce_id="a",
    )
    door.send(ADJUSTED, adjusted(orderId=order, reason="no longer out of stock"), ce_id="b")
    door.send(ADJUSTED, adjusted(orderId=order, reason=None, productId="p-1"), ce_id="c")
    door.handle(4)
    door.close()
    for second in Door.opened(door.shop, settings):
        second.ask(ADJUSTED, adjusted(orderId=order), ce_id="off")
    assert door.shop.payment(payment_id)["status"] == "succeeded"
    rows = {row["message_id"]: row for row in door.shop.api.stored.rows("inventory_adjustment")}
    assert {each: rows[each]["order_id"] for each in rows} == {
        "no-order": None, "a": order, "b": order, "c": order, "off": order,
    }  # fmt: skip
    assert (rows["a"]["product"], rows["a"]["quantity"], rows["a"]["reason"]) == (
        "SKU-1", Decimal("4.5"), "customer_return",
    )  # fmt: skip
    assert rows["c"]["product"] == "p-1"


def test_a_customer_sees_the_status_of_its_own_orders_alone(closed: Api) -> None:
    """Another's does not exist for it; no token is 401."""
    me, body = new_uuid(), payment_body(customerId=(owner := new_uuid()))
    assert closed.post_async(body, **bearer(owner)).status == 202
    path = f"/orders/{body['orderId']}/payment-status"
    assert closed.get(path, **bearer(owner)).body["paymentStatus"] == "pending"
    assert closed.get(path, **bearer("staff", role="merchant")).status == 200
    assert_refused(closed.get(path, **bearer(me)), 404, "PAYMENT_NOT_FOUND")
    assert closed.get(path).status == 401


def test_an_order_without_a_payment_is_404(shop: Shop) -> None:
    """And an id that is none is 400."""
    assert_refused(shop.api.get(f"/orders/{new_uuid()}/payment-status"), 404, "PAYMENT_NOT_FOUND")
    assert_refused(shop.api.get(f"/orders/{'x' * 256}/payment-status"), 400, "VALIDATION_FAILED", "orderId")
    assert_refused(shop.api.get("/orders/%00/payment-status"), 400, "VALIDATION_FAILED", "orderId")


def test_the_live_payment_of_an_order_is_shown(shop: Shop) -> None:
    """Not the one that failed before it, whatever case the order's id is asked in."""
    order = new_uuid()
    shop.pay(Decimal("9.13"), orderId=order)
    failed = shop.api.get(f"/orders/{order}/payment-status").body
    assert (failed["paymentStatus"], failed["paymentDate"]) == ("failed", None)
    shop.hold(orderId=order)
    held = shop.api.get(f"/orders/{order.upper()}/payment-status").body
    assert (held["paymentStatus"], held["transactionId"], held["paymentDate"]) == ("pending", None, None)
