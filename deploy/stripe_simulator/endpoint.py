"""The webhook endpoint: where events go, and what is to go wrong on the way."""

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

RETRY_S = (2.0, 5.0, 15.0, 60.0, 300.0, 3600.0)  # after each failed attempt; the last is repeated
COPIES_MAX = 100


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A webhook endpoint.

    `secret` signs, or each of several do, as at Stripe while a secret is rolled. Every delivery is late by
    `delay_ms`. `enabled_events` are the types that it wants, `*` for all. `duplicate` is the share of events
    that are delivered twice or, from 2 on, how often each is. `drop` is the share, or the types, of events
    that are never delivered. `retry_s` are the pauses after failed attempts.
    """

    url: str
    secret: str | Sequence[str]
    delay_ms: float = 0
    duplicate: float = 0
    reorder: bool = False
    enabled_events: Sequence[str] = ("*",)
    drop: float | Sequence[str] = 0
    retry_s: Sequence[float] = RETRY_S

    @property
    def secrets(self) -> Sequence[str]:
        """The secrets that sign."""
        return [self.secret] if isinstance(self.secret, str) else self.secret

    def wants(self, kind: str) -> bool:
        """Decide whether an event is for this endpoint at all."""
        return "*" in self.enabled_events or kind in self.enabled_events

    def drops(self, kind: str) -> bool:
        """Decide whether an event is never delivered."""
        if isinstance(self.drop, int | float):
            return random.random() < self.drop  # noqa: S311 - not a secret
        return kind in self.drop

    def copies(self) -> int:
        """Decide how often an event is delivered."""
        if self.duplicate > 1:
            return int(self.duplicate)
        return 2 if random.random() < self.duplicate else 1  # noqa: S311 - not a secret

    def pause_s(self, attempts: int) -> float:
        """Return the seconds to wait after that many failed attempts."""
        return self.retry_s[min(attempts, len(self.retry_s)) - 1]

    def as_kept(self) -> dict[str, Any]:
        """Return what `Endpoint(**kept)` is made from again."""
        return asdict(self)


FIELDS = frozenset(field.name for field in fields(Endpoint))


def checked(body: Mapping[str, Any]) -> Endpoint:
    """Return the endpoint that a control request describes. Raises ValueError."""
    for name, (right, expected) in _RULES.items():
        if name in body and not right(body[name]):
            message = f"{name} must be {expected}"
            raise ValueError(message)
    if missing := {"url", "secret"} - body.keys():
        message = f"{missing.pop()} is missing"
        raise ValueError(message)
    return Endpoint(**body)


def _number(value: Any, most: float = math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most


def _list_of(values: Any, right: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and bool(values) and all(map(right, values))


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "url": (lambda value: _text(value) and value.startswith(("http://", "https://")), "a web address"),
    "secret": (lambda value: _text(value) or _list_of(value, _text), "a string or a list of strings"),
    "delay_ms": (_number, "a number from 0"),
    "duplicate": (lambda value: _number(value, COPIES_MAX), f"a number from 0 to {COPIES_MAX}"),
    "reorder": (lambda value: isinstance(value, bool), "a boolean"),
    "enabled_events": (lambda value: _list_of(value, _text), "a list of types"),
    "drop": (lambda value: _number(value, 1) or _list_of(value, _text), "a share up to 1 or a list of types"),
    "retry_s": (lambda value: _list_of(value, _number), "a list of seconds"),
}
