"""The Stripe simulator shows and refuses what Stripe shows and refuses, to the real stripe SDK."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import requests
import stripe
from stripe._api_version import _ApiVersion

from tests.stripe_process import CALL_S, Running, error_of


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
def empty(tmp_path: Path) -> Iterator[Running]:
    """A simulator that has charged nothing yet."""
    started = Running(tmp_path / "state.sqlite")
    yield started
    started.stop()


def test_a_charge_looks_as_stripes_does(simulated: Running) -> None:
    """Ids, headers and every field that the SDK declares as always present are there."""
    intent = simulated.pay("o-shape", description="Two seats")
    charge = intent.latest_charge
    assert (intent.status, intent.amount_received, intent.description) == ("succeeded", 2500, "Two seats")
    assert (charge.status, charge.paid, charge.captured, charge.amount_captured) == (
        "succeeded",
        True,
        True,
        2500,
    )
    assert charge.metadata["order_id"] == "o-shape"
    assert charge.payment_method_details.card.last4 == "4242"
    assert intent.client_secret.startswith(f"{intent.id}_secret_")
    ids = (intent.id, charge.id, charge.balance_transaction, intent.last_response.request_id)
    assert all(
        found.startswith(prefix) for found, prefix in zip(ids, ("pi_", "ch_", "txn_", "req_"), strict=True)
    )
    assert intent.last_response.headers["Stripe-Version"] == _ApiVersion.CURRENT
    for shown, declared in ((intent, stripe.PaymentIntent), (charge, stripe.Charge)):
        always = {name for name, kind in declared.__annotations__.items() if type(None) not in get_args(kind)}
        assert {"id", "amount", "created", "currency", "livemode", "metadata", "status"} <= always
        assert always - {"OBJECT_NAME"} <= set(shown.to_dict())
    assert simulated.intents.retrieve(intent.id).latest_charge == charge.id
    assert simulated.client.v1.charges.retrieve(charge.id).to_dict() == charge.to_dict()


@pytest.mark.parametrize(
    ("amount", "code", "decline_code", "message"),
    [
        (1013, "card_declined", None, "Your card was declined"),
        (1066, "card_declined", "insufficient_funds", "Insufficient funds on card"),
        (1099, "timeout", "processor_timeout", "Payment processor timeout"),
        (99_999_999, "processor_error", "amount_too_large", "Amount exceeds maximum limit"),
        (100_000_013, "processor_error", "amount_too_large", "Amount exceeds maximum limit"),
    ],
)
def test_amounts_decide_the_outcome(
    simulated: Running, amount: int, code: str, decline_code: str | None, message: str
) -> None:
    """A refused amount is a card error that carries the intent, and a failed charge in the ledger."""
    order = str(uuid.uuid4())
    with pytest.raises(stripe.CardError) as refused:
        simulated.pay(order, amount=amount)
    error = error_of(refused.value)
    assert refused.value.http_status == 402
    assert (error["code"], error.get("decline_code"), error["message"]) == (code, decline_code, message)
    assert error["payment_intent"]["status"] == "requires_payment_method"
    assert error["payment_intent"]["last_payment_error"]["code"] == code
    (charge,) = simulated.control.charges(order_id=order)
    assert (charge["status"], charge["failure_code"], charge["id"]) == ("failed", code, error["charge"])
    assert (charge["amount_captured"], charge["paid"], charge["payment_intent"]) == (
        0, False, error["payment_intent"]["id"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("amount", "currency"), [(113, "jpy"), (1_230, "kwd"), (10_099, "usd"), (1_300, "isk")]
)
def test_only_cents_decide(simulated: Running, amount: int, currency: str) -> None:
    """In currencies without cents the last two digits mean nothing; 99 cents of a dollar do."""
    if currency == "usd":
        with pytest.raises(stripe.CardError):
            simulated.pay(amount=amount, currency=currency)
    else:
        assert simulated.pay(amount=amount, currency=currency).status == "succeeded"


@pytest.mark.parametrize(
    ("method", "code", "decline_code"),
    [
        ("pm_card_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_visa_chargeDeclined", "card_declined", "generic_decline"),
        ("pm_card_chargeDeclinedInsufficientFunds", "card_declined", "insufficient_funds"),
        ("pm_card_chargeDeclinedLostCard", "card_declined", "lost_card"),
        ("pm_card_visa_chargeDeclinedStolenCard", "card_declined", "stolen_card"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", None),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", None),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", None),
    ],
)
def test_declining_cards_decline(
    simulated: Running, method: str, code: str, decline_code: str | None
) -> None:
    """Each of Stripe's declining test cards is refused with its own code."""
    with pytest.raises(stripe.CardError) as refused:
        simulated.pay(payment_method=method)
    error = error_of(refused.value)
    assert (error["code"], error.get("decline_code")) == (code, decline_code)


def test_a_redirect_is_no_matter_once_ruled_out(simulated: Running) -> None:
    """Without payment_method_types, allow_redirects=never or a return_url is enough."""
    never = {"enabled": True, "allow_redirects": "never"}
    assert simulated.pay(payment_method_types=None, automatic_payment_methods=never).status == "succeeded"
    assert (
        simulated.pay(payment_method_types=None, return_url="https://shop.example/done").status == "succeeded"
    )


