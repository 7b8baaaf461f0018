"""The Stripe simulator refunds as Stripe does, to the real stripe SDK."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import requests
import stripe

from tests.stripe_process import CALL_S, Running, error_of
from tests.waiting import wait_until

SETTLES_S = 30
HOLD_S = 7 * 24 * 3600


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One simulator for the tests of this module."""
    started = Running(tmp_path_factory.mktemp("stripe") / "state.sqlite")
    yield started
    assert started.stop() == 0


def steer(simulated: Running, refund: Any, status: str, **more: str) -> requests.Response:
    """Move a refund as its bank would."""
    told = {"refund": refund.id, "status": status, **more}
    return requests.post(f"{simulated.url}/_control/refund", json=told, timeout=CALL_S)


def charge_of(simulated: Running, intent: Any) -> Any:
    """Return an intent's charge as it is now."""
    return simulated.v1.charges.retrieve(intent.latest_charge.id)


def test_a_refund_looks_as_stripes_does(simulated: Running) -> None:
    """Every field the SDK declares as always present is there; metadata, reason and charge are kept."""
    paid = simulated.pay("o-refund")
    params = {
        "payment_intent": paid.id, "amount": 700, "reason": "duplicate", "metadata": {"operation_id": "7"},
        "expand": ["charge", "payment_intent"],
    }  # fmt: skip
    refund = simulated.v1.refunds.create(params)
    kinds = stripe.Refund.__annotations__.items()
    always = {name for name, kind in kinds if type(None) not in get_args(kind)} - {"OBJECT_NAME"}
    assert always <= set(refund.to_dict())
    assert (refund.status, refund.amount, refund.currency, refund.reason) == (
        "succeeded",
        700,
        "usd",
        "duplicate",
    )
    assert (refund.charge.id, refund.payment_intent.id) == (paid.latest_charge.id, paid.id)
    kept = simulated.v1.refunds.retrieve(refund.id)
    assert (kept.metadata.to_dict(), kept.charge) == ({"operation_id": "7"}, paid.latest_charge.id)
    changed = simulated.v1.refunds.update(refund.id, {"metadata": {"seen": "yes"}})
    assert changed.metadata.to_dict() == {"operation_id": "7", "seen": "yes"}


def test_refunds_add_up_to_the_charge_and_no_further(simulated: Running) -> None:
    """Partial refunds come off what is left; more than that is refused and changes nothing."""
    paid = simulated.pay()
    first = simulated.v1.refunds.create({"payment_intent": paid.id, "amount": 500})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        simulated.v1.refunds.create({"charge": paid.latest_charge.id, "amount": 2001})
    assert error_of(refused.value)["message"] == (
        "Refund amount ($20.01) is greater than unrefunded amount on charge ($20.00)"
    )
    assert error_of(refused.value)["param"] == "amount"
    assert (charge_of(simulated, paid).amount_refunded, charge_of(simulated, paid).refunded) == (500, False)
    rest = simulated.v1.refunds.create({"charge": paid.latest_charge.id})
    assert rest.amount == 2000
    assert (charge_of(simulated, paid).amount_refunded, charge_of(simulated, paid).refunded) == (2500, True)
    with pytest.raises(stripe.InvalidRequestError) as refused:
        simulated.v1.refunds.create({"payment_intent": paid.id, "amount": 1})
    assert refused.value.code == "charge_already_refunded"
    listed = simulated.v1.refunds.list({"payment_intent": paid.id})
    assert [refund.id for refund in listed.data] == [rest.id, first.id]
    page = simulated.v1.refunds.list({"charge": paid.latest_charge.id, "limit": 1, "created": {"gte": 1}})
    assert ([refund.id for refund in page.data], page.has_more) == ([rest.id], True)
    shown = simulated.intents.retrieve(paid.id, {"expand": ["latest_charge.refunds"]})
    assert [refund.id for refund in shown.latest_charge.refunds.data] == [rest.id, first.id]
    assert "refunds" not in charge_of(simulated, paid).to_dict()


def test_a_repeated_key_refunds_once(simulated: Running) -> None:
    """The same key answers with the same refund, and the charge is refunded once."""
    paid = simulated.pay()
    options = {"idempotency_key": f"refund-{uuid.uuid4()}"}
    params = {"payment_intent": paid.id, "amount": 100}
    once, again = (simulated.v1.refunds.create(params, options) for _ in range(2))
    assert once.id == again.id
    assert charge_of(simulated, paid).amount_refunded == 100


@pytest.mark.parametrize(
    ("params", "status", "code", "param"),
    [
        ({}, 400, "parameter_missing", None),
        ({"payment_intent": "pi_unknown"}, 400, "resource_missing", "payment_intent"),
        ({"charge": "ch_unknown"}, 400, "resource_missing", "charge"),
        ({"charge": "ch_unknown", "amount": 0}, 400, "parameter_invalid_integer", "amount"),
        ({"charge": "ch_unknown", "reason": "bored"}, 400, None, "reason"),
        ({"charge": "ch_unknown", "colour": "red"}, 400, "parameter_unknown", "colour"),
    ],
)
def test_wrong_refunds_are_refused(
    simulated: Running, params: dict[str, Any], status: int, code: str | None, param: str | None
) -> None:
    """What makes no sense is refused with the parameter that is wrong."""
    with pytest.raises(stripe.InvalidRequestError) as refused:
        simulated.v1.refunds.create(params)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (status, code, param)


