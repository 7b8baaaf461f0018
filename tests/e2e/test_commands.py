"""Commands on Kafka, with the real processes: each takes effect once, though the consumer is killed."""

import json
from collections import Counter
from collections.abc import Iterator

import pytest
import requests
from confluent_kafka import Producer

from deploy.local.client import RunningStack, running_stack
from tests.factories import new_uuid
from tests.topics import reader
from tests.waiting import wait_until

SOON_S = 60.0
CARTS = 60
KILLED_AFTER = 10  # so many are held by then, and the rest is not


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """The whole service."""
    env = {"LEASE_S": "3", "RECOVERY_AFTER_S": "1"}
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