def test_an_intent_is_confirmed_once(simulated: Running) -> None:
    """A declined intent can be tried again; a succeeded one neither confirmed nor cancelled."""
    intent = simulated.pay(confirm=False, payment_method=None)
    assert intent.status == "requires_payment_method"
    with pytest.raises(stripe.InvalidRequestError, match="missing a payment method"):
        simulated.intents.confirm(intent.id)
    with pytest.raises(stripe.CardError):
        simulated.intents.confirm(intent.id, {"payment_method": "pm_card_chargeDeclined"})
    assert simulated.intents.confirm(intent.id, {"payment_method": "pm_card_visa"}).status == "succeeded"
    assert simulated.intents.retrieve(intent.id).last_payment_error is None
    for call in (simulated.intents.confirm, simulated.intents.cancel, simulated.intents.capture):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            call(intent.id)
        assert refused.value.code == "payment_intent_unexpected_state"


def test_a_hold_is_captured_or_released(simulated: Running) -> None:
    """A partial capture takes its part and shows the rest as refunded; a cancel releases all of it."""
    hold = simulated.pay(capture_method="manual")
    assert (hold.status, hold.amount_capturable, hold.latest_charge.captured) == (
        "requires_capture",
        2500,
        False,
    )
    with pytest.raises(stripe.InvalidRequestError, match="exceeds"):
        simulated.intents.capture(hold.id, {"amount_to_capture": 2501})
    params: Any = {"amount_to_capture": 1000, "metadata": {"delivery": "d1"}, "expand": ["latest_charge"]}
    taken = simulated.intents.capture(hold.id, params)
    assert (taken.status, taken.amount_received, taken.amount_capturable) == ("succeeded", 1000, 0)
    assert (taken.latest_charge.amount_captured, taken.latest_charge.amount_refunded) == (1000, 1500)
    found = simulated.intents.search({"query": "metadata['delivery']:'d1'"})
    assert [intent.id for intent in found.data] == [hold.id]
    held = simulated.pay(capture_method="manual")
    released = simulated.intents.cancel(
        held.id, {"cancellation_reason": "abandoned", "expand": ["latest_charge"]}
    )
    assert (released.status, released.latest_charge.amount_refunded) == ("canceled", 2500)


@pytest.mark.parametrize(
    ("succeed", "status", "charges"), [(True, "succeeded", 1), (False, "requires_payment_method", 0)]
)
def test_a_customer_authenticates(simulated: Running, status: str, charges: int, *, succeed: bool) -> None:
    """3-D Secure stops the intent; only a customer who passes is charged."""
    order = str(uuid.uuid4())
    intent = simulated.pay(
        order, payment_method="pm_card_authenticationRequired", return_url="https://shop.example"
    )
    assert (intent.status, intent.next_action.type) == ("requires_action", "redirect_to_url")
    assert simulated.control.charges(order_id=order) == []
    told = {"payment_intent": intent.id, "succeed": succeed}
    assert (
        requests.post(f"{simulated.url}/_control/authenticate", json=told, timeout=CALL_S).json()["status"]
        == status
    )
    assert len(simulated.control.charges(order_id=order)) == charges
    after = simulated.intents.retrieve(intent.id)
    assert after.status == status
    assert succeed or after.last_payment_error.code == "payment_intent_authentication_failure"


def test_authentication_needs_the_customer(simulated: Running) -> None:
    """Without a return_url Stripe.js takes over; without the customer the card is refused."""
    card = "pm_card_threeDSecure2Required"
    assert simulated.pay(payment_method=card).next_action.type == "use_stripe_sdk"
    with pytest.raises(stripe.CardError) as refused:
        simulated.pay(payment_method=card, off_session=True)
    assert refused.value.code == "authentication_required"


def test_lists_are_walked_in_both_directions(empty: Running) -> None:
    """Newest first; cursors and time bounds neither skip nor repeat."""
    simulated = empty
    made = [simulated.pay(str(number)) for number in range(7)]
    newest_first = [intent.id for intent in reversed(made)]
    assert [intent.id for intent in simulated.intents.list({"limit": 3}).auto_paging_iter()] == newest_first
    page = simulated.intents.list(
        {"limit": 2, "ending_before": newest_first[5], "expand": ["data.latest_charge"]}
    )
    assert ([intent.id for intent in page.data], page.has_more) == (newest_first[3:5], True)
    assert page.data[0].latest_charge.status == "succeeded"
    since = {"created": {"gte": made[0].created, "lte": made[-1].created}, "limit": 100}
    assert [intent.id for intent in simulated.intents.list(since).data] == newest_first
    assert simulated.intents.list({"created": {"gt": made[-1].created}}).data == []
    for wrong in ({"limit": 101}, {"limit": 0}, {"starting_after": "pi_unknown"}, {"created": {"since": 1}}):
        with pytest.raises(stripe.InvalidRequestError):
            simulated.intents.list(wrong)


def test_search_finds_by_metadata_and_status(simulated: Running) -> None:
    """All clauses must hold; quotes in values are escaped; what is not simulated is refused."""
    order = f"it's {uuid.uuid4()}"
    paid = simulated.pay(order)
    with pytest.raises(stripe.CardError):
        simulated.pay(order, amount=1013)
    by_order = "metadata['order_id']:'{}'".format(order.replace("'", "\\'"))
    assert len(simulated.intents.search({"query": by_order}).data) == 2
    found = simulated.intents.search(
        {"query": f"{by_order} AND status:'succeeded'", "expand": ["data.latest_charge"]}
    )
    assert [(intent.id, intent.latest_charge.paid) for intent in found.data] == [(paid.id, True)]
    assert len(list(simulated.intents.search({"query": by_order, "limit": 1}).auto_paging_iter())) == 2
    for wrong in ("", "order_id", f"{by_order} OR status:'succeeded'", "amount:'5'"):
        with pytest.raises(stripe.InvalidRequestError):
            simulated.intents.search({"query": wrong})
