"""Commands and notices on Kafka, with the real processes: each takes effect once, whatever is killed."""

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from confluent_kafka import Producer

from deploy.local.client import RunningStack, running_stack
from tests.factories import new_uuid
from tests.topics import reader
from tests.waiting import wait_until

README = Path(__file__).parents[2] / "README.md"
SOON_S = 60.0
HANGS_S = 600
ANSWERS = 8
CARTS = 60
KILLED_AFTER = 10  # so many are held by then, and the rest is not


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The whole service."""
    env = {"LEASE_S": "3", "RECOVERY_AFTER_S": "1", "NEIGHBOURS": "1"}
    with running_stack(tmp_path_factory.mktemp("commands"), env=env) as running:
        yield running


def send(stack: RunningStack, topic: str, values: dict[str, dict[str, object]]) -> None:
    """Produce values, each twice under its id: a sender that was not sure."""
    producer = Producer({"bootstrap.servers": stack.endpoints.kafka_bootstrap_servers, "acks": "all"})
    for _ in range(2):
        for message_id, value in values.items():
            producer.produce(topic, json.dumps(value).encode(), headers=[("ce_id", message_id.encode())])
    assert producer.flush(SOON_S) == 0


def held(stack: RunningStack, status: str) -> list[str]:
    """The carts whose payments have this status."""
    url = f"{stack.endpoints.api_url}/payments"
    page = requests.get(url, params={"status": status, "limit": "100"}, timeout=SOON_S).json()
    return [each["customerId"] for each in page["payments"]]


def test_every_command_takes_effect_once(stack: RunningStack) -> None:
    """Sixty holds, each sent twice, a killed consumer, sixty cancels: every cart held once, then let go."""
    carts = {new_uuid(): new_uuid() for _ in range(CARTS)}
    commands = {
        f"hold-{cart}": {"cartId": cart, "customerId": customer, "amount": 2_500, "currency": "USD"}
        for cart, customer in carts.items()
    }
    send(stack, "authorize-payment", dict(commands))
    wait_until(lambda: len(held(stack, "authorized")) >= KILLED_AFTER, SOON_S, "some holds")
    stack.wait_restarted("consumer", stack.kill("consumer"))
    everybody = Counter(carts.values())
    wait_until(lambda: Counter(held(stack, "authorized")) == everybody, SOON_S, "all holds")
    send(stack, "cancel-payment", {f"cancel-{cart}": {"cartId": cart} for cart in carts})
    wait_until(lambda: Counter(held(stack, "cancelled")) == everybody, SOON_S, "all to be let go")
    send(stack, "capture-payment", {"late": {"cartId": next(iter(carts))}})
    with reader(stack.endpoints.kafka_bootstrap_servers, ["payment-rejected"]) as read:
        answers = wait_until(lambda: found if len(found := read()) > 1 else None, SOON_S, "the refusals")
    assert {each.value["commandId"] for each in answers} == {"late"}
    assert {each.value["errorCode"] for each in answers} == {"PAYMENT_CONFLICT"}
    assert len({each.named["ce_id"] for each in answers}) == 1


class Neighbour:
    """The order service that the stack starts beside itself."""

    def __init__(self, stack: RunningStack) -> None:
        """Find it where a user would."""
        said = json.loads((stack.state_dir / "endpoints.json").read_text(encoding="utf-8"))
        self.url = said["order_service_url"]
        self.api_url = said["api_url"]

    def post(self, path: str, **body: object) -> dict[str, str]:
        """Place an order, or have something told; what it answers."""
        answer = requests.post(f"{self.url}{path}", json=body, timeout=SOON_S)
        assert answer.ok, answer.text
        told: dict[str, str] = answer.json()
        return told

    def pay(self, order: dict[str, str], **more: object) -> requests.Response:
        """Ask for the order's payment."""
        body = {"orderId": order["id"], "customerId": order["customerId"], "amount": order["amount"], **more}
        return requests.post(f"{self.api_url}/payments", json=body, timeout=SOON_S)

    def status(self, order_id: str) -> str:
        """How the order's payment stands, in the catalog's words."""
        answer = requests.get(f"{self.api_url}/orders/{order_id}/payment-status", timeout=SOON_S)
        return str(answer.json().get("paymentStatus"))

    def statuses(self, order: dict[str, str]) -> list[str]:
        """How the order's payments stand, in our own words."""
        url = f"{self.api_url}/payments"
        page = requests.get(url, params={"orderId": order["id"]}, timeout=SOON_S).json()
        return [each["status"] for each in page["payments"]]


