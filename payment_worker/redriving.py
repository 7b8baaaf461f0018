"""Send dead letters again to where they came from, each message once."""

import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import islice
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select, update
from sqlalchemy.dialects.postgresql import insert

from payment_worker.letters import DeadLetter, Headers, has_own_id
from shared import events
from shared.database import Sessions, alone, reading
from shared.models import plain
from shared.models_redrives import Redrive
from shared.telemetry import get_logger

log = get_logger(__name__)

BATCH = 100
# Longer than the producer waits for a delivery: whoever claimed a letter is done with it by then, or dead.
CLAIM = timedelta(seconds=60)
_REDRIVE = plain(Redrive)


class Result(StrEnum):
    """What became of a letter."""

    SENT = "sent again"
    WOULD_BE_SENT = "would be sent again"
    DONE_BEFORE = "was sent again before"
    CLAIMED = "is being sent by another, or was when that died: again in a minute"
    NOT_CONFIRMED = "the broker has not confirmed it: again later"
    NOT_OURS = "no letter of ours: nothing says where it came from"
    NOT_KEPT = "was too large to be kept; it is where it came from"


UNDONE = frozenset({Result.CLAIMED, Result.NOT_CONFIRMED})

Outgoing = tuple[Any, str, bytes | None, bytes | None, Headers]
Deliver = Callable[[list[Outgoing]], set[Any]]


class Told(NamedTuple):
    """A letter and what became of it."""

    letter: DeadLetter
    result: Result


def sent_before(sessions: Sessions, letters: Sequence[DeadLetter]) -> dict[uuid.UUID, datetime]:
    """When letters were sent again, by their ids; those that were not are left out."""
    query = select(Redrive.letter_id, Redrive.delivered_at).where(
        Redrive.letter_id.in_([each.id for each in letters]), Redrive.delivered_at.is_not(None)
    )
    with reading(sessions) as session:
        return {letter_id: at for letter_id, at in session.execute(query) if at}


def redrive(
    sessions: Sessions,
    deliver: Deliver | None,
    letters: Iterable[DeadLetter],
    *,
    prefix: str,
    actor: str,
) -> Iterator[Told]:
    """Send letters again, in their order, and say what became of each; without `deliver` only say it.

    A row for each message comes first, and the message carries the id by which the worker knows a repeat.
    So a sender that dies in between sends it neither never nor, in effect, twice: whoever comes after its
    claim has lapsed sends the same again.
    """
    rest = iter(letters)
    while batch := list(islice(rest, BATCH)):
        refused = {each.id: why for each in batch if (why := _obstacle(each, prefix))}
        # A message that was buried twice is one message.
        sendable = {each.id: each for each in batch if each.id not in refused}
        results = refused | _send(sessions, deliver, sendable, prefix, actor)
        yield from (Told(each, results[each.id]) for each in batch)


def _obstacle(letter: DeadLetter, prefix: str) -> Result | None:
    if letter.origin is None:
        return Result.NOT_OURS
    # Whoever may write to the dead letters shall not have us write elsewhere.
    topics = {prefix + each for each in events.topics() if each != events.DEAD_LETTERS}
    if letter.origin.topic not in topics:
        return Result.NOT_OURS
    return Result.NOT_KEPT if letter.cut_bytes is not None else None


def _send(
    sessions: Sessions,
    deliver: Deliver | None,
    letters: dict[uuid.UUID, DeadLetter],
    prefix: str,
    actor: str,
) -> dict[uuid.UUID, Result]:
    before = sent_before(sessions, [*letters.values()])
    results = dict.fromkeys(before, Result.DONE_BEFORE)
    rest = {each: letter for each, letter in letters.items() if each not in before}
    if deliver is None:
        return results | dict.fromkeys(rest, Result.WOULD_BE_SENT)
    claimed = _claim(sessions, rest, actor)
    results |= dict.fromkeys(rest.keys() - claimed, Result.CLAIMED)
    delivered = deliver([_outgoing(letter, prefix) for each, letter in rest.items() if each in claimed])
    _settle(sessions, delivered, claimed - delivered)
    for each in claimed:
        results[each] = Result.SENT if each in delivered else Result.NOT_CONFIRMED
    log.info("dead letters sent again", count=len(delivered), not_confirmed=len(claimed - delivered))
    return results


def _claim(sessions: Sessions, letters: dict[uuid.UUID, DeadLetter], actor: str) -> set[uuid.UUID]:
    """Note that letters are being sent; return those that nobody else is at."""
    if not letters:
        return set()
    rows = [
        {
            "letter_id": each,
            "topic": letter.origin.topic if letter.origin else "",
            "partition": letter.origin.partition if letter.origin else 0,
            "offset": letter.origin.offset if letter.origin else 0,
            "reason": str(letter.reason),
            "actor": actor,
            "created_at": func.clock_timestamp(),
            "claimed_until": func.clock_timestamp() + CLAIM,
        }
        for each, letter in letters.items()
    ]
    new = insert(_REDRIVE).values(rows)
    taken_over = new.on_conflict_do_update(
        index_elements=["letter_id"],
        set_={"claimed_until": new.excluded.claimed_until, "actor": new.excluded.actor},
        where=_REDRIVE.c.claimed_until < func.clock_timestamp(),
    )
    with alone(sessions) as connection:
        return {*connection.scalars(taken_over.returning(_REDRIVE.c.letter_id))}


def _settle(sessions: Sessions, delivered: set[uuid.UUID], failed: set[uuid.UUID]) -> None:
    """Note what was confirmed, and let go of the rest, which may be tried again at once."""
    row = _REDRIVE.c.letter_id == bindparam("settled_id")
    now = func.clock_timestamp()
    for ids, values in (
        (delivered, {"delivered_at": now, "claimed_until": None}),
        (failed, {"claimed_until": now}),
    ):
        if ids:
            with sessions.begin() as session:
                session.connection().execute(
                    update(_REDRIVE).where(row).values(**values), [{"settled_id": each} for each in ids]
                )


def _outgoing(letter: DeadLetter, prefix: str) -> Outgoing:
    """The message as it came; one without an id of its own gets the one that it had by its place."""
    if letter.origin is None:
        raise ValueError("a letter without an origin goes nowhere")
    headers = [*letter.headers]
    if not has_own_id(letter):
        headers.append(("ce_id", str(letter.origin).removeprefix(prefix).encode()))
    return letter.id, letter.origin.topic, letter.key, letter.value, headers
