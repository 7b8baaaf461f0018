"""The tables of customers and their saved cards."""

import uuid
from datetime import datetime

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models import Table
from shared.sealed import Sealed


class Customer(Table):
    """Somebody who pays, known to us by an email address and to the gateway by exactly one reference."""

    __tablename__ = "customer"
    __table_args__ = (
        Index("uq_customer_email", "email", unique=True),
        Index("uq_customer_email_fingerprint", "email_fingerprint", unique=True),
        Index("uq_customer_client_customer_id", "client_customer_id", unique=True),
        Index("uq_customer_gateway_ref", "gateway_ref", unique=True),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    email_fingerprint: Mapped[bytes | None]  # of the case-folded address, by which it is found
    email_sealed: Mapped[str | None] = mapped_column(Sealed("customer.email"))
    name_sealed: Mapped[str | None] = mapped_column(Sealed("customer.name"))
    # Of earlier releases.
    email_plain: Mapped[str | None] = mapped_column("email")
    name_plain: Mapped[str | None] = mapped_column("name")
    client_customer_id: Mapped[str | None]  # the client's own id, which its payments name
    gateway_ref: Mapped[str | None]  # null until the gateway has made its customer
    gateway_default_ref: Mapped[str | None]  # the default card that the gateway was last told of
    key_number: Mapped[int] = mapped_column(default=1)  # rises when the present gateway key tells nothing new
    key_since: Mapped[datetime]  # the gateway forgets a key after a day
    owner: Mapped[str]  # the principal who made it
    created_at: Mapped[datetime]

    @property
    def email(self) -> str:
        """The case-folded email address."""
        return self.email_sealed or self.email_plain or ""

    @property
    def name(self) -> str | None:
        """What the customer is called."""
        return self.name_sealed or self.name_plain

    @property
    def gateway_key(self) -> str:
        """The idempotency key under which the gateway is asked to make its customer."""
        return f"customer:{self.id}:{self.key_number}"


class SavedCard(Table):
    """A customer's card at the gateway: what may be shown of it, and no more.

    Recorded before the gateway is asked; it is the customer's card once `attached_at` is set, until
    `removed_at` is.
    """

    __tablename__ = "saved_card"
    __table_args__ = (
        CheckConstraint(
            "attached_at IS NULL OR (gateway_ref IS NOT NULL AND brand IS NOT NULL AND last4 IS NOT NULL"
            " AND exp_month IS NOT NULL AND exp_year IS NOT NULL)",
            name="attached_has_facts",
        ),
        CheckConstraint("removed_at IS NULL OR attached_at IS NOT NULL", name="removed_was_attached"),
        CheckConstraint("detached_at IS NULL OR removed_at IS NOT NULL", name="detached_was_removed"),
        CheckConstraint(
            "NOT is_default OR (attached_at IS NOT NULL AND removed_at IS NULL)", name="default_is_live"
        ),
        CheckConstraint("exp_month BETWEEN 1 AND 12", name="exp_month_known"),
        # The gateway never attaches a payment method again that was removed once.
        Index("uq_saved_card_gateway_ref", "gateway_ref", unique=True),
        Index("uq_saved_card_default", "customer_id", unique=True, postgresql_where=text("is_default")),
        Index(
            "uq_saved_card_live_token",
            "customer_id",
            "token",
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
        Index(
            "uq_saved_card_live_token_fingerprint",
            "customer_id",
            "token_fingerprint",
            unique=True,
            postgresql_where=text("removed_at IS NULL"),
        ),
        Index("ix_saved_card_customer_id_id", "customer_id", "id"),
        # Few at a time: what the gateway has not let go of yet.
        Index(
            "ix_saved_card_leaving",
            "removed_at",
            postgresql_where=text("removed_at IS NOT NULL AND detached_at IS NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    customer_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("customer.id"))
    # What the client gave; a test token becomes a payment method with another id.
    token_fingerprint: Mapped[bytes | None]
    token_sealed: Mapped[str | None] = mapped_column(Sealed("saved_card.token"))
    token_plain: Mapped[str | None] = mapped_column("token")  # of earlier releases, as the name below
    gateway_ref: Mapped[str | None]
    brand: Mapped[str | None]
    last4: Mapped[str | None]
    exp_month: Mapped[int | None]
    exp_year: Mapped[int | None]
    cardholder_name_sealed: Mapped[str | None] = mapped_column(Sealed("saved_card.cardholder_name"))
    cardholder_name_plain: Mapped[str | None] = mapped_column("cardholder_name")
    is_default: Mapped[bool] = mapped_column(default=False)
    key_number: Mapped[int] = mapped_column(default=1)
    key_since: Mapped[datetime]
    created_at: Mapped[datetime]
    attached_at: Mapped[datetime | None]
    removed_at: Mapped[datetime | None]
    detached_at: Mapped[datetime | None]  # the gateway has let go of it too

    @property
    def token(self) -> str:
        """What the client gave."""
        return self.token_sealed or self.token_plain or ""

    @property
    def cardholder_name(self) -> str | None:
        """Whose card it is."""
        return self.cardholder_name_sealed or self.cardholder_name_plain

    @cardholder_name.setter
    def cardholder_name(self, name: str | None) -> None:
        self.cardholder_name_sealed = name

    @property
    def gateway_key(self) -> str:
        """The idempotency key under which the gateway is asked to attach it."""
        return f"card:{self.id}:{self.key_number}"
