"""The Stripe simulator announces every change by signed webhooks, and does to them what networks do."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import requests
import stripe

from tests.stripe_process import CALL_S, Running
from tests.waiting import wait_until
from tests.webhook_receiver import Receiver

SECRET = "whsec_of_a_test"
ARRIVES_S = 30
CREATED = "payment_intent.created"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One simulator for the tests of this module."""
    started = Running(tmp_path_factory.mktemp("stripe") / "state.sqlite")
    yield started
    assert started.stop() == 0


@pytest.fixture
def simulated(running: Running) -> Iterator[Running]:
    """The module's simulator, without an endpoint afterwards."""
    yield running
    point(running, None)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """An endpoint that takes what is signed right."""
    started = Receiver(SECRET)
    yield started
    started.close()
    assert started.problems == []


def point(simulated: Running, receiver: Receiver | None, **troubles: Any) -> requests.Response:
    """Let the simulator send its webhooks to the receiver."""
    told: dict[str, Any] = {"url": receiver.url, "secret": SECRET, **troubles} if receiver else {"url": None}
    return requests.put(f"{simulated.url}/_control/webhooks", json=told, timeout=CALL_S)


def deliveries(simulated: Running, **query: str) -> list[dict[str, Any]]:
    """Return what the simulator says of its deliveries."""
    answer = requests.get(f"{simulated.url}/_control/webhooks/deliveries", params=query, timeout=CALL_S)
    data: list[dict[str, Any]] = answer.json()["data"]
    return data


