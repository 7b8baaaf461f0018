"""Purge what has served its time, in small batches; a payment's history is never purged."""

from datetime import timedelta

from sqlalchemy import delete, func, select

from shared.database import Sessions, try_lock
from shared.models import IdempotencyKey
from shared.telemetry import get_logger

log = get_logger(__name__)

BATCH = 1_000  # a short transaction: it holds up no vacuum and no other writer


def purge(sessions: Sessions, keep_idempotency_keys: timedelta) -> int:
    """Delete idempotency keys that are older; return how many. While another purge is at it, nothing."""
    total = 0
    while removed := _purge_batch(sessions, keep_idempotency_keys):
        total += removed
    if total:
        log.info("idempotency keys purged", count=total)
    return total


def _purge_batch(sessions: Sessions, keep: timedelta) -> int:
    old = (
        select(IdempotencyKey.principal, IdempotencyKey.key)
        .where(IdempotencyKey.created_at < func.clock_timestamp() - keep)
        .limit(BATCH)
        .subquery()
    )
    gone = delete(IdempotencyKey).where(
        IdempotencyKey.principal == old.c.principal, IdempotencyKey.key == old.c.key
    )
    with sessions.begin() as session:
        if not try_lock(session, "retention"):
            return 0
        removed: int = session.execute(gone.execution_options(synchronize_session=False)).rowcount  # type: ignore[attr-defined]
        return removed
