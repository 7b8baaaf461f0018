"""What the POST endpoints do: how their parameters are checked, and what they then change."""

from deploy.stripe_simulator import disputes, intents, params, refunds, rendering, saved_cards
from deploy.stripe_simulator.currencies import check_amount
from deploy.stripe_simulator.customers import find_customer
from deploy.stripe_simulator.errors import StripeError, card_error
from deploy.stripe_simulator.events import announce
from deploy.stripe_simulator.intent_params import (
    CANCEL,
    CAPTURE,
    CONFIRM,
    UPDATE,
    check_create,
    check_return_url,
)
from deploy.stripe_simulator.lookups import CHARGE, INTENT, find_charge, find_intent
from deploy.stripe_simulator.operation import Operation, always, never
from deploy.stripe_simulator.params import Params
from deploy.stripe_simulator.refund_operations import refunds_of
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.timers import set_timer

BY_CUSTOMER = "payment_intent.customer"
CHARGE_BY_INTENT = "charge.payment_intent"
EXPIRES = "hold_expires"

# The event that an attempt ends with, by the status it leaves the intent in.
OUTCOME_EVENTS = {
    "succeeded": "succeeded",
    "requires_capture": "amount_capturable_updated",
    "requires_payment_method": "payment_failed",
}


def create(store: Store, _target: str, checked: Params) -> rendering.Rendered:
    """Make an intent and, with confirm, try to pay it."""
    now_s = store.now_s()
    customer = checked.get("customer")
    if customer is not None:
        find_customer(store, customer, param="customer")
    if "payment_method" in checked:
        method = saved_cards.usable(store, checked["payment_method"], customer)
        checked = checked | {"payment_method": method}
    intent = intents.new_intent(checked, now_s)
    announce(store, "payment_intent.created", rendering.intent, intent)
    confirms = checked.get("confirm", False)
    charge = intents.confirm(intent, checked, now_s) if confirms else None
    links = {BY_CUSTOMER: customer} if customer is not None else None
    store.insert(INTENT, intent, searchable=True, links=links)
    return _attempted(store, intent, charge, checked)


def confirm(store: Store, target: str, checked: Params) -> rendering.Rendered:
    """Try to pay an intent that exists."""
    intent = find_intent(store, target)
    if intent["status"] in intents.CONFIRMABLE:
        check_return_url(intent.get("automatic_payment_methods"), checked)
        # A card may have been detached since the intent was made with it.
        method_id = checked.get("payment_method") or (intent.get("_kept") and intent["payment_method"])
        if method_id:
            checked = checked | {"payment_method": _usable(store, intent, method_id)}
    for name in ("receipt_email", "setup_future_usage", "shipping"):
        if name in checked:
            intent[name] = checked[name]
    charge = intents.confirm(intent, checked, store.now_s())
    store.update(intent)
    return _attempted(store, intent, charge, checked)


def _usable(store: Store, intent: Facts, method_id: str) -> Facts:
    try:
        return saved_cards.usable(store, method_id, intent.get("customer"))
    except StripeError as error:
        raise StripeError(
            error.status, {**error.fields, "payment_intent": rendering.intent(intent)}
        ) from error


def update(store: Store, target: str, checked: Params) -> rendering.Rendered:
    """Change what an intent says about itself."""
    intent = find_intent(store, target)
    if "metadata" in checked:
        metadata = params.merged(intent["metadata"], checked["metadata"])
        store.reindex(target, intent["metadata"], metadata)
        intent["metadata"] = metadata
    for name in ("description", "receipt_email"):
        if name in checked:
            intent[name] = checked[name]
    store.update(intent)
    return show(store, intent, checked)


