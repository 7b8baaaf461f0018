"""The inbox of webhooks: take what is due, say what became of it, and let operators have it done again."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import bindparam, func, select, update

from payment_worker.outcomes import retry_delay_s
from shared.database import Sessions, alone
from shared.gateways.stripe_webhooks import SOURCE
from shared.models import InboxMessage, InboxState, plain

BATCH = 200
# How long a batch may take before another worker takes it as well, which does no harm.
HELD_FOR = timedelta(seconds=60)
MAX_ERROR = 500
INBOX = plain(InboxMessage)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a message; of one that is still RECEIVED, in how many seconds to look again."""

    state: InboxState
    payment_id: Any = None
    error: str | None = None
    again_in_s: float = 0.0


def again(message: Any, error: str | None = None, payment_id: Any = None) -> Verdict:
    """Come back to a message later, the later the more often that has been tried."""
    delay_s = retry_delay_s(message.attempts)
    return Verdict(InboxState.RECEIVED, payment_id, error, delay_s)


def take(sessions: Sessions) -> Sequence[Any]:
    """Take messages that are due, oldest first, and count the attempt.

    They come back after HELD_FOR if nobody settles them.
    """
    due = (
        select(INBOX.c.message_id)
        .where(INBOX.c.source == SOURCE, INBOX.c.next_attempt_at <= func.now())
        .order_by(INBOX.c.next_attempt_at)
        .limit(BATCH)
        .with_for_update(skip_locked=True)
    )
    taken = (
        update(INBOX)
        .where(INBOX.c.source == SOURCE, INBOX.c.message_id.in_(due.scalar_subquery()))
        .values(attempts=INBOX.c.attempts + 1, next_attempt_at=func.now() + HELD_FOR)
        .returning(INBOX)
    )
    with alone(sessions) as connection:
        rows = connection.execute(taken).all()
    return sorted(rows, key=lambda row: (row.received_at, row.message_id))


def settle(sessions: Sessions, verdicts: Sequence[tuple[Any, Verdict]]) -> None:
    """Write down what became of messages that were taken."""
    if not verdicts:
        return
    for is_done in (True, False):
        rows = [
            {
                "settled_id": message.message_id,
                "state": verdict.state,
                "payment_id": verdict.payment_id,
                "error": verdict.error and verdict.error[:MAX_ERROR],
                "delay": timedelta(seconds=verdict.again_in_s),
            }
            for message, verdict in verdicts
            if (verdict.state is not InboxState.RECEIVED) is is_done
        ]
        if rows:
            with sessions.begin() as session:
                session.connection().execute(_DONE if is_done else _LATER, rows)


_OPEN = update(INBOX).where(
    INBOX.c.source == SOURCE,
    INBOX.c.message_id == bindparam("settled_id"),
    INBOX.c.state == InboxState.RECEIVED,
)
_FACTS = {name: bindparam(name, type_=INBOX.c[name].type) for name in ("state", "payment_id", "error")}
_DONE = _OPEN.values(**_FACTS, next_attempt_at=None)
_LATER = _OPEN.values(**_FACTS, next_attempt_at=func.clock_timestamp() + bindparam("delay"))


def listed(sessions: Sessions, state: InboxState, limit: int) -> Sequence[Any]:
    """Messages in one state, newest first."""
    query = select(INBOX).where(INBOX.c.source == SOURCE, INBOX.c.state == state)
    with alone(sessions) as connection:
        return connection.execute(query.order_by(INBOX.c.received_at.desc()).limit(limit)).all()


def replay(sessions: Sessions, message_ids: Sequence[str] = (), state: InboxState | None = None) -> list[str]:
    """Make messages due again, by id or all in one state, as if they had just come; return which."""
    chosen = INBOX.c.state == state if state else INBOX.c.message_id.in_(message_ids)
    values = {"state": InboxState.RECEIVED, "next_attempt_at": func.clock_timestamp(), "attempts": 0}
    made_due = update(INBOX).where(INBOX.c.source == SOURCE, chosen).values(**values, error=None)
    with alone(sessions) as connection:
        return sorted(connection.scalars(made_due.returning(INBOX.c.message_id)))
