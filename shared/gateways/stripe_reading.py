"""Read Stripe's objects: what a PaymentIntent, a refund or a dispute says has come about."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from shared.gateways import (
    Authorized,
    Cancelled,
    Dispute,
    Failed,
    Outcome,
    Refunded,
    SeenRefund,
    Succeeded,
    Waiting,
)
from shared.gateways.stripe_amounts import from_gateway_minor
from shared.gateways.stripe_errors import declined

Document = Mapping[str, Any]


def intent_outcome(intent: Document, *, answers_us: bool = False) -> Outcome:
    """Read a PaymentIntent: https://docs.stripe.com/payments/paymentintents/lifecycle.

    `answers_us`: it is what our own attempt has made, whose client secret nobody else has seen; then a failed
    try is the end of it. Otherwise the customer may try again until the intent is cancelled.
    """
    status, ref = intent["status"], intent["id"]
    if status == "succeeded":
        return _succeeded(intent)
    if status == "requires_capture":
        return _authorized(intent)
    if status == "canceled":
        return Cancelled(gateway_ref=ref, reason=str(intent.get("cancellation_reason") or "canceled"))
    error = intent.get("last_payment_error")
    failure = declined({**error, "payment_intent": intent}) if error else None
    if status == "requires_payment_method" and failure and answers_us:
        return failure
    return Waiting(gateway_ref=ref, next_action=_next_action(intent), failure=failure)


def _succeeded(intent: Document) -> Succeeded:
    charge = intent["latest_charge"]
    return Succeeded(
        gateway_ref=intent["id"],
        transaction_id=charge["id"],
        captured=from_gateway_minor(intent["amount_received"], intent["currency"]),
        simulated_response=_simulated_response(charge),
    )


def _authorized(intent: Document) -> Authorized:
    charge = intent["latest_charge"]
    card = (charge.get("payment_method_details") or {}).get("card") or {}
    before = card.get("capture_before")
    return Authorized(
        gateway_ref=intent["id"],
        transaction_id=charge["id"],
        held=from_gateway_minor(intent["amount_capturable"], intent["currency"]),
        capture_before=datetime.fromtimestamp(before, UTC) if before else None,
        simulated_response=_simulated_response(charge),
    )


def _simulated_response(charge: Document) -> str | None:
    balance = charge.get("balance_transaction")
    return f"Success - TransactionId: {balance}" if balance else None


def _next_action(intent: Document) -> dict[str, Any] | None:
    if intent["status"] == "processing":
        return None
    action = intent.get("next_action") or {}
    if redirect := action.get("redirect_to_url"):
        secret = intent["client_secret"]
        return {"type": "redirect", "redirectUrl": redirect["url"], "clientSecret": secret}
    return {"type": "confirm", "clientSecret": intent["client_secret"]}


def refund_outcome(refund: Document) -> Outcome:
    """Read a refund: https://docs.stripe.com/api/refunds/object#refund_object-status."""
    status, ref = refund["status"], refund["id"]
    if status == "succeeded":
        refunded = from_gateway_minor(refund["amount"], refund["currency"])
        return Refunded(gateway_ref=ref, refunded=refunded)
    if status in {"failed", "canceled"}:
        reason = str(refund.get("failure_reason") or status)
        return Failed(
            error_code=f"REFUND_{status.upper()}",
            message=f"The refund was {'cancelled' if status == 'canceled' else 'not possible'}",
            reason=reason,
            gateway_ref=ref,
        )
    return Waiting(gateway_ref=ref, next_action=None)


def seen_refunds(refunds: Sequence[Document], charge: Document) -> list[SeenRefund]:
    """Read the refunds of a charge, oldest first, without the one that stands for a released rest of a hold.

    Stripe counts what a capture releases as refunded too: money that was given back is `amount_refunded` less
    what was never captured.
    """
    oldest_first = sorted(refunds, key=lambda each: (each["created"], each["id"]))
    released = charge["amount"] - charge["amount_captured"]
    given = charge["amount_refunded"] - released
    counted = [each for each in oldest_first if each["status"] not in {"failed", "canceled"}]
    if released and sum(each["amount"] for each in counted) > given:
        release = next((each for each in counted if each["amount"] == released and not _ours(each)), None)
        oldest_first = [each for each in oldest_first if each is not release]
    return [_seen_refund(each) for each in oldest_first]


def _ours(thing: Document) -> str | None:
    return (thing.get("metadata") or {}).get("operation_id")


def _seen_refund(refund: Document) -> SeenRefund:
    return SeenRefund(
        gateway_ref=refund["id"],
        operation_id=_ours(refund),
        money=from_gateway_minor(refund["amount"], refund["currency"]),
        reason=refund.get("reason"),
        outcome=refund_outcome(refund),
    )


def dispute_of(dispute: Document) -> Dispute:
    """Read a dispute: https://docs.stripe.com/api/disputes/object."""
    return Dispute(
        gateway_ref=dispute["id"],
        charge_ref=dispute.get("payment_intent"),
        reason=dispute["reason"],
        status=dispute["status"],
    )
