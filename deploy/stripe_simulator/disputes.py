"""Disputes: a customer asks their bank for the money back; opened and closed by hand or by a test card."""

from typing import Any

from deploy.stripe_simulator import params, rendering
from deploy.stripe_simulator.errors import missing
from deploy.stripe_simulator.events import announce
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.lists import CREATED, PAGING, as_list, page_of
from deploy.stripe_simulator.lookups import find_charge, find_intent
from deploy.stripe_simulator.params import text
from deploy.stripe_simulator.payment_methods import CARDS
from deploy.stripe_simulator.rendering import Rendered, shown
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.wire import Form

DISPUTE = "dispute"
DISPUTES_URL = "/v1/disputes"
BY_CHARGE = "dispute.charge"
BY_INTENT = "dispute.payment_intent"
DISPUTED_AT_ONCE = "pm_card_createDispute"

EVIDENCE_DUE_S = 9 * 24 * 3600
REASONS = (
    "bank_cannot_process", "check_returned", "credit_not_processed", "customer_initiated",
    "debit_not_authorized", "duplicate", "fraudulent", "general", "incorrect_account_details",
    "insufficient_funds", "noncompliant", "product_not_received", "product_unacceptable",
    "subscription_canceled", "unrecognized",
)  # fmt: skip
OPEN = ("needs_response", "under_review")
CLOSED = ("won", "lost")

_EVIDENCE: Rendered = dict.fromkeys(
    (
        "access_activity_log", "billing_address", "cancellation_policy", "cancellation_policy_disclosure",
        "cancellation_rebuttal", "customer_communication", "customer_email_address", "customer_name",
        "customer_purchase_ip", "customer_signature", "duplicate_charge_documentation",
        "duplicate_charge_explanation", "duplicate_charge_id", "product_description", "receipt",
        "refund_policy", "refund_policy_disclosure", "refund_refusal_explanation", "service_date",
        "service_documentation", "shipping_address", "shipping_carrier", "shipping_date",
        "shipping_documentation", "shipping_tracking_number", "uncategorized_file", "uncategorized_text",
    )
) | {"enhanced_evidence": {}}  # fmt: skip
SHAPE: Rendered = {
    "id": None,
    "object": "dispute",
    "amount": 0,
    "balance_transactions": [],
    "charge": None,
    "created": 0,
    "currency": None,
    "enhanced_eligibility_types": [],
    "evidence": _EVIDENCE,
    "evidence_details": None,
    "is_charge_refundable": False,
    "livemode": False,
    "metadata": {},
    "network_reason_code": "83",
    "payment_intent": None,
    "payment_method_details": None,
    "reason": None,
    "status": None,
}
_LIST: dict[str, params.Check] = {
    **CREATED,
    **PAGING,
    "charge": text(),
    "expand": params.expansions(),
    "payment_intent": text(),
}


def show(facts: Facts) -> Rendered:
    """Return a Dispute."""
    brand = CARDS[facts["_card"]].brand
    card = {"brand": brand, "case_type": "chargeback", "network": brand, "network_reason_code": "83"}
    details: Rendered = {
        "due_by": facts["created"] + EVIDENCE_DUE_S if facts["status"] in OPEN else None,
        "enhanced_eligibility": {},
        "has_evidence": False,
        "past_due": False,
        "submission_count": 0,
        "submission_method": "not_submitted",
    }
    return {
        **SHAPE,
        "evidence_details": details,
        "payment_method_details": {"card": card, "type": "card"},
        **shown(facts),
    }


def open_dispute(
    store: Store, charge: Facts, reason: str = "fraudulent", amount_minor: int | None = None
) -> Facts:
    """Dispute a captured charge, all that is not refunded or a part. Raises ValueError."""
    left = charge["amount"] - charge.get("amount_refunded", 0)
    amount = left if amount_minor is None else amount_minor
    if not charge.get("captured") or charge.get("disputed"):
        message = "only a captured charge can be disputed, and only once"
        raise ValueError(message)
    if not 0 < amount <= left or reason not in REASONS:
        message = f"amount must be from 1 to {left} and reason one of {', '.join(REASONS)}"
        raise ValueError(message)
    charge |= {"disputed": True, "_charged_back": True}
    store.update(charge)
    dispute = {
        "id": new_id("du_1"),
        "amount": amount,
        "charge": charge["id"],
        "created": store.now_s(),
        "currency": charge["currency"],
        "payment_intent": charge["payment_intent"],
        "reason": reason,
        "status": "needs_response",
        "_card": charge["_card"],
    }
    links = {BY_CHARGE: charge["id"], BY_INTENT: charge["payment_intent"]}
    store.insert(DISPUTE, dispute, links=links)
    for kind in ("created", "funds_withdrawn"):
        announce(store, f"charge.dispute.{kind}", show, dispute)
    announce(store, "charge.updated", rendering.charge, charge)
    return dispute


def move(store: Store, dispute_id: str, status: str) -> Facts:
    """Let an open dispute come under review, or close it as won or lost. Raises StripeError, ValueError."""
    dispute = find(store, dispute_id)
    if dispute["status"] not in OPEN or status not in (*OPEN, *CLOSED):
        message = f"a dispute that is {dispute['status']} cannot become {status}"
        raise ValueError(message)
    dispute["status"] = status
    store.update(dispute)
    announce(store, f"charge.dispute.{'closed' if status in CLOSED else 'updated'}", show, dispute)
    if status == "won":  # the money is back, and can be refunded
        charge = find_charge(store, dispute["charge"])
        del charge["_charged_back"]
        store.update(charge)
        announce(store, "charge.dispute.funds_reinstated", show, dispute)
    return dispute


def find(store: Store, object_id: str) -> Facts:
    """Return a dispute's facts. Raises StripeError when there is none."""
    if (facts := store.find(DISPUTE, object_id)) is None:
        raise missing("dispute", object_id)
    return facts


def retrieve(store: Store, object_id: str, form: Form) -> Rendered:
    """Show one dispute. Raises StripeError."""
    params.validate(form, {"expand": params.expansions()})
    return show(find(store, object_id))


def list_disputes(store: Store, _object_id: str, form: Form) -> Rendered:
    """Show one page of disputes, newest first. Raises StripeError."""
    checked: dict[str, Any] = params.validate(form, _LIST)
    links = {}
    if "charge" in checked:
        links[BY_CHARGE] = find_charge(store, checked["charge"], param="charge")["id"]
    if "payment_intent" in checked:
        links[BY_INTENT] = find_intent(store, checked["payment_intent"], param="payment_intent")["id"]
    found, has_more = page_of(store, DISPUTE, checked, links=links)
    return as_list([show(facts) for facts in found], DISPUTES_URL, has_more=has_more)
