"""Payment methods that are kept: made from a token, saved to a customer, used, taken away."""

from collections.abc import Mapping
from typing import Any

from deploy.stripe_simulator import params
from deploy.stripe_simulator.customers import CARD, CARDS_OF, detach, find_customer
from deploy.stripe_simulator.errors import card_error, invalid, missing
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.lists import PAGING, as_list, page_of
from deploy.stripe_simulator.operation import Operation, always, never
from deploy.stripe_simulator.params import Params, not_simulated, one_of, text
from deploy.stripe_simulator.payment_methods import CARDS, refuses_to_be_saved
from deploy.stripe_simulator.rendering import BILLING_DETAILS, Rendered, decline_fields, payment_method
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.wire import Form

METHODS_URL = "/v1/payment_methods"
UNUSED = "unused"  # may still be used once, or saved
SAVED = "saved"
SPENT = "spent"  # used without being saved, or detached: never again

SPENT_MESSAGE = (
    "The provided PaymentMethod was previously used with a PaymentIntent without Customer attachment, shared "
    "with a connected account without Customer attachment, or was detached from a Customer. It may not be "
    "used again. To use a PaymentMethod multiple times, you must attach it to a Customer first."
)
CARD_NUMBER_MESSAGE = (
    "Sending credit card numbers directly to the Stripe API is generally unsafe. To continue processing use "
    "Stripe.js, the Stripe mobile bindings, or Stripe Elements."
)


def _refuse_number(_value: object, name: str) -> None:
    raise invalid(CARD_NUMBER_MESSAGE, param=name)


_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), text())
_BILLING_DETAILS = {
    "address": params.mapping(_ADDRESS),
    "email": params.email,
    **dict.fromkeys(("name", "phone", "tax_id"), text()),
}
UPDATE: dict[str, params.Check] = {
    "allow_redisplay": one_of("always", "limited", "unspecified"),
    "billing_details": params.mapping(_BILLING_DETAILS),
    "card": not_simulated,
    "expand": params.expansions(),
    "metadata": params.metadata_changes,
}
CREATE: dict[str, params.Check] = {
    **UPDATE,
    "card": params.mapping(
        {
            "token": text(),
            **dict.fromkeys(("number", "cvc", "exp_month", "exp_year"), _refuse_number),
            "networks": not_simulated,
        },
        required=("token",),
    ),
    "metadata": params.metadata,
    "type": one_of("card"),
    **dict.fromkeys(("customer", "payment_method", "radar_options"), not_simulated),
}
ATTACH: dict[str, params.Check] = {"customer": text(), "expand": params.expansions()}
LIST: dict[str, params.Check] = {
    **PAGING,
    "allow_redisplay": not_simulated,
    "customer": text(),
    "expand": params.expansions(),
    "type": one_of("card"),
}


def usable(store: Store, method_id: str, customer: str | None, *, intent: str = "PaymentIntent") -> Facts:
    """Return the payment method that an intent for `customer` is to use, made from a test token or kept.

    Raises StripeError when there is none, when it is another's, and when it may not be used again.
    """
    if method_id in CARDS:
        return {"id": new_id("pm_1"), "_card": method_id}
    if (facts := store.find(CARD, method_id)) is None:
        raise missing("PaymentMethod", method_id, param="payment_method")
    owner = facts["customer"]
    if owner is not None and customer is None:
        message = (
            f"The `payment_method` parameter supplied {method_id} belongs to the Customer {owner}. Please "
            f"include the Customer in the `customer` parameter on the {intent}."
        )
        raise invalid(message, param="source", code="parameter_missing")
    if owner is not None and owner != customer:
        message = (
            f"The PaymentMethod {method_id} does not belong to the Customer you supplied {customer}. Please "
            "use this PaymentMethod with the Customer that it belongs to instead."
        )
        raise invalid(message, param="payment_method")
    if facts["_status"] == SPENT:
        raise invalid(SPENT_MESSAGE, param="payment_method")
    return facts | {"_kept": True}


def keep_used(store: Store, intent: Facts, *, usage: str | None) -> None:
    """Save the payment method of an intent that has gone through to its customer, or let it be spent.

    `usage` tells what the intent sets it up for, None for nothing. A test card that was used without a
    customer is kept nowhere: most payments are of that kind, and it can be used no more.
    """
    customer = intent.get("customer")
    if customer is None and usage is None and not intent.get("_kept"):
        return
    facts = store.find(CARD, intent["payment_method"]) if intent.get("_kept") else None
    if facts is None:
        facts = _new(intent["payment_method"], intent["_card"], store.now_s())
        store.insert(CARD, facts)
    if usage == "off_session":
        facts["_set_up"] = True
    if facts["customer"] is None and usage is not None and customer is not None:
        _save(store, facts, customer)
    elif facts["customer"] is None and usage is None:
        facts["_status"] = SPENT
    store.update(facts)


def _new(method_id: str, card: str, now_s: int) -> Facts:
    return {
        "id": method_id,
        "created": now_s,
        "customer": None,
        "metadata": {},
        "_card": card,
        "_status": UNUSED,
    }


