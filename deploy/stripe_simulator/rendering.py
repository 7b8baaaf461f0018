"""Turn kept facts into the objects Stripe shows, with every field its API version has."""

from dataclasses import asdict
from typing import Any

from deploy.stripe_simulator.errors import doc_url
from deploy.stripe_simulator.payment_methods import CARDS, Decline, card_facts
from deploy.stripe_simulator.store import Facts

Rendered = dict[str, Any]

_NO_ADDRESS = {
    "city": None,
    "country": None,
    "line1": None,
    "line2": None,
    "postal_code": None,
    "state": None,
}
BILLING_DETAILS = {"address": _NO_ADDRESS, "email": None, "name": None, "phone": None, "tax_id": None}

# The shapes hold the values of fields that this simulator never sets, so that only the others are stored.
INTENT: Rendered = {
    "id": None,
    "object": "payment_intent",
    "amount": 0,
    "amount_capturable": 0,
    "amount_details": {"tip": {}},
    "amount_received": 0,
    "application": None,
    "application_fee_amount": None,
    "automatic_payment_methods": None,
    "canceled_at": None,
    "cancellation_reason": None,
    "capture_method": "automatic_async",
    "client_secret": None,
    "confirmation_method": "automatic",
    "created": 0,
    "currency": None,
    "customer": None,
    "customer_account": None,
    "description": None,
    "excluded_payment_method_types": None,
    "last_payment_error": None,
    "latest_charge": None,
    "livemode": False,
    "metadata": {},
    "next_action": None,
    "on_behalf_of": None,
    "payment_method": None,
    "payment_method_configuration_details": None,
    "payment_method_options": {
        "card": {
            "installments": None,
            "mandate_options": None,
            "network": None,
            "request_three_d_secure": "automatic",
        }
    },
    "payment_method_types": ["card"],
    "payment_record": None,
    "processing": None,
    "receipt_email": None,
    "review": None,
    "setup_future_usage": None,
    "shipping": None,
    "source": None,
    "statement_descriptor": None,
    "statement_descriptor_suffix": None,
    "status": None,
    "transfer_data": None,
    "transfer_group": None,
}
CHARGE: Rendered = {
    "id": None,
    "object": "charge",
    "amount": 0,
    "amount_captured": 0,
    "amount_refunded": 0,
    "application": None,
    "application_fee": None,
    "application_fee_amount": None,
    "balance_transaction": None,
    "billing_details": BILLING_DETAILS,
    "calculated_statement_descriptor": "SIMULATOR",
    "captured": False,
    "created": 0,
    "currency": None,
    "customer": None,
    "description": None,
    "disputed": False,
    "failure_balance_transaction": None,
    "failure_code": None,
    "failure_message": None,
    "fraud_details": {},
    "livemode": False,
    "metadata": {},
    "on_behalf_of": None,
    "outcome": None,
    "paid": False,
    "payment_intent": None,
    "payment_method": None,
    "payment_method_details": None,
    "presentment_details": None,
    "radar_options": {},
    "receipt_email": None,
    "receipt_number": None,
    "receipt_url": None,
    "refunded": False,
    "review": None,
    "shipping": None,
    "source": None,
    "source_transfer": None,
    "statement_descriptor": None,
    "statement_descriptor_suffix": None,
    "status": None,
    "transfer_data": None,
    "transfer_group": None,
}


def shown(facts: Facts) -> Facts:
    """Return the facts that are part of an object as it is shown."""
    return {name: value for name, value in facts.items() if not name.startswith("_")}


def intent(facts: Facts, charges: dict[str, Facts] | None = None) -> Rendered:
    """Return a PaymentIntent; its latest charge is expanded when it is among `charges`."""
    rendered = {**INTENT, **shown(facts)}
    if decline := facts.get("_last_error"):
        rendered["last_payment_error"] = last_error(decline)
    if charge_facts := (charges or {}).get(rendered["latest_charge"]):
        rendered["latest_charge"] = charge(charge_facts)
    return rendered


def decline_fields(decline: Decline) -> Rendered:
    """Return the error of a card that is refused outside any intent."""
    fields = {"type": "card_error", **asdict(decline)}
    return {name: value for name, value in fields.items() if value is not None}


def last_error(error: Facts) -> Rendered:
    """Return the error of a failed attempt as an intent shows it, with the payment method it used."""
    rendered = {name: value for name, value in shown(error).items() if value is not None}
    rendered["doc_url"] = doc_url(error["code"])
    rendered["payment_method"] = payment_method(
        {
            "id": error["_method"],
            "created": error["_at"],
            "customer": error.get("_owner"),
            "_card": error["_card"],
        }
    )
    return dict(sorted(rendered.items()))


def charge(facts: Facts) -> Rendered:
    """Return a Charge."""
    rendered = {**CHARGE, **shown(facts)}
    card = CARDS[facts["_card"]]
    rendered["payment_method_details"] = {
        "card": {
            **card_facts(card),
            "amount_authorized": facts["amount"] if facts["paid"] else None,
            "installments": None,
            "mandate": None,
            "network": card.brand,
            "three_d_secure": {"result": "authenticated", "version": "2.2.0"}
            if facts["_authenticated"]
            else None,
        },
        "type": "card",
    }
    if (capture_before := facts.get("_capture_before")) is not None:
        rendered["payment_method_details"]["card"]["capture_before"] = capture_before
    rendered["outcome"] = _outcome(facts)
    return rendered


def _outcome(facts: Facts) -> Rendered:
    paid = facts["paid"]
    return {
        "network_advice_code": None,
        "network_decline_code": None,
        "network_status": "approved_by_network" if paid else "declined_by_network",
        "reason": None if paid else facts["_reason"],
        "risk_level": "normal",
        "seller_message": "Payment complete." if paid else "The bank did not approve the payment.",
        "type": "authorized" if paid else "issuer_declined",
    }


def payment_method(facts: Facts) -> Rendered:
    """Return a PaymentMethod, also one that a test card became by being used and that is not kept."""
    return {
        "id": None,
        "object": "payment_method",
        "allow_redisplay": "unspecified",
        "billing_details": BILLING_DETAILS,
        "card": {
            **card_facts(CARDS[facts["_card"]]),
            "display_brand": CARDS[facts["_card"]].brand,
            "generated_from": None,
            "networks": {"available": [CARDS[facts["_card"]].brand], "preferred": None},
            "regulated_status": "unregulated",
            "three_d_secure_usage": {"supported": True},
        },
        "created": 0,
        "customer": None,
        "customer_account": None,
        "livemode": False,
        "metadata": {},
        "radar_options": {},
        "type": "card",
        **shown(facts),
    }
