"""What is wrong between an object of the gateway's and our rows of it; pure."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from payment_worker.reconciling.rows import Owned, payment_named
from shared.gateways.ledger import Entry, Standing, Thing
from shared.payments import PAID, CaptureMethod, OperationKind, OperationState, Status

OPERATION = "operation"  # an object of ours alone
NOT_OURS = "carries no id of this service: somebody else has made it"


class Kind(StrEnum):
    """The kinds of break."""

    MISSING_HERE = "missing_here"
    MISSING_THERE = "missing_there"
    AMOUNT = "amount"
    CURRENCY = "currency"
    STATUS = "status"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A difference, with what both sides say; `ref` is the gateway's id, or our operation's."""

    object: str
    ref: str
    kind: Kind
    reason: str
    payment_id: uuid.UUID | None
    ours: dict[str, Any] | None
    theirs: dict[str, Any] | None


Differences = Iterator[tuple[Kind, str]]

# What our row may say where the gateway's object stands like this.
_PAYMENT = {
    Standing.DONE: PAID,
    Standing.HELD: {Status.AUTHORIZED},
    Standing.VOID: {Status.CANCELLED, Status.FAILED},
    # The customer may try again, until the PaymentIntent is cancelled.
    Standing.FAILED: {Status.FAILED, Status.REQUIRES_ACTION},
    Standing.OPEN: {Status.REQUIRES_ACTION, Status.PROCESSING},
}
_REFUND = {
    Standing.DONE: {OperationState.SUCCEEDED},
    Standing.FAILED: {OperationState.FAILED},
    Standing.OPEN: {OperationState.REQUIRES_ACTION, OperationState.IN_FLIGHT},
}


def compare(entry: Entry, owned: Owned | None) -> list[Finding]:
    """Everything that is wrong with one object; nothing while something of its payment is on its way."""
    if owned is None:
        named = payment_named(entry)
        reason = f"no payment {named} here" if named else NOT_OURS
        return [_finding(entry, None, Kind.MISSING_HERE, reason)]
    if owned.is_busy:
        return []
    return [_finding(entry, owned, *each) for each in _DIFFERENCES[entry.thing](entry, owned)]


def missing_there(thing: Thing, ref: str, owned: Owned) -> list[Finding]:
    """The finding for an object that the gateway does not have; nothing while its payment is on its way."""
    if owned.is_busy:
        return []
    reason = "the gateway has no such object"
    return [
        Finding(
            object=str(thing),
            ref=ref,
            kind=Kind.MISSING_THERE,
            reason=reason,
            payment_id=owned.payment.id,
            ours=owned.evidence(),
            theirs=None,
        )
    ]


def lost_operations(owned: Owned) -> list[Finding]:
    """Operations that are open, and that nothing would ever carry on with."""
    return [
        Finding(
            object=OPERATION,
            ref=str(each.id),
            kind=Kind.STATUS,
            reason=f"{each.kind} {each.state}: open, and nothing carries on with it",
            payment_id=owned.payment.id,
            ours=owned.evidence(),
            theirs=None,
        )
        for each in owned.operations
        if is_lost(each, owned)
    ]


def is_lost(operation: Any, owned: Owned) -> bool:
    """Whether an operation is open and neither due, nor in doubt, nor in anybody's hands."""
    held = operation.lease_until is not None and operation.lease_until > owned.at
    moves = (
        held
        or operation.needs_review
        or operation.next_attempt_at is not None
        or operation.doubt_since is not None
    )
    return operation.finished_at is None and not moves


def _intent(entry: Entry, owned: Owned) -> Differences:
    payment = owned.payment
    if not owned.is_own(entry.intent_ref):
        return  # its charge, if any, says whether it matters
    yield from _other_currency(entry, owned)
    if entry.amount_minor != payment.amount_minor:
        yield Kind.AMOUNT, f"{entry.amount_minor} was asked for there, {payment.amount_minor} here"
    elif entry.taken_minor is not None and payment.captured_minor not in {0, entry.taken_minor}:
        yield Kind.AMOUNT, f"{entry.taken_minor} taken there, {payment.captured_minor} here"
    if not _stands_alike(entry, owned):
        yield Kind.STATUS, f"{entry.status} there, {payment.status} here"


