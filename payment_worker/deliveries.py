"""Deliveries of events to subscribers: made from what is announced, claimed, and recorded."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import (
    Boolean,
    Interval,
    Text,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import insert

from payment_worker import subscribers
from shared.database import Sessions, alone, try_lock
from shared.models import plain
from shared.models_notifications import (
    DeliveryState,
    EndpointState,
    NotificationDelivery,
    NotificationEndpoint,
    NotificationEvent,
    OrderCallback,
)
from shared.notifications import ORDER_SERVICE, ORDER_STATUS, RETRIED_FOR

BATCH = 500
MAX_ERROR = 300
# Who dies with a delivery in hand has it delivered again after this long; much longer than a call lasts.
HELD_FOR = timedelta(seconds=60)
EVENT, ENDPOINT, DELIVERY = plain(NotificationEvent), plain(NotificationEndpoint), plain(NotificationDelivery)
CALLBACK = plain(OrderCallback)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one attempt; an `again_in_s` of None ends the delivery, as `delivered` says."""

    delivered: bool
    status: int | None = None
    error: str | None = None
    again_in_s: float | None = None


def fan_out(sessions: Sessions) -> int:
    """Turn announced events into deliveries, one for each receiver that wants it; return how many events.

    Nothing while another is at it: of two, one could bring a payment's later event to its receivers first.
    """
    with sessions.begin() as session:
        if not try_lock(session, "notifications fan-out"):
            return 0
        return int(session.connection().execute(_FAN_OUT).scalar_one())


def receivers(sessions: Sessions, *, order_service: bool) -> Sequence[Any]:
    """Who has deliveries that are due: rows of `id`, and `failures` in a row."""
    query = select(ENDPOINT.c.id, ENDPOINT.c.failures).where(
        ENDPOINT.c.state == EndpointState.ENABLED, _has_due(ENDPOINT.c.id)
    )
    with alone(sessions) as connection:
        rows = list(connection.execute(query))
        if order_service and connection.scalar(select(_has_due(literal(ORDER_SERVICE)))):
            rows += connection.execute(_ORDER_SERVICE)
        return rows


def claim(sessions: Sessions, receiver_id: uuid.UUID) -> Any:
    """Take one delivery that is due, and count the attempt; None when there is none.

    Of each stream only the first that has not ended. `is_last` says that its time is over. It comes back
    after HELD_FOR if nobody records it.
    """
    with alone(sessions) as connection:
        return connection.execute(_CLAIM, {"receiver_id": receiver_id}).one_or_none()


def record(sessions: Sessions, taken: Any, result: Result) -> bool:
    """Write down how an attempt went; False when the delivery was taken by others or asked for anew since.

    What waits behind it in its stream is due when it has ended, and not before it is due again.
    """
    ended = result.again_in_s is None
    state = DeliveryState.DELIVERED if result.delivered else DeliveryState.EXHAUSTED
    values = {
        "receiver_id": taken.endpoint_id,
        "taken_event": taken.event_id,
        "taken_attempt": taken.attempts,
        "in_stream": taken.stream,
        "new_state": state if ended else DeliveryState.PENDING,
        "ended": ended,
        "pause": timedelta(seconds=result.again_in_s or 0),
        "answered": result.status,
        "failed_by": result.error and result.error[:MAX_ERROR],
    }
    with sessions.begin() as session:
        rows = session.connection().execute(_RECORD, values).all()
        recorded = any(row.event_id == taken.event_id for row in rows)
        if recorded and taken.endpoint_id != ORDER_SERVICE:
            if result.delivered:
                subscribers.note_success(session, taken.endpoint_id)
            else:
                subscribers.note_failure(session, taken.endpoint_id, result.status)
    return recorded


def _has_due(receiver_id: Any) -> Any:
    return exists().where(
        DELIVERY.c.endpoint_id == receiver_id,
        DELIVERY.c.state == DeliveryState.PENDING,
        DELIVERY.c.next_attempt_at <= func.now(),
    )


