"""SetupIntents: a card is checked, authenticated and saved to its customer without a payment."""

from dataclasses import asdict
from typing import Any

from deploy.stripe_simulator import intents, params, saved_cards
from deploy.stripe_simulator.customers import find_customer
from deploy.stripe_simulator.errors import card_error, invalid, missing, unexpected_state
from deploy.stripe_simulator.events import announce
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.intent_params import check_return_url
from deploy.stripe_simulator.operation import Operation, always, never
from deploy.stripe_simulator.params import Params, not_simulated, one_of, text
from deploy.stripe_simulator.payment_methods import CARDS, Decline, asks_customer, refuses_to_be_saved
from deploy.stripe_simulator.rendering import Rendered, last_error, shown
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.wire import Form

SETUP = "setup_intent"
SETUPS_URL = "/v1/setup_intents"
OPEN = ("requires_payment_method", "requires_confirmation", "requires_action")

AUTHENTICATION_FAILED = Decline(
    "setup_intent_authentication_failure",
    None,
    "The latest attempt to set up the payment method has failed because authentication failed.",
)
NO_PAYMENT_METHOD = (
    "You cannot confirm this SetupIntent because it's missing a payment method. Update the SetupIntent with "
    "a payment method and then confirm it again."
)

SHAPE: Rendered = {
    "id": None,
    "object": "setup_intent",
    "application": None,
    "automatic_payment_methods": None,
    "cancellation_reason": None,
    "client_secret": None,
    "created": 0,
    "customer": None,
    "customer_account": None,
    "description": None,
    "excluded_payment_method_types": None,
    "flow_directions": None,
    "last_setup_error": None,
    "latest_attempt": None,
    "livemode": False,
    "mandate": None,
    "metadata": {},
    "next_action": None,
    "on_behalf_of": None,
    "payment_method": None,
    "payment_method_configuration_details": None,
    "payment_method_options": {
        "card": {"mandate_options": None, "network": None, "request_three_d_secure": "automatic"}
    },
    "payment_method_types": ["card"],
    "single_use_mandate": None,
    "status": None,
    "usage": "off_session",
}
_CONFIRM: dict[str, params.Check] = {
    "expand": params.expansions(),
    "payment_method": text(),
    "return_url": params.url,
    "use_stripe_sdk": params.boolean,
    **dict.fromkeys(
        ("confirmation_token", "mandate_data", "payment_method_data", "payment_method_options"), not_simulated
    ),
}
_CREATE: dict[str, params.Check] = {
    **_CONFIRM,
    "automatic_payment_methods": params.mapping(
        {"allow_redirects": one_of("always", "never"), "enabled": params.boolean}, required=("enabled",)
    ),
    "confirm": params.boolean,
    "customer": text(),
    "description": text(1000),
    "metadata": params.metadata,
    "payment_method_types": params.strings,
    "usage": one_of("off_session", "on_session"),
    **dict.fromkeys(
        (
            "attach_to_self", "customer_account", "excluded_payment_method_types", "flow_directions",
            "on_behalf_of", "payment_method_configuration", "single_use",
        ),
        not_simulated,
    ),
}  # fmt: skip
_CANCEL: dict[str, params.Check] = {
    "cancellation_reason": one_of("abandoned", "duplicate", "requested_by_customer"),
    "expand": params.expansions(),
}


def show(facts: Facts) -> Rendered:
    """Return a SetupIntent."""
    rendered = {**SHAPE, **shown(facts)}
    if decline := facts.get("_last_error"):
        rendered["last_setup_error"] = last_error(decline)
    return rendered


def _check_create(form: Form) -> Params:
    checked = params.validate(form, _CREATE)
    if checked.get("confirm"):
        if "payment_method" not in checked:
            raise invalid(NO_PAYMENT_METHOD, code="setup_intent_unexpected_state")
        if "payment_method_types" not in checked:
            check_return_url(checked.get("automatic_payment_methods", {}), checked)
    elif "return_url" in checked:
        message = "The parameter `return_url` cannot be passed unless `confirm` is set to true."
        raise invalid(message, param="return_url")
    if checked.get("payment_method_types", ["card"]) != ["card"]:
        message = "Only card payment methods are simulated."
        raise invalid(message, param="payment_method_types")
    return checked


def _new(store: Store, checked: Params) -> Facts:
    setup_id = new_id("seti_1")
    names = ("customer", "description", "metadata", "usage")
    setup: Facts = {name: checked[name] for name in names if name in checked}
    setup |= {
        "id": setup_id,
        "client_secret": new_id(f"{setup_id}_secret_", 25),
        "created": store.now_s(),
        "status": "requires_payment_method",
    }
    if "payment_method_types" not in checked:
        redirects = checked.get("automatic_payment_methods", {}).get("allow_redirects", "always")
        setup["automatic_payment_methods"] = {"allow_redirects": redirects, "enabled": True}
        setup["payment_method_types"] = ["card", "link"]
    return setup


