"""The tables. Constraints repeat the invariants, so that no code path can break them."""

import uuid
from datetime import datetime
from enum import StrEnum
from typing import Any, cast

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Enum,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    String,
    TableClause,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from shared.documents import parse_json, render_json
from shared.payments import CaptureMethod, OperationKind, OperationState, Status
from shared.sealed import Sealed

NOT_DEAD = "status NOT IN ('failed', 'cancelled')"
ORDER_IS_LIVE = text(f"order_id IS NOT NULL AND {NOT_DEAD}")
CART_IS_LIVE = text(f"cart_id IS NOT NULL AND {NOT_DEAD}")
SUBSCRIPTION_IS_LIVE = text(f"subscription_id IS NOT NULL AND {NOT_DEAD}")


class InboxState(StrEnum):
    """What became of a message that another service sent."""

    RECEIVED = "received"  # to be processed, or tried again
    PROCESSED = "processed"
    IGNORED = "ignored"  # of a type that means nothing to us
    UNMATCHED = "unmatched"  # about an object that is not ours
    FAILED = "failed"  # given up after many tries; an operator may replay it


def _stored(members: type[StrEnum]) -> Enum:
    """Members are stored as their text; the CHECK constraints below name those that are allowed."""
    return Enum(
        members,
        native_enum=False,
        create_constraint=False,
        length=20,
        values_callable=lambda each: [str(member) for member in each],
    )


def _one_of(column: str, members: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(str(member)) for member in members)})"


class Table(DeclarativeBase):
    """What all tables share: how constraints are named and how Python types are stored."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads this plain class attribute
        datetime: TIMESTAMP(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        str: Text(),
        Status: _stored(Status),
        OperationKind: _stored(OperationKind),
        OperationState: _stored(OperationState),
        CaptureMethod: _stored(CaptureMethod),
        InboxState: _stored(InboxState),
    }


def plain(model: type[Table]) -> TableClause:
    """The table itself, for statements that need none of the ORM's bookkeeping, which costs as much again."""
    return cast("TableClause", model.__table__)


