"""Refunds: what they do to their charge, how they come to pass or fail, and what a released hold leaves."""

from typing import Any

from deploy.stripe_simulator import currencies, rendering
from deploy.stripe_simulator.errors import StripeError, invalid
from deploy.stripe_simulator.events import announce
from deploy.stripe_simulator.ids import new_id
from deploy.stripe_simulator.lookups import find_charge
from deploy.stripe_simulator.rendering import Rendered, shown
from deploy.stripe_simulator.store import Facts, Store
from deploy.stripe_simulator.timers import drop_timer, set_timer

REFUND = "refund"
BY_CHARGE = "refund.charge"
BY_INTENT = "refund.payment_intent"

SETTLES = "refund_settles"
SETTLES_S = 2  # simulated seconds after which the refunds of two of the test cards change
FIRST_STATUS = {"pm_card_pendingRefund": "pending"}
LAST_STATUS = {"pm_card_pendingRefund": "succeeded", "pm_card_refundFail": "failed"}

EXPIRED = "expired_uncaptured_charge"  # the reason of a hold that was not captured in time
MOVES = {
    "pending": ("pending", "requires_action", "succeeded", "failed", "canceled"),
    "requires_action": ("requires_action", "pending", "succeeded", "failed", "canceled"),
    "succeeded": ("failed",),  # it can fail although it had succeeded
    "failed": (),
    "canceled": (),
}
UNDONE = ("failed", "canceled")
FAILURE_REASONS = (
    "lost_or_stolen_card", "expired_or_canceled_card", "charge_for_pending_refund_disputed",
    "insufficient_funds", "declined", "merchant_request", "unknown",
)  # fmt: skip

SHAPE: Rendered = {
    "id": None,
    "object": "refund",
    "amount": 0,
    "balance_transaction": None,
    "charge": None,
    "created": 0,
    "currency": None,
    "customer": None,
    "customer_account": None,
    "destination_details": None,
    "metadata": {},
    "payment_intent": None,
    "payment_method": None,
    "reason": None,
    "receipt_number": None,
    "source_transfer_reversal": None,
    "status": None,
    "transfer_reversal": None,
}


def show(facts: Facts) -> Rendered:
    """Return a Refund; what only failed and waiting ones have is absent from the others, as at Stripe."""
    rendered = {**SHAPE, **shown(facts)}
    kind = "reversal" if facts.get("_release") else "refund"
    reference = {"reference_status": "pending", "reference_type": "acquirer_reference_number"}
    rendered["destination_details"] = {"card": {**reference, "type": kind}, "type": "card"}
    if facts["status"] == "pending":
        rendered["pending_reason"] = "processing"
    if facts["status"] == "requires_action":
        rendered["next_action"] = {"type": "display_details", "display_details": None}
    return rendered


def check_refundable(charge: Facts, amount_minor: int | None) -> int:
    """Return how much of the charge is to be refunded, None meaning all that is left. Raises StripeError."""
    left = charge["amount"] - charge.get("amount_refunded", 0)
    if not charge["paid"] or not charge.get("captured"):
        message = (
            f"This PaymentIntent ({charge['payment_intent']}) does not have a successful charge to refund."
        )
        raise invalid(message, param="payment_intent")
    if charge.get("_charged_back"):
        message = f"Charge {charge['id']} has been charged back; cannot issue a refund."
        raise invalid(message, code="charge_disputed")
    if left == 0:
        message = f"Charge {charge['id']} has already been refunded."
        raise invalid(message, code="charge_already_refunded")
    if amount_minor is not None and amount_minor > left:
        raise _too_much(amount_minor, left, charge["currency"])
    return left if amount_minor is None else amount_minor


def _too_much(amount_minor: int, left_minor: int, currency: str) -> StripeError:
    asked, left = (
        currencies.display(minor, currency).removesuffix(" usd") for minor in (amount_minor, left_minor)
    )
    return invalid(
        f"Refund amount ({asked}) is greater than unrefunded amount on charge ({left})", param="amount"
    )


def make(store: Store, charge: Facts, amount_minor: int, **more: Any) -> Facts:
    """Refund a part of a charge that check_refundable has allowed; return the refund, which is kept."""
    charge["amount_refunded"] = charge.get("amount_refunded", 0) + amount_minor
    charge["refunded"] = charge["amount_refunded"] == charge["amount"]
    store.update(charge)
    refund = _keep(store, charge, amount_minor, FIRST_STATUS.get(charge["_card"], "succeeded"), more)
    if charge["_card"] in LAST_STATUS:
        set_timer(store, SETTLES, refund["id"], store.now() + SETTLES_S)
    return refund


def release(store: Store, charge: Facts, amount_minor: int, reason: str | None = None) -> Facts:
    """Keep the refund as which Stripe shows the part of a hold that was given back uncaptured."""
    return _keep(store, charge, amount_minor, "succeeded", {"reason": reason, "_release": True})


def _keep(store: Store, charge: Facts, amount_minor: int, status: str, more: Facts) -> Facts:
    refund: Facts = {
        "id": new_id("re_3"),
        "amount": amount_minor,
        "balance_transaction": None if more.get("_release") else new_id("txn_3"),
        "charge": charge["id"],
        "created": store.now_s(),
        "currency": charge["currency"],
        "customer": charge.get("customer"),
        "metadata": {},
        "payment_intent": charge["payment_intent"],
        "payment_method": charge["payment_method"],
        "status": status,
        **more,
    }
    reason = more.get("reason")
    links = {BY_CHARGE: charge["id"], BY_INTENT: charge["payment_intent"]}
    store.insert(REFUND, refund, links=links)
    announce(store, "refund.created", show, refund)
    announce(store, "charge.expired" if reason == EXPIRED else "charge.refunded", rendering.charge, charge)
    return refund


def move(store: Store, refund: Facts, status: str, failure_reason: str | None = None) -> None:
    """Let a refund come to another status; one that fails or is canceled gives its charge the money back.

    Raises ValueError for a move that no refund makes.
    """
    if status not in MOVES[refund["status"]]:
        message = f"a refund that is {refund['status']} cannot become {status}"
        raise ValueError(message)
    refund["status"] = status
    if status in UNDONE:
        refund["failure_balance_transaction"] = new_id("txn_3")
        refund["failure_reason"] = failure_reason or ("unknown" if status == "failed" else "merchant_request")
        charge = find_charge(store, refund["charge"])
        charge |= {"amount_refunded": charge["amount_refunded"] - refund["amount"], "refunded": False}
        store.update(charge)
    store.update(refund)
    drop_timer(store, SETTLES, refund["id"])
    announce(store, "refund.updated", show, refund)
    if status == "failed":
        announce(store, "refund.failed", show, refund)


def settle(store: Store, refund_id: str) -> None:
    """Let the refund of a test card come to its last status, unless it has been moved since."""
    refund = store.find(REFUND, refund_id)
    if refund is not None:
        card = find_charge(store, refund["charge"])["_card"]
        if LAST_STATUS[card] in MOVES[refund["status"]]:
            move(store, refund, LAST_STATUS[card])
