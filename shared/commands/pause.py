"""Halt and resume a kind of operation: commands are still taken, but nothing new reaches the gateway."""

from collections.abc import Iterable

from sqlalchemy import delete, func, select
from sqlalchemy.dialects.postgresql import insert

from shared.database import Sessions, reading
from shared.models import Pause
from shared.payments import OperationKind


def pause(sessions: Sessions, kinds: Iterable[OperationKind], actor: str) -> None:
    """Halt these kinds, from the next claim on. What is in flight ends as it would."""
    with sessions.begin() as session:
        for kind in kinds:
            row = {"kind": kind, "since": func.clock_timestamp(), "actor": actor}
            session.execute(insert(Pause).values(row).on_conflict_do_nothing())


def resume(sessions: Sessions, kinds: Iterable[OperationKind]) -> None:
    """Let these kinds go on; recovery dispatches what has become due."""
    with sessions.begin() as session:
        session.execute(delete(Pause).where(Pause.kind.in_(list(kinds))))


def paused(sessions: Sessions) -> list[OperationKind]:
    """The kinds that are halted."""
    with reading(sessions) as session:
        return list(session.scalars(select(Pause.kind).order_by(Pause.kind)))