def of(simulated: Running, event: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the deliveries of one event."""
    return [found for found in deliveries(simulated, limit="1000") if found["event"] == event["id"]]


def wait_for(receiver: Receiver, object_id: str, *types: str) -> None:
    """Wait until exactly these types have come for an object, in any order."""
    wanted = sorted(types)
    wait_until(lambda: sorted(receiver.types(object_id)) == wanted, ARRIVES_S, f"{wanted} of {object_id}")


def test_every_change_is_announced(simulated: Running, receiver: Receiver) -> None:
    """A payment's whole life arrives: each event once, signed, with the object as it was then."""
    point(simulated, receiver)
    paid = simulated.pay(key="webhook-pay")
    refund = simulated.v1.refunds.create({"payment_intent": paid.id, "amount": 100})
    wait_for(
        receiver, paid.id, CREATED, "charge.succeeded", "payment_intent.succeeded", "refund.created",
        "charge.refunded",
    )  # fmt: skip
    first = next(event for event in receiver.events if event["type"] == CREATED)
    assert (first["data"]["object"]["status"], first["request"]["idempotency_key"]) == (
        "requires_confirmation", "webhook-pay",
    )  # fmt: skip
    made = next(event for event in receiver.events if event["type"] == "refund.created")
    assert made["data"]["object"]["id"] == refund.id
    event = simulated.v1.events.retrieve(made["id"])
    kinds = stripe.Event.__annotations__.items()
    assert {name for name, kind in kinds if type(None) not in get_args(kind)} - {"OBJECT_NAME"} <= set(
        event.to_dict()
    )
    wait_until(
        lambda: simulated.v1.events.retrieve(made["id"]).pending_webhooks == 0, ARRIVES_S, "no delivery left"
    )
    newest = simulated.v1.events.list({"type": "refund.created", "limit": 1})
    assert [found.id for found in newest.data] == [made["id"]]


def test_each_outcome_has_its_event(simulated: Running, receiver: Receiver) -> None:
    """Holds, declines, authentication, cancels and SetupIntents announce what Stripe announces for them."""
    point(simulated, receiver)
    hold = simulated.pay(capture_method="manual")
    simulated.intents.capture(hold.id, {"amount_to_capture": 1000})
    wait_for(
        receiver, hold.id, CREATED, "charge.succeeded", "payment_intent.amount_capturable_updated",
        "charge.captured", "refund.created", "charge.refunded", "payment_intent.succeeded",
    )  # fmt: skip
    held = simulated.pay(capture_method="manual")
    simulated.intents.cancel(held.id)
    wait_for(
        receiver, held.id, CREATED, "charge.succeeded", "payment_intent.amount_capturable_updated",
        "refund.created", "charge.refunded", "payment_intent.canceled",
    )  # fmt: skip
    asked = simulated.pay(payment_method="pm_card_authenticationRequired")
    told = {"payment_intent": asked.id, "succeed": False}
    requests.post(f"{simulated.url}/_control/authenticate", json=told, timeout=CALL_S).raise_for_status()
    with pytest.raises(stripe.CardError):
        simulated.intents.confirm(asked.id, {"payment_method": "pm_card_chargeDeclined"})
    failed = "payment_intent.payment_failed"
    wait_for(receiver, asked.id, CREATED, "payment_intent.requires_action", failed, "charge.failed", failed)
    setup = simulated.v1.setup_intents.create(
        {"confirm": True, "payment_method": "pm_card_visa", "payment_method_types": ["card"]}
    )
    wait_for(receiver, setup.id, "setup_intent.created", "setup_intent.succeeded")


def test_a_secret_is_rolled(simulated: Running, receiver: Receiver) -> None:
    """With two secrets each event is signed with both, so that a receiver of either takes it."""
    point(simulated, receiver, secret=["whsec_new", SECRET])
    wait_for(receiver, simulated.pay(confirm=None).id, CREATED)
    point(simulated, receiver, secret=[SECRET, "whsec_new"])
    wait_for(receiver, simulated.pay(confirm=None).id, CREATED)


def test_a_failed_refund_is_announced(simulated: Running, receiver: Receiver) -> None:
    """A refund that fails after it had succeeded is announced as updated and as failed."""
    point(simulated, receiver)
    paid = simulated.pay(payment_method="pm_card_refundFail")
    refund = simulated.v1.refunds.create({"payment_intent": paid.id})
    wait_for(receiver, refund.id, "refund.created", "refund.updated", "refund.failed")
    last = next(event for event in receiver.events if event["type"] == "refund.failed")
    assert last["data"]["object"]["status"] == "failed"
    assert last["request"] == {"id": None, "idempotency_key": None}


def test_a_refusing_endpoint_is_tried_again(simulated: Running) -> None:
    """An event is delivered anew until the endpoint takes it, and its attempts are shown."""
    refusing = Receiver(SECRET, refusals=2)
    try:
        point(simulated, refusing, retry_s=[0.05])
        intent = simulated.pay(confirm=None)
        wait_for(refusing, intent.id, CREATED)
        (event,) = refusing.events
        done = wait_until(
            lambda: [found for found in of(simulated, event) if found["state"] == "delivered"],
            ARRIVES_S, "the delivery to be noted",
        )  # fmt: skip
        assert [(found["attempts"], found["last_status"]) for found in done] == [(3, 200)]
    finally:
        refusing.close()


def test_events_are_duplicated_delayed_and_reordered(simulated: Running, receiver: Receiver) -> None:
    """Each event can come several times, late, in another order than it happened in."""
    point(simulated, receiver, duplicate=3, delay_ms=50, reorder=True)
    intents = [simulated.pay(confirm=None).id for _ in range(12)]
    for intent in intents:
        wait_for(receiver, intent, *[CREATED] * 3)
    arrived = [event["data"]["object"]["id"] for event in receiver.events]
    assert arrived != [intent for intent in intents for _ in range(3)]
    assert len({event["id"] for event in receiver.events}) == 12


def test_a_dropped_event_comes_when_it_is_sent_again(simulated: Running, receiver: Receiver) -> None:
    """Dropped types do not arrive but are on record, and each can be sent by hand."""
    point(simulated, receiver, drop=["payment_intent.succeeded"])
    paid = simulated.pay()
    wait_for(receiver, paid.id, CREATED, "charge.succeeded")
    (dropped,) = simulated.v1.events.list({"type": "payment_intent.succeeded", "limit": 1}).data
    assert dropped.data.object["id"] == paid.id
    assert [found["state"] for found in of(simulated, {"id": dropped.id})] == ["dropped"]
    requests.post(
        f"{simulated.url}/_control/webhooks/resend", json={"event": dropped.id}, timeout=CALL_S
    ).raise_for_status()
    wait_for(receiver, paid.id, CREATED, "charge.succeeded", "payment_intent.succeeded")


def test_an_endpoint_gets_the_types_that_it_wants(simulated: Running, receiver: Receiver) -> None:
    """Others are not sent, and later ones are not held up by them."""
    point(simulated, receiver, enabled_events=["payment_intent.succeeded", "refund.created"])
    paid = simulated.pay()
    simulated.v1.refunds.create({"payment_intent": paid.id})
    wait_for(receiver, paid.id, "payment_intent.succeeded", "refund.created")


def test_what_is_undelivered_outlives_a_killed_simulator(tmp_path: Path, receiver: Receiver) -> None:
    """The endpoint and the events it has not taken are there after a kill -9, and are delivered then."""
    state = tmp_path / "state.sqlite"
    first = Running(state)
    away = Receiver(SECRET)
    point(first, away)
    away.close()
    intent = first.pay(confirm=None)
    wait_until(lambda: [found for found in deliveries(first) if found["attempts"]], ARRIVES_S, "an attempt")
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = Running(state)
    try:
        assert second.client is not None
        shown = requests.get(f"{second.url}/_control/webhooks", timeout=CALL_S).json()
        assert (shown["url"], shown["secret"]) == (away.url, SECRET)
        point(second, receiver)
        wait_for(receiver, intent.id, CREATED)
    finally:
        second.stop()


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "nowhere"},
        {"secret": ""},
        {"secret": []},
        {"delay_ms": -1},
        {"duplicate": True},
        {"reorder": 1},
        {"drop": 2},
        {"enabled_events": "*"},
        {"enabled_events": []},
        {"retry_s": []},
        {"colour": "red"},
    ],
)
def test_a_wrong_endpoint_is_refused(simulated: Running, receiver: Receiver, wrong: dict[str, Any]) -> None:
    """A description that means nothing is a 400 and sets nothing."""
    assert point(simulated, receiver, **wrong).status_code == 400
    assert requests.get(f"{simulated.url}/_control/webhooks", timeout=CALL_S).json() is None


def test_without_an_endpoint_there_are_no_events(simulated: Running) -> None:
    """Nothing is recorded while nobody is to be told."""
    before = simulated.v1.events.list({"limit": 1}).data
    simulated.pay()
    assert [event.id for event in simulated.v1.events.list({"limit": 1}).data] == [
        event.id for event in before
    ]
