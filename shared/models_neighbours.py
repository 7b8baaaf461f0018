"""The tables of what other services tell us: reservations, and what has become of stocks."""

from datetime import datetime
from decimal import Decimal

from sqlalchemy import CheckConstraint, Index, Numeric, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models import Table


class Reservation(Table):
    """A reservation as ticketing has told of it; what is over stays over, in whatever order it is told."""

    __tablename__ = "reservation"
    __table_args__ = (
        CheckConstraint("status IN ('active', 'expired', 'confirmed')", name="status_known"),
        CheckConstraint("status <> 'active' OR expires_at IS NOT NULL", name="active_has_an_end"),
        Index("ix_reservation_changed_at", "changed_at"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    customer_id: Mapped[str]
    status: Mapped[str]
    expires_at: Mapped[datetime | None]  # null until its creation is heard of
    expired_at: Mapped[datetime | None]
    reason: Mapped[str | None]
    changed_at: Mapped[datetime]


class InventoryAdjustment(Table):
    """A change of a stock as the catalog has told of it, once for each message."""

    __tablename__ = "inventory_adjustment"
    __table_args__ = (
        Index("ix_inventory_adjustment_received_at", "received_at"),
        Index("ix_inventory_adjustment_order_id", "order_id", postgresql_where=text("order_id IS NOT NULL")),
    )

    message_id: Mapped[str] = mapped_column(primary_key=True)
    product: Mapped[str]  # or its SKU
    quantity: Mapped[Decimal | None] = mapped_column(Numeric())
    reason: Mapped[str | None]
    order_id: Mapped[str | None]
    received_at: Mapped[datetime]
