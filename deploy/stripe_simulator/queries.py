"""What the GET endpoints show: single objects, lists and search."""

import re
from collections.abc import Sequence

from deploy.stripe_simulator import params, rendering
from deploy.stripe_simulator.customers import find_customer
from deploy.stripe_simulator.errors import invalid
from deploy.stripe_simulator.lists import CREATED, LIMIT_DEFAULT, LIMIT_MAX, PAGING, as_list, page_of
from deploy.stripe_simulator.lookups import CHARGE, INTENT, find_charge, find_intent
from deploy.stripe_simulator.operations import BY_CUSTOMER, CHARGE_BY_INTENT, show
from deploy.stripe_simulator.params import Params
from deploy.stripe_simulator.refund_operations import refunds_of
from deploy.stripe_simulator.store import Facts, Page, Store, UnknownCursor
from deploy.stripe_simulator.wire import Form

INTENTS_URL = "/v1/payment_intents"
CHARGES_URL = "/v1/charges"

_EXPAND = params.expansions("latest_charge", "latest_charge.refunds")
_LIST_EXPAND = params.expansions("data.latest_charge", "data.latest_charge.refunds")

# One clause of Stripe's search language, https://docs.stripe.com/search#search-query-language
_CLAUSE = re.compile(
    r"\s*(?:metadata\[(?P<quote>['\"])(?P<name>.+?)(?P=quote)\]|(?P<field>[a-z_.]+))\s*:\s*"
    r"(?P<mark>['\"])(?P<value>(?:\\.|(?!(?P=mark)).)*)(?P=mark)\s*"
)


def retrieve_intent(store: Store, object_id: str, form: Form) -> rendering.Rendered:
    """Show one intent. Raises StripeError."""
    checked = params.validate(form, {"client_secret": params.text(), "expand": _EXPAND})
    return show(store, find_intent(store, object_id), checked)


def retrieve_charge(store: Store, object_id: str, form: Form) -> rendering.Rendered:
    """Show one charge. Raises StripeError."""
    checked = params.validate(form, {"expand": params.expansions("refunds")})
    rendered = rendering.charge(find_charge(store, object_id))
    if "refunds" in checked.get("expand", ()):
        rendered["refunds"] = refunds_of(store, object_id)
    return rendered


LIST_CHARGES: dict[str, params.Check] = {
    **CREATED,
    **PAGING,
    "customer": params.not_simulated,
    "expand": params.expansions(),
    "payment_intent": params.text(),
    "transfer_group": params.not_simulated,
}


def list_charges(store: Store, _object_id: str, form: Form) -> rendering.Rendered:
    """Show one page of charges, newest first; failed ones are among them. Raises StripeError."""
    checked = params.validate(form, LIST_CHARGES)
    links = None
    if "payment_intent" in checked:
        intent = find_intent(store, checked["payment_intent"], param="payment_intent")
        links = {CHARGE_BY_INTENT: intent["id"]}
    found, has_more = page_of(store, CHARGE, checked, links=links)
    return as_list([rendering.charge(facts) for facts in found], CHARGES_URL, has_more=has_more)


LIST: dict[str, params.Check] = {
    **CREATED,
    **PAGING,
    "customer": params.text(),
    "customer_account": params.not_simulated,
    "expand": _LIST_EXPAND,
}
SEARCH: dict[str, params.Check] = {
    "expand": _LIST_EXPAND,
    "limit": params.integer(1, LIMIT_MAX),
    "page": params.text(),
    "query": params.text(),
}


def list_intents(store: Store, _object_id: str, form: Form) -> rendering.Rendered:
    """Show one page of intents, newest first. Raises StripeError."""
    checked = params.validate(form, LIST)
    links = None
    if "customer" in checked:
        find_customer(store, checked["customer"], param="customer")
        links = {BY_CUSTOMER: checked["customer"]}
    found, has_more = page_of(store, INTENT, checked, links=links)
    return as_list(_show_all(store, found, checked), INTENTS_URL, has_more=has_more)


def search_intents(store: Store, _object_id: str, form: Form) -> rendering.Rendered:
    """Show the intents that a search finds, newest first. Raises StripeError.

    Stripe's search lags behind by up to a minute; here it does not.
    """
    checked = params.validate(form, SEARCH, required=("query",))
    metadata, statuses = parse_search(checked["query"])
    page = Page(limit=checked.get("limit", LIMIT_DEFAULT), after=checked.get("page"))
    try:
        found, has_more = store.search(INTENT, metadata, statuses, page)
    except UnknownCursor as error:
        message = "Invalid page token."
        raise invalid(message, param="page") from error
    return {
        "object": "search_result",
        "data": _show_all(store, found, checked),
        "has_more": has_more,
        "next_page": found[-1]["id"] if has_more else None,
        "url": f"{INTENTS_URL}/search",
    }


def parse_search(query: str) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the metadata pairs and the statuses that a query's clauses, joined by AND, ask for.

    Raises StripeError.
    """
    metadata, statuses = [], []
    position = 0
    while match := _CLAUSE.match(query, position):
        value = re.sub(r"\\(.)", r"\1", match["value"])
        if match["name"] is not None:
            metadata.append((match["name"], value))
        elif match["field"] == "status":
            statuses.append(value)
        else:
            message = f"The field `{match['field']}` is not simulated in search: use metadata and status."
            raise invalid(message, param="query")
        position = match.end()
        if position == len(query):
            return metadata, statuses
        if not (joint := re.compile(r"AND\b", re.IGNORECASE).match(query, position)):
            break
        position = joint.end()
    form = "clauses such as metadata['key']:'value' and status:'succeeded', joined by AND"
    message = f"We were unable to parse your search query. A query is made of {form}."
    raise invalid(message, param="query")


def _show_all(store: Store, found: Sequence[Facts], checked: Params) -> list[rendering.Rendered]:
    charges: dict[str, Facts] = {}
    if checked.get("expand"):
        charges = store.find_many(
            CHARGE, [facts["latest_charge"] for facts in found if "latest_charge" in facts]
        )
    return [
        show(store, facts, checked, charges.get(facts.get("latest_charge", "")), prefix="data.")
        for facts in found
    ]
