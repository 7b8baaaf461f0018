"""What operators look up: events by their time, and payments by cart and by the gateway's charge."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INDEXES = (
    ("ix_timeline_entry_announced_at", "timeline_entry", ["at"], "announced_id IS NOT NULL"),
    ("ix_payment_cart_id", "payment", ["cart_id"], "cart_id IS NOT NULL"),
    ("ix_payment_transaction_id", "payment", ["transaction_id"], "transaction_id IS NOT NULL"),
)


def upgrade() -> None:
    """Add indexes, without holding up those who write."""
    with op.get_context().autocommit_block():
        for name, table, columns, where in INDEXES:
            # A build that was interrupted leaves an invalid index behind.
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
            op.create_index(
                name,
                table,
                columns,
                postgresql_concurrently=True,
                postgresql_where=sa.text(where),
                if_not_exists=True,
            )


def downgrade() -> None:
    """Drop them again."""
    with op.get_context().autocommit_block():
        for name, table, _, _ in INDEXES:
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