class Payment(Table):
    """What is owed, and how much of it was taken and given back."""

    __tablename__ = "payment"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint("captured_minor BETWEEN 0 AND amount_minor", name="captured_within_amount"),
        CheckConstraint("refunded_minor BETWEEN 0 AND captured_minor", name="refunded_within_captured"),
        CheckConstraint(_one_of("status", Status), name="status_known"),
        CheckConstraint(_one_of("capture_method", CaptureMethod), name="capture_method_known"),
        CheckConstraint(
            "processed_at IS NOT NULL"
            " OR status IN ('pending', 'processing', 'requires_action', 'authorized')",
            name="processed_has_time",
        ),
        CheckConstraint("status <> 'succeeded' OR captured_minor > 0", name="succeeded_has_money"),
        # What is reserved may exceed what is left: a refund in the gateway's dashboard may overtake ours.
        CheckConstraint(
            "refund_reserved_minor BETWEEN 0 AND captured_minor", name="reserved_within_captured"
        ),
        Index("uq_payment_live_order", "order_id", unique=True, postgresql_where=ORDER_IS_LIVE),
        Index("uq_payment_live_cart", "cart_id", unique=True, postgresql_where=CART_IS_LIVE),
        Index(
            "uq_payment_live_subscription",
            "subscription_id",
            unique=True,
            postgresql_where=SUBSCRIPTION_IS_LIVE,
        ),
        Index("uq_payment_gateway_ref", "gateway_ref", unique=True),
        Index("ix_payment_order_id_id", "order_id", "id"),
        Index("ix_payment_customer_id_id", "customer_id", "id"),
        Index("ix_payment_status_id", "status", "id"),
        # Whose seats are no longer kept.
        Index(
            "ix_payment_reservation_id", "reservation_id", postgresql_where=text("reservation_id IS NOT NULL")
        ),
        # What an operator may have in hand.
        Index("ix_payment_cart_id", "cart_id", postgresql_where=text("cart_id IS NOT NULL")),
        Index(
            "ix_payment_transaction_id", "transaction_id", postgresql_where=text("transaction_id IS NOT NULL")
        ),
        Index("ix_payment_expires_at", "expires_at", postgresql_where=text("expires_at IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    order_id: Mapped[str | None]
    cart_id: Mapped[str | None]
    customer_id: Mapped[str | None]
    reservation_id: Mapped[str | None]
    subscription_id: Mapped[str | None]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    currency: Mapped[str] = mapped_column(String(3))
    captured_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    # Asked for and not yet known to have succeeded or failed.
    refund_reserved_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    refunded_minor: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    capture_method: Mapped[CaptureMethod]
    payment_method: Mapped[str]
    payment_method_sealed: Mapped[str | None] = mapped_column(Sealed("payment.payment_method"))
    payment_method_plain: Mapped[str | None] = mapped_column("payment_method_id")  # of earlier releases
    gateway_customer: Mapped[str | None]  # whose saved card it is, in the gateway's words
    off_session: Mapped[bool]
    return_url: Mapped[str | None]
    status: Mapped[Status]
    version: Mapped[int]  # the sequence of the newest timeline entry
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    failure_reason: Mapped[str | None]
    gateway_ref: Mapped[str | None]  # the PaymentIntent
    transaction_id: Mapped[str | None]  # the gateway's charge
    is_simulated: Mapped[bool]
    simulated_response: Mapped[str | None]
    next_action: Mapped[dict[str, Any] | None]
    outcome_topic: Mapped[str | None]  # where its outcome is told as well, in a neighbour's own words
    # `metadata` is taken by SQLAlchemy on mapped classes.
    labels: Mapped[dict[str, Any]] = mapped_column("metadata")
    # id, reason and status in the gateway's words; a dispute is no status of a payment
    dispute: Mapped[dict[str, Any] | None]
    cancel_requested_at: Mapped[datetime | None]  # while the outcome was unknown: void or refund it then
    # When a hold lapses, or when a customer who must act is given up.
    expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime]
    processed_at: Mapped[datetime | None]

    @property
    def payment_method_id(self) -> str | None:
        """The gateway's token."""
        return self.payment_method_sealed or self.payment_method_plain


class Operation(Table):
    """One piece of work for the gateway, and all that is known about how it went."""

    __tablename__ = "operation"
    __table_args__ = (
        CheckConstraint("amount_minor > 0", name="amount_positive"),
        CheckConstraint(_one_of("kind", OperationKind), name="kind_known"),
        CheckConstraint(_one_of("state", OperationState), name="state_known"),
        CheckConstraint(
            "(state IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)", name="finished_has_time"
        ),
        CheckConstraint("finished_at IS NULL OR next_attempt_at IS NULL", name="finished_is_not_due"),
        Index(
            "uq_operation_live_charge",
            "payment_id",
            unique=True,
            postgresql_where=text("kind IN ('charge', 'authorize') AND state <> 'failed'"),
        ),
        Index(
            "uq_operation_open_settlement",
            "payment_id",
            unique=True,
            postgresql_where=text(
                "kind IN ('capture', 'cancel') AND finished_at IS NULL AND target_ref IS NULL"
            ),
        ),
        Index("ix_operation_payment_id", "payment_id"),
        Index("uq_operation_gateway_ref", "gateway_ref", "kind", unique=True),
        Index("ix_operation_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
        # Few are open at a time, however many are stored: what operators' figures are counted from.
        Index("ix_operation_open", "kind", "state", postgresql_where=text("finished_at IS NULL")),
        Index("ix_operation_needs_review", "id", postgresql_where=text("needs_review")),
        Index("ix_operation_doubtful", "doubt_since", postgresql_where=text("doubt_since IS NOT NULL")),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    payment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("payment.id"))
    kind: Mapped[OperationKind]
    amount_minor: Mapped[int] = mapped_column(BigInteger)
    state: Mapped[OperationState]
    attempt: Mapped[int] = mapped_column(default=0)  # claims so far; the newest claim's number
    key_number: Mapped[int] = mapped_column(default=1)  # rises after a verified absence at the gateway
    request_sealed: Mapped[str | None] = mapped_column(Sealed("operation.request"))
    request_plain: Mapped[dict[str, Any] | None] = mapped_column("request")  # of earlier releases
    # Of the present key, which the gateway forgets after a day. None: nothing of it can be at the gateway.
    first_sent_at: Mapped[datetime | None]
    lease_until: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]  # when recovery dispatches it again
    dispatch_count: Mapped[int] = mapped_column(default=0)  # dispatches by recovery since the last claim
    doubt_since: Mapped[datetime | None]  # asking again cannot tell the outcome; look for it instead
    absent_since: Mapped[datetime | None]  # the first look that found nothing at the gateway
    gateway_ref: Mapped[str | None]  # what it made: a PaymentIntent or a refund
    target_ref: Mapped[str | None]  # a PaymentIntent beside the payment's own, made by a second success
    reason: Mapped[str | None]
    outcome: Mapped[dict[str, Any] | None]
    needs_review: Mapped[bool] = mapped_column(default=False)
    correlation_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]

    @property
    def request(self) -> dict[str, Any] | None:
        """The gateway's parameters, frozen at the first claim."""
        return parse_json(self.request_sealed) if self.request_sealed else self.request_plain

    @request.setter
    def request(self, parameters: dict[str, Any]) -> None:
        self.request_sealed = render_json(parameters)

    @property
    def gateway_key(self) -> str:
        """The idempotency key at the gateway: a new one only after a verified absence."""
        return str(self.id) if self.key_number == 1 else f"{self.id}:{self.key_number}"


