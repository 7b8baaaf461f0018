"""Dead letters that were sent again, and the check on invariants."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

MOMENT = sa.TIMESTAMP(timezone=True)


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "redrive",
        sa.Column("letter_id", sa.Uuid(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("claimed_until", MOMENT, nullable=True),
        sa.Column("delivered_at", MOMENT, nullable=True),
        sa.CheckConstraint(
            "(delivered_at IS NULL) = (claimed_until IS NOT NULL)",
            name=op.f("ck_redrive_claimed_or_delivered"),
        ),
        sa.PrimaryKeyConstraint("letter_id", name=op.f("pk_redrive")),
    )
    op.create_table(
        "invariant_violation",
        sa.Column("invariant", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=False),
        sa.Column("found_at", MOMENT, nullable=False),
        sa.PrimaryKeyConstraint("invariant", "payment_id", name=op.f("pk_invariant_violation")),
    )
    op.create_table(
        "invariant_pass",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("turn_at", MOMENT, nullable=False),
        sa.Column("reached_at", MOMENT, nullable=True),
        sa.Column("reached_id", sa.Uuid(), nullable=True),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_invariant_pass")),
    )


def downgrade() -> None:
    """Drop them again."""
    op.drop_table("invariant_pass")
    op.drop_table("invariant_violation")
    op.drop_table("redrive")