def create(store: Store, _target: str, checked: Params) -> Rendered:
    """Make a SetupIntent and, with confirm, try to set the card up."""
    if "customer" in checked:
        find_customer(store, checked["customer"], param="customer")
    setup = _new(store, checked)
    _take_method(store, setup, checked)
    announce(store, "setup_intent.created", show, setup)
    if checked.get("confirm"):
        _attempt(store, setup, checked)
    store.insert(SETUP, setup)
    return _result(setup)


def confirm(store: Store, target: str, checked: Params) -> Rendered:
    """Try to set a card up."""
    setup = find(store, target)
    if setup["status"] not in OPEN:
        message = f"You cannot confirm this SetupIntent because it has a status of {setup['status']}."
        raise unexpected_state(message, show(setup))
    check_return_url(setup.get("automatic_payment_methods"), checked)
    _take_method(store, setup, checked)
    if "payment_method" not in setup:
        raise unexpected_state(NO_PAYMENT_METHOD, show(setup))
    _attempt(store, setup, checked)
    store.update(setup)
    return _result(setup)


def _take_method(store: Store, setup: Facts, checked: Params) -> None:
    method_id = checked.get("payment_method") or (setup.get("_kept") and setup["payment_method"])
    if method_id:
        customer = setup.get("customer")
        intents.attach(setup, saved_cards.usable(store, method_id, customer, intent="SetupIntent"))


def _attempt(store: Store, setup: Facts, checked: Params) -> None:
    for name in ("next_action", "_last_error"):
        setup.pop(name, None)
    card = CARDS[setup["_card"]]
    if asks_customer(card, off_session=False):
        page = f"https://hooks.stripe.com/3d_secure_2/hosted?setup_intent={setup['id']}"
        action: dict[str, Any] = {"type": "use_stripe_sdk", "use_stripe_sdk": {"stripe_js": page}}
        if return_url := checked.get("return_url"):
            redirect = {"return_url": return_url, "url": page}
            action = {"type": "redirect_to_url", "redirect_to_url": redirect}
        setup |= {"status": "requires_action", "next_action": action}
        announce(store, "setup_intent.requires_action", show, setup)
    elif decline := refuses_to_be_saved(card):
        _refuse(store, setup, decline, "card_error")
    else:
        _succeed(store, setup)


def _succeed(store: Store, setup: Facts) -> None:
    setup["status"] = "succeeded"
    saved_cards.keep_used(store, setup, usage=setup.get("usage", "off_session"))
    announce(store, "setup_intent.succeeded", show, setup)


def _refuse(store: Store, setup: Facts, decline: Decline, error_type: str) -> None:
    method = intents.forget_method(setup)
    setup |= {
        "status": "requires_payment_method",
        "_last_error": {
            **asdict(decline),
            "type": error_type,
            "_method": method["payment_method"],
            "_card": method["_card"],
            "_owner": method.get("_owner"),
            "_at": store.now_s(),
        },
    }
    announce(store, "setup_intent.setup_failed", show, setup)


def _result(setup: Facts) -> Rendered:
    rendered = show(setup)
    if (error := rendered["last_setup_error"]) is not None:
        raise card_error(error, rendered)
    return rendered


def cancel(store: Store, target: str, checked: Params) -> Rendered:
    """Cancel a SetupIntent that has not succeeded."""
    setup = find(store, target)
    if setup["status"] not in OPEN:
        message = (
            f"You cannot cancel this SetupIntent because it has a status of {setup['status']}. Only a "
            f"SetupIntent with one of the following statuses may be canceled: {', '.join(OPEN)}."
        )
        raise unexpected_state(message, show(setup))
    setup.pop("next_action", None)
    setup |= {"status": "canceled", "cancellation_reason": checked.get("cancellation_reason")}
    store.update(setup)
    announce(store, "setup_intent.canceled", show, setup)
    return show(setup)


def authenticate(store: Store, target: str, *, succeed: bool) -> Rendered:
    """Finish a customer's authentication and show the SetupIntent it leaves."""
    setup = find(store, target)
    if setup["status"] != "requires_action":
        message = f"This SetupIntent has a status of {setup['status']}: it waits for no authentication."
        raise unexpected_state(message, show(setup))
    setup.pop("next_action", None)
    if succeed:
        _succeed(store, setup)
    else:
        _refuse(store, setup, AUTHENTICATION_FAILED, "invalid_request_error")
    store.update(setup)
    return show(setup)


def find(store: Store, object_id: str) -> Facts:
    """Return a SetupIntent's facts. Raises StripeError when there is none."""
    if (facts := store.find(SETUP, object_id)) is None:
        raise missing("setupintent", object_id, param="intent", status=404)
    return facts


def retrieve(store: Store, object_id: str, form: Form) -> Rendered:
    """Show one SetupIntent. Raises StripeError."""
    params.validate(form, {"client_secret": text(), "expand": params.expansions()})
    return show(find(store, object_id))


CREATE_SETUP = Operation(_check_create, create, lambda checked: checked.get("confirm", False))
CONFIRM_SETUP = Operation(lambda form: params.validate(form, _CONFIRM), confirm, always)
CANCEL_SETUP = Operation(lambda form: params.validate(form, _CANCEL), cancel, never)
