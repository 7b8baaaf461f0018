"""What a webhook says that our rows do not: whether the gateway has to be asked for the truth."""

import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from payment_worker.foreign import dispute_status
from payment_worker.settling import undone
from shared.database import Sessions, reading
from shared.gateways.stripe_amounts import from_gateway_minor
from shared.models import Operation, Payment
from shared.payments import DEAD, PAID, PRIMARY, OperationKind, OperationState, Status

INTENT, REFUND, CHARGE, DISPUTE = "payment_intent", "refund", "charge", "charge.dispute"
# What our row of a refund says when it says the same as the gateway's.
_REFUND_STATES = {
    "succeeded": {OperationState.SUCCEEDED},
    "failed": {OperationState.FAILED},
    "canceled": {OperationState.FAILED},
}


class News(Enum):
    """What to do about a webhook."""

    NONE = "none"  # our rows say it already, or will by themselves
    LATER = "later"  # we are just asking the gateway ourselves
    ASK = "ask"  # the gateway has to be asked
    NOT_OURS = "not ours"  # no payment of ours has this object


@dataclass(frozen=True, slots=True)
class Known:
    """A payment that a webhook may be about, with its operations, as they were at `at`."""

    payment: Payment
    operations: list[Operation]
    at: datetime

    @property
    def primary(self) -> Operation:
        """The newest charge or hold."""
        return max((each for each in self.operations if each.kind in PRIMARY), key=lambda each: each.id)

    @property
    def is_busy(self) -> bool:
        """Whether a worker of ours is asking the gateway about this payment at this moment."""
        return any(each.lease_until is not None and each.lease_until > self.at for each in self.operations)

    def refund(self, document: dict[str, Any]) -> Operation | None:
        """Our own row of a refund, if we have it."""
        refunds = [each for each in self.operations if each.kind is OperationKind.REFUND]
        named = document["metadata"].get("operation_id")
        return next(
            (each for each in refunds if each.gateway_ref == document["id"]),
            next((each for each in refunds if each.gateway_ref is None and str(each.id) == named), None),
        )


def subject(kind: str) -> str:
    """What a type of webhook is about."""
    return DISPUTE if kind.startswith(DISPUTE) else kind.partition(".")[0]


def charge_of(kind: str, document: dict[str, Any]) -> str | None:
    """The PaymentIntent that a webhook is about, as far as it says."""
    ref: str | None = document.get("id" if subject(kind) == INTENT else "payment_intent")
    return ref


def find(sessions: Sessions, messages: Sequence[Any]) -> dict[str, Known]:
    """The payments that these webhooks are about, by message id; what is not ours is left out.

    So is a payment without a charge or hold, which nobody has asked for yet: there is nothing to hold a
    webhook against. Its rows may have been lost with a database.
    """
    refs = {ref for each in messages if (ref := charge_of(each.type, each.payload))}
    refunds = {ref for each in messages if subject(each.type) == REFUND and (ref := each.payload.get("id"))}
    with reading(sessions) as session:
        of_refund = _payments_of_refunds(session, refunds)
        ids = {*filter(None, map(_named, messages)), *of_refund.values()}
        payments = list(
            session.scalars(select(Payment).where(or_(Payment.id.in_(ids), Payment.gateway_ref.in_(refs))))
        )
        operations = select(Operation).where(Operation.payment_id.in_([each.id for each in payments]))
        rows = list(session.scalars(operations))
        at = session.scalars(select(func.clock_timestamp())).one()
    by_id = {
        each.id: Known(each, [row for row in rows if row.payment_id == each.id], at)
        for each in payments
        if any(row.payment_id == each.id and row.kind in PRIMARY for row in rows)
    }
    by_ref = {each.payment.gateway_ref: each for each in by_id.values()}
    return {
        each.message_id: known
        for each in messages
        if (known := _match(each, by_id, by_ref, of_refund.get(each.payload.get("id"))))
    }


def _payments_of_refunds(session: Session, refs: set[str]) -> dict[str, uuid.UUID]:
    query = select(Operation.gateway_ref, Operation.payment_id).where(
        Operation.gateway_ref.in_(refs), Operation.kind == OperationKind.REFUND
    )
    return {str(row.gateway_ref): row.payment_id for row in session.execute(query)}


def _named(message: Any) -> uuid.UUID | None:
    with suppress(KeyError, ValueError):
        return uuid.UUID(message.payload["metadata"]["payment_id"])
    return None


def _match(
    message: Any,
    by_id: dict[uuid.UUID, Known],
    by_ref: dict[str | None, Known],
    payment_of_refund: uuid.UUID | None,
) -> Known | None:
    if (named := _named(message)) in by_id:
        return by_id[named]
    if payment_of_refund:
        return by_id.get(payment_of_refund)
    ref = charge_of(message.type, message.payload)
    return by_ref.get(ref) if ref else None


def news_of(kind: str, document: dict[str, Any], known: Known) -> News:
    """Whether a webhook of this type would change what we have."""
    about = subject(kind)
    if about == DISPUTE:
        is_new = dispute_status(known.payment, document["id"]) != document.get("status")
        return News.ASK if is_new else News.NONE
    if about == INTENT:
        is_new = _is_new_standing(kind, document["id"], known)
    elif about == REFUND:
        is_new = _is_new_refund(document, known)
    else:
        is_new = _is_new_sum(document, known)
    if not is_new:
        return News.NONE
    return News.LATER if known.is_busy else News.ASK


def _is_new_standing(kind: str, ref: str, known: Known) -> bool:
    payment, primary = known.payment, known.primary
    if ref in undone(primary):
        return False
    is_ours = ref == payment.gateway_ref
    match kind.partition(".")[2]:
        case "succeeded":
            return not (is_ours and (payment.status in PAID or payment.captured_minor))
        case "amount_capturable_updated":
            return not (is_ours and payment.status in PAID | {Status.AUTHORIZED})
        case "canceled":
            return payment.status not in PAID | DEAD and (is_ours or payment.gateway_ref is None)
    # The customer's tries, while we wait for the customer; what became of our own try its own answer says.
    return is_ours and primary.state is OperationState.REQUIRES_ACTION


def _is_new_refund(document: dict[str, Any], known: Known) -> bool:
    operation = known.refund(document)
    if operation is None:
        return True
    told = _REFUND_STATES.get(
        str(document.get("status")),
        {OperationState.REQUIRES_ACTION, OperationState.SUCCEEDED, OperationState.FAILED},
    )
    return operation.state not in told


def _is_new_sum(document: dict[str, Any], known: Known) -> bool:
    """Whether a charge's refunds add up to something else than ours; what a capture released is none."""
    sums = [document.get(name) for name in ("amount", "amount_captured", "amount_refunded")]
    if document.get("payment_intent") != known.payment.gateway_ref or None in sums:
        return True
    amount, captured, refunded = (int(each or 0) for each in sums)
    given = from_gateway_minor(max(0, refunded - (amount - captured)), str(document.get("currency")))
    return given.amount_minor != sum(_counted(known.operations))


def _counted(operations: Iterable[Operation]) -> Iterable[int]:
    """What the gateway counts as refunded of the payment's own charge: also what is still on its way."""
    for each in operations:
        if each.kind is OperationKind.REFUND and not each.target_ref and each.gateway_ref:
            yield each.amount_minor if each.state is not OperationState.FAILED else 0