def _stands_alike(entry: Entry, owned: Owned) -> bool:
    payment = owned.payment
    if entry.standing is Standing.DONE and payment.captured_minor:
        return True  # also one that was paid after its end, whose money goes back
    return payment.status in _PAYMENT[entry.standing]


def _charge(entry: Entry, owned: Owned) -> Differences:
    payment = owned.payment
    if owned.is_own(entry.intent_ref) and entry.ref == payment.transaction_id:
        yield from _own_charge(entry, owned)
    elif not entry.bears_money:
        return
    elif owned.is_own(entry.intent_ref) and not payment.captured_minor:
        if entry.standing is not Standing.HELD or payment.status is not Status.AUTHORIZED:
            yield Kind.STATUS, f"{entry.standing} there, the payment is {payment.status} here"
    elif not owned.is_being_undone(entry.intent_ref):
        yield Kind.DUPLICATE, f"beside {payment.transaction_id}, a second charge for one payment"


def _own_charge(entry: Entry, owned: Owned) -> Differences:
    payment = owned.payment
    yield from _other_currency(entry, owned)
    if entry.standing is Standing.DONE:
        if not payment.captured_minor:
            yield Kind.STATUS, f"taken there, the payment is {payment.status} here"
        elif entry.taken_minor != payment.captured_minor:
            yield Kind.AMOUNT, f"{entry.taken_minor} taken there, {payment.captured_minor} here"
        elif entry.returned_minor != owned.returned_minor:
            yield Kind.AMOUNT, f"{entry.returned_minor} given back there, {owned.returned_minor} here"
    elif payment.status in PAID:
        yield Kind.STATUS, f"{entry.standing} there, the payment is {payment.status} here"


def _refund(entry: Entry, owned: Owned) -> Differences:
    operation = owned.refund(entry)
    if operation is None:
        if not _is_release(entry, owned):
            yield Kind.MISSING_HERE, "no such refund here"
        return
    if operation.gateway_ref not in {None, entry.ref}:
        if entry.standing is not Standing.FAILED and entry.ref not in _seconds(operation):
            yield Kind.DUPLICATE, f"beside {operation.gateway_ref}, a second refund for one operation"
        return
    yield from _other_currency(entry, owned)
    if entry.amount_minor != operation.amount_minor:
        yield Kind.AMOUNT, f"{entry.amount_minor} given back there, {operation.amount_minor} here"
    if operation.state not in _REFUND[entry.standing]:
        yield Kind.STATUS, f"{entry.status} there, {operation.state} here"


def _seconds(operation: Any) -> list[str]:
    known: list[str] = (operation.outcome or {}).get("seconds", [])
    return known


def _is_release(entry: Entry, owned: Owned) -> bool:
    """Whether a refund stands for what was let go of a hold, which Stripe shows as one.

    Should somebody have refunded the same amount at the dashboard, the charge's sums tell.
    """
    payment = owned.payment
    if "operation_id" in entry.ids or payment.capture_method is not CaptureMethod.MANUAL:
        return False
    if owned.is_own(entry.intent_ref):
        return bool(entry.amount_minor == payment.amount_minor - payment.captured_minor)
    released = (each for each in owned.operations if each.kind is OperationKind.CANCEL)
    return any(each.target_ref == entry.intent_ref for each in released)


def _other_currency(entry: Entry, owned: Owned) -> Differences:
    if entry.currency != owned.payment.currency:
        yield Kind.CURRENCY, f"{entry.currency} there, {owned.payment.currency} here"


_DIFFERENCES: dict[Thing, Callable[[Entry, Owned], Differences]] = {
    Thing.INTENT: _intent,
    Thing.CHARGE: _charge,
    Thing.REFUND: _refund,
}


def _finding(entry: Entry, owned: Owned | None, kind: Kind, reason: str) -> Finding:
    return Finding(
        object=str(entry.thing),
        ref=entry.ref,
        kind=kind,
        reason=reason,
        payment_id=owned.payment.id if owned else payment_named(entry),
        ours=owned.evidence() if owned else None,
        theirs=entry.evidence(),
    )
