"""After a restore from a backup: nothing reaches the gateway until the lost rows have been rebuilt."""

from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from shared.database import Sessions, new_id
from shared.events import rfc3339
from shared.models import Pause
from shared.models_reconciliation import Restore
from shared.payments import OperationKind

RESTORED = "restored"  # the reason of the pause


class StillRestored(Exception):
    """The database was restored, and what it has lost is not rebuilt yet; the message says what to do."""

    def __init__(self, mark: Restore) -> None:
        """Name the command that ends it."""
        super().__init__(f"the database was restored from a backup; first {way_out(mark)}")


def way_out(mark: Restore) -> str:
    """The command that rebuilds what was lost and clears the mark."""
    return f"payment-worker reconcile --since {rfc3339(mark.backup_taken_at)} --heal --apply"


def mark_restored(sessions: Sessions, backup_taken_at: datetime, actor: str) -> Restore:
    """Mark the database as restored from a backup of this time, and pause every kind of operation.

    Where a mark stands already, the older of both times counts.
    """
    with sessions.begin() as session:
        if mark := standing(session):
            mark.backup_taken_at = min(mark.backup_taken_at, backup_taken_at)
        else:
            now = session.scalars(select(func.clock_timestamp())).one()
            mark = Restore(id=new_id(), backup_taken_at=backup_taken_at, marked_at=now, actor=actor)
            session.add(mark)
        for kind in OperationKind:
            row = {"kind": kind, "since": func.clock_timestamp(), "actor": actor, "reason": RESTORED}
            session.execute(insert(Pause).values(row).on_conflict_do_nothing())
        session.flush()
        session.expunge(mark)
        return mark


def standing(session: Session) -> Restore | None:
    """The mark that nobody has cleared yet."""
    return session.scalars(select(Restore).where(Restore.cleared_at.is_(None))).one_or_none()


def clear(session: Session, by: str) -> None:
    """Take the mark away, if any; what is paused stays so."""
    mark = update(Restore).where(Restore.cleared_at.is_(None))
    session.execute(mark.values(cleared_at=func.clock_timestamp(), cleared_by=by))


def lift(session: Session, by: str) -> None:
    """Take the mark away and end its pause; what an operator had paused before stays so."""
    clear(session, by)
    session.execute(delete(Pause).where(Pause.reason == RESTORED))
