"""The Stripe simulator keeps customers and their cards as Stripe does, to the real stripe SDK."""

import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import requests
import stripe

from tests.stripe_process import CALL_S, Running, error_of

NEEDS_SET_UP = "pm_card_authenticationRequiredOnSetup"
ALWAYS_ASKS = "pm_card_authenticationRequired"
SET_UP_ALREADY = "pm_card_authenticationRequiredSetupForOffSession"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One simulator for the tests of this module."""
    started = Running(tmp_path_factory.mktemp("stripe") / "state.sqlite")
    yield started
    assert started.stop() == 0


def make_customer(simulated: Running, **params: Any) -> Any:
    """Make a customer with an e-mail address of their own."""
    return simulated.v1.customers.create({"email": f"{uuid.uuid4()}@shop.example"} | params)


def save(simulated: Running, customer: Any, card: str = "pm_card_visa") -> Any:
    """Save a card to a customer."""
    return simulated.v1.payment_methods.attach(card, {"customer": customer.id})


def authenticate(simulated: Running, *, succeed: bool = True, **intent: str) -> Any:
    """Let the customer authenticate."""
    told = {**intent, "succeed": succeed}
    answer = requests.post(f"{simulated.url}/_control/authenticate", json=told, timeout=CALL_S)
    answer.raise_for_status()
    return answer.json()


def always_there(declared: Any) -> set[str]:
    """Return the fields that the SDK declares as always present."""
    kinds = declared.__annotations__.items()
    return {name for name, kind in kinds if type(None) not in get_args(kind)} - {"OBJECT_NAME"}


def test_customers_are_changed_listed_and_deleted(simulated: Running) -> None:
    """What is not named stays; an e-mail address finds its customer; a deleted one is seen as such only."""
    customers = simulated.v1.customers
    made = make_customer(simulated, name="Ann", metadata={"client": "7", "old": "x"})
    assert always_there(stripe.Customer) <= set(made.to_dict())
    changed = customers.update(made.id, {"name": "Anna", "metadata": {"old": "", "new": "y"}})
    assert (changed.name, changed.email, changed.metadata.to_dict()) == (
        "Anna", made.email, {"client": "7", "new": "y"},
    )  # fmt: skip
    assert [found.id for found in customers.list({"email": made.email}).data] == [made.id]
    newer = make_customer(simulated)
    page = customers.list({"limit": 1, "created": {"gte": made.created}})
    assert ([found.id for found in page.data], page.has_more) == ([newer.id], True)
    assert customers.list({"starting_after": newer.id}).data[0].id == made.id
    assert customers.delete(made.id).deleted is True
    assert customers.retrieve(made.id).deleted is True
    assert customers.list({"email": made.email}).data == []
    with pytest.raises(stripe.InvalidRequestError) as refused:
        customers.update(made.id, {"name": "Nobody"})
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")


def test_a_test_card_becomes_the_customers_own(simulated: Running) -> None:
    """Saving a test card twice makes two; each belongs to one customer and can be their default."""
    methods = simulated.v1.payment_methods
    ann, ben = make_customer(simulated), make_customer(simulated)
    first, second = save(simulated, ann), save(simulated, ann, "pm_card_mastercard")
    assert always_there(stripe.PaymentMethod) <= set(first.to_dict())
    assert (first.customer, first.card.last4, second.card.brand) == (ann.id, "4242", "mastercard")
    assert methods.retrieve(first.id).to_dict() == first.to_dict()
    for listed in (
        methods.list({"customer": ann.id}),
        simulated.v1.customers.payment_methods.list(ann.id),
    ):
        assert [found.id for found in listed.data] == [second.id, first.id]
    assert methods.attach(first.id, {"customer": ann.id}).customer == ann.id
    with pytest.raises(stripe.InvalidRequestError, match="already been attached"):
        methods.attach(first.id, {"customer": ben.id})
    settings: Any = {"invoice_settings": {"default_payment_method": first.id}}
    changed = simulated.v1.customers.update(ann.id, settings)
    assert changed.invoice_settings.default_payment_method == first.id
    with pytest.raises(stripe.InvalidRequestError, match="must be attached to the customer"):
        simulated.v1.customers.update(ben.id, settings)


def test_a_detached_card_is_never_used_again(simulated: Running) -> None:
    """Detaching takes a card from its customer, from their default and from every later use."""
    methods = simulated.v1.payment_methods
    ann = make_customer(simulated)
    card = save(simulated, ann)
    settings: Any = {"invoice_settings": {"default_payment_method": card.id}}
    simulated.v1.customers.update(ann.id, settings)
    waiting = simulated.pay(confirm=None, customer=ann.id, payment_method=card.id)
    assert methods.detach(card.id).customer is None
    assert simulated.v1.customers.retrieve(ann.id).invoice_settings.default_payment_method is None
    assert methods.list({"customer": ann.id}).data == []
    uses: list[Callable[[], Any]] = [
        lambda: simulated.pay(customer=ann.id, payment_method=card.id),
        lambda: simulated.intents.confirm(waiting.id),
        lambda: methods.attach(card.id, {"customer": ann.id}),
    ]
    for use in uses:
        with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
            use()
    with pytest.raises(stripe.InvalidRequestError, match="so detachment is impossible"):
        methods.detach(card.id)


def test_a_saved_card_pays_for_its_customer_only(simulated: Running) -> None:
    """Without the customer, or with another, the card is refused; with them it pays, again and again."""
    ann, ben = make_customer(simulated), make_customer(simulated)
    card = save(simulated, ann)
    order = str(uuid.uuid4())
    with pytest.raises(stripe.InvalidRequestError, match="belongs to the Customer") as refused:
        simulated.pay(order, payment_method=card.id)
    assert refused.value.code == "parameter_missing"
    with pytest.raises(stripe.InvalidRequestError, match="does not belong to the Customer") as refused:
        simulated.pay(order, payment_method=card.id, customer=ben.id)
    assert error_of(refused.value)["param"] == "payment_method"
    waiting = simulated.pay(order, confirm=None, payment_method=None, customer=ben.id)
    with pytest.raises(stripe.InvalidRequestError, match="does not belong to the Customer") as refused:
        simulated.intents.confirm(waiting.id, {"payment_method": card.id})
    assert error_of(refused.value)["payment_intent"]["id"] == waiting.id
    assert simulated.control.charges(order_id=order) == []
    for _ in range(2):
        paid = simulated.pay(order, payment_method=card.id, customer=ann.id, off_session=True)
        assert (paid.customer, paid.payment_method, paid.latest_charge.customer) == (ann.id, card.id, ann.id)
    listed = simulated.intents.list({"customer": ann.id}).data
    assert [intent.customer for intent in listed] == [ann.id, ann.id]
    assert [intent.id for intent in simulated.intents.list({"customer": ben.id}).data] == [waiting.id]


def test_a_declining_card_cannot_be_saved(simulated: Running) -> None:
    """The check that saving makes is declined as a charge is; pm_card_chargeCustomerFail passes it."""
    ann = make_customer(simulated)
    with pytest.raises(stripe.CardError) as refused:
        save(simulated, ann, "pm_card_chargeDeclinedInsufficientFunds")
    assert error_of(refused.value)["decline_code"] == "insufficient_funds"
    card = save(simulated, ann, "pm_card_chargeCustomerFail")
    with pytest.raises(stripe.CardError):
        simulated.pay(payment_method=card.id, customer=ann.id, off_session=True)
    assert [found.id for found in simulated.v1.payment_methods.list({"customer": ann.id}).data] == [card.id]


def test_a_card_from_a_token_pays_once_or_is_saved(simulated: Running) -> None:
    """A payment method made of a token is spent by one payment; setup_future_usage saves it instead."""
    methods = simulated.v1.payment_methods
    details: Any = {"name": "Ann", "address": {"city": "Oslo"}}
    made = methods.create({"type": "card", "card": {"token": "tok_visa"}, "billing_details": details})
    assert (made.billing_details.name, made.billing_details.address.city, made.customer) == (
        "Ann",
        "Oslo",
        None,
    )
    assert simulated.pay(payment_method=made.id).status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError, match="may not be used again"):
        simulated.pay(payment_method=made.id)
    ann = make_customer(simulated)
    paid = simulated.pay(customer=ann.id, setup_future_usage="off_session")
    assert methods.retrieve(paid.payment_method).customer == ann.id
    assert (
        simulated.pay(customer=ann.id, payment_method=paid.payment_method, off_session=True).status
        == "succeeded"
    )
    number = {"number": "4242424242424242", "exp_month": "1", "exp_year": "2034"}
    with pytest.raises(stripe.InvalidRequestError, match="generally unsafe"):
        methods.create({"type": "card", "card": {"token": "tok_visa"} | number})


def pays_off_session(simulated: Running, customer: Any, card: str) -> str:
    """Return how an off-session payment ends: succeeded, or the code it is declined with."""
    try:
        return str(simulated.pay(customer=customer.id, payment_method=card, off_session=True).status)
    except stripe.CardError as refused:
        return str(refused.code)


@pytest.mark.parametrize(
    ("card", "before", "after"),
    [
        ("pm_card_visa", "succeeded", "succeeded"),
        (NEEDS_SET_UP, "authentication_required", "succeeded"),
        (ALWAYS_ASKS, "authentication_required", "authentication_required"),
        (SET_UP_ALREADY, "succeeded", "succeeded"),
    ],
)
def test_setting_a_card_up_spares_later_authentication(
    simulated: Running, card: str, before: str, after: str
) -> None:
    """A SetupIntent saves the card; issuers that ask until it is set up do not ask off session afterwards."""
    ann = make_customer(simulated)
    assert pays_off_session(simulated, ann, save(simulated, ann, card).id) == before
    params: Any = {
        "customer": ann.id,
        "payment_method": card,
        "payment_method_types": ["card"],
        "confirm": True,
    }
    setup = simulated.v1.setup_intents.create(params)
    assert always_there(stripe.SetupIntent) <= set(setup.to_dict())
    if setup.status == "requires_action":
        assert authenticate(simulated, setup_intent=setup.id)["status"] == "succeeded"
    setup = simulated.v1.setup_intents.retrieve(setup.id)
    assert setup.status == "succeeded"
    assert simulated.v1.payment_methods.retrieve(str(setup.payment_method)).customer == ann.id
    assert pays_off_session(simulated, ann, str(setup.payment_method)) == after


def test_an_authenticated_payment_sets_its_card_up(simulated: Running) -> None:
    """A payment with setup_future_usage that the customer has authenticated does what a SetupIntent does."""
    ann = make_customer(simulated)
    paid = simulated.pay(customer=ann.id, payment_method=NEEDS_SET_UP, setup_future_usage="off_session")
    assert paid.status == "requires_action"
    card = authenticate(simulated, payment_intent=paid.id)["payment_method"]
    assert pays_off_session(simulated, ann, card) == "succeeded"


def test_a_setup_intent_fails_and_ends(simulated: Running) -> None:
    """A failed authentication leaves it open for another card; what has ended stays so."""
    setups = simulated.v1.setup_intents
    ann = make_customer(simulated)
    setup = setups.create({"customer": ann.id, "payment_method_types": ["card"], "usage": "on_session"})
    assert setups.confirm(setup.id, {"payment_method": ALWAYS_ASKS}).status == "requires_action"
    failed = authenticate(simulated, setup_intent=setup.id, succeed=False)
    assert (failed["status"], failed["last_setup_error"]["code"]) == (
        "requires_payment_method", "setup_intent_authentication_failure",
    )  # fmt: skip
    with pytest.raises(stripe.CardError):
        setups.confirm(setup.id, {"payment_method": "pm_card_chargeDeclined"})
    assert setups.cancel(setup.id, {"cancellation_reason": "abandoned"}).status == "canceled"
    for call in (setups.cancel, setups.confirm):
        with pytest.raises(stripe.InvalidRequestError) as refused:
            call(setup.id)
        assert refused.value.code == "setup_intent_unexpected_state"
    assert simulated.v1.payment_methods.list({"customer": ann.id}).data == []


def test_customers_and_cards_outlive_a_killed_simulator(tmp_path: Path) -> None:
    """A kill -9 loses no customer and no saved card, and a repeat of a key makes no second one."""
    state = tmp_path / "state.sqlite"
    first = Running(state)
    options: Any = {"idempotency_key": "cus-1"}
    ann = first.v1.customers.create({"email": "ann@shop.example"}, options)
    card = save(first, ann)
    assert first.stop(signal.SIGKILL) == -signal.SIGKILL
    second = Running(state)
    try:
        assert second.v1.customers.create({"email": "ann@shop.example"}, options).id == ann.id
        assert second.v1.payment_methods.retrieve(card.id).to_dict() == card.to_dict()
        assert second.pay(customer=ann.id, payment_method=card.id).status == "succeeded"
    finally:
        second.stop()
