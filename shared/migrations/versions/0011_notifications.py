"""Notifications: subscribers' endpoints, what is on its way to them, and the order callback."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
TABLES = ("order_callback", "notification_delivery", "notification_event", "notification_endpoint")


def upgrade() -> None:
    """Add four tables; nothing that the running release uses changes."""
    _add_endpoints()
    op.create_table(
        "notification_event",
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("event_id", name=op.f("pk_notification_event")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_index("ix_notification_event_position", "notification_event", ["position"])
    _add_deliveries()
    op.create_table(
        "order_callback",
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=False),
        sa.Column("sealed_token", sa.LargeBinary(), nullable=True),
        sa.Column("token_until", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("payment_id", name=op.f("pk_order_callback")),
    )
    op.create_index(
        "ix_order_callback_token_until",
        "order_callback",
        ["token_until"],
        postgresql_where=sa.text("sealed_token IS NOT NULL"),
    )


def _add_endpoints() -> None:
    op.create_table(
        "notification_endpoint",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("event_types", postgresql.ARRAY(sa.Text()), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("sealed_secret", sa.LargeBinary(), nullable=False),
        sa.Column("previous_sealed_secret", sa.LargeBinary(), nullable=True),
        sa.Column("previous_until", MOMENT, nullable=True),
        sa.Column("failing_since", MOMENT, nullable=True),
        sa.Column("failures", sa.Integer(), server_default="0", nullable=False),
        sa.Column("disabled_at", MOMENT, nullable=True),
        sa.Column("disabled_reason", sa.Text(), nullable=True),
        sa.Column("disabled_count", sa.Integer(), server_default="0", nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "state IN ('enabled', 'disabled', 'removed')", name=op.f("ck_notification_endpoint_state_known")
        ),
        sa.CheckConstraint(
            "(state = 'disabled') = (disabled_at IS NOT NULL)",
            name=op.f("ck_notification_endpoint_disabled_has_time"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notification_endpoint")),
    )
    op.create_index(
        "ix_notification_endpoint_enabled",
        "notification_endpoint",
        ["id"],
        postgresql_where=sa.text("state = 'enabled'"),
    )
    op.create_index("ix_notification_endpoint_owner_id", "notification_endpoint", ["owner", "id"])
    op.create_index(
        "uq_notification_endpoint_owner_url",
        "notification_endpoint",
        ["owner", "url"],
        unique=True,
        postgresql_where=sa.text("state <> 'removed'"),
    )


def _add_deliveries() -> None:
    op.create_table(
        "notification_delivery",
        sa.Column("endpoint_id", sa.Uuid(), nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("place", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("first_attempt_at", MOMENT, nullable=True),
        sa.Column("next_attempt_at", MOMENT, nullable=True),
        sa.Column("last_status", sa.Integer(), nullable=True),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("ended_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "state IN ('pending', 'delivered', 'exhausted', 'dropped')",
            name=op.f("ck_notification_delivery_state_known"),
        ),
        sa.CheckConstraint(
            "(state = 'pending') = (next_attempt_at IS NOT NULL)",
            name=op.f("ck_notification_delivery_pending_is_due"),
        ),
        sa.PrimaryKeyConstraint("endpoint_id", "event_id", name=op.f("pk_notification_delivery")),
    )
    pending, ended = sa.text("state = 'pending'"), sa.text("ended_at IS NOT NULL")
    for name, columns, where in (
        ("ix_notification_delivery_due", ["endpoint_id", "next_attempt_at"], pending),
        ("ix_notification_delivery_stream", ["endpoint_id", "stream", "place"], pending),
        ("ix_notification_delivery_payment_id", ["payment_id"], None),
        ("ix_notification_delivery_ended_at", ["ended_at"], ended),
    ):
        op.create_index(name, "notification_delivery", columns, postgresql_where=where)


def downgrade() -> None:
    """Drop them again."""
    for table in TABLES:
        op.drop_table(table)