def test_only_captured_money_is_refunded(simulated: Running) -> None:
    """A hold, a cancelled hold, a declined and an unconfirmed intent have no charge to refund."""
    hold, gone = simulated.pay(capture_method="manual"), simulated.pay(capture_method="manual")
    simulated.intents.cancel(gone.id)
    with pytest.raises(stripe.CardError) as declined:
        simulated.pay(payment_method="pm_card_chargeDeclined")
    intents = [
        hold.id,
        gone.id,
        error_of(declined.value)["payment_intent"]["id"],
        simulated.pay(confirm=None).id,
    ]
    for intent in intents:
        with pytest.raises(stripe.InvalidRequestError, match="does not have a successful charge to refund"):
            simulated.v1.refunds.create({"payment_intent": intent})


def test_released_money_shows_as_refunded(simulated: Running) -> None:
    """A partial capture leaves a refund of the rest, not to be refunded; a cancel one of all of it."""
    hold, gone = simulated.pay(capture_method="manual"), simulated.pay(capture_method="manual")
    assert (
        hold.latest_charge.payment_method_details.card.capture_before == hold.latest_charge.created + HOLD_S
    )
    expand = ["latest_charge.refunds"]
    taken = simulated.intents.capture(hold.id, {"amount_to_capture": 1000, "expand": expand})
    (released,) = taken.latest_charge.refunds.data
    assert (released.amount, released.metadata.to_dict(), taken.latest_charge.amount_refunded) == (
        1500,
        {},
        1500,
    )
    with pytest.raises(stripe.InvalidRequestError, match=r"\(\$10.01\) is greater .* \(\$10.00\)"):
        simulated.v1.refunds.create({"payment_intent": hold.id, "amount": 1001})
    assert simulated.v1.refunds.create({"payment_intent": hold.id}).amount == 1000
    assert (charge_of(simulated, hold).amount_refunded, charge_of(simulated, hold).refunded) == (2500, True)
    canceled = simulated.intents.cancel(gone.id, {"expand": expand})
    assert [refund.amount for refund in canceled.latest_charge.refunds.data] == [2500]


@pytest.mark.parametrize(
    ("card", "first", "last", "refunded"),
    [
        ("pm_card_pendingRefund", "pending", "succeeded", 2500),
        ("pm_card_refundFail", "succeeded", "failed", 0),
    ],
)
def test_some_cards_settle_later(simulated: Running, card: str, first: str, last: str, refunded: int) -> None:
    """Stripe's cards for refunds change their refund a little later; a failed one is given back."""
    paid = simulated.pay(payment_method=card)
    refund = simulated.v1.refunds.create({"payment_intent": paid.id})
    assert (refund.status, charge_of(simulated, paid).amount_refunded) == (first, 2500)
    settled = wait_until(
        lambda: found if (found := simulated.v1.refunds.retrieve(refund.id)).status == last else None,
        SETTLES_S, "the refund to settle",
    )  # fmt: skip
    assert (charge_of(simulated, paid).amount_refunded, charge_of(simulated, paid).refunded) == (
        refunded, refunded == 2500,
    )  # fmt: skip
    if last == "failed":
        assert settled.failure_reason == "unknown"
        assert settled.failure_balance_transaction.startswith("txn_")


def test_a_refund_is_moved_by_hand(simulated: Running) -> None:
    """A refund moves as a bank would move it only; only one that waits for action is cancelled."""
    paid = simulated.pay(payment_method="pm_card_pendingRefund")
    refund = simulated.v1.refunds.create({"payment_intent": paid.id, "amount": 900})
    with pytest.raises(stripe.InvalidRequestError, match="requires_action"):
        simulated.v1.refunds.cancel(refund.id)
    assert steer(simulated, refund, "requires_action").json()["next_action"]["type"] == "display_details"
    assert simulated.v1.refunds.cancel(refund.id).status == "canceled"
    assert charge_of(simulated, paid).amount_refunded == 0
    assert steer(simulated, refund, "succeeded").status_code == 400
    done = simulated.v1.refunds.create({"payment_intent": simulated.pay().id})
    assert steer(simulated, done, "failed", failure_reason="bored").status_code == 400
    failed = steer(simulated, done, "failed", failure_reason="lost_or_stolen_card").json()
    assert (failed["status"], failed["failure_reason"]) == ("failed", "lost_or_stolen_card")
    assert steer(simulated, done, "failed").status_code == 400


def test_refunds_outlive_a_killed_simulator(tmp_path: Path) -> None:
    """Refunds, what is left of their charge and what is still to settle are there after a kill -9."""
    state = tmp_path / "state.sqlite"
    first = Running(state)
    paid = first.pay(payment_method="pm_card_pendingRefund")
    refund = first.v1.refunds.create({"payment_intent": paid.id, "amount": 900})
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = Running(state)
    try:
        assert charge_of(second, paid).amount_refunded == 900
        ledger = requests.get(f"{second.url}/_control/ledger?kind=refund", timeout=CALL_S).json()
        assert [found["id"] for found in ledger["data"]] == [refund.id]
        wait_until(
            lambda: second.v1.refunds.retrieve(refund.id).status == "succeeded",
            SETTLES_S,
            "the refund to settle",
        )
    finally:
        second.stop()
