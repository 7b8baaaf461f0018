"""The whole stack and webhooks: the simulator's come in and are recorded, ours go out to subscribers."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
import requests
from psycopg.rows import dict_row

from deploy.local.client import RunningStack, running_stack
from tests.notified import PATH
from tests.orders import Orders
from tests.subscriber import Subscriber
from tests.waiting import wait_until

SOON_S = 30.0
LONG_S = 60.0


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orders]:
    """A shop before a whole stack."""
    with running_stack(tmp_path_factory.mktemp("stack")) as stack:
        yield Orders(stack)


def rows(stack: RunningStack, query: str, *values: Any) -> list[dict[str, Any]]:
    """Read from the stack's database."""
    with psycopg.connect(stack.endpoints.database_url, row_factory=dict_row) as connection:
        return connection.execute(query.encode(), values).fetchall()


def intent_of(orders: Orders, payment_id: str) -> str:
    """The payment's charge at the gateway."""
    (row,) = rows(orders.stack, "SELECT gateway_ref FROM payment WHERE id = %s", payment_id)
    return str(row["gateway_ref"])


def wait_for(orders: Orders, payment_id: str, status: str) -> None:
    """Wait until a payment has this status."""
    wait_until(lambda: orders.status(payment_id) == status, SOON_S, f"the payment to be {status}")


def test_a_customer_who_authenticates_is_known_by_webhook(orders: Orders) -> None:
    """The payment succeeds by the webhook's hand, or by our own poll if that was quicker."""
    payment_id = orders.place(paymentMethodId="pm_card_authenticationRequired")
    wait_for(orders, payment_id, "requires_action")
    orders.simulator.act("authenticate", payment_intent=intent_of(orders, payment_id), succeed=True)
    wait_for(orders, payment_id, "succeeded")


def test_a_dashboard_refund_shows_up(orders: Orders) -> None:
    """Only a webhook can tell of it."""
    payment_id = orders.place()
    wait_for(orders, payment_id, "succeeded")
    ref = intent_of(orders, payment_id)
    orders.simulator.act("dashboard/refund", payment_intent=ref, amount=100)
    wait_for(orders, payment_id, "partially_refunded")
    assert orders.timeline(payment_id)[-1]["actor"] == "stripe webhook"


def test_a_subscriber_hears_of_a_payment(orders: Orders) -> None:
    """Scheduler, queue and task worker bring each event, signed, to who has registered."""
    taker = Subscriber()
    answer = requests.post(f"{orders.stack.endpoints.api_url}{PATH}", json={"url": taker.url}, timeout=LONG_S)
    assert answer.status_code == 201, answer.text
    payment_id = orders.place()
    wait_until(lambda: len(taker.types(payment_id)) == 2, LONG_S, "both webhooks of the payment")
    assert taker.types(payment_id) == ["payment-requested", "payment-succeeded"]
    assert all(each.is_signed_by(answer.json()["secret"]) for each in taker.calls)
    taker.close()


def test_every_webhook_ends_processed(orders: Orders) -> None:
    """Of what the simulator has sent nothing waits, is unmatched or has failed."""

    def states() -> bool:
        return {row["state"] for row in rows(orders.stack, "SELECT state FROM inbox")} == {"processed"}

    wait_until(states, SOON_S, "every webhook to be processed")
