"""The parameters of the PaymentIntent endpoints, and what can be refused by looking at them alone."""

from collections.abc import Mapping
from typing import Any

from deploy.stripe_simulator import intents, params
from deploy.stripe_simulator.currencies import check_amount, check_currency
from deploy.stripe_simulator.errors import invalid
from deploy.stripe_simulator.params import Params, not_simulated, one_of, text
from deploy.stripe_simulator.wire import Form

_EXPAND = params.expansions("latest_charge", "latest_charge.refunds")
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
UPDATE: dict[str, params.Check] = {
    "description": text(1000),
    "expand": _EXPAND,
    "metadata": params.metadata_changes,
    "receipt_email": params.email,
    **dict.fromkeys(
        ("amount", "currency", "customer", "payment_method", "setup_future_usage", "shipping"), not_simulated
    ),
}
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
