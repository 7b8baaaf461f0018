"""Reconciliation with the gateway: runs, what they have seen, breaks; restores, and why a kind is paused."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True)
JSON = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
OPEN = sa.text("resolved_at IS NULL")


def upgrade() -> None:
    """Add four tables and a column; nothing that is in use is locked for longer than a moment."""
    _add_run()
    _add_seen()
    _add_break()
    _add_restore()
    op.add_column("pause", sa.Column("reason", sa.Text(), nullable=True))


def _add_run() -> None:
    op.create_table(
        "reconciliation_run",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("since", MOMENT, nullable=False),
        sa.Column("until", MOMENT, nullable=False),
        sa.Column("scheduled", sa.Boolean(), nullable=False),
        sa.Column("heals", sa.Boolean(), nullable=False),
        sa.Column("applies", sa.Boolean(), nullable=False),
        sa.Column("after_restore", sa.Boolean(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("cursor", sa.Text(), nullable=True),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("counts", JSON, nullable=False),
        sa.Column("began_at", MOMENT, nullable=False),
        sa.Column("moved_at", MOMENT, nullable=False),
        sa.Column("finished_at", MOMENT, nullable=True),
        sa.CheckConstraint("until > since", name=op.f("ck_reconciliation_run_window_is_one")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation_run")),
    )
    op.create_index(
        "ix_reconciliation_run_unfinished",
        "reconciliation_run",
        ["id"],
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.create_index("ix_reconciliation_run_finished_at", "reconciliation_run", ["finished_at"])


def _add_seen() -> None:
    op.create_table(
        "reconciliation_seen",
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.ForeignKeyConstraint(
            ["run_id"], ["reconciliation_run.id"], name=op.f("fk_reconciliation_seen_run_id")
        ),
        sa.PrimaryKeyConstraint("run_id", "ref", name=op.f("pk_reconciliation_seen")),
    )
    op.create_index(
        "ix_reconciliation_seen_run_id_payment_id",
        "reconciliation_seen",
        ["run_id", "payment_id"],
        postgresql_where=sa.text("payment_id IS NOT NULL"),
    )


def _add_break() -> None:
    op.create_table(
        "reconciliation_break",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("object", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Uuid(), nullable=True),
        sa.Column("ours", JSON, nullable=True),
        sa.Column("theirs", JSON, nullable=True),
        sa.Column("repair", sa.Text(), nullable=True),
        sa.Column("run_id", sa.Uuid(), nullable=False),
        sa.Column("last_run_id", sa.Uuid(), nullable=False),
        sa.Column("first_seen", MOMENT, nullable=False),
        sa.Column("last_seen", MOMENT, nullable=False),
        sa.Column("resolved_at", MOMENT, nullable=True),
        sa.Column("resolution", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "object IN ('payment_intent', 'charge', 'refund', 'operation')",
            name=op.f("ck_reconciliation_break_object_known"),
        ),
        sa.CheckConstraint(
            "kind IN ('missing_here', 'missing_there', 'amount', 'currency', 'status', 'duplicate')",
            name=op.f("ck_reconciliation_break_kind_known"),
        ),
        sa.CheckConstraint(
            "resolved_at IS NULL OR resolution IS NOT NULL",
            name=op.f("ck_reconciliation_break_resolved_has_reason"),
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["reconciliation_run.id"], name=op.f("fk_reconciliation_break_run_id")
        ),
        sa.ForeignKeyConstraint(
            ["last_run_id"], ["reconciliation_run.id"], name=op.f("fk_reconciliation_break_last_run_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reconciliation_break")),
    )
    op.create_index(
        "uq_reconciliation_break_open",
        "reconciliation_break",
        ["object", "ref", "kind"],
        unique=True,
        postgresql_where=OPEN,
    )
    op.create_index(
        "ix_reconciliation_break_open_kind", "reconciliation_break", ["kind"], postgresql_where=OPEN
    )
    op.create_index("ix_reconciliation_break_last_run_id", "reconciliation_break", ["last_run_id"])


def _add_restore() -> None:
    op.create_table(
        "restore",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("backup_taken_at", MOMENT, nullable=False),
        sa.Column("marked_at", MOMENT, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("cleared_at", MOMENT, nullable=True),
        sa.Column("cleared_by", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(cleared_at IS NULL) = (cleared_by IS NULL)", name=op.f("ck_restore_cleared_by_somebody")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restore")),
    )
    op.create_index(
        "uq_restore_standing",
        "restore",
        [sa.text("(cleared_at IS NULL)")],
        unique=True,
        postgresql_where=sa.text("cleared_at IS NULL"),
    )


def downgrade() -> None:
    """Drop them again."""
    op.drop_column("pause", "reason")
    for table in ("restore", "reconciliation_break", "reconciliation_seen", "reconciliation_run"):
        op.drop_table(table)
