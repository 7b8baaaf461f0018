"""Halt and resume a kind of operation: commands are still taken, but nothing new reaches the gateway."""

from collections.abc import Iterable
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from shared.commands.restore import StillRestored, clear, standing, way_out
from shared.database import Sessions, reading
from shared.models import Pause
from shared.payments import OperationKind


def pause(sessions: Sessions, kinds: Iterable[OperationKind], actor: str) -> None:
    """Halt these kinds, from the next claim on. What is in flight ends as it would.

    One that a restore has halted becomes this actor's, and does not go on when the restore is complete.
    """
    with sessions.begin() as session:
        for kind in kinds:
            row = {"kind": kind, "since": func.clock_timestamp(), "actor": actor}
            added = insert(Pause).values(row)
            session.execute(
                added.on_conflict_do_update(
                    index_elements=["kind"],
                    set_={"actor": actor, "reason": None},
                    where=Pause.reason.is_not(None),
                )
            )


def resume(
    sessions: Sessions, kinds: Iterable[OperationKind], actor: str = "operator", *, force: bool = False
) -> None:
    """Let these kinds go on; recovery dispatches what has become due.

    Raises StillRestored while a restore is marked, unless `force`; then the mark goes, too.
    """
    with sessions.begin() as session:
        if force:
            clear(session, f"{actor}, by force")
        elif mark := standing(session):
            raise StillRestored(mark)
        session.execute(delete(Pause).where(Pause.kind.in_(list(kinds))))


def paused(sessions: Sessions) -> list[OperationKind]:
    """The kinds that are halted."""
    with reading(sessions) as session:
        return list(session.scalars(select(Pause.kind).order_by(Pause.kind)))


def halted(sessions: Sessions) -> dict[str, Any]:
    """What readiness says: which kinds are paused, and after a restore how that ends."""
    with reading(sessions) as session:
        mark = standing(session)
    facts: dict[str, Any] = {"paused": [str(kind) for kind in paused(sessions)]}
    return facts | ({"restored": f"nothing is sent to the gateway before {way_out(mark)}"} if mark else {})
