"""The whole life of a payment: holds, refunds, deadlines, disputes, and the inbox of what others send us."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
COLUMNS: tuple[tuple[str, str, Any], ...] = (
    ("payment", "dispute", postgresql.JSONB(none_as_null=True, astext_type=sa.Text())),
    ("payment", "cancel_requested_at", MOMENT),
    ("payment", "expires_at", MOMENT),
    ("operation", "target_ref", sa.Text()),
    ("operation", "reason", sa.Text()),
    ("idempotency_key", "operation_id", sa.Uuid()),
    ("idempotency_key", "customer_id", sa.Uuid()),
)
OPEN_SETTLEMENT = "kind IN ('capture', 'cancel') AND finished_at IS NULL AND target_ref IS NULL"
INDEXES: tuple[tuple[str, str, list[str], bool, str], ...] = (
    ("ix_payment_expires_at", "payment", ["expires_at"], False, "expires_at IS NOT NULL"),
    ("uq_operation_open_settlement", "operation", ["payment_id"], True, OPEN_SETTLEMENT),
)
RESERVED = "ck_payment_reserved_within_captured"


def upgrade() -> None:
    """Add columns, a table and indexes, without holding up those who write."""
    for table, name, kind in COLUMNS:
        op.add_column(table, sa.Column(name, kind, nullable=True), if_not_exists=True)
    reserved = sa.Column("refund_reserved_minor", sa.BigInteger(), server_default="0", nullable=False)
    op.add_column("payment", reserved, if_not_exists=True)
    op.execute("ALTER TABLE idempotency_key ALTER COLUMN payment_id DROP NOT NULL")
    op.execute(f"ALTER TABLE payment DROP CONSTRAINT IF EXISTS {RESERVED}")
    op.execute(
        f"ALTER TABLE payment ADD CONSTRAINT {RESERVED}"
        " CHECK (refund_reserved_minor BETWEEN 0 AND captured_minor) NOT VALID"
    )
    _add_inbox()
    with op.get_context().autocommit_block():
        # Looks at every row, while they may be written.
        op.execute(f"ALTER TABLE payment VALIDATE CONSTRAINT {RESERVED}")
        for name, table, columns, unique, where in INDEXES:
            # A build that was interrupted leaves an invalid index behind.
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
            op.create_index(
                name,
                table,
                columns,
                unique=unique,
                postgresql_concurrently=True,
                postgresql_where=sa.text(where),
                if_not_exists=True,
            )


def _add_inbox() -> None:
    op.create_table(
        "inbox",
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("message_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("state", sa.String(length=20), nullable=False),
        sa.Column("attempts", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_attempt_at", MOMENT, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.Column("correlation_id", sa.Text(), nullable=True),
        sa.Column("received_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "state IN ('received', 'processed', 'ignored', 'unmatched', 'failed')",
            name=op.f("ck_inbox_state_known"),
        ),
        sa.CheckConstraint(
            "(state = 'received') = (next_attempt_at IS NOT NULL)", name=op.f("ck_inbox_received_is_due")
        ),
        sa.PrimaryKeyConstraint("source", "message_id", name=op.f("pk_inbox")),
        if_not_exists=True,  # an earlier run may have stopped after it
    )
    for name, columns, where in (
        ("ix_inbox_due", ["next_attempt_at"], "next_attempt_at IS NOT NULL"),
        ("ix_inbox_open", ["state"], "state IN ('unmatched', 'failed')"),
        ("ix_inbox_received_at", ["received_at"], None),
    ):
        op.create_index(
            name, "inbox", columns, postgresql_where=sa.text(where) if where else None, if_not_exists=True
        )


def downgrade() -> None:
    """Take them away again, the indexes with their columns; so go keys that are bound to no payment."""
    op.drop_table("inbox", if_exists=True)
    op.execute("DELETE FROM idempotency_key WHERE payment_id IS NULL")
    op.execute("ALTER TABLE idempotency_key ALTER COLUMN payment_id SET NOT NULL")
    op.execute(f"ALTER TABLE payment DROP CONSTRAINT IF EXISTS {RESERVED}")
    op.drop_column("payment", "refund_reserved_minor", if_exists=True)
    for table, name, _ in COLUMNS:
        op.drop_column(table, name, if_exists=True)
