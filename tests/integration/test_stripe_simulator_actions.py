"""The Stripe simulator lets time pass, banks dispute, people use the dashboard, and fails altogether."""

import signal
import sqlite3
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import requests
import stripe

from tests.stripe_process import CALL_S, INTENTS, Running
from tests.waiting import wait_until
from tests.webhook_receiver import Receiver

SECRET = "whsec_of_a_test"
DAY_S = 24 * 3600
HOLD_S = 7 * DAY_S
ARRIVES_S = 30


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One simulator for the tests of this module."""
    started = Running(tmp_path_factory.mktemp("stripe") / "state.sqlite")
    yield started
    assert started.stop() == 0


@pytest.fixture
def simulated(running: Running) -> Running:
    """The module's simulator, without faults and latency."""
    running.control.reset()
    return running


@pytest.fixture
def receiver(simulated: Running) -> Iterator[Receiver]:
    """An endpoint that the simulator sends its events to."""
    started = Receiver(SECRET)
    simulated.control.webhooks(started.url, SECRET)
    yield started
    simulated.control.webhooks(None)
    started.close()
    assert started.problems == []


def refused(simulated: Running, endpoint: str, **told: Any) -> int:
    """Return the status of a control request."""
    return requests.post(f"{simulated.url}/_control/{endpoint}", json=told, timeout=CALL_S).status_code


def charge_of(simulated: Running, intent: Any) -> Any:
    """Return an intent's charge as it is now."""
    return simulated.v1.charges.retrieve(intent.latest_charge.id)


def test_a_hold_that_is_not_captured_expires(simulated: Running, receiver: Receiver) -> None:
    """Past capture_before a hold is cancelled automatically and announced; one that was captured stays."""
    hold, taken = simulated.pay(capture_method="manual"), simulated.pay(capture_method="manual")
    simulated.intents.capture(taken.id)
    simulated.control.advance_clock(HOLD_S - 3600)
    assert simulated.intents.retrieve(hold.id).status == "requires_capture"
    simulated.control.advance_clock(3600)
    gone = simulated.intents.retrieve(hold.id, {"expand": ["latest_charge.refunds"]})
    assert (gone.status, gone.cancellation_reason) == ("canceled", "automatic")
    assert gone.canceled_at >= hold.latest_charge.payment_method_details.card.capture_before
    assert [(refund.amount, refund.reason) for refund in gone.latest_charge.refunds.data] == [
        (2500, "expired_uncaptured_charge")
    ]
    assert simulated.intents.retrieve(taken.id).status == "succeeded"
    wait_until(
        lambda: {"payment_intent.canceled", "charge.expired"} <= set(receiver.types(hold.id)),
        ARRIVES_S,
        "the end",
    )


def test_keys_are_forgotten_by_the_simulated_clock(simulated: Running) -> None:
    """A day later by the moved clock a key is new again; new objects carry the moved time."""
    order, key = str(uuid.uuid4()), str(uuid.uuid4())
    first = simulated.pay(order, key=key)
    simulated.control.advance_clock(DAY_S - 600)
    assert simulated.pay(order, key=key).id == first.id
    simulated.control.advance_clock(601)
    second = simulated.pay(order, key=key)
    assert second.id != first.id
    assert second.created >= first.created + DAY_S


def test_the_clock_only_moves_forward(simulated: Running) -> None:
    """It moves by an amount or to a moment, never back."""
    now = requests.get(f"{simulated.url}/_control/clock", timeout=CALL_S).json()["now"]
    assert simulated.control.act("clock", now=now + 100)["now"] >= now + 100
    for told in ({"now": now}, {"advance_s": -1}, {"advance_s": "1"}, {}, {"advance_s": 1, "now": now}):
        assert refused(simulated, "clock", **told) == 400


def test_a_dispute_is_opened_and_lost(simulated: Running, receiver: Receiver) -> None:
    """A disputed charge cannot be refunded; each step is announced, and a closed dispute stays closed."""
    paid = simulated.pay()
    opened = simulated.control.act(
        "dispute", payment_intent=paid.id, reason="product_not_received", amount=900
    )
    dispute = simulated.v1.disputes.retrieve(opened["id"])
    kinds = stripe.Dispute.__annotations__.items()
    assert {name for name, kind in kinds if type(None) not in get_args(kind)} - {"OBJECT_NAME"} <= set(
        dispute.to_dict()
    )
    assert (dispute.status, dispute.amount, dispute.reason, dispute.charge, dispute.payment_intent) == (
        "needs_response", 900, "product_not_received", paid.latest_charge.id, paid.id,
    )  # fmt: skip
    assert charge_of(simulated, paid).disputed is True
    with pytest.raises(stripe.InvalidRequestError, match="charged back") as failed:
        simulated.v1.refunds.create({"payment_intent": paid.id})
    assert failed.value.code == "charge_disputed"
    simulated.control.act("dispute/update", dispute=dispute.id, status="under_review")
    assert simulated.control.act("dispute/close", dispute=dispute.id, status="lost")["status"] == "lost"
    assert refused(simulated, "dispute/close", dispute=dispute.id, status="won") == 400
    assert refused(simulated, "dispute", payment_intent=paid.id) == 400
    steps = [f"charge.dispute.{step}" for step in ("created", "funds_withdrawn", "updated", "closed")]
    wait_until(lambda: sorted(receiver.types(dispute.id)) == sorted(steps), ARRIVES_S, "the dispute's events")


