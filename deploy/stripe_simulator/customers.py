"""Customers: made, changed, deleted, shown and listed."""

from deploy.stripe_simulator import params
from deploy.stripe_simulator.errors import invalid, missing
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.lists import CREATED, PAGING, as_list, page_of
from deploy.stripe_simulator.operation import Operation, never
from deploy.stripe_simulator.params import Params, not_simulated, text
from deploy.stripe_simulator.rendering import Rendered, shown
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.wire import Form

CUSTOMER = "customer"
CUSTOMERS_URL = "/v1/customers"
BY_EMAIL = "customer.email"
CARD = "payment_method"  # the kind of object that saved_cards keeps
CARDS_OF = "payment_method.customer"

LIVE = "live"
DELETED = "deleted"

SHAPE: Rendered = {
    "id": None,
    "object": "customer",
    "address": None,
    "balance": 0,
    "business_name": None,
    "created": 0,
    "currency": None,
    "customer_account": None,
    "default_source": None,
    "delinquent": False,
    "description": None,
    "discount": None,
    "email": None,
    "individual_name": None,
    "invoice_prefix": None,
    "invoice_settings": None,
    "livemode": False,
    "metadata": {},
    "name": None,
    "next_invoice_sequence": 1,
    "phone": None,
    "preferred_locales": [],
    "shipping": None,
    "tax_exempt": "none",
    "test_clock": None,
}
_ADDRESS = dict.fromkeys(("city", "country", "line1", "line2", "postal_code", "state"), text())
_INVOICE_SETTINGS = {
    "default_payment_method": text(),
    **dict.fromkeys(("custom_fields", "footer", "rendering_options"), not_simulated),
}
UPDATE: dict[str, params.Check] = {
    "address": params.mapping(_ADDRESS),
    "description": text(5000),
    "email": params.email,
    "expand": params.expansions(),
    "invoice_settings": params.mapping(_INVOICE_SETTINGS),
    "metadata": params.metadata_changes,
    "name": text(256),
    "phone": text(20),
    **dict.fromkeys(
        (
            "balance", "business_name", "cash_balance", "default_source", "individual_name", "invoice_prefix",
            "next_invoice_sequence", "preferred_locales", "shipping", "source", "tax", "tax_exempt",
        ),
        not_simulated,
    ),
}  # fmt: skip
CREATE: dict[str, params.Check] = {
    **UPDATE,
    "metadata": params.metadata,
    "payment_method": not_simulated,
    "tax_id_data": not_simulated,
    "test_clock": not_simulated,
}
LIST: dict[str, params.Check] = {
    **CREATED,
    **PAGING,
    "email": text(512),
    "expand": params.expansions(),
    "test_clock": not_simulated,
}


def find_customer(store: Store, object_id: str, *, param: str | None = None) -> Facts:
    """Return a live customer's facts. Raises StripeError when there is none."""
    facts = store.find(CUSTOMER, object_id)
    if facts is None or facts["_status"] == DELETED:
        raise missing("customer", object_id, param=param)
    return facts


def show(facts: Facts) -> Rendered:
    """Return a Customer, or what is left to see of a deleted one."""
    if facts["_status"] == DELETED:
        return {"id": facts["id"], "object": "customer", "deleted": True}
    settings = {
        "custom_fields": None,
        "default_payment_method": facts.get("_default"),
        "footer": None,
        "rendering_options": None,
    }
    return {
        **SHAPE,
        "invoice_prefix": facts["id"][-8:].upper(),
        **shown(facts),
        "invoice_settings": settings,
    }


def create(store: Store, _target: str, checked: Params) -> Rendered:
    """Make a customer."""
    checked.pop("expand", None)
    if "invoice_settings" in checked:  # no card can be theirs yet
        raise _not_theirs(checked.pop("invoice_settings").get("default_payment_method", ""))
    facts = {
        "metadata": {},
        **checked,
        "id": new_id("cus_", 14),
        "created": store.now_s(),
        "_status": LIVE,
    }
    store.insert(CUSTOMER, facts, links={BY_EMAIL: facts.get("email")})
    return show(facts)


def update(store: Store, target: str, checked: Params) -> Rendered:
    """Change a customer; what is not named stays."""
    facts = find_customer(store, target)
    checked.pop("expand", None)
    if method_id := checked.pop("invoice_settings", {}).get("default_payment_method"):
        method = store.find(CARD, method_id)
        if method is None or method["customer"] != target:
            raise _not_theirs(method_id)
        facts["_default"] = method_id
    facts["metadata"] = params.merged(facts["metadata"], checked.pop("metadata", {}))
    facts |= checked
    store.update(facts)
    store.relink(target, {BY_EMAIL: facts.get("email")})
    return show(facts)


def delete(store: Store, target: str, checked: Params) -> Rendered:
    """Delete a customer for good; their saved cards can never be used again."""
    del checked
    facts = find_customer(store, target)
    cards, has_more = page_of(store, CARD, {"limit": 100}, links={CARDS_OF: target})
    while cards:
        for card in cards:
            detach(store, card)
        cards, has_more = (
            page_of(store, CARD, {"limit": 100}, links={CARDS_OF: target}) if has_more else ([], False)
        )
    facts = {"id": target, "created": facts["created"], "_status": DELETED}
    store.update(facts)
    store.relink(target, {BY_EMAIL: None})
    return show(facts)


def detach(store: Store, card: Facts) -> None:
    """Take a saved card from its customer, whose default it may have been."""
    owner = store.find(CUSTOMER, card["customer"])
    card |= {"customer": None, "_status": "spent"}
    store.update(card)
    store.relink(card["id"], {CARDS_OF: None})
    if owner and owner.get("_default") == card["id"]:
        del owner["_default"]
        store.update(owner)


def retrieve(store: Store, object_id: str, form: Form) -> Rendered:
    """Show one customer, also a deleted one. Raises StripeError."""
    params.validate(form, {"expand": params.expansions()})
    if (facts := store.find(CUSTOMER, object_id)) is None:
        raise missing("customer", object_id)
    return show(facts)


def list_customers(store: Store, _object_id: str, form: Form) -> Rendered:
    """Show one page of customers, newest first. Raises StripeError."""
    checked = params.validate(form, LIST)
    links = {BY_EMAIL: checked["email"]} if "email" in checked else None
    found, has_more = page_of(store, CUSTOMER, checked, links=links, status=LIVE)
    return as_list([show(facts) for facts in found], CUSTOMERS_URL, has_more=has_more)


def _not_theirs(method_id: str) -> Exception:
    message = (
        f"The customer does not have a payment method with the ID {method_id}. The payment method must be "
        "attached to the customer."
    )
    param = "invoice_settings[default_payment_method]"
    return invalid(message, param=param, code="resource_missing")


CREATE_CUSTOMER = Operation(lambda form: params.validate(form, CREATE), create, never)
UPDATE_CUSTOMER = Operation(lambda form: params.validate(form, UPDATE), update, never)
DELETE_CUSTOMER = Operation(lambda form: params.validate(form, {}), delete, never)
