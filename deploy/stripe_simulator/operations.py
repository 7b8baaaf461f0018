"""What the POST endpoints do: how their parameters are checked, and what they then change."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from deploy.stripe_simulator import intents, params, rendering
from deploy.stripe_simulator.currencies import check_amount, check_currency
from deploy.stripe_simulator.errors import card_error, invalid, missing
from deploy.stripe_simulator.params import Params, not_simulated, one_of, text
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.wire import Form

INTENT = "payment_intent"
CHARGE = "charge"


@dataclass(frozen=True, slots=True)
class Operation:
    """A POST endpoint.

    `check` sees only the request. `execute` sees the state too and runs in a transaction; it writes all
    or nothing before it raises StripeError. `confirms` tells whether the call asks a card network, which is
    what takes time.
    """

    check: Callable[[Form], Params]
    execute: Callable[[Store, str, Params], rendering.Rendered]
    confirms: Callable[[Params], bool]


_EXPAND = params.expansions("latest_charge")
_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), text())
_SHIPPING = {
    "address": params.mapping(_ADDRESS),
    **dict.fromkeys(("carrier", "name", "phone", "tracking_number"), text()),
}
_CAPTURE_METHOD = one_of("automatic", "automatic_async", "manual")

# What only makes sense together with confirm=true, or in the confirm call itself.
_CONFIRM_ONLY: dict[str, params.Check] = {
    "error_on_requires_action": params.boolean,
    "mandate": not_simulated,
    "mandate_data": not_simulated,
    "off_session": params.boolean,
    "return_url": params.url,
}
_ON_BOTH: dict[str, params.Check] = {
    "capture_method": _CAPTURE_METHOD,
    "expand": _EXPAND,
    "payment_method": text(),
    "receipt_email": params.email,
    "setup_future_usage": one_of("off_session", "on_session"),
    "shipping": params.mapping(_SHIPPING),
    "use_stripe_sdk": params.boolean,
    **dict.fromkeys(
        (
            "allowed_payment_method_types", "amount_details", "confirmation_token",
            "excluded_payment_method_types", "hooks", "payment_details", "payment_method_data",
            "payment_method_options", "radar_options",
        ),
        not_simulated,
    ),
}  # fmt: skip
CREATE: dict[str, params.Check] = {
    **_CONFIRM_ONLY,
    **_ON_BOTH,
    "amount": params.integer(minimum=1),
    "automatic_payment_methods": params.mapping(
        {"allow_redirects": one_of("always", "never"), "enabled": params.boolean}, required=("enabled",)
    ),
    "confirm": params.boolean,
    "confirmation_method": one_of("automatic", "manual"),
    "currency": text(),
    "customer": text(),
    "description": text(1000),
    "metadata": params.metadata,
    "payment_method_types": params.strings,
    "statement_descriptor": text(22),
    "statement_descriptor_suffix": text(22),
    "transfer_group": text(),
    **dict.fromkeys(
        (
            "application_fee_amount", "customer_account", "on_behalf_of", "payment_method_configuration",
            "transfer_data",
        ),
        not_simulated,
    ),
}  # fmt: skip
CONFIRM: dict[str, params.Check] = {**_CONFIRM_ONLY, **_ON_BOTH, "amount_to_confirm": not_simulated}
CAPTURE: dict[str, params.Check] = {
    "amount_to_capture": params.integer(minimum=1),
    "expand": _EXPAND,
    "metadata": params.metadata,
    **dict.fromkeys(
        (
            "amount_details", "application_fee_amount", "final_capture", "hooks", "payment_details",
            "statement_descriptor", "statement_descriptor_suffix", "transfer_data",
        ),
        not_simulated,
    ),
}  # fmt: skip
CANCEL: dict[str, params.Check] = {
    "cancellation_reason": one_of("duplicate", "fraudulent", "requested_by_customer", "abandoned"),
    "expand": _EXPAND,
}


def check_create(form: Form) -> Params:
    """Check the parameters of a new intent. Raises StripeError."""
    checked = params.validate(form, CREATE, required=("amount", "currency"))
    checked["currency"] = check_currency(checked["currency"])
    check_amount(checked["amount"], checked["currency"])
    _check_method_types(checked)
    if not checked.get("confirm", False):
        for name in _CONFIRM_ONLY:
            if name in checked:
                message = f"The parameter `{name}` cannot be passed unless `confirm` is set to true."
                raise invalid(message, param=name)
        return checked
    if "payment_method" not in checked:
        raise invalid(intents.NO_PAYMENT_METHOD, code="payment_intent_unexpected_state")
    if "payment_method_types" not in checked:
        check_return_url(checked.get("automatic_payment_methods", {}), checked)
    return checked


def _check_method_types(checked: Params) -> None:
    types = checked.get("payment_method_types")
    if types is None:
        if not checked.get("automatic_payment_methods", {"enabled": True})["enabled"]:
            checked["payment_method_types"] = ["card"]
        return
    if checked.get("automatic_payment_methods", {}).get("enabled"):
        message = (
            "You may only specify one of these parameters: automatic_payment_methods, payment_method_types."
        )
        raise invalid(message, param="payment_method_types")
    for name in types:
        if name != "card":
            message = (
                f'The payment method type "{name}" is invalid. Please ensure the provided type is activated '
                "in your dashboard (https://dashboard.stripe.com/account/payments/settings)."
            )
            raise invalid(message, param="payment_method_types", code="payment_intent_invalid_parameter")


def check_return_url(automatic_payment_methods: Mapping[str, Any] | None, checked: Mapping[str, Any]) -> None:
    """Raise StripeError when a redirect is possible and no return_url is given."""
    if intents.needs_return_url(automatic_payment_methods) and "return_url" not in checked:
        message = (
            "This PaymentIntent is configured to accept payment methods enabled in your Dashboard. Because "
            "some of these payment methods might redirect your customer off of your page, you must provide a "
            "`return_url`. If you don't want to accept redirect-based payment methods, set "
            "`automatic_payment_methods[enabled]` to `true` and `automatic_payment_methods[allow_redirects]` "
            "to `never` when creating Setup Intents and Payment Intents."
        )
        raise invalid(message, param="return_url")


def create(store: Store, _target: str, checked: Params) -> rendering.Rendered:
    """Make an intent and, with confirm, try to pay it."""
    if "customer" in checked:  # the simulator keeps no customers
        raise missing("customer", checked["customer"], param="customer")
    now_s = int(time.time())
    intent = intents.new_intent(checked, now_s)
    if not checked.get("confirm", False):
        store.insert(INTENT, intent, searchable=True)
        return rendering.intent(intent)
    charge = _confirmed(intent, checked, now_s)
    store.insert(INTENT, intent, searchable=True)
    return _attempted(store, intent, charge, checked)


def confirm(store: Store, target: str, checked: Params) -> rendering.Rendered:
    """Try to pay an intent that exists."""
    intent = find_intent(store, target)
    if intent["status"] in intents.CONFIRMABLE:
        check_return_url(intent.get("automatic_payment_methods"), checked)
    charge = _confirmed(intent, checked, int(time.time()))
    store.update(intent)
    return _attempted(store, intent, charge, checked)


def _confirmed(intent: Facts, checked: Params, now_s: int) -> Facts | None:
    for name in ("receipt_email", "setup_future_usage", "shipping"):
        if name in checked:
            intent[name] = checked[name]
    return intents.confirm(intent, checked, now_s)


def _attempted(store: Store, intent: Facts, charge: Facts | None, checked: Params) -> rendering.Rendered:
    """Keep the charge of an attempt and show the intent. Raises the card error for a failed one."""
    if charge is not None:
        store.insert(CHARGE, charge)
        if not charge["paid"]:
            shown = rendering.intent(intent)
            raise card_error(shown["last_payment_error"], shown)
    return show(store, intent, checked, charge)


def capture(store: Store, target: str, checked: Params) -> rendering.Rendered:
    """Capture what an intent holds."""
    intent = find_intent(store, target)
    intents.check_capturable(intent)
    charge = find_charge(store, intent["latest_charge"])
    if amount := checked.get("amount_to_capture"):
        check_amount(amount, intent["currency"], "amount_to_capture")
    intents.capture(intent, charge, amount)
    if added := checked.get("metadata"):
        store.reindex(intent["id"], intent["metadata"], intent["metadata"] | added)
        intent["metadata"] |= added
    store.update(intent)
    store.update(charge)
    return show(store, intent, checked, charge)


def cancel(store: Store, target: str, checked: Params) -> rendering.Rendered:
    """Cancel an intent and release what it holds."""
    intent = find_intent(store, target)
    charge = find_charge(store, intent["latest_charge"]) if intent["status"] == "requires_capture" else None
    intents.cancel(intent, charge, checked.get("cancellation_reason"), int(time.time()))
    store.update(intent)
    if charge is not None:
        store.update(charge)
    return show(store, intent, checked, charge)


def authenticate(store: Store, target: str, *, succeed: bool) -> rendering.Rendered:
    """Finish a customer's authentication and show the intent it leaves, paid or not."""
    intent = find_intent(store, target)
    charge = intents.authenticate(intent, succeed=succeed, now_s=int(time.time()))
    store.update(intent)
    if charge is not None:
        store.insert(CHARGE, charge)
    return rendering.intent(intent)


