"""The life of a PaymentIntent: pure rules over its facts, which the functions here change in place."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from deploy.stripe_simulator import rendering
from deploy.stripe_simulator.errors import invalid, unexpected_state
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.outcomes import decline_of
from deploy.stripe_simulator.payment_methods import AUTHENTICATION_REQUIRED, CARDS, Decline, asks_customer
from deploy.stripe_simulator.store import Facts

CONFIRMABLE = ("requires_payment_method", "requires_confirmation", "requires_action")
CANCELLABLE = (
    "requires_payment_method", "requires_capture", "requires_confirmation", "requires_action", "processing",
)  # fmt: skip
KEPT_PARAMS = (
    "amount", "currency", "capture_method", "confirmation_method", "description", "payment_method_types",
    "customer", "receipt_email", "setup_future_usage", "shipping", "statement_descriptor",
    "statement_descriptor_suffix", "transfer_group",
)  # fmt: skip
HOLD_S = 7 * 24 * 3600  # how long card networks keep a hold for a merchant
NO_PAYMENT_METHOD = (
    "You cannot confirm this PaymentIntent because it's missing a payment method. Update the PaymentIntent "
    "with a payment method and then confirm it again, or confirm it with a payment method."
)
AUTHENTICATION_FAILED = Decline(
    "payment_intent_authentication_failure",
    None,
    "The provided PaymentMethod has failed authentication. You can provide payment_method_data or a new "
    "PaymentMethod to attempt to fulfill this PaymentIntent again.",
)


def new_intent(params: Mapping[str, Any], now_s: int) -> Facts:
    """Return an unconfirmed intent as the create parameters describe it."""
    intent_id = new_id("pi_3")
    intent: Facts = {name: params[name] for name in KEPT_PARAMS if name in params}
    intent |= {
        "id": intent_id,
        "client_secret": new_id(f"{intent_id}_secret_", 25),
        "created": now_s,
        "metadata": params.get("metadata", {}),
        "status": "requires_payment_method",
    }
    if "payment_method_types" not in params:
        automatic = params.get("automatic_payment_methods", {})
        allow_redirects = automatic.get("allow_redirects", "always")
        intent["automatic_payment_methods"] = {"allow_redirects": allow_redirects, "enabled": True}
        intent["payment_method_types"] = ["card", "link"]
    if "payment_method" in params:
        attach(intent, params["payment_method"])
    return intent


def attach(intent: Facts, method: Facts) -> None:
    """Set the intent's payment method, which has been found fit for its customer."""
    forget_method(intent)
    intent |= {"payment_method": method["id"], "_card": method["_card"], "status": "requires_confirmation"}
    for name in ("_kept", "_set_up"):
        if method.get(name):
            intent[name] = True
    if owner := method.get("customer"):
        intent["_owner"] = owner


def forget_method(intent: Facts) -> Facts:
    """Leave the intent without a payment method; return what it knew of the one it had."""
    names = ("payment_method", "_card", "_kept", "_set_up", "_owner")
    return {name: intent.pop(name) for name in names if name in intent}


def needs_return_url(automatic_payment_methods: Mapping[str, Any] | None) -> bool:
    """Tell whether the intent may send the customer elsewhere, and so needs to know where to."""
    return (
        automatic_payment_methods is not None and automatic_payment_methods.get("allow_redirects") != "never"
    )


def confirm(intent: Facts, params: Mapping[str, Any], now_s: int) -> Facts | None:
    """Try to pay the intent; return the charge made, failed or not, or None when the customer must act first.

    Raises StripeError when the intent cannot be confirmed; it is unchanged then.
    """
    if intent["status"] not in CONFIRMABLE:
        raise _not_confirmable(intent)
    if "payment_method" in params:
        attach(intent, params["payment_method"])
    if "payment_method" not in intent:
        raise unexpected_state(NO_PAYMENT_METHOD, rendering.intent(intent))
    if params.get("capture_method"):
        intent["capture_method"] = params["capture_method"]
    for name in ("next_action", "_last_error"):
        intent.pop(name, None)
    off_session = params.get("off_session", False)
    set_up = intent.get("_set_up", False)
    if not asks_customer(CARDS[intent["_card"]], off_session=off_session, set_up=set_up):
        return _charge(intent, now_s)
    if off_session or params.get("error_on_requires_action"):
        return _fail(intent, AUTHENTICATION_REQUIRED, now_s)
    _ask_customer(intent, params.get("return_url"))
    return None


def authenticate(intent: Facts, *, succeed: bool, now_s: int) -> Facts | None:
    """Finish the customer's authentication; return the charge it leads to, or None when it failed.

    Raises StripeError when the intent does not wait for one.
    """
    if intent["status"] != "requires_action":
        message = f"This PaymentIntent has a status of {intent['status']}: it waits for no authentication."
        raise unexpected_state(message, rendering.intent(intent))
    intent.pop("next_action", None)
    if succeed:
        return _charge(intent, now_s, authenticated=True)
    _refuse(intent, AUTHENTICATION_FAILED, "invalid_request_error", None, now_s)
    return None


