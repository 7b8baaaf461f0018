"""The tables of notifications: who wants to hear of payments, what is told to whom, and how that went."""

import uuid
from datetime import datetime
from enum import StrEnum

from sqlalchemy import BigInteger, CheckConstraint, Index, LargeBinary, String, Text, text
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.orm import Mapped, mapped_column

from shared.models import Table


class EndpointState(StrEnum):
    """Whether a subscriber's endpoint is told of events."""

    ENABLED = "enabled"
    DISABLED = "disabled"  # by its owner, or by us after it had failed for days; what waits, waits on
    REMOVED = "removed"  # kept for its deliveries, and shown to nobody


class DeliveryState(StrEnum):
    """What became of one event for one receiver."""

    PENDING = "pending"  # to be sent, or tried again
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"  # given up after days; it can be sent again by hand
    DROPPED = "dropped"  # its endpoint was removed before


def _one_of(column: str, members: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(str(member)) for member in members)})"


class NotificationEndpoint(Table):
    """Where a subscriber takes webhooks, and how it has done lately."""

    __tablename__ = "notification_endpoint"
    __table_args__ = (
        CheckConstraint(_one_of("state", EndpointState), name="state_known"),
        CheckConstraint("(state = 'disabled') = (disabled_at IS NOT NULL)", name="disabled_has_time"),
        Index("ix_notification_endpoint_enabled", "id", postgresql_where=text("state = 'enabled'")),
        Index("ix_notification_endpoint_owner_id", "owner", "id"),
        Index(
            "uq_notification_endpoint_owner_url",
            "owner",
            "url",
            unique=True,
            postgresql_where=text("state <> 'removed'"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    owner: Mapped[str]  # the principal who registered it
    url: Mapped[str]
    event_types: Mapped[list[str] | None] = mapped_column(ARRAY(Text()))  # null: every type
    description: Mapped[str | None]
    state: Mapped[str] = mapped_column(String(20))
    sealed_secret: Mapped[bytes] = mapped_column(LargeBinary)
    previous_sealed_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    previous_until: Mapped[datetime | None]  # until then both secrets sign
    failing_since: Mapped[datetime | None]  # the first failure after the latest success
    failures: Mapped[int] = mapped_column(server_default="0")  # in a row
    disabled_at: Mapped[datetime | None]
    disabled_reason: Mapped[str | None]
    disabled_count: Mapped[int] = mapped_column(server_default="0")  # by us; numbers the events that say so
    created_at: Mapped[datetime]


class NotificationEvent(Table):
    """An announced event that was not turned into deliveries yet; written only when somebody wants to hear.

    Rows are taken and deleted one by one, never by a high-water mark: numbers are taken before commit.
    """

    __tablename__ = "notification_event"
    __table_args__ = (
        Index("ix_notification_event_position", "position"),
        # Rows live for a second: vacuum early, or the dead ones slow every read.
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": "0",
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_cost_delay": "0",
            }
        },
    )

    event_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(BigInteger)  # the outbox's: it orders the events of one payment
    payment_id: Mapped[uuid.UUID]
    sequence: Mapped[int]
    type: Mapped[str]


class NotificationDelivery(Table):
    """One event on its way to one receiver: an endpoint, or the order service of the delivery contract."""

    __tablename__ = "notification_delivery"
    __table_args__ = (
        CheckConstraint(_one_of("state", DeliveryState), name="state_known"),
        CheckConstraint("(state = 'pending') = (next_attempt_at IS NOT NULL)", name="pending_is_due"),
        Index(
            "ix_notification_delivery_due",
            "endpoint_id",
            "next_attempt_at",
            postgresql_where=text("state = 'pending'"),
        ),
        Index(
            "ix_notification_delivery_stream",
            "endpoint_id",
            "stream",
            "place",
            postgresql_where=text("state = 'pending'"),
        ),
        Index("ix_notification_delivery_payment_id", "payment_id"),
        Index("ix_notification_delivery_ended_at", "ended_at", postgresql_where=text("ended_at IS NOT NULL")),
    )

    endpoint_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # an endpoint's, or ORDER_SERVICE
    event_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    payment_id: Mapped[uuid.UUID]
    sequence: Mapped[int]  # where the payment's history has the event
    type: Mapped[str]
    # Of one stream to one receiver only the delivery with the lowest place is sent, until it has ended.
    stream: Mapped[str]
    place: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[str] = mapped_column(String(20))
    attempts: Mapped[int] = mapped_column(server_default="0")
    first_attempt_at: Mapped[datetime | None]  # of the present tries: they end days after it
    next_attempt_at: Mapped[datetime | None]
    last_status: Mapped[int | None]  # the receiver's answer to the latest attempt
    last_error: Mapped[str | None]
    created_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


class OrderCallback(Table):
    """A payment whose outcome the order service of the delivery contract is to hear."""

    __tablename__ = "order_callback"
    __table_args__ = (
        Index(
            "ix_order_callback_token_until",
            "token_until",
            postgresql_where=text("sealed_token IS NOT NULL"),
        ),
    )

    payment_id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    order_id: Mapped[str]
    sealed_token: Mapped[bytes | None] = mapped_column(
        LargeBinary
    )  # the caller's, until delivered or expired
    token_until: Mapped[datetime | None]
