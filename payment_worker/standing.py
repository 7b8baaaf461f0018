"""Ask how something stands at the gateway, and record it unless the payment has changed meanwhile."""

import uuid
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from payment_worker.locking import lock, record_locked
from payment_worker.processing import Worker
from shared.database import reading
from shared.gateways import GatewayUnavailable, Misconfigured, Outcome, Transient, Unknown
from shared.models import Operation, Payment

LOOKS = 4  # a payment that changes this often has others who look after it

Seen = TypeVar("Seen")
Record = Callable[[Session, Payment, Operation, datetime, Seen], None]


class Overtaken(Exception):
    """The payment changed with every look; come back later."""


class Unanswerable(Exception):
    """The gateway does not know what we ask for, or rejects us."""


def look_and_record(
    worker: Worker, operation_id: uuid.UUID, look: Callable[[], Seen], record: Record[Seen]
) -> Seen:
    """Look at the gateway with nothing locked, then record on the locked payment and this operation.

    What was seen is recorded only if the payment has not changed since before the look: an older truth must
    not overwrite a newer one. Raises GatewayUnavailable, Overtaken, and what `record` raises.
    """
    of_the_operation = select(Payment.version).join(Operation, Operation.payment_id == Payment.id)
    for _ in range(LOOKS):
        with reading(worker.sessions) as session:
            version = session.scalar(of_the_operation.where(Operation.id == operation_id))
        seen = worker.gate.look(look)
        with worker.sessions.begin() as session:
            payment, operation, at = lock(session, operation_id)
            if payment.version != version:
                continue
            record(session, payment, operation, at, seen)
        worker.announce_change(payment.id)
        return seen
    raise Overtaken


def adopt_standing(worker: Worker, operation_id: uuid.UUID, gateway_ref: str, actor: str) -> Outcome:
    """Record how an operation's charge or refund `gateway_ref` stands at the gateway.

    Raises GatewayUnavailable, Overtaken and Unanswerable; nothing is recorded then.
    """
    with reading(worker.sessions) as session:
        kind = session.scalars(select(Operation.kind).where(Operation.id == operation_id)).one()

    def look() -> Outcome:
        outcome = worker.gateway.look_up(kind, gateway_ref)
        if isinstance(outcome, Transient | Unknown):
            raise GatewayUnavailable(outcome.reason)
        return outcome

    def record(
        session: Session, payment: Payment, operation: Operation, at: datetime, outcome: Outcome
    ) -> None:
        if isinstance(outcome, Misconfigured):
            raise Unanswerable(outcome.reason)
        record_locked(
            session, payment, operation, outcome, at, abandon_after=worker.abandon_after, actor=actor
        )

    return look_and_record(worker, operation_id, look, record)
