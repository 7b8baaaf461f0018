"""Purge what has served its time, in small batches; a payment's history is never purged."""

from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import Column, ColumnElement, TableClause, delete, func, or_, select, true, tuple_

from shared.commands.deliveries import drop_waiting
from shared.commands.reservations import ACTIVE
from shared.database import Sessions, try_lock
from shared.models import IdempotencyKey, InboxMessage, InboxState, plain
from shared.models_access import RevokedToken
from shared.models_accounts import FailedLogins
from shared.models_neighbours import InventoryAdjustment, Reservation
from shared.models_notifications import NotificationDelivery
from shared.settings import Settings
from shared.telemetry import get_logger

log = get_logger(__name__)

BATCH = 1_000  # a short transaction: it holds up no vacuum and no other writer


class Purged(NamedTuple):
    """What is purged of one table: rows that are older by `since` than the setting's days."""

    table: TableClause
    key: tuple[str, ...]
    since: str
    days: Callable[[Settings], int]
    only: ColumnElement[bool] = true()


_INBOX = plain(InboxMessage)
_RESERVATION = plain(Reservation)
PURGED = (
    Purged(
        plain(IdempotencyKey),
        ("principal", "key"),
        "created_at",
        lambda settings: settings.retention_idempotency_days,
    ),
    # What is unmatched or has failed waits for an operator.
    Purged(
        _INBOX,
        ("source", "message_id"),
        "received_at",
        lambda settings: settings.retention_inbox_days,
        _INBOX.c.state.in_([InboxState.PROCESSED, InboxState.IGNORED]),
    ),
    # Nobody takes an expired token; the day is for clocks that differ.
    Purged(plain(RevokedToken), ("token_id",), "expires_at", lambda _: 1),
    # One that may still be paid for is needed, however old it is.
    Purged(
        _RESERVATION,
        ("id",),
        "changed_at",
        lambda settings: settings.retention_inbox_days,
        or_(_RESERVATION.c.status != ACTIVE, _RESERVATION.c.expires_at < func.now()),
    ),
    Purged(
        plain(InventoryAdjustment),
        ("message_id",),
        "received_at",
        lambda settings: settings.retention_inbox_days,
    ),
    Purged(
        plain(NotificationDelivery),
        ("endpoint_id", "event_id"),
        "ended_at",
        lambda settings: settings.retention_notifications_days,
    ),
    Purged(plain(FailedLogins), ("subject",), "ends_at", lambda _: 1),
)


def purge(sessions: Sessions, settings: Settings) -> int:
    """Delete rows that are older than the settings say; return how many. While another is at it, nothing."""
    total = 0
    with sessions.begin() as session:
        drop_waiting(session)  # deliveries that were made while their endpoint was being removed
    for each in PURGED:
        keep = timedelta(days=each.days(settings))
        count = 0
        while removed := _purge_batch(sessions, each, keep):
            count += removed
        if count:
            log.info("old rows purged", table=each.table.name, count=count)
        total += count
    return total


def _purge_batch(sessions: Sessions, what: Purged, keep: timedelta) -> int:
    key: list[Column[str]] = [what.table.c[name] for name in what.key]  # type: ignore[misc]
    is_old = what.table.c[what.since] < func.now() - keep
    old = select(*key).where(is_old, what.only).limit(BATCH)
    with sessions.begin() as session:
        if not try_lock(session, "retention"):
            return 0
        return session.connection().execute(delete(what.table).where(tuple_(*key).in_(old))).rowcount
