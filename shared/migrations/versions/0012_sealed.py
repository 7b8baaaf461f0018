"""Columns for what is sealed at rest, beside the plain ones of earlier releases, which may stay empty now."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ADDED = (
    ("payment", "payment_method_sealed"),
    ("operation", "request_sealed"),
    ("customer", "email_fingerprint"),
    ("customer", "email_sealed"),
    ("customer", "name_sealed"),
    ("saved_card", "token_fingerprint"),
    ("saved_card", "token_sealed"),
    ("saved_card", "cardholder_name_sealed"),
)
INDEXES = (
    ("uq_customer_email_fingerprint", "customer", ["email_fingerprint"], None),
    (
        "uq_saved_card_live_token_fingerprint",
        "saved_card",
        ["customer_id", "token_fingerprint"],
        "removed_at IS NULL",
    ),
)


def upgrade() -> None:
    """Add nullable columns, and unique indexes without holding up those who write.

    One table is locked at a time, for a moment: who waits for a second one would hold up both.
    """
    with op.get_context().autocommit_block():
        for table, column in ADDED:
            op.add_column(table, sa.Column(column, sa.LargeBinary(), nullable=True), if_not_exists=True)
        # May be done twice, as everything here.
        op.execute("ALTER TABLE customer ALTER COLUMN email DROP NOT NULL")
        op.execute("ALTER TABLE saved_card ALTER COLUMN token DROP NOT NULL")
        for name, table, columns, where in INDEXES:
            # A build that was interrupted leaves an invalid index behind.
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
            op.create_index(
                name,
                table,
                columns,
                unique=True,
                postgresql_concurrently=True,
                postgresql_where=sa.text(where) if where else None,
                if_not_exists=True,
            )


def downgrade() -> None:
    """Drop the indexes again. The columns stay: what is in them is nowhere else, and in nobody's way."""
    with op.get_context().autocommit_block():
        for name, table, _, _ in INDEXES:
            op.drop_index(name, table, postgresql_concurrently=True, if_exists=True)
