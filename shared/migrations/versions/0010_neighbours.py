"""What other services tell: reservations, stocks, subscriptions, and where outcomes are told as well."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
INDEXES = (
    (
        "uq_payment_live_subscription",
        "subscription_id",
        "subscription_id IS NOT NULL AND status NOT IN ('failed', 'cancelled')",
        True,
    ),
    ("ix_payment_reservation_id", "reservation_id", "reservation_id IS NOT NULL", False),
)


def upgrade() -> None:
    """Add two tables, two columns and two indexes, without holding up those who write."""
    with op.get_context().autocommit_block():
        _add_tables()
        for name in ("subscription_id", "outcome_topic"):
            op.add_column("payment", sa.Column(name, sa.Text(), nullable=True), if_not_exists=True)
        for name, column, where, unique in INDEXES:
            # A build that was interrupted leaves an invalid index behind.
            op.drop_index(name, "payment", postgresql_concurrently=True, if_exists=True)
            op.create_index(
                name,
                "payment",
                [column],
                unique=unique,
                postgresql_concurrently=True,
                postgresql_where=sa.text(where),
                if_not_exists=True,
            )


def _add_tables() -> None:
    op.create_table(
        "reservation",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("customer_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("expires_at", MOMENT, nullable=True),
        sa.Column("expired_at", MOMENT, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("changed_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "status IN ('active', 'expired', 'confirmed')", name=op.f("ck_reservation_status_known")
        ),
        sa.CheckConstraint(
            "status <> 'active' OR expires_at IS NOT NULL", name=op.f("ck_reservation_active_has_an_end")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reservation")),
        if_not_exists=True,
    )
    op.create_table(
        "inventory_adjustment",
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("product", sa.Text(), nullable=False),
        sa.Column("quantity", sa.Numeric(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("message_id", name=op.f("pk_inventory_adjustment")),
        if_not_exists=True,
    )
    op.create_index("ix_reservation_changed_at", "reservation", ["changed_at"], if_not_exists=True)
    op.create_index(
        "ix_inventory_adjustment_received_at", "inventory_adjustment", ["received_at"], if_not_exists=True
    )
    op.create_index(
        "ix_inventory_adjustment_order_id",
        "inventory_adjustment",
        ["order_id"],
        postgresql_where=sa.text("order_id IS NOT NULL"),
        if_not_exists=True,
    )


def downgrade() -> None:
    """Drop them again."""
    with op.get_context().autocommit_block():
        op.drop_table("inventory_adjustment", if_exists=True)
        op.drop_table("reservation", if_exists=True)
        for name, _, _, _ in INDEXES:
            op.drop_index(name, "payment", postgresql_concurrently=True, if_exists=True)
        for name in ("outcome_topic", "subscription_id"):
            op.drop_column("payment", name, if_exists=True)
