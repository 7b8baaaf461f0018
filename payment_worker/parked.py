"""Events in the outbox that cannot be announced as they are: which, why, and let the relay try them again."""

import uuid
from collections.abc import Sequence

from sqlalchemy import select, update

from shared.database import Sessions, alone, reading
from shared.models import Outbox, plain

_TABLE = plain(Outbox)


def parked(sessions: Sessions, limit: int) -> list[Outbox]:
    """Events that the relay has parked, oldest first."""
    query = select(Outbox).where(Outbox.parked_reason.is_not(None)).order_by(Outbox.position).limit(limit)
    with reading(sessions) as session:
        found = list(session.scalars(query))
        session.expunge_all()
        return found


def unpark(sessions: Sessions, event_ids: Sequence[uuid.UUID] | None = None) -> list[uuid.UUID]:
    """Let the relay try these events again, or all; return which were parked.

    Later ones of their payments may be out already: `ce_sequence` says where each belongs.
    """
    again = update(_TABLE).where(_TABLE.c.parked_reason.is_not(None)).values(parked_reason=None)
    if event_ids is not None:
        again = again.where(_TABLE.c.id.in_(event_ids))
    with alone(sessions) as connection:
        return list(connection.scalars(again.returning(_TABLE.c.id)))
