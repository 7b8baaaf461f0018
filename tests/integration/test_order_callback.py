"""The order service of the delivery contract hears how payments end, with the caller's token."""

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select

from shared.models_notifications import OrderCallback
from shared.settings import Settings
from tests.api import Answer
from tests.delivery import Delivery
from tests.factories import new_uuid
from tests.notified import Notified, make_notified
from tests.subscriber import Subscriber
from tests.tokens import SECRET, token

OURS = "a-token-of-the-operators"
MINOR = 2500
DECLINED_MINOR = 1013


@pytest.fixture
def orders() -> Iterator[Subscriber]:
    """The order service."""
    service = Subscriber()
    yield service
    service.close()


@pytest.fixture
def shop(settings: Settings, orders: Subscriber) -> Iterator[Notified]:
    """A shop with an order service."""
    url = f"http://127.0.0.1:{orders.port}/orders/"
    variables = {"ORDER_STATUS_URL": url, "ORDER_STATUS_TOKEN": OURS, "JWT_SECRET": SECRET}
    with make_notified(settings, **variables) as shop:
        yield shop


def pay(shop: Notified, order_id: str, minor: int = MINOR, caller: str = "", **body: Any) -> Answer:
    """Charge an order through the delivery contract, as `caller` if one is given, and carry it out."""
    delivery = Delivery(shop.api)
    customer = delivery.customer()
    wanted = {
        "amount": minor, "customerId": customer, "paymentMethodId": "pm_card_visa", "orderId": order_id,
        **body,
    }  # fmt: skip
    headers = {"Authorization": f"Bearer {caller}"} if caller else {}
    path = "/payment/payment-intent"
    answer = shop.api.post(wanted, path=path, Prefer="respond-async", **headers)
    assert answer.status == 202, answer.text
    shop.work()
    return answer


def told(orders: Subscriber) -> list[Any]:
    """What the order service was told."""
    return [each.body for each in orders.calls]


def tokens(shop: Notified) -> list[bytes | None]:
    """The sealed tokens that are kept."""
    with shop.bench.sessions() as session:
        return list(session.scalars(select(OrderCallback.sealed_token)))


@pytest.mark.parametrize(
    ("minor", "status"), [(MINOR, "PAYMENT RECEIVED"), (DECLINED_MINOR, "PAYMENT FAILED")]
)
def test_the_order_service_hears_the_outcome(
    shop: Notified, orders: Subscriber, minor: int, status: str
) -> None:
    """PUT updateStatus with the order and the contract's words, under the event's id as the key."""
    pay(shop, "order_1", minor)
    shop.notify()
    (call,) = orders.calls
    assert (call.method, call.path) == ("PUT", "/orders/updateStatus")
    assert call.body == {"orderId": "order_1", "status": status}
    assert call.headers["Authorization"] == f"Bearer {OURS}"
    event = next(row for row in shop.bench.outbox() if row.type in {"payment-succeeded", "payment-failed"})
    assert call.headers["Idempotency-Key"] == str(event.id)


def test_it_is_told_again_until_it_takes_it(shop: Notified, orders: Subscriber) -> None:
    """Each attempt has the same key, so that it takes effect once; after a success there is none."""
    answers = [500, 503, 200]
    orders.behave = lambda _: answers.pop(0)
    pay(shop, "order_1")
    shop.notify()
    for _ in range(4):
        shop.notify_later()
    assert told(orders) == 3 * [{"orderId": "order_1", "status": "PAYMENT RECEIVED"}]
    assert len({each.headers["Idempotency-Key"] for each in orders.calls}) == 1


def test_the_callers_token_is_passed_on_and_forgotten(shop: Notified, orders: Subscriber) -> None:
    """It is kept sealed until the outcome is delivered, and not a moment longer."""
    caller = token("a-shop", role="service")
    pay(shop, "order_1", caller=caller)
    (sealed,) = tokens(shop)
    assert sealed is not None
    assert caller.encode() not in sealed
    shop.notify()
    assert [each.headers["Authorization"] for each in orders.calls] == [f"Bearer {caller}"]
    assert tokens(shop) == [None]


def test_a_token_may_outlast_every_calendar(shop: Notified, orders: Subscriber) -> None:
    """What is let in is passed on, however late it expires."""
    caller = token("a-shop", role="service", exp=10**18)
    pay(shop, "order_1", caller=caller)
    shop.notify()
    assert [each.headers["Authorization"] for each in orders.calls] == [f"Bearer {caller}"]


def test_an_expired_token_is_not_sent_and_not_kept(shop: Notified, orders: Subscriber) -> None:
    """Then ours is, and the caller's is forgotten even before anything is delivered."""
    pay(shop, "order_1", caller=token("a-shop", role="service"))
    shop.api.stored.change("UPDATE order_callback SET token_until = now()")
    shop.notify()
    assert [each.headers["Authorization"] for each in orders.calls] == [f"Bearer {OURS}"]
    assert tokens(shop) == [None]


def test_a_token_that_is_not_taken_is_replaced_by_ours(shop: Notified, orders: Subscriber) -> None:
    """A token may be revoked while the outcome is open: the next attempt is made with ours."""
    orders.behave = lambda call: 200 if call.headers["Authorization"].endswith(OURS) else 401
    caller = token("a-shop", role="service")
    pay(shop, "order_1", caller=caller)
    shop.notify()
    shop.notify_later()
    sent = [each.headers["Authorization"] for each in orders.calls]
    assert sent == [f"Bearer {caller}", f"Bearer {OURS}"]


def test_an_order_that_is_paid_at_the_second_try_ends_as_paid(shop: Notified, orders: Subscriber) -> None:
    """The failure of its first payment is delivered before the success of the second, however late."""
    orders.behave = lambda _: 500
    pay(shop, "order_1", DECLINED_MINOR)
    shop.notify()
    pay(shop, "order_1")
    shop.notify_later()
    assert {each["status"] for each in told(orders)} == {"PAYMENT FAILED"}
    orders.calls.clear()
    orders.behave = lambda _: 200
    shop.notify_later()
    assert [each["status"] for each in told(orders)] == ["PAYMENT FAILED", "PAYMENT RECEIVED"]


def test_a_hold_is_told_of_when_it_is_captured_or_let_go(shop: Notified, orders: Subscriber) -> None:
    """Money that is only held is not received; one that is cancelled has failed."""
    for order_id, step in (("order_1", "capture"), ("order_2", "cancel")):
        answer = pay(shop, order_id, captureMethod="manual")
        shop.notify()
        assert [each for each in told(orders) if each["orderId"] == order_id] == []
        shop.ask(answer.headers["Location"].rpartition("/")[2], step, {})
        shop.work()
    shop.notify()
    assert {each["orderId"]: each["status"] for each in told(orders)} == {
        "order_1": "PAYMENT RECEIVED", "order_2": "PAYMENT FAILED",
    }  # fmt: skip


def test_other_contracts_payments_are_not_told(shop: Notified, orders: Subscriber) -> None:
    """Only what was made through the delivery contract; a refund later says nothing of the payment."""
    shop.pay()
    pay(shop, new_uuid())
    shop.notify()
    assert len(orders.calls) == 1
    assert len(shop.api.stored.rows("order_callback")) == 1


def test_without_an_order_service_nothing_is_kept(settings: Settings) -> None:
    """No row and no token, where nobody is to be told."""
    with make_notified(settings, JWT_SECRET=SECRET) as shop:
        pay(shop, "order_1", caller=token("a-shop", role="service"))
        assert not {"order_callback", "notification_event"} & set(shop.api.stored.counts())