def _fan_out() -> Any:
    oldest = select(EVENT.c.event_id).order_by(EVENT.c.position).limit(BATCH)
    taken = delete(EVENT).where(EVENT.c.event_id.in_(oldest)).returning(EVENT).cte("taken")
    now = func.now()
    always = {
        "event_id": taken.c.event_id,
        "payment_id": taken.c.payment_id,
        "sequence": taken.c.sequence,
        "type": taken.c.type,
        "state": literal(str(DeliveryState.PENDING)),
        "next_attempt_at": now,
        "created_at": now,
    }
    wants = or_(ENDPOINT.c.event_types.is_(None), taken.c.type == func.any(ENDPOINT.c.event_types))
    to_endpoints = always | {
        "endpoint_id": ENDPOINT.c.id,
        "stream": cast(taken.c.payment_id, Text),
        "place": taken.c.sequence,
    }
    to_orders = always | {
        "endpoint_id": literal(ORDER_SERVICE),
        # A failed payment and the one that took its place are told in this order.
        "stream": CALLBACK.c.order_id,
        "place": taken.c.position,
    }
    is_enabled = ENDPOINT.c.state == EndpointState.ENABLED
    of_endpoints = select(*to_endpoints.values()).join_from(taken, ENDPOINT, is_enabled & wants)
    of_orders = (
        select(*to_orders.values())
        .join_from(taken, CALLBACK, CALLBACK.c.payment_id == taken.c.payment_id)
        .where(taken.c.type.in_(ORDER_STATUS))
    )
    added = [
        insert(DELIVERY).from_select(list(columns), rows).on_conflict_do_nothing().cte(name)
        for name, columns, rows in (
            ("to_endpoints", to_endpoints, of_endpoints),
            ("to_orders", to_orders, of_orders),
        )
    ]
    return select(func.count()).select_from(taken).add_cte(*added)


def _claim() -> Any:
    earlier = DELIVERY.alias("earlier")
    is_first = ~exists().where(
        earlier.c.endpoint_id == DELIVERY.c.endpoint_id,
        earlier.c.stream == DELIVERY.c.stream,
        earlier.c.state == DeliveryState.PENDING,
        earlier.c.place < DELIVERY.c.place,
    )
    one = (
        select(DELIVERY.c.event_id)
        .where(
            DELIVERY.c.endpoint_id == bindparam("receiver_id"),
            DELIVERY.c.state == DeliveryState.PENDING,
            DELIVERY.c.next_attempt_at <= func.now(),
            is_first,
        )
        .order_by(DELIVERY.c.next_attempt_at)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    return (
        update(DELIVERY)
        .where(
            DELIVERY.c.endpoint_id == bindparam("receiver_id"),
            DELIVERY.c.event_id == one.scalar_subquery(),
        )
        .values(
            attempts=DELIVERY.c.attempts + 1,
            first_attempt_at=func.coalesce(DELIVERY.c.first_attempt_at, func.now()),
            next_attempt_at=func.now() + HELD_FOR,
        )
        .returning(DELIVERY, (func.now() - DELIVERY.c.first_attempt_at >= RETRIED_FOR).label("is_last"))
    )


def _record() -> Any:
    """The delivery itself, and with it what waits behind it in its stream."""
    own = DELIVERY.alias("own")
    ended: Any = bindparam("ended", type_=Boolean())
    pause: Any = bindparam("pause", type_=Interval())
    still_ours = exists().where(
        own.c.endpoint_id == bindparam("receiver_id"),
        own.c.event_id == bindparam("taken_event"),
        own.c.attempts == bindparam("taken_attempt"),
        own.c.state == DeliveryState.PENDING,
    )
    is_it = DELIVERY.c.event_id == bindparam("taken_event")
    due = func.clock_timestamp() + pause

    def of_it(value: Any, column: str) -> Any:
        return case((is_it, value), else_=DELIVERY.c[column])

    return (
        update(DELIVERY)
        .where(
            DELIVERY.c.endpoint_id == bindparam("receiver_id"),
            DELIVERY.c.stream == bindparam("in_stream"),
            DELIVERY.c.state == DeliveryState.PENDING,
            still_ours,
        )
        .values(
            state=of_it(bindparam("new_state"), "state"),
            next_attempt_at=case((is_it & ended, None), else_=due),
            ended_at=of_it(case((ended, func.clock_timestamp()), else_=None), "ended_at"),
            last_status=of_it(bindparam("answered", type_=DELIVERY.c.last_status.type), "last_status"),
            last_error=of_it(bindparam("failed_by", type_=DELIVERY.c.last_error.type), "last_error"),
        )
        .returning(DELIVERY.c.event_id)
    )


_ORDER_SERVICE = select(literal(ORDER_SERVICE).label("id"), literal(0).label("failures"))
_FAN_OUT, _CLAIM, _RECORD = _fan_out(), _claim(), _record()