def test_a_won_dispute_gives_the_money_back(simulated: Running) -> None:
    """What was won can be refunded again; the charge still shows that it was disputed."""
    paid = simulated.pay(payment_method="pm_card_createDispute")
    (dispute,) = simulated.v1.disputes.list({"payment_intent": paid.id}).data
    assert (dispute.status, dispute.amount, dispute.reason) == ("needs_response", 2500, "fraudulent")
    simulated.control.act("dispute/close", dispute=dispute.id, status="won")
    assert simulated.v1.refunds.create({"payment_intent": paid.id}).amount == 2500
    assert charge_of(simulated, paid).disputed is True
    hold = simulated.pay(payment_method="pm_card_createDispute", capture_method="manual")
    assert simulated.v1.disputes.list({"charge": hold.latest_charge.id}).data == []
    simulated.intents.capture(hold.id)
    assert len(simulated.v1.disputes.list({"charge": hold.latest_charge.id}).data) == 1


def test_people_act_at_the_dashboard(simulated: Running, receiver: Receiver) -> None:
    """A refund, a capture and a cancel by hand carry no metadata and no key, and obey the same rules."""
    hold, other = simulated.pay(capture_method="manual"), simulated.pay(capture_method="manual")
    assert (
        simulated.control.act("dashboard/capture", payment_intent=hold.id, amount=2000)["amount_received"]
        == 2000
    )
    refund = simulated.control.act("dashboard/refund", payment_intent=hold.id, amount=500)
    assert (refund["amount"], refund["metadata"]) == (500, {})
    assert refused(simulated, "dashboard/refund", payment_intent=hold.id, amount=1501) == 400
    assert simulated.control.act("dashboard/cancel", payment_intent=other.id)["status"] == "canceled"
    assert refused(simulated, "dashboard/capture", payment_intent=other.id) == 400
    wait_until(lambda: "refund.created" in receiver.types(refund["id"]), ARRIVES_S, "the refund's event")
    announced = next(event for event in receiver.events if event["data"]["object"]["id"] == refund["id"])
    assert announced["request"]["idempotency_key"] is None


def test_the_customer_confirms_in_the_browser(simulated: Running) -> None:
    """What Stripe.js confirms is paid, waits for authentication, or fails and leaves its charge."""
    made = [simulated.pay(confirm=None, payment_method=None, payment_method_types=None) for _ in range(3)]
    paid, asked, declined = (intent.id for intent in made)
    confirm: Callable[..., Any] = simulated.control.act
    told = {"payment_intent": paid, "payment_method": "pm_card_visa"}
    assert confirm("confirm", **told)["status"] == "succeeded"
    told = {"payment_intent": asked, "payment_method": "pm_card_authenticationRequired"}
    assert confirm("confirm", **told)["status"] == "requires_action"
    assert confirm("authenticate", payment_intent=asked)["status"] == "succeeded"
    assert (
        refused(simulated, "confirm", payment_intent=declined, payment_method="pm_card_chargeDeclined") == 402
    )
    failed = simulated.intents.retrieve(declined, {"expand": ["latest_charge"]})
    assert (failed.status, failed.latest_charge.status) == ("requires_payment_method", "failed")


def test_an_intents_metadata_change(simulated: Running) -> None:
    """New metadata are merged in, an empty value removes one, and search finds the intent by what it has."""
    order, found = str(uuid.uuid4()), simulated.intents.search
    paid = simulated.pay(order)
    changed = simulated.intents.update(
        paid.id, {"metadata": {"order_id": "", "cart": order}, "description": "x"}
    )
    assert (changed.metadata.to_dict(), changed.description) == ({"cart": order}, "x")
    assert [intent.id for intent in found({"query": f"metadata['cart']:'{order}'"}).data] == [paid.id]
    assert found({"query": f"metadata['order_id']:'{order}'"}).data == []


