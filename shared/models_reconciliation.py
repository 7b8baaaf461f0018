"""What reconciliation with the gateway keeps: its runs, what they have seen, the breaks; and restores."""

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column

from shared.models import Table

OPEN = text("resolved_at IS NULL")
BREAK_KINDS = ("missing_here", "missing_there", "amount", "currency", "status", "duplicate")


class ReconciliationRun(Table):
    """One comparison of everything in a window of time; it is taken up again where it was interrupted."""

    __tablename__ = "reconciliation_run"
    __table_args__ = (
        CheckConstraint("until > since", name="window_is_one"),
        Index("ix_reconciliation_run_unfinished", "id", postgresql_where=text("finished_at IS NULL")),
        Index("ix_reconciliation_run_finished_at", "finished_at"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    since: Mapped[datetime]
    until: Mapped[datetime]
    scheduled: Mapped[bool]
    heals: Mapped[bool]  # says what could be done about its breaks
    applies: Mapped[bool]  # and does what is safe
    after_restore: Mapped[bool]  # while nothing may be sent nothing is in flight, and all is compared
    actor: Mapped[str]
    phase: Mapped[str]
    cursor: Mapped[str | None]  # the last object that was dealt with in this phase
    step: Mapped[int]  # written over the one that was read: of two that carry on one run, one goes on
    counts: Mapped[dict[str, Any]]
    began_at: Mapped[datetime]
    moved_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


class ReconciliationSeen(Table):
    """What a run has seen at the gateway, until it is finished: what is not here is looked for there."""

    __tablename__ = "reconciliation_seen"
    __table_args__ = (
        Index(
            "ix_reconciliation_seen_run_id_payment_id",
            "run_id",
            "payment_id",
            postgresql_where=text("payment_id IS NOT NULL"),
        ),
    )

    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reconciliation_run.id"), primary_key=True)
    ref: Mapped[str] = mapped_column(primary_key=True)
    # Of a PaymentIntent: the payment that it says it is for.
    payment_id: Mapped[uuid.UUID | None]


class ReconciliationBreak(Table):
    """A difference between the gateway's books and ours, with what both said."""

    __tablename__ = "reconciliation_break"
    __table_args__ = (
        CheckConstraint("object IN ('payment_intent', 'charge', 'refund', 'operation')", name="object_known"),
        CheckConstraint(
            f"kind IN ({', '.join(map(repr, BREAK_KINDS))})",
            name="kind_known",
        ),
        CheckConstraint("resolved_at IS NULL OR resolution IS NOT NULL", name="resolved_has_reason"),
        CheckConstraint(
            "num_nulls(accepted_at, accepted_by, accepted_reason) IN (0, 3)", name="accepted_by_somebody"
        ),
        Index(
            "uq_reconciliation_break_open",
            "object",
            "ref",
            "kind",
            unique=True,
            postgresql_where=OPEN,
        ),
        Index("ix_reconciliation_break_open_kind", "kind", postgresql_where=OPEN),
        Index("ix_reconciliation_break_last_run_id", "last_run_id"),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)  # UUIDv7: newest is greatest
    object: Mapped[str]
    ref: Mapped[str]  # the gateway's id, or our operation's
    kind: Mapped[str]
    reason: Mapped[str]
    payment_id: Mapped[uuid.UUID | None]  # may name one that we do not have
    ours: Mapped[dict[str, Any] | None]
    theirs: Mapped[dict[str, Any] | None]
    repair: Mapped[str | None]  # what could be done, or why nothing is safe
    run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reconciliation_run.id"))
    last_run_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("reconciliation_run.id"))
    first_seen: Mapped[datetime]
    last_seen: Mapped[datetime]
    resolved_at: Mapped[datetime | None]
    resolution: Mapped[str | None]
    # An operator knows of it, and nothing is to be done; until either side says something else.
    accepted_at: Mapped[datetime | None]
    accepted_by: Mapped[str | None]
    accepted_reason: Mapped[str | None]


class Restore(Table):
    """A restore of the database from a backup. Until it is cleared nothing may be sent to the gateway."""

    __tablename__ = "restore"
    __table_args__ = (
        CheckConstraint("(cleared_at IS NULL) = (cleared_by IS NULL)", name="cleared_by_somebody"),
        # At most one stands.
        Index(
            "uq_restore_standing",
            text("(cleared_at IS NULL)"),
            unique=True,
            postgresql_where=text("cleared_at IS NULL"),
        ),
    )

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True)
    backup_taken_at: Mapped[datetime]
    marked_at: Mapped[datetime]
    actor: Mapped[str]
    cleared_at: Mapped[datetime | None]
    cleared_by: Mapped[str | None]