def _save(store: Store, facts: Facts, customer: str) -> None:
    facts |= {"customer": customer, "_status": SAVED}
    store.update(facts)
    store.relink(facts["id"], {CARDS_OF: customer})


def _find(store: Store, method_id: str) -> Facts:
    if (facts := store.find(CARD, method_id)) is None:
        raise missing("PaymentMethod", method_id, param="payment_method", status=404)
    return facts


def create(store: Store, _target: str, checked: Params) -> Rendered:
    """Make a payment method from a test token such as tok_visa."""
    if "card" not in checked:
        message = "Missing required param: card."
        raise invalid(message, param="card", code="parameter_missing")
    token = checked["card"]["token"]
    card = f"pm_card_{token.removeprefix('tok_')}"
    if not token.startswith("tok_") or card not in CARDS:
        raise missing("token", token, param="card[token]")
    facts = _new(new_id("pm_1"), card, store.now_s())
    store.insert(CARD, facts)
    return _changed(store, facts, checked)


def update(store: Store, target: str, checked: Params) -> Rendered:
    """Change what a payment method says about its owner."""
    return _changed(store, _find(store, target), checked)


def _changed(store: Store, facts: Facts, checked: Params) -> Rendered:
    if details := checked.get("billing_details"):
        known = facts.get("billing_details", BILLING_DETAILS)
        address = known["address"] | details.get("address", {})
        facts["billing_details"] = {**known, **details, "address": address}
    if "allow_redisplay" in checked:
        facts["allow_redisplay"] = checked["allow_redisplay"]
    facts["metadata"] = params.merged(facts["metadata"], checked.get("metadata", {}))
    store.update(facts)
    return payment_method(facts)


def attach(store: Store, target: str, checked: Params) -> Rendered:
    """Save a payment method to a customer; a test card becomes a new one. Raises StripeError."""
    if "customer" not in checked:
        message = "Must provide customer or customer_account."
        raise invalid(message, code="parameter_missing")
    customer = checked["customer"]
    find_customer(store, customer, param="customer")
    if target not in CARDS:
        facts = _find(store, target)
        _check_attachable(facts, customer)
    else:
        facts = _new(new_id("pm_1"), target, store.now_s())
    if decline := refuses_to_be_saved(CARDS[facts["_card"]]):
        raise card_error(decline_fields(decline))
    if target in CARDS:
        store.insert(CARD, facts)
    if facts["customer"] is None:
        _save(store, facts, customer)
    return payment_method(facts)


def _check_attachable(facts: Mapping[str, Any], customer: str) -> None:
    if facts["customer"] is not None and facts["customer"] != customer:
        message = "The payment method you provided has already been attached to a customer."
        raise invalid(message, param="payment_method")
    if facts["_status"] == SPENT:
        raise invalid(SPENT_MESSAGE, param="payment_method")


def detach_method(store: Store, target: str, checked: Params) -> Rendered:
    """Take a payment method from its customer: it can never be used again."""
    del checked
    facts = _find(store, target)
    if facts["customer"] is None:
        message = "The payment method you provided is not attached to a customer so detachment is impossible."
        raise invalid(message, param="payment_method")
    detach(store, facts)
    return payment_method(facts)


def retrieve(store: Store, object_id: str, form: Form) -> Rendered:
    """Show one payment method. Raises StripeError."""
    params.validate(form, {"expand": params.expansions()})
    return payment_method(_find(store, object_id))


def list_methods(store: Store, _object_id: str, form: Form) -> Rendered:
    """Show one page of a customer's payment methods, newest first. Raises StripeError."""
    checked = params.validate(form, LIST)
    if "customer" not in checked:  # at Stripe, too, only a customer's are listed
        return as_list([], METHODS_URL, has_more=False)
    find_customer(store, checked["customer"], param="customer")
    found, has_more = page_of(store, CARD, checked, links={CARDS_OF: checked["customer"]})
    return as_list([payment_method(facts) for facts in found], METHODS_URL, has_more=has_more)


def list_of_customer(store: Store, object_id: str, form: Form) -> Rendered:
    """Show one page of the payment methods of the customer in the path. Raises StripeError."""
    checked = params.validate(form, {name: check for name, check in LIST.items() if name != "customer"})
    find_customer(store, object_id)
    found, has_more = page_of(store, CARD, checked, links={CARDS_OF: object_id})
    url = f"/v1/customers/{object_id}/payment_methods"
    return as_list([payment_method(facts) for facts in found], url, has_more=has_more)


_REQUIRED = ("type",)
CREATE_METHOD = Operation(lambda form: params.validate(form, CREATE, required=_REQUIRED), create, never)
UPDATE_METHOD = Operation(lambda form: params.validate(form, UPDATE), update, never)
ATTACH_METHOD = Operation(lambda form: params.validate(form, ATTACH), attach, always)
DETACH_METHOD = Operation(
    lambda form: params.validate(form, {"expand": params.expansions()}), detach_method, never
)
