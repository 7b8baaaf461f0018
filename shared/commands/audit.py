"""The trail of what operators change: noted before it is done, completed when it is known how it ended."""

import getpass
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import SQLAlchemyError

from shared.database import Sessions, alone, new_id, reading, reason_of
from shared.models import plain
from shared.models_access import AuditEntry
from shared.telemetry import get_logger

log = get_logger(__name__)

_TABLE = plain(AuditEntry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What an operator is about to do: who, how, what, on what, from where."""

    actor: str
    channel: str  # "http" or "command"
    action: str
    subject: Mapping[str, Any]  # ids and options; nothing secret, nothing of cards
    came_from: str
    correlation_id: str


def by_command(name: str, subject: Mapping[str, Any]) -> Act:
    """An act by a command that was given on this host, in the name of who is logged in."""
    return Act(
        actor=getpass.getuser(),
        channel="command",
        action=name,
        subject=subject,
        came_from=socket.gethostname(),
        correlation_id=str(new_id()),
    )


def note(sessions: Sessions, act: Act) -> uuid.UUID:
    """Note an act before it is done; what cannot be noted is not done, so errors go to the caller."""
    row = {
        "id": new_id(),
        "at": func.clock_timestamp(),
        "actor": act.actor,
        "channel": act.channel,
        "action": act.action,
        "subject": dict(act.subject),
        "came_from": act.came_from,
        "correlation_id": act.correlation_id,
    }
    with alone(sessions) as connection:
        connection.execute(insert(_TABLE).values(row))
    return uuid.UUID(str(row["id"]))


def complete(
    sessions: Sessions, entry_id: uuid.UUID, outcome: str, more: Mapping[str, Any] | None = None
) -> None:
    """Note how an act ended, and `more` about what it was on.

    A failure is only logged: the act is done, and its entry stands without an outcome.
    """
    changes = {"outcome": outcome, "subject": _TABLE.c.subject.op("||")(dict(more or {}))}
    try:
        with alone(sessions) as connection:
            connection.execute(update(_TABLE).where(_TABLE.c.id == entry_id).values(changes))
    except SQLAlchemyError as error:
        reason = reason_of(error)
        log.warning("an operator's act is noted without its outcome", entry=str(entry_id), reason=reason)


def entries(
    sessions: Sessions,
    *,
    actor: str | None = None,
    since: datetime | None = None,
    limit: int = 100,
) -> list[AuditEntry]:
    """The newest entries first: of one actor, since a time, or all."""
    query = select(AuditEntry).order_by(AuditEntry.id.desc()).limit(limit)
    if actor:
        query = query.where(AuditEntry.actor == actor)
    if since:
        query = query.where(AuditEntry.at >= since)
    with reading(sessions) as session:
        return list(session.scalars(query))
