"""Clients' idempotency keys: bound to what a request made, in the request's own transaction."""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func
from sqlalchemy.orm import Session

from shared.database import try_lock
from shared.documents import render_json
from shared.models import IdempotencyKey
from shared.payments import IdempotencyKeyInUse, IdempotencyKeyReused


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotentRequest:
    """A request that came with a key: whose it is, and a hash of what it asked."""

    principal: str
    key: str
    request_hash: str


def hash_request(method: str, path: str, body: Any) -> str:
    """Tell two requests apart; the order of the body's fields and its white space do not count."""
    text = "\n".join((method, path, render_json(body, sort_keys=True)))
    return hashlib.sha256(text.encode()).hexdigest()


def find_bound(session: Session, request: IdempotentRequest) -> IdempotencyKey | None:
    """What this key is bound to, or None for a new key, which this transaction then owns.

    Raises IdempotencyKeyInUse while another transaction owns the key, IdempotencyKeyReused when
    the key was used for a different request.
    """
    if not try_lock(session, "idempotency", request.principal, request.key):
        raise IdempotencyKeyInUse("A request with this Idempotency-Key is being carried out")
    row = session.get(IdempotencyKey, (request.principal, request.key))
    if row is None:
        return None
    if row.request_hash != request.request_hash:
        raise IdempotencyKeyReused("This Idempotency-Key was used before, for a different request")
    return row


def bind(
    session: Session,
    request: IdempotentRequest,
    *,
    payment_id: uuid.UUID | None = None,
    operation_id: uuid.UUID | None = None,
    customer_id: uuid.UUID | None = None,
) -> None:
    """Bind the key to what the request made; both become durable together, or neither."""
    session.add(
        IdempotencyKey(
            principal=request.principal,
            key=request.key,
            request_hash=request.request_hash,
            payment_id=payment_id,
            operation_id=operation_id,
            customer_id=customer_id,
            created_at=func.clock_timestamp(),
        )
    )


def unbind(session: Session, request: IdempotentRequest) -> None:
    """Free the key of a request that was refused after all."""
    session.execute(
        delete(IdempotencyKey).where(
            IdempotencyKey.principal == request.principal,
            IdempotencyKey.key == request.key,
            IdempotencyKey.request_hash == request.request_hash,
        )
    )
