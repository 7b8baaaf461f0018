"""What subscribers and operators may ask about deliveries: list them, and have them sent again."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Text, Update, cast, func, literal, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.database import Sessions
from shared.models import TimelineEntry, plain
from shared.models_notifications import (
    DeliveryState,
    EndpointState,
    NotificationDelivery,
    NotificationEndpoint,
)
from shared.notifications import NOTIFIED
from shared.payments import PaymentError

MAX_AGAIN = 10_000  # deliveries that one request may have sent again

DELIVERY = plain(NotificationDelivery)
# What a delivery is when it has just come about.
FRESH: dict[str, Any] = {
    "state": DeliveryState.PENDING,
    "attempts": 0,
    "first_attempt_at": None,
    "last_status": None,
    "last_error": None,
    "ended_at": None,
}


class DeliveryNotFound(PaymentError):
    """This endpoint has no such delivery."""

    code = "DELIVERY_NOT_FOUND"


class TooManyDeliveries(PaymentError):
    """More than one request may have sent again."""

    code = "ENDPOINT_CONFLICT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which deliveries of an endpoint are to be listed."""

    state: str | None = None
    payment_id: uuid.UUID | None = None
    before: uuid.UUID | None = None  # the event id that a page ended with
    limit: int = 100


def list_deliveries(
    session: Session, endpoint_id: uuid.UUID, wanted: Wanted
) -> Sequence[NotificationDelivery]:
    """The deliveries of an endpoint, newest event first."""
    query = select(NotificationDelivery).where(NotificationDelivery.endpoint_id == endpoint_id)
    if wanted.state:
        query = query.where(NotificationDelivery.state == wanted.state)
    if wanted.payment_id:
        query = query.where(NotificationDelivery.payment_id == wanted.payment_id)
    if wanted.before:
        query = query.where(NotificationDelivery.event_id < wanted.before)
    return session.scalars(query.order_by(NotificationDelivery.event_id.desc()).limit(wanted.limit)).all()


def make_due(session: Session, endpoint_id: uuid.UUID) -> None:
    """Let everything that waits for an endpoint go at once; what is just on its way may come twice."""
    now = func.now()
    waiting = _free(
        NotificationDelivery.endpoint_id == endpoint_id, NotificationDelivery.next_attempt_at > now
    )
    session.execute(waiting.values(next_attempt_at=now).execution_options(synchronize_session=False))


def drop_waiting(session: Session) -> int:
    """Drop what waits for endpoints that were removed; return how many deliveries."""
    removed = select(NotificationEndpoint.id).where(NotificationEndpoint.state == EndpointState.REMOVED)
    dropped = {"state": DeliveryState.DROPPED, "next_attempt_at": None, "ended_at": func.now()}
    waiting = _free(NotificationDelivery.endpoint_id.in_(removed)).values(dropped)
    return session.connection().execute(waiting).rowcount


def _free(*conditions: ColumnElement[bool]) -> Update:
    """What waits, without what is just being recorded: two that lock many would wait for each other."""
    key = NotificationDelivery.endpoint_id, NotificationDelivery.event_id
    rows = select(*key).where(NotificationDelivery.state == DeliveryState.PENDING, *conditions)
    return update(NotificationDelivery).where(tuple_(*key).in_(rows.with_for_update(skip_locked=True)))


def send_again(sessions: Sessions, endpoint_id: uuid.UUID, event_id: uuid.UUID) -> NotificationDelivery:
    """Have one event delivered again, under its own id, whatever became of it. Raises DeliveryNotFound."""
    one = update(NotificationDelivery).where(
        NotificationDelivery.endpoint_id == endpoint_id, NotificationDelivery.event_id == event_id
    )
    again = one.values(**FRESH, next_attempt_at=func.clock_timestamp()).returning(NotificationDelivery)
    with sessions.begin() as session:
        delivery = session.scalar(again.execution_options(synchronize_session=False))
    if delivery is None:
        raise DeliveryNotFound("Delivery not found")
    return delivery


def send_all_again(
    sessions: Sessions,
    endpoint_id: uuid.UUID,
    event_types: list[str] | None,
    since: datetime,
    until: datetime | None = None,
) -> int:
    """Have everything that was announced since then delivered again; return how many events that is.

    Also what was never delivered, because there was no endpoint then, or it was disabled. Each payment's
    events go in their order. Raises TooManyDeliveries; then nothing is sent.
    """
    entry = TimelineEntry
    now = func.now()
    rows = {
        "endpoint_id": literal(endpoint_id, DELIVERY.c.endpoint_id.type),
        "event_id": entry.announced_id,
        "payment_id": entry.payment_id,
        "sequence": entry.sequence,
        "type": entry.announced_type,
        "stream": cast(entry.payment_id, Text),
        "place": entry.sequence,
        "state": literal(str(DeliveryState.PENDING)),
        "next_attempt_at": now,
        "created_at": now,
    }
    found = select(*rows.values()).where(
        entry.announced_id.is_not(None),
        entry.announced_type.in_(event_types or NOTIFIED),
        entry.at >= since,
        entry.at < (until or now),
    )
    added = insert(DELIVERY).from_select(list(rows), found.limit(MAX_AGAIN + 1))
    again = added.on_conflict_do_update(
        index_elements=["endpoint_id", "event_id"], set_={**FRESH, "next_attempt_at": now}
    )
    made = again.returning(DELIVERY.c.event_id).cte("made")
    with sessions.begin() as session:
        count = session.connection().execute(select(func.count()).select_from(made)).scalar_one()
        if count > MAX_AGAIN:
            raise TooManyDeliveries(f"since: more than {MAX_AGAIN} events; ask for a shorter time, by until")
    return int(count)
