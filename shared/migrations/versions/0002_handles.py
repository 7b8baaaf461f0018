"""What operators need: pausing a kind of operation, counting open ones, purging old idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_operation_open", "operation", ["kind", "state"], "finished_at IS NULL"),
    ("ix_operation_needs_review", "operation", ["id"], "needs_review"),
    ("ix_idempotency_key_created_at", "idempotency_key", ["created_at"], None),
)


def upgrade() -> None:
    """Add a table and indexes, without holding up those who write."""
    op.create_table(
        "pause",
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("since", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('charge', 'authorize', 'capture', 'cancel', 'refund')",
            name=op.f("ck_pause_kind_known"),
        ),
        sa.PrimaryKeyConstraint("kind", name=op.f("pk_pause")),
        if_not_exists=True,  # an earlier run may have stopped after it
    )
    with op.get_context().autocommit_block():
        for name, table, columns, where in INDEXES:
            # A build that was interrupted leaves an invalid index behind.
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
            op.create_index(
                name,
                table,
                columns,
                postgresql_concurrently=True,
                postgresql_where=sa.text(where) if where else None,
                if_not_exists=True,
            )


def downgrade() -> None:
    """Drop them again."""
    with op.get_context().autocommit_block():
        for name, table, _, _ in INDEXES:
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
    op.drop_table("pause", if_exists=True)
