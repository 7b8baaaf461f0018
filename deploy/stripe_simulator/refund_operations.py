"""The endpoints of refunds."""

from deploy.stripe_simulator import params, rendering
from deploy.stripe_simulator.errors import invalid, missing
from deploy.stripe_simulator.lists import CREATED, PAGING, as_list, page_of
from deploy.stripe_simulator.lookups import find_charge, find_intent
from deploy.stripe_simulator.operation import Operation, always, never
from deploy.stripe_simulator.params import Params, not_simulated, one_of, text
from deploy.stripe_simulator.refunds import (
    BY_CHARGE,
    BY_INTENT,
    REFUND,
    check_refundable,
    make,
    move,
    show,
)
from deploy.stripe_simulator.rendering import Rendered
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.wire import Form

REFUNDS_URL = "/v1/refunds"
_EXPAND = params.expansions("charge", "payment_intent")
_CREATE: dict[str, params.Check] = {
    "amount": params.integer(minimum=1),
    "charge": text(),
    "expand": _EXPAND,
    "metadata": params.metadata,
    "payment_intent": text(),
    "reason": one_of("duplicate", "fraudulent", "requested_by_customer"),
    **dict.fromkeys(
        (
            "currency", "customer", "instructions_email", "origin", "refund_application_fee",
            "reverse_transfer",
        ),
        not_simulated,
    ),
}  # fmt: skip
_UPDATE: dict[str, params.Check] = {"expand": _EXPAND, "metadata": params.metadata_changes}
_LIST: dict[str, params.Check] = {
    **CREATED,
    **PAGING,
    "charge": text(),
    "expand": params.expansions("data.charge", "data.payment_intent"),
    "payment_intent": text(),
}


def _check_create(form: Form) -> Params:
    checked = params.validate(form, _CREATE)
    if "charge" not in checked and "payment_intent" not in checked:
        message = "One of the following params should be provided for this request: payment_intent or charge."
        raise invalid(message, code="parameter_missing")
    return checked


def create(store: Store, _target: str, checked: Params) -> Rendered:
    """Refund a charge, all that is left of it or a part."""
    charge = charge_named(store, checked)
    amount = check_refundable(charge, checked.get("amount"))
    more = {name: checked[name] for name in ("metadata", "reason") if name in checked}
    return _expanded(store, make(store, charge, amount, **more), checked)


def charge_named(store: Store, checked: Params) -> Facts:
    """Return the charge that `charge` or `payment_intent` names. Raises StripeError."""
    if "payment_intent" not in checked:
        return find_charge(store, checked["charge"], param="charge")
    intent = find_intent(store, checked["payment_intent"], param="payment_intent")
    if "latest_charge" not in intent:
        message = f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
        raise invalid(message, param="payment_intent")
    charge = find_charge(store, intent["latest_charge"])
    if checked.get("charge", charge["id"]) != charge["id"]:
        message = f"Charge {checked['charge']} does not belong to PaymentIntent {intent['id']}."
        raise invalid(message, param="charge")
    return charge


def update(store: Store, target: str, checked: Params) -> Rendered:
    """Change a refund's metadata."""
    refund = find(store, target)
    refund["metadata"] = params.merged(refund["metadata"], checked.get("metadata", {}))
    store.update(refund)
    return _expanded(store, refund, checked)


def cancel(store: Store, target: str, checked: Params) -> Rendered:
    """Cancel a refund that waits for the customer's bank details."""
    refund = find(store, target)
    if refund["status"] != "requires_action":
        message = (
            f"You cannot cancel this Refund because it has a status of {refund['status']}. Only a Refund "
            "with a status of requires_action may be canceled."
        )
        raise invalid(message, param="id")
    move(store, refund, "canceled")
    return _expanded(store, refund, checked)


def find(store: Store, object_id: str) -> Facts:
    """Return a refund's facts. Raises StripeError when there is none."""
    if (facts := store.find(REFUND, object_id)) is None:
        raise missing("refund", object_id)
    return facts


def retrieve(store: Store, object_id: str, form: Form) -> Rendered:
    """Show one refund. Raises StripeError."""
    checked = params.validate(form, {"expand": _EXPAND})
    return _expanded(store, find(store, object_id), checked)


def list_refunds(store: Store, _object_id: str, form: Form) -> Rendered:
    """Show one page of refunds, newest first. Raises StripeError."""
    checked = params.validate(form, _LIST)
    links = {}
    if "charge" in checked:
        links[BY_CHARGE] = find_charge(store, checked["charge"], param="charge")["id"]
    if "payment_intent" in checked:
        links[BY_INTENT] = find_intent(store, checked["payment_intent"], param="payment_intent")["id"]
    found, has_more = page_of(store, REFUND, checked, links=links)
    nested = {"expand": {name.removeprefix("data.") for name in checked.get("expand", ())}}
    return as_list([_expanded(store, facts, nested) for facts in found], REFUNDS_URL, has_more=has_more)


def _expanded(store: Store, refund: Facts, checked: Params) -> Rendered:
    rendered = show(refund)
    expand = checked.get("expand", ())
    if "charge" in expand:
        rendered["charge"] = rendering.charge(find_charge(store, refund["charge"]))
    if "payment_intent" in expand:
        rendered["payment_intent"] = rendering.intent(find_intent(store, refund["payment_intent"]))
    return rendered


def steer(store: Store, refund_id: str, status: str, failure_reason: str | None) -> Rendered:
    """Move a refund as its bank would. Raises StripeError and ValueError."""
    refund = find(store, refund_id)
    move(store, refund, status, failure_reason)
    return show(refund)


def refunds_of(store: Store, charge_id: str) -> Rendered:
    """Return the list of a charge's refunds, as an expanded charge shows it."""
    found, has_more = page_of(store, REFUND, {}, links={BY_CHARGE: charge_id})
    url = f"/v1/charges/{charge_id}/refunds"
    return as_list([show(facts) for facts in found], url, has_more=has_more)


CREATE_REFUND = Operation(_check_create, create, always)
UPDATE_REFUND = Operation(lambda form: params.validate(form, _UPDATE), update, never)
CANCEL_REFUND = Operation(lambda form: params.validate(form, {"expand": _EXPAND}), cancel, never)
