"""Breaks that an operator has accepted: by whom, when and why."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
COLUMNS = (("accepted_at", MOMENT), ("accepted_by", sa.Text()), ("accepted_reason", sa.Text()))
WHOLE = "ck_reconciliation_break_accepted_by_somebody"


def upgrade() -> None:
    """Add three columns that may be empty, and that each break has all of or none."""
    for name, kind in COLUMNS:
        op.add_column("reconciliation_break", sa.Column(name, kind, nullable=True), if_not_exists=True)
    op.execute(f"ALTER TABLE reconciliation_break DROP CONSTRAINT IF EXISTS {WHOLE}")
    op.execute(
        f"ALTER TABLE reconciliation_break ADD CONSTRAINT {WHOLE}"
        " CHECK (num_nulls(accepted_at, accepted_by, accepted_reason) IN (0, 3)) NOT VALID"
    )
    with op.get_context().autocommit_block():
        # Looks at every row, while they may be written.
        op.execute(f"ALTER TABLE reconciliation_break VALIDATE CONSTRAINT {WHOLE}")


def downgrade() -> None:
    """Take them away again: what was accepted is open."""
    op.execute(f"ALTER TABLE reconciliation_break DROP CONSTRAINT IF EXISTS {WHOLE}")
    for name, _ in COLUMNS:
        op.drop_column("reconciliation_break", name, if_exists=True)
