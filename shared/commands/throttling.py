"""Count logins that fail, and look at no more of them than a limit within a stretch of time.

The counts are rows: every process sees them, and neither a restart nor a lost Redis forgets them. A login is
counted before its password is looked at, so that of many guesses that race none gets past the limit.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from sqlalchemy import bindparam, case, delete, extract, func, update
from sqlalchemy.dialects.postgresql import insert

from shared.accounts import TooManyAttempts
from shared.database import Sessions, alone
from shared.models import plain
from shared.models_accounts import FailedLogins

STRETCH = timedelta(minutes=15)


class Subject(NamedTuple):
    """Whose logins are counted, by its fingerprint, and how many may fail in a stretch."""

    fingerprint: bytes
    limit: int


_TABLE = plain(FailedLogins)
_NOW = func.clock_timestamp()
_OVER = _TABLE.c.ends_at <= _NOW
_COUNT = (
    insert(_TABLE)
    .values(subject=bindparam("subject"), count=1, ends_at=_NOW + STRETCH)
    .on_conflict_do_update(
        index_elements=["subject"],
        set_={
            "count": case((_OVER, 1), else_=_TABLE.c.count + 1),
            "ends_at": case((_OVER, _NOW + STRETCH), else_=_TABLE.c.ends_at),
        },
    )
    .returning(_TABLE.c.count, extract("epoch", _TABLE.c.ends_at - _NOW))
)


def count_login(sessions: Sessions, subjects: Sequence[Subject]) -> None:
    """Count a login as failed before it is looked at. Raises TooManyAttempts when one has no more left."""
    for subject in subjects:
        with alone(sessions) as connection:
            count, left_s = connection.execute(_COUNT, {"subject": subject.fingerprint}).one()
        if count > subject.limit:
            raise TooManyAttempts(max(1, int(left_s)))


def forgive(sessions: Sessions, person: Subject, others: Sequence[Subject]) -> None:
    """The login did not fail after all: the person starts anew, and the others are as before."""
    with alone(sessions) as connection:
        connection.execute(delete(_TABLE).where(_TABLE.c.subject == person.fingerprint))
    uncount(sessions, others)


def uncount(sessions: Sessions, subjects: Sequence[Subject]) -> None:
    """All are as if the login had not come."""
    uncounted = update(_TABLE).where(
        _TABLE.c.subject.in_([each.fingerprint for each in subjects]), _TABLE.c.count > 0
    )
    with alone(sessions) as connection:
        connection.execute(uncounted.values(count=_TABLE.c.count - 1))
