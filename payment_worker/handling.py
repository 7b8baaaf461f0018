"""A notice of another service that is being handled: what it says, and what doing so needs."""

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shared.command_messages import Asked
from shared.commands.limits import AmountLimits
from shared.commands.operations import Origin
from shared.commands.received import ReceivedMessage
from shared.database import Sessions
from shared.orders import Orders
from shared.payments import InvalidCommand
from shared.settings import Settings

# No place on earth is further ahead than this: what lies beyond is no mistake about time zones.
FURTHEST_AHEAD = timedelta(hours=14)


@dataclass(frozen=True, slots=True, kw_only=True)
class Handling:
    """One notice, in whose name it is handled, and what handling needs."""

    sessions: Sessions
    settings: Settings
    limits: AmountLimits
    orders: Orders | None  # None: any order is accepted
    asked: Asked
    origin: Origin
    received: ReceivedMessage


Handler = Callable[[Handling], None]


def canonical(identifier: Any) -> Any:
    """A UUID as payments keep it, whatever case its sender writes it in; anything else as it is."""
    try:
        written = str(uuid.UUID(identifier))
    except (ValueError, TypeError, AttributeError):
        return identifier
    return written if written == identifier.lower() else identifier


def moment(field: str, text: str) -> datetime:
    """A time or a date of the past, as `time_of` reads it. Raises InvalidCommand for the future, too."""
    at = time_of(field, text)
    if at > datetime.now(UTC) + FURTHEST_AHEAD:
        raise InvalidCommand(field, "lies in the future")
    return at


def time_of(field: str, text: str) -> datetime:
    """A time or a date as its sender writes it; UTC where it names no zone.

    Raises InvalidCommand for what is none, or none that a calendar of ours has: schemas know leap seconds.
    """
    try:
        at = datetime.fromisoformat(text)
        return at.astimezone(UTC) if at.tzinfo else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidCommand(field, "must be a time in RFC 3339") from None
