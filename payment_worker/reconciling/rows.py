"""Our side of the comparison: the payments and operations that a page of the gateway's objects is about."""

import uuid
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import any_, bindparam, func, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Session
from sqlalchemy.types import Text, Uuid

from shared.gateways.ledger import Entry, Thing
from shared.models import Operation, Payment, plain
from shared.payments import PRIMARY, OperationKind, OperationState

_PAYMENT, _OPERATION = plain(Payment).c, plain(Operation).c
_IDS, _REFS = bindparam("ids", type_=ARRAY(Uuid())), bindparam("refs", type_=ARRAY(Text()))
# Plain columns of those that are compared: the ORM's objects would cost more than the gateway's page.
_PAYMENTS = select(
    *(_PAYMENT[name] for name in (
        "id", "version", "status", "amount_minor", "currency", "captured_minor", "refunded_minor",
        "capture_method", "gateway_ref", "transaction_id", "order_id", "cart_id", "created_at",
    ))
).where(or_(_PAYMENT.id == any_(_IDS), _PAYMENT.gateway_ref == any_(_REFS)))  # fmt: skip
_OPERATIONS = select(
    *(_OPERATION[name] for name in (
        "id", "payment_id", "kind", "state", "amount_minor", "gateway_ref", "target_ref", "next_attempt_at",
        "doubt_since", "lease_until", "finished_at", "needs_review", "outcome",
    ))
).where(_OPERATION.payment_id == any_(_IDS))  # fmt: skip
_OF_REFUNDS = select(_OPERATION.gateway_ref, _OPERATION.payment_id).where(
    _OPERATION.gateway_ref == any_(_REFS), _OPERATION.kind == OperationKind.REFUND
)


@dataclass(frozen=True, slots=True)
class Owned:
    """One payment of ours with its operations, as they were at `at`.

    After a restore nothing is sent, so that what is due is not on its way: it may have been done long ago.
    """

    payment: Any
    operations: Sequence[Any]
    at: datetime
    after_restore: bool

    @property
    def primary(self) -> Any:
        """The newest charge or hold."""
        return max((each for each in self.operations if each.kind in PRIMARY), key=lambda each: each.id)

    @property
    def is_unasked(self) -> bool:
        """Whether nobody has asked for its charge or hold yet, as far as we know: then it has no primary."""
        return not any(each.kind in PRIMARY for each in self.operations)

    @property
    def is_busy(self) -> bool:
        """Whether something of it is on its way, so that both sides may differ for a while."""
        return any(self._moves(each) for each in self.operations)

    def _moves(self, operation: Any) -> bool:
        if operation.finished_at is not None:
            return False
        if operation.lease_until is not None and operation.lease_until > self.at:
            return True
        is_due = operation.next_attempt_at is not None or operation.doubt_since is not None
        return is_due and not self.after_restore

    def is_own(self, intent_ref: str | None) -> bool:
        """Whether a PaymentIntent is the payment's own, and not one beside it."""
        return self.payment.gateway_ref in {None, intent_ref}

    def refund(self, entry: Entry) -> Any:
        """Our row of a refund; None where we have none."""
        refunds = [each for each in self.operations if each.kind is OperationKind.REFUND]
        named = entry.ids.get("operation_id")
        by_ref = next((each for each in refunds if each.gateway_ref == entry.ref), None)
        return by_ref or next((each for each in refunds if str(each.id) == named), None)

    def is_being_undone(self, intent_ref: str | None) -> bool:
        """Whether a second charge or hold is on its way back to the customer."""
        ours = [each for each in self.operations if each.target_ref and each.target_ref == intent_ref]
        return any(each.finished_at is None or each.state is OperationState.SUCCEEDED for each in ours)

    @property
    def returned_minor(self) -> int:
        """What went back of the payment's own charge, or is on its way there."""
        waiting: list[int] = [
            each.amount_minor
            for each in self.operations
            if each.kind is OperationKind.REFUND
            and each.finished_at is None
            and each.gateway_ref
            and not each.target_ref
        ]
        return int(self.payment.refunded_minor) + sum(waiting)

    def evidence(self) -> dict[str, Any]:
        """What is worth keeping, as JSON can hold it."""
        payment = {name: _plain(value) for name, value in self.payment._asdict().items() if value is not None}
        names = ("id", "kind", "state", "amount_minor", "gateway_ref", "target_ref", "needs_review")
        operations = [
            {name: _plain(getattr(each, name)) for name in names if getattr(each, name) is not None}
            for each in sorted(self.operations, key=lambda each: each.id)
        ]
        return {"payment": payment, "operations": operations}


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()  # the same for every session that reads it
    return value if isinstance(value, int) else str(value)


def payment_named(entry: Entry) -> uuid.UUID | None:
    """The payment that an object says it is for."""
    with suppress(KeyError, ValueError):
        return uuid.UUID(entry.ids["payment_id"])
    return None


def find(session: Session, entries: Iterable[Entry], *, after_restore: bool) -> dict[str, Owned]:
    """The payments that these objects are about, by the object's id; what is not ours is left out."""
    entries = list(entries)
    of_refund = _payments_of_refunds(session, [each.ref for each in entries if each.thing is Thing.REFUND])
    ids = {*filter(None, map(payment_named, entries)), *of_refund.values()}
    refs = {each.intent_ref for each in entries if each.intent_ref}
    by_id = _owned(session, list(ids), list(refs), after_restore=after_restore)
    by_ref = {each.payment.gateway_ref: each for each in by_id.values()}
    found = {}
    for each in entries:
        owned = by_id.get(payment_named(each) or uuid.UUID(int=0)) or by_id.get(
            of_refund.get(each.ref, uuid.UUID(int=0))
        )
        if owned := owned or (by_ref.get(each.intent_ref) if each.intent_ref else None):
            found[each.ref] = owned
    return found


def of_payment(session: Session, payment_id: uuid.UUID, *, after_restore: bool) -> Owned | None:
    """One payment of ours."""
    return _owned(session, [payment_id], [], after_restore=after_restore).get(payment_id)


def _payments_of_refunds(session: Session, refs: list[str]) -> dict[str, uuid.UUID]:
    if not refs:
        return {}
    return {str(ref): payment_id for ref, payment_id in session.execute(_OF_REFUNDS, {"refs": refs})}


def _owned(
    session: Session, ids: list[uuid.UUID], refs: list[str], *, after_restore: bool
) -> dict[uuid.UUID, Owned]:
    payments = session.execute(_PAYMENTS, {"ids": ids, "refs": refs}).all()
    if not payments:
        return {}
    at = session.scalars(select(func.clock_timestamp())).one()
    operations: dict[uuid.UUID, list[Any]] = {each.id: [] for each in payments}
    for row in session.execute(_OPERATIONS, {"ids": list(operations)}):
        operations[row.payment_id].append(row)
    return {each.id: Owned(each, operations[each.id], at, after_restore) for each in payments}
