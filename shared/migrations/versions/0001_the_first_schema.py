"""The first schema: payments, their operations and history, the outbox, clients' keys."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    """Create every table."""
    op.create_table(
        "outbox",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("position", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("aggregatetype", sa.Text(), nullable=False),
        sa.Column("aggregateid", sa.Uuid(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("causation_id", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("parked_reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        postgresql_with={
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "1000",
            "autovacuum_vacuum_cost_delay": "0",
        },
    )
    op.create_index("ix_outbox_position", "outbox", ["position"], unique=False)
    op.create_table(
        "payment",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("order_id", sa.Text(), nullable=True),
        sa.Column("cart_id", sa.Text(), nullable=True),
        sa.Column("customer_id", sa.Text(), nullable=True),
        sa.Column("reservation_id", sa.Text(), nullable=True),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.String(length=3), nullable=False),
        sa.Column("captured_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("refunded_minor", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("capture_method", sa.String(length=20), nullable=False),
        sa.Column("payment_method", sa.Text(), nullable=False),
        sa.Column("payment_method_id", sa.Text(), nullable=True),
        sa.Column("off_session", sa.Boolean(), nullable=False),
        sa.Column("return_url", sa.Text(), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("error_code", sa.Text(), nullable=True),
        sa.Column("error_message", sa.Text(), nullable=True),
        sa.Column("failure_reason", sa.Text(), nullable=True),
        sa.Column("gateway_ref", sa.Text(), nullable=True),
        sa.Column("transaction_id", sa.Text(), nullable=True),
        sa.Column("is_simulated", sa.Boolean(), nullable=False),
        sa.Column("simulated_response", sa.Text(), nullable=True),
        sa.Column("next_action", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("metadata", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("processed_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "capture_method IN ('automatic', 'manual')", name=op.f("ck_payment_capture_method_known")
        ),
        sa.CheckConstraint(
            "processed_at IS NOT NULL"
            " OR status IN ('pending', 'processing', 'requires_action', 'authorized')",
            name=op.f("ck_payment_processed_has_time"),
        ),
        sa.CheckConstraint(
            "status <> 'succeeded' OR captured_minor > 0", name=op.f("ck_payment_succeeded_has_money")
        ),
        sa.CheckConstraint(
            "status IN ('pending', 'processing', 'requires_action', 'authorized', 'succeeded',"
            " 'partially_refunded', 'refunded', 'failed', 'cancelled')",
            name=op.f("ck_payment_status_known"),
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_payment_amount_positive")),
        sa.CheckConstraint(
            "captured_minor BETWEEN 0 AND amount_minor", name=op.f("ck_payment_captured_within_amount")
        ),
        sa.CheckConstraint(
            "refunded_minor BETWEEN 0 AND captured_minor", name=op.f("ck_payment_refunded_within_captured")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_payment")),
    )
    op.create_index("ix_payment_customer_id_id", "payment", ["customer_id", "id"], unique=False)
    op.create_index("ix_payment_order_id_id", "payment", ["order_id", "id"], unique=False)
    op.create_index("ix_payment_status_id", "payment", ["status", "id"], unique=False)
    op.create_index("uq_payment_gateway_ref", "payment", ["gateway_ref"], unique=True)
    op.create_index(
        "uq_payment_live_cart",
        "payment",
        ["cart_id"],
        unique=True,
        postgresql_where=sa.text("cart_id IS NOT NULL AND status NOT IN ('failed', 'cancelled')"),
    )
    op.create_index(
        "uq_payment_live_order",
        "payment",
        ["order_id"],
        unique=True,
        postgresql_where=sa.text("order_id IS NOT NULL AND status NOT IN ('failed', 'cancelled')"),
    )
    op.create_table(
        "idempotency_key",
        sa.Column("principal", sa.Text(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name=op.f("fk_idempotency_key_payment_id")),
        sa.PrimaryKeyConstraint("principal", "key", name=op.f("pk_idempotency_key")),
    )
    op.create_table(
        "operation",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("key_number", sa.Integer(), nullable=False),
        sa.Column("request", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("first_sent_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("lease_until", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("next_attempt_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("dispatch_count", sa.Integer(), nullable=False),
        sa.Column("doubt_since", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("absent_since", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.Column("gateway_ref", sa.Text(), nullable=True),
        sa.Column("outcome", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("needs_review", sa.Boolean(), nullable=False),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("traceparent", sa.Text(), nullable=True),
        sa.Column("created_at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("finished_at", postgresql.TIMESTAMP(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state IN ('succeeded', 'failed')) = (finished_at IS NOT NULL)",
            name=op.f("ck_operation_finished_has_time"),
        ),
        sa.CheckConstraint(
            "kind IN ('charge', 'authorize', 'capture', 'cancel', 'refund')",
            name=op.f("ck_operation_kind_known"),
        ),
        sa.CheckConstraint(
            "state IN ('requested', 'in_flight', 'requires_action', 'succeeded', 'failed')",
            name=op.f("ck_operation_state_known"),
        ),
        sa.CheckConstraint("amount_minor > 0", name=op.f("ck_operation_amount_positive")),
        sa.CheckConstraint(
            "finished_at IS NULL OR next_attempt_at IS NULL", name=op.f("ck_operation_finished_is_not_due")
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name=op.f("fk_operation_payment_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operation")),
    )
    op.create_index(
        "ix_operation_doubtful",
        "operation",
        ["doubt_since"],
        unique=False,
        postgresql_where=sa.text("doubt_since IS NOT NULL"),
    )
    op.create_index(
        "ix_operation_due",
        "operation",
        ["next_attempt_at"],
        unique=False,
        postgresql_where=sa.text("next_attempt_at IS NOT NULL"),
    )
    op.create_index("ix_operation_payment_id", "operation", ["payment_id"], unique=False)
    op.create_index("uq_operation_gateway_ref", "operation", ["gateway_ref", "kind"], unique=True)
    op.create_index(
        "uq_operation_live_charge",
        "operation",
        ["payment_id"],
        unique=True,
        postgresql_where=sa.text("kind IN ('charge', 'authorize') AND state <> 'failed'"),
    )
    op.create_table(
        "timeline_entry",
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("at", postgresql.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("event", sa.Text(), nullable=False),
        sa.Column("from_status", sa.String(length=20), nullable=True),
        sa.Column("to_status", sa.String(length=20), nullable=True),
        sa.Column("operation_id", sa.Uuid(), nullable=True),
        sa.Column("gateway_ref", sa.Text(), nullable=True),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("detail", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("announced_id", sa.Uuid(), nullable=True),
        sa.Column("announced_type", sa.Text(), nullable=True),
        sa.Column(
            "announced_payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True
        ),
        sa.ForeignKeyConstraint(
            ["operation_id"], ["operation.id"], name=op.f("fk_timeline_entry_operation_id")
        ),
        sa.ForeignKeyConstraint(["payment_id"], ["payment.id"], name=op.f("fk_timeline_entry_payment_id")),
        sa.PrimaryKeyConstraint("payment_id", "sequence", name=op.f("pk_timeline_entry")),
    )
    op.create_index(
        "uq_timeline_entry_announced_id",
        "timeline_entry",
        ["announced_id"],
        unique=True,
        postgresql_where=sa.text("announced_id IS NOT NULL"),
    )


def downgrade() -> None:
    """Drop every table."""
    op.drop_index(
        "uq_timeline_entry_announced_id",
        table_name="timeline_entry",
        postgresql_where=sa.text("announced_id IS NOT NULL"),
    )
    op.drop_table("timeline_entry")
    op.drop_index(
        "uq_operation_live_charge",
        table_name="operation",
        postgresql_where=sa.text("kind IN ('charge', 'authorize') AND state <> 'failed'"),
    )
    op.drop_index("uq_operation_gateway_ref", table_name="operation")
    op.drop_index("ix_operation_payment_id", table_name="operation")
    op.drop_index(
        "ix_operation_due", table_name="operation", postgresql_where=sa.text("next_attempt_at IS NOT NULL")
    )
    op.drop_index(
        "ix_operation_doubtful", table_name="operation", postgresql_where=sa.text("doubt_since IS NOT NULL")
    )
    op.drop_table("operation")
    op.drop_table("idempotency_key")
    op.drop_index(
        "uq_payment_live_order",
        table_name="payment",
        postgresql_where=sa.text("order_id IS NOT NULL AND status NOT IN ('failed', 'cancelled')"),
    )
    op.drop_index(
        "uq_payment_live_cart",
        table_name="payment",
        postgresql_where=sa.text("cart_id IS NOT NULL AND status NOT IN ('failed', 'cancelled')"),
    )
    op.drop_index("uq_payment_gateway_ref", table_name="payment")
    op.drop_index("ix_payment_status_id", table_name="payment")
    op.drop_index("ix_payment_order_id_id", table_name="payment")
    op.drop_index("ix_payment_customer_id_id", table_name="payment")
    op.drop_table("payment")
    op.drop_index("ix_outbox_position", table_name="outbox")
    op.drop_table("outbox")