def _attempted(store: Store, intent: Facts, charge: Facts | None, checked: Params) -> rendering.Rendered:
    """Keep the charge of an attempt and show the intent. Raises the card error for a failed one."""
    if charge is None:
        if intent["status"] == "requires_action":
            announce(store, "payment_intent.requires_action", rendering.intent, intent)
    else:
        _keep_charge(store, intent, charge)
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
    announce(store, "charge.captured", rendering.charge, charge)
    if released := charge["amount"] - charge["amount_captured"]:
        refunds.release(store, charge, released)
    if added := checked.get("metadata"):
        store.reindex(intent["id"], intent["metadata"], intent["metadata"] | added)
        intent["metadata"] |= added
    store.update(intent)
    store.update(charge)
    _dispute_at_once(store, charge)
    announce(store, "payment_intent.succeeded", rendering.intent, intent)
    return show(store, intent, checked, charge)


def cancel(store: Store, target: str, checked: Params) -> rendering.Rendered:
    """Cancel an intent and release what it holds."""
    intent = find_intent(store, target)
    charge = find_charge(store, intent["latest_charge"]) if intent["status"] == "requires_capture" else None
    _cancel(store, intent, charge, checked.get("cancellation_reason"))
    return show(store, intent, checked, charge)


def _cancel(
    store: Store, intent: Facts, charge: Facts | None, reason: str | None, release_reason: str | None = None
) -> None:
    intents.cancel(intent, charge, reason, store.now_s())
    store.update(intent)
    if charge is not None:
        store.update(charge)
        refunds.release(store, charge, charge["amount"], release_reason)
    announce(store, "payment_intent.canceled", rendering.intent, intent)


def _dispute_at_once(store: Store, charge: Facts) -> None:
    if charge["_card"] == disputes.DISPUTED_AT_ONCE and charge.get("captured"):
        disputes.open_dispute(store, charge)


def expire(store: Store, target: str) -> None:
    """Give back a hold that was not captured in time."""
    intent = find_intent(store, target)
    if intent["status"] == "requires_capture":
        charge = find_charge(store, intent["latest_charge"])
        _cancel(store, intent, charge, "automatic", refunds.EXPIRED)


def authenticate(store: Store, target: str, *, succeed: bool) -> rendering.Rendered:
    """Finish a customer's authentication and show the intent it leaves, paid or not."""
    intent = find_intent(store, target)
    charge = intents.authenticate(intent, succeed=succeed, now_s=store.now_s())
    store.update(intent)
    if charge is not None:
        _keep_charge(store, intent, charge)
    else:
        announce(store, "payment_intent.payment_failed", rendering.intent, intent)
    return rendering.intent(intent)


def _keep_charge(store: Store, intent: Facts, charge: Facts) -> None:
    store.insert(CHARGE, charge, links={CHARGE_BY_INTENT: intent["id"]})
    if (capture_before := charge.get("_capture_before")) is not None:
        set_timer(store, EXPIRES, intent["id"], capture_before)
    if store.endpoint is not None:
        announce(store, f"charge.{charge['status']}", rendering.charge, charge)
    _dispute_at_once(store, charge)
    if store.endpoint is not None:
        announce(store, f"payment_intent.{OUTCOME_EVENTS[intent['status']]}", rendering.intent, intent)
    if charge["paid"]:
        saved_cards.keep_used(store, intent, usage=intent.get("setup_future_usage"))


def show(
    store: Store, intent: Facts, checked: Params, charge: Facts | None = None, prefix: str = ""
) -> rendering.Rendered:
    """Return the intent as the request wants it, its latest charge and that one's refunds expanded or not."""
    expand = checked.get("expand")
    charge_id = intent.get("latest_charge")
    if not expand or charge_id is None:
        return rendering.intent(intent)
    rendered = rendering.intent(intent, {charge_id: charge or find_charge(store, charge_id)})
    if f"{prefix}latest_charge.refunds" in expand:
        rendered["latest_charge"]["refunds"] = refunds_of(store, charge_id)
    return rendered


CREATE_INTENT = Operation(check_create, create, lambda checked: checked.get("confirm", False))
UPDATE_INTENT = Operation(lambda form: params.validate(form, UPDATE), update, never)
CONFIRM_INTENT = Operation(lambda form: params.validate(form, CONFIRM), confirm, always)
CAPTURE_INTENT = Operation(lambda form: params.validate(form, CAPTURE), capture, always)
CANCEL_INTENT = Operation(lambda form: params.validate(form, CANCEL), cancel, never)
