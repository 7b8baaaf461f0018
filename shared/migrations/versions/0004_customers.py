"""Customers and their saved cards, and the gateway's customer of a payment."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Add two tables and a column; nothing that is in use is locked for longer than a moment."""
    _add_customer()
    _add_saved_card()
    op.add_column("payment", sa.Column("gateway_customer", sa.Text(), nullable=True))


def _add_customer() -> None:
    op.create_table(
        "customer",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("email", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("client_customer_id", sa.Text(), nullable=True),
        sa.Column("gateway_ref", sa.Text(), nullable=True),
        sa.Column("gateway_default_ref", sa.Text(), nullable=True),
        sa.Column("key_number", sa.Integer(), nullable=False),
        sa.Column("key_since", MOMENT, nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_customer")),
    )
    op.create_index("uq_customer_email", "customer", ["email"], unique=True)
    op.create_index("uq_customer_client_customer_id", "customer", ["client_customer_id"], unique=True)
    op.create_index("uq_customer_gateway_ref", "customer", ["gateway_ref"], unique=True)


def _add_saved_card() -> None:
    op.create_table(
        "saved_card",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("customer_id", sa.Uuid(), nullable=False),
        sa.Column("token", sa.Text(), nullable=False),
        sa.Column("gateway_ref", sa.Text(), nullable=True),
        sa.Column("brand", sa.Text(), nullable=True),
        sa.Column("last4", sa.Text(), nullable=True),
        sa.Column("exp_month", sa.Integer(), nullable=True),
        sa.Column("exp_year", sa.Integer(), nullable=True),
        sa.Column("cardholder_name", sa.Text(), nullable=True),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("key_number", sa.Integer(), nullable=False),
        sa.Column("key_since", MOMENT, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("attached_at", MOMENT, nullable=True),
        sa.Column("removed_at", MOMENT, nullable=True),
        sa.Column("detached_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "attached_at IS NULL OR (gateway_ref IS NOT NULL AND brand IS NOT NULL AND last4 IS NOT NULL"
            " AND exp_month IS NOT NULL AND exp_year IS NOT NULL)",
            name=op.f("ck_saved_card_attached_has_facts"),
        ),
        sa.CheckConstraint(
            "removed_at IS NULL OR attached_at IS NOT NULL", name=op.f("ck_saved_card_removed_was_attached")
        ),
        sa.CheckConstraint(
            "detached_at IS NULL OR removed_at IS NOT NULL", name=op.f("ck_saved_card_detached_was_removed")
        ),
        sa.CheckConstraint(
            "NOT is_default OR (attached_at IS NOT NULL AND removed_at IS NULL)",
            name=op.f("ck_saved_card_default_is_live"),
        ),
        sa.CheckConstraint("exp_month BETWEEN 1 AND 12", name=op.f("ck_saved_card_exp_month_known")),
        sa.ForeignKeyConstraint(["customer_id"], ["customer.id"], name=op.f("fk_saved_card_customer_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_saved_card")),
    )
    op.create_index("uq_saved_card_gateway_ref", "saved_card", ["gateway_ref"], unique=True)
    op.create_index(
        "uq_saved_card_default",
        "saved_card",
        ["customer_id"],
        unique=True,
        postgresql_where=sa.text("is_default"),
    )
    op.create_index(
        "uq_saved_card_live_token",
        "saved_card",
        ["customer_id", "token"],
        unique=True,
        postgresql_where=sa.text("removed_at IS NULL"),
    )
    op.create_index("ix_saved_card_customer_id_id", "saved_card", ["customer_id", "id"])
    op.create_index(
        "ix_saved_card_leaving",
        "saved_card",
        ["removed_at"],
        postgresql_where=sa.text("removed_at IS NOT NULL AND detached_at IS NULL"),
    )


def downgrade() -> None:
    """Drop them again."""
    op.drop_column("payment", "gateway_customer")
    op.drop_table("saved_card")
    op.drop_table("customer")