def test_neighbours_are_asked_and_heard(stack: RunningStack) -> None:
    """An order is looked up, a reservation checked and expired, a payment initiated and told of."""
    shop = Neighbour(stack)
    order = shop.post("/orders", amount=80)
    reservation = {"reservationId": new_uuid(), "customerId": order["customerId"]}
    asked = {"reservationId": reservation["reservationId"], "captureMethod": "manual"}
    assert shop.pay(order, amount=81).json()["errorCode"] == "ORDER_VALIDATION_FAILED"
    assert shop.pay(order, **asked).json()["errorCode"] == "RESERVATION_VALIDATION_FAILED"
    shop.post("/tell/reservation-created", **reservation, status="active", expiresAt="2099-01-01T00:00:00Z")
    wait_until(lambda: shop.pay(order, **asked).ok, SOON_S, "the reservation to be known")
    wait_until(lambda: shop.statuses(order) == ["authorized"], SOON_S, "the hold")
    shop.post("/tell/reservation-expired", **reservation, status="expired", expiredAt="2026-01-01T00:00:00Z")
    wait_until(lambda: shop.statuses(order) == ["cancelled"], SOON_S, "the hold to be let go")
    order = shop.post("/orders", amount=100)
    for _ in range(2):
        shop.post("/tell/payment-initiated", userId=order["customerId"], orderId=order["id"], amount=100)
    wait_until(lambda: shop.status(order["id"]) == "completed", SOON_S, "the payment")
    with reader(stack.endpoints.kafka_bootstrap_servers, ["payment-processed"]) as read:
        (heard,) = wait_until(read, SOON_S, "payment-processed")
    assert (heard.value["orderId"], heard.value["status"]) == (order["id"], "confirmed")
    gone = {"sku": "sku-1", "adjustedQuantity": -1, "reason": "OutOfStock", "orderId": order["id"]}
    shop.post("/tell/inventory-adjusted", **gone)
    wait_until(lambda: shop.status(order["id"]) == "refunded", SOON_S, "the refund")


def pasted(stack: RunningStack) -> list[Any]:
    """What is answered when the README's lines for the five contracts are pasted into a shell."""
    block = re.search(r"<!-- try -->\n```sh\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    lines = block[1].replace("http://127.0.0.1:5004", str(stack.endpoints.api_url))
    lines = lines.replace(".local/", f"{stack.state_dir}/")
    said = subprocess.run(["sh", "-c", lines], capture_output=True, text=True, check=False, timeout=HANGS_S)
    return [json.loads(line) for line in said.stdout.splitlines()]


@pytest.mark.skipif(not shutil.which("curl"), reason="the README's lines want curl")
def test_the_readmes_lines_for_the_five_contracts_work(stack: RunningStack) -> None:
    """As they stand, and as often as they are pasted: each contract says in its own words that it is paid."""
    paid = {
        "id": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
        "customerId": "a8098c1a-f86e-11da-bd1a-00112444be1e",
    }
    Neighbour(stack).post("/orders", **paid, amount=150)

    def all_done() -> bool:
        answers = pasted(stack)
        if len(answers) != ANSWERS:  # curl gave one of them up
            return False
        ticketing, acme, order, notice, catalog, registered, account, delivery = answers
        assert (order["id"], notice["topic"]) == ("order-18", "payment-initiated")
        assert registered["success"] or registered["errorCode"] == "ACCOUNT_EXISTS"
        assert (account["success"], account["userName"]) == (True, "Grace")
        # Where it takes longer, the answers say that it is under way; then they are pasted again.
        return (
            ticketing["payment"]["status"],
            acme["payment"]["status"],
            catalog["paymentStatus"],
            delivery["data"]["status"],
        ) == ("succeeded", "authorized", "completed", "succeeded")

    wait_until(all_done, SOON_S, "every contract's payment")