def find_intent(store: Store, object_id: str) -> Facts:
    """Return an intent's facts. Raises StripeError when there is none."""
    if (facts := store.find(INTENT, object_id)) is None:
        raise missing("payment_intent", object_id)
    return facts


def find_charge(store: Store, object_id: str) -> Facts:
    """Return a charge's facts. Raises StripeError when there is none."""
    if (facts := store.find(CHARGE, object_id)) is None:
        raise missing("charge", object_id)
    return facts


def show(store: Store, intent: Facts, checked: Params, charge: Facts | None = None) -> rendering.Rendered:
    """Return the intent as the request wants it, its latest charge expanded or not."""
    charge_id = intent.get("latest_charge")
    if charge_id is None or "latest_charge" not in checked.get("expand", ()):
        return rendering.intent(intent)
    return rendering.intent(intent, {charge_id: charge or find_charge(store, charge_id)})


def _always(_checked: Params) -> bool:
    return True


CREATE_INTENT = Operation(check_create, create, lambda checked: checked.get("confirm", False))
CONFIRM_INTENT = Operation(lambda form: params.validate(form, CONFIRM), confirm, _always)
CAPTURE_INTENT = Operation(lambda form: params.validate(form, CAPTURE), capture, _always)
CANCEL_INTENT = Operation(lambda form: params.validate(form, CANCEL), cancel, lambda _: False)