def test_an_outage_resets_every_connection(simulated: Running) -> None:
    """While unavailable, reads and writes alike fail without an answer and change nothing; then all works."""
    intent = simulated.pay()
    simulated.control.fault("unavailable")
    for _ in range(3):
        with pytest.raises(stripe.APIConnectionError):
            simulated.intents.retrieve(intent.id)
        with pytest.raises(stripe.APIConnectionError):
            simulated.v1.refunds.create({"payment_intent": intent.id})
    simulated.control.reset()
    assert charge_of(simulated, intent).amount_refunded == 0


def test_errors_to_everything_last_until_cleared(simulated: Running) -> None:
    """Without a number a fault meets all requests; a 500 stays its key's answer when the fault is gone."""
    key = str(uuid.uuid4())
    intent = simulated.pay()
    simulated.control.fault("error_before", times=None, reads=True)
    calls: list[Callable[[], Any]] = [
        lambda: simulated.pay("o", key=key),
        lambda: simulated.intents.retrieve(intent.id),
    ]
    for call in calls:
        with pytest.raises(stripe.APIError) as failed:
            call()
        assert failed.value.http_status == 500
    simulated.control.reset()
    with pytest.raises(stripe.APIError):
        simulated.pay("o", key=key)
    simulated.control.fault("rate_limit", times=None, reads=True)
    for call in calls:
        with pytest.raises(stripe.RateLimitError):
            call()
    simulated.control.reset()
    assert simulated.pay("o").status == "succeeded"


@pytest.mark.parametrize(
    ("path", "fails"),
    [(f"{INTENTS}/*/capture", "capture"), ("/v1/refunds", "refund"), (f"{INTENTS}/*/cancel", "cancel")],
)
def test_a_fault_meets_one_operation(simulated: Running, path: str, fails: str) -> None:
    """A fault with a path leaves the other operations alone; the intent's metadata select refunds, too."""
    order = str(uuid.uuid4())
    hold, other = simulated.pay(order, capture_method="manual"), simulated.pay(order, capture_method="manual")
    paid = simulated.pay(order)
    simulated.control.fault("lost_response", path=path, order_id=order)
    calls: dict[str, Callable[[], Any]] = {
        "capture": lambda: simulated.intents.capture(hold.id),
        "refund": lambda: simulated.v1.refunds.create({"payment_intent": paid.id}),
        "cancel": lambda: simulated.intents.cancel(other.id),
    }
    for name, call in calls.items():
        if name != fails:
            call()
    with pytest.raises(stripe.APIConnectionError):
        calls[fails]()
    assert simulated.control.faults() == {"faults": []}
    assert [simulated.intents.retrieve(intent.id).status for intent in (hold, other)] == [
        "succeeded",
        "canceled",
    ]
    assert charge_of(simulated, paid).refunded is True


def test_time_disputes_and_outages_outlive_a_killed_simulator(tmp_path: Path) -> None:
    """The moved clock, disputes and a fault without end are there after a kill -9."""
    state = tmp_path / "state.sqlite"
    first = Running(state)
    paid = first.pay(payment_method="pm_card_createDispute")
    first.control.advance_clock(DAY_S)
    first.control.fault("unavailable", path="/v1/refunds")
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = Running(state)
    try:
        with pytest.raises(stripe.APIConnectionError):
            second.v1.refunds.list({})
        assert len(second.v1.disputes.list({"payment_intent": paid.id}).data) == 1
        assert second.pay().created >= paid.created + DAY_S
        assert [refund["id"] for refund in second.control.refunds()] == []
    finally:
        second.stop()


def test_an_older_state_is_taken_on(tmp_path: Path) -> None:
    """A state file of the first version gets the tables it lacks; one of a later version is refused."""
    state = tmp_path / "state.sqlite"
    first = Running(state)
    paid = first.pay(capture_method="manual")
    first.stop()
    with sqlite3.connect(state) as kept:
        for table in ("links", "timers", "deliveries"):
            kept.execute(f"DROP TABLE {table}")
        kept.execute("PRAGMA user_version = 1")
    second = Running(state)
    second.intents.capture(paid.id, {"amount_to_capture": 100})
    assert len(second.v1.refunds.list({"payment_intent": paid.id}).data) == 1
    second.stop()
    with sqlite3.connect(state) as kept:
        kept.execute("PRAGMA user_version = 1000")
    command = [sys.executable, "-m", "deploy.stripe_simulator", "--port", "0", "--state", str(state)]
    started = subprocess.run(command, capture_output=True, text=True, timeout=CALL_S, check=False)
    assert started.returncode == 1
    assert "schema 1000" in started.stdout