def capture(intent: Facts, charge: Facts, amount_minor: int | None) -> None:
    """Capture a hold, all of it or `amount_minor`; the rest is released. Raises StripeError."""
    capturable = intent["amount_capturable"]
    amount = capturable if amount_minor is None else amount_minor
    if amount > capturable:
        message = f"The amount to capture ({amount}) exceeds what can be captured ({capturable})."
        raise invalid(message, param="amount_to_capture", code="amount_too_large")
    _settle(charge, amount)
    charge["amount_refunded"] = charge["amount"] - amount  # Stripe shows the released part as refunded
    intent |= {"status": "succeeded", "amount_capturable": 0, "amount_received": amount}


def check_capturable(intent: Facts) -> None:
    """Raise StripeError unless the intent holds money to capture."""
    if intent["status"] != "requires_capture":
        message = (
            f"This PaymentIntent could not be captured because it has a status of {intent['status']}. Only a "
            "PaymentIntent with one of the following statuses may be captured: requires_capture."
        )
        raise unexpected_state(message, rendering.intent(intent))


def cancel(intent: Facts, charge: Facts | None, reason: str | None, now_s: int) -> None:
    """Cancel the intent and release its hold, if any. Raises StripeError in a status that forbids it."""
    if intent["status"] not in CANCELLABLE:
        message = (
            f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}. Only a "
            f"PaymentIntent with one of the following statuses may be canceled: {', '.join(CANCELLABLE)}."
        )
        raise unexpected_state(message, rendering.intent(intent))
    if charge is not None and intent["status"] == "requires_capture":
        charge |= {"amount_refunded": charge["amount"], "refunded": True}
    intent.pop("next_action", None)
    intent |= {
        "status": "canceled",
        "canceled_at": now_s,
        "cancellation_reason": reason,
        "amount_capturable": 0,
    }


def _not_confirmable(intent: Facts) -> Exception:
    status = intent["status"]
    why = {
        "succeeded": "it has already succeeded after being previously confirmed",
        "requires_capture": "it has already been confirmed and is waiting to be captured",
    }.get(status, f"it has a status of {status}")
    return unexpected_state(f"You cannot confirm this PaymentIntent because {why}.", rendering.intent(intent))


def _charge(intent: Facts, now_s: int, *, authenticated: bool = False) -> Facts:
    decline = decline_of(CARDS[intent["_card"]], intent["amount"], intent["currency"])
    if decline is not None:
        return _fail(intent, decline, now_s, authenticated=authenticated)
    charge = _new_charge(intent, now_s, authenticated=authenticated) | {"paid": True, "status": "succeeded"}
    intent["latest_charge"] = charge["id"]
    if intent.get("capture_method") == "manual":
        intent |= {"status": "requires_capture", "amount_capturable": intent["amount"]}
        charge["_capture_before"] = now_s + HOLD_S
    else:
        _settle(charge, intent["amount"])
        intent |= {"status": "succeeded", "amount_received": intent["amount"]}
    return charge


def _settle(charge: Facts, amount_minor: int) -> None:
    charge |= {"captured": True, "amount_captured": amount_minor, "balance_transaction": new_id("txn_3")}


def _fail(intent: Facts, decline: Decline, now_s: int, *, authenticated: bool = False) -> Facts:
    charge = _new_charge(intent, now_s, authenticated=authenticated) | {
        "paid": False,
        "status": "failed",
        "failure_code": decline.code,
        "failure_message": decline.message,
        "_reason": decline.decline_code or decline.code,
    }
    intent["latest_charge"] = charge["id"]
    _refuse(intent, decline, "card_error", charge["id"], now_s)
    return charge


def _refuse(intent: Facts, decline: Decline, error_type: str, charge_id: str | None, now_s: int) -> None:
    method = forget_method(intent)
    intent["_last_error"] = {
        **asdict(decline),
        "type": error_type,
        "charge": charge_id,
        "_method": method["payment_method"],
        "_card": method["_card"],
        "_owner": method.get("_owner"),
        "_at": now_s,
    }
    intent["status"] = "requires_payment_method"


def _new_charge(intent: Facts, now_s: int, *, authenticated: bool) -> Facts:
    copied = (
        "amount",
        "currency",
        "customer",
        "description",
        "metadata",
        "payment_method",
        "receipt_email",
        "shipping",
        "_card",
    )
    return {
        **{name: intent[name] for name in copied if name in intent},
        "id": new_id("ch_3"),
        "created": now_s,
        "payment_intent": intent["id"],
        "_authenticated": authenticated,
    }


def _ask_customer(intent: Facts, return_url: str | None) -> None:
    page = f"https://hooks.stripe.com/3d_secure_2/hosted?payment_intent={intent['id']}"
    if return_url:
        action = {"type": "redirect_to_url", "redirect_to_url": {"return_url": return_url, "url": page}}
    else:
        sdk = {"type": "three_d_secure_redirect", "stripe_js": page, "source": new_id("src_1")}
        action = {"type": "use_stripe_sdk", "use_stripe_sdk": sdk}
    intent |= {"status": "requires_action", "next_action": action}