class TimelineEntry(Table):
    """Append-only history of a payment, with each announced event, so that it can be announced again."""

    __tablename__ = "timeline_entry"
    __table_args__ = (
        Index(
            "uq_timeline_entry_announced_id",
            "announced_id",
            unique=True,
            postgresql_where=text("announced_id IS NOT NULL"),
        ),
        # What is to be announced again.
        Index("ix_timeline_entry_announced_at", "at", postgresql_where=text("announced_id IS NOT NULL")),
    )

    payment_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("payment.id"), primary_key=True)
    sequence: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    actor: Mapped[str]
    event: Mapped[str]  # what happened
    from_status: Mapped[Status | None]
    to_status: Mapped[Status | None]
    operation_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("operation.id"))
    gateway_ref: Mapped[str | None]
    correlation_id: Mapped[str | None]
    detail: Mapped[dict[str, Any] | None]
    announced_id: Mapped[uuid.UUID | None]
    announced_type: Mapped[str | None]
    announced_payload: Mapped[dict[str, Any] | None]


class Outbox(Table):
    """Events that Kafka has not confirmed yet; the column names are Debezium's Outbox Event Router's."""

    __tablename__ = "outbox"
    __table_args__ = (
        Index("ix_outbox_position", "position"),
        # Rows live for milliseconds: vacuum early, or the dead ones slow every read.
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": "0",
                "autovacuum_vacuum_threshold": "1000",
                "autovacuum_vacuum_cost_delay": "0",
            }
        },
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # the event's id
    # Orders the rows of one payment (their transactions follow each other under the payment's lock).
    # Never a high-water mark: across payments, numbers are taken before commit.
    position: Mapped[int] = mapped_column(BigInteger, Identity(always=True))
    aggregatetype: Mapped[str]
    aggregateid: Mapped[uuid.UUID]
    type: Mapped[str]
    payload: Mapped[dict[str, Any]]
    sequence: Mapped[int]
    correlation_id: Mapped[str | None]
    causation_id: Mapped[str | None]
    traceparent: Mapped[str | None]
    created_at: Mapped[datetime]
    parked_reason: Mapped[str | None]  # it does not fit its own schema; an operator must look


class Pause(Table):
    """A kind of operation that an operator has halted: nothing new of it reaches the gateway."""

    __tablename__ = "pause"
    __table_args__ = (CheckConstraint(_one_of("kind", OperationKind), name="kind_known"),)

    kind: Mapped[OperationKind] = mapped_column(primary_key=True)
    since: Mapped[datetime]
    actor: Mapped[str]
    reason: Mapped[str | None]


class IdempotencyKey(Table):
    """A client's key, bound in one transaction to what its request made."""

    __tablename__ = "idempotency_key"
    __table_args__ = (Index("ix_idempotency_key_created_at", "created_at"),)

    principal: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request_hash: Mapped[str]
    # What the request made: always one of them.
    payment_id: Mapped[uuid.UUID | None] = mapped_column(ForeignKey("payment.id"))
    operation_id: Mapped[uuid.UUID | None]  # of that payment
    customer_id: Mapped[uuid.UUID | None]
    created_at: Mapped[datetime]


class InboxMessage(Table):
    """A webhook or a Kafka command, stored once however often it comes."""

    __tablename__ = "inbox"
    __table_args__ = (
        CheckConstraint(_one_of("state", InboxState), name="state_known"),
        CheckConstraint("(state = 'received') = (next_attempt_at IS NOT NULL)", name="received_is_due"),
        Index("ix_inbox_due", "next_attempt_at", postgresql_where=text("next_attempt_at IS NOT NULL")),
        Index("ix_inbox_open", "state", postgresql_where=text("state IN ('unmatched', 'failed')")),
        Index("ix_inbox_received_at", "received_at"),
    )

    source: Mapped[str] = mapped_column(primary_key=True)  # `stripe`, or the topic
    message_id: Mapped[str] = mapped_column(primary_key=True)
    type: Mapped[str]
    payload: Mapped[dict[str, Any] | None]
    state: Mapped[InboxState]
    attempts: Mapped[int] = mapped_column(default=0, server_default="0")
    next_attempt_at: Mapped[datetime | None]
    error: Mapped[str | None]
    payment_id: Mapped[uuid.UUID | None]  # what it was about
    correlation_id: Mapped[str | None]
    received_at: Mapped[datetime]
