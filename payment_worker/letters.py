"""A dead letter: an unreadable message as it came, with its origin and what is wrong, and how to read one."""

import hashlib
import uuid
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Final

from shared import events
from shared.documents import parse_json

Headers = list[tuple[str, bytes]]

# Brokers and producers take a megabyte by default: a letter with its own headers has to fit in that, or the
# message that it is about would hold up everything behind it for ever.
MAX_LETTER_BYTES = 900_000
MAX_ERROR = 500
_TOPIC, _PARTITION, _OFFSET = "dlq_topic", "dlq_partition", "dlq_offset"
_TIME, _CLASS, _MESSAGE, _CUT = "dlq_time", "dlq_error_class", "dlq_error_message", "dlq_cut_bytes"
_OURS: Final = frozenset({_TOPIC, _PARTITION, _OFFSET, _TIME, _CLASS, _MESSAGE, _CUT})
_IDS: Final = uuid.UUID("0d9f2f86-4f0d-4b0a-9a43-1f6f2c0c7d11")


class Reason(StrEnum):
    """Why a message was buried."""

    UNREADABLE = "unreadable"  # no JSON, or something in it that its place is not for
    SCHEMA = "schema"  # a field is missing or breaks its rule
    VERSION = "version"  # a later release may know it
    HEADER = "header"  # a header that every event has is missing
    TOO_LARGE = "too-large"
    INVALID = "invalid"  # anything else that makes no event or command of ours
    FAILED = "failed"  # it could be read, and something broke here: to be sent again once that is mended
    FOREIGN = "foreign"  # nobody of ours wrote this letter


_REASONS: Final = {
    "UnreadableMessage": Reason.UNREADABLE,
    "SchemaBroken": Reason.SCHEMA,
    "UnknownVersion": Reason.VERSION,
    "HeaderMissing": Reason.HEADER,
    "MessageTooLarge": Reason.TOO_LARGE,
    "CommandFailed": Reason.FAILED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a message stands in Kafka."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        """As a command with no id of its own is named: topic/partition/offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One letter: the message as it came, without what was added, and what was added.

    `origin` is None for what stands on the topic and is no letter of ours.
    """

    partition: int
    offset: int
    buried_at: datetime | None
    key: bytes | None = field(repr=False)
    value: bytes | None = field(repr=False)
    headers: Headers = field(repr=False)
    origin: Place | None
    sent_at: str  # when the message itself was produced, as its letter says; empty where it does not
    error_class: str
    error: str
    cut_bytes: int | None  # how large it was, where it was too large to be kept

    @property
    def place(self) -> str:
        """What an operator calls it: partition/offset on the topic of dead letters."""
        return f"{self.partition}/{self.offset}"

    @property
    def reason(self) -> Reason:
        """The class of what was wrong."""
        if self.origin is None:
            return Reason.FOREIGN
        return _REASONS.get(self.error_class, Reason.INVALID)

    @property
    def id(self) -> uuid.UUID:
        """The same for every letter about one message: a consumer that dies may bury a message twice.

        The content and its time belong to it, for a broker that lost its data counts from nought again.
        """
        content = hashlib.sha256()
        for part in (self.key, self.value, *(each for pair in self.headers for each in pair)):
            raw = part.encode() if isinstance(part, str) else part
            content.update(b"-" if raw is None else f"{len(raw)}:".encode() + raw)
        return uuid.uuid5(_IDS, f"{self.origin or self.place} {self.sent_at} {content.hexdigest()}")


def compose(
    headers: Headers,
    key: bytes | None,
    value: bytes | None,
    *,
    origin: Place,
    sent_at: datetime | None,
    error: Exception,
    kept: bool = True,
) -> tuple[bytes | None, bytes | None, Headers]:
    """Key, value and headers of the letter about a message.

    Of a message that is too large to be kept nothing is, but where it stands and how large it was; the same
    where it is not to be `kept`, because a broker allows less than is usual.
    """
    added = {
        _TOPIC: origin.topic,
        _PARTITION: str(origin.partition),
        _OFFSET: str(origin.offset),
        _TIME: events.rfc3339(sent_at) if sent_at else None,
        _CLASS: type(error).__name__,
        _MESSAGE: str(error)[:MAX_ERROR],
    }
    size = len(key or b"") + len(value or b"") + sum(len(name) + len(each) for name, each in headers)
    if not kept or size > MAX_LETTER_BYTES:
        added |= {_CLASS: events.MessageTooLarge.__name__, _CUT: str(size)}
        key, value, headers = None, None, []
    ours = [(name, text.encode()) for name, text in added.items() if text is not None]
    return key, value, [*headers, *ours]


def read_letter(
    place: Place, buried_at: datetime | None, key: bytes | None, value: bytes | None, headers: Headers
) -> DeadLetter:
    """Take a message of the topic of dead letters apart again."""
    first, added = len(headers), dict[str, str]()
    # Each of ours comes once, behind whatever the message itself brought along.
    while first and (name := headers[first - 1][0]) in _OURS and name not in added:
        first -= 1
        added[name] = headers[first][1].decode(errors="replace")
    origin = _origin(added)
    return DeadLetter(
        partition=place.partition,
        offset=place.offset,
        buried_at=buried_at,
        key=key,
        value=value,
        headers=headers[:first] if origin else headers,
        origin=origin,
        sent_at=added.get(_TIME, ""),
        error_class=added.get(_CLASS, ""),
        error=added.get(_MESSAGE, ""),
        cut_bytes=int(added[_CUT]) if added.get(_CUT, "").isdecimal() else None,
    )


def _origin(added: dict[str, str]) -> Place | None:
    try:
        return Place(topic=added[_TOPIC], partition=int(added[_PARTITION]), offset=int(added[_OFFSET]))
    except (KeyError, ValueError):
        return None


def has_own_id(letter: DeadLetter) -> bool:
    """Whether the message names itself by a header or in its value, so that a repeat is known for one."""
    if any(name == "ce_id" and raw for name, raw in letter.headers):
        return True
    try:
        document = parse_json(letter.value or b"")
    except ValueError:
        return False
    return isinstance(document, dict) and bool(document.get("eventId"))
