"""What went over the wire to the gateway and back, for whoever wants to keep it as evidence, redacted."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from shared.card_numbers import MIN_DIGITS, REDACTED, redact

# What says who a person is, or lets somebody act; and what nobody needs who looks into a payment.
_SENSITIVE: Final = frozenset(
    {
        *("client_secret", "secret", "api_key", "authorization", "password", "token", "cvc", "number"),
        *("email", "receipt_email", "receipt_url", "receipt_number", "phone", "name", "address", "shipping"),
        *("billing_details", "customer_details", "customer_email", "fingerprint", "ip_address"),
        *("return_url", "url", "next_action", "description", "statement_descriptor"),
    }
)
_SECRET = re.compile(r"\b(?:[sr]k_(?:live|test)|whsec)_\w+|\w+_secret_\w+")
_TOKEN = re.compile(r"\b(pm|tok|src|card|btok|seti|ba)_(\w{4,})")
_SHOWN = 4  # characters of a token's end, to tell two apart
_DEEPEST = 20
_SMALL = 10**12  # an amount or a time, too short for a card number


@dataclass(frozen=True, slots=True)
class Exchange:
    """One call of the gateway: what was asked, and what came back."""

    method: str
    path: str
    parameters: Mapping[str, Any]
    status: int | None  # None when there was no answer
    answer: Any

    def redacted(self) -> dict[str, Any]:
        """The same without secrets, whole tokens, card numbers and persons."""
        return {
            "method": self.method,
            "path": without_secrets(self.path),
            "parameters": redacted(self.parameters),
            "status": self.status,
            "answer": redacted(self.answer),
        }


_kept: ContextVar[list[Exchange] | None] = ContextVar("exchanges", default=None)


@contextmanager
def keeping() -> Iterator[list[Exchange]]:
    """Keep the exchanges of this thread while the block runs, in their order."""
    exchanges: list[Exchange] = []
    before = _kept.set(exchanges)
    try:
        yield exchanges
    finally:
        _kept.reset(before)


def keep(exchange: Exchange) -> None:
    """Tell of an exchange; nothing happens unless somebody keeps them."""
    exchanges = _kept.get()
    if exchanges is not None:
        exchanges.append(exchange)


def redacted(value: Any, depth: int = 0) -> Any:
    """A JSON document without anything sensitive, whatever its shape."""
    kind = type(value)
    if kind is str:
        return without_secrets(value)
    if value is None or kind is bool or (kind is int and abs(value) < _SMALL):
        return value
    if depth > _DEEPEST:
        return REDACTED
    if isinstance(value, Mapping):
        return dict(_members(value, depth + 1))
    if isinstance(value, list | tuple):
        return [redacted(each, depth + 1) for each in value]
    return REDACTED if redact(str(value)) != str(value) else value


def _members(document: Mapping[Any, Any], depth: int) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        shown, is_sensitive = _name(name if type(name) is str else str(name))
        if value is None:
            yield shown, None
        elif is_sensitive:
            yield shown, REDACTED
        elif type(value) is str and len(value) < MIN_DIGITS and "_" not in value:
            yield shown, value  # as most values of an answer are: half the time goes into calling functions
        else:
            yield shown, redacted(value, depth)


@lru_cache(maxsize=4096)
def _name(name: str) -> tuple[str, bool]:
    """A field's name as it may be shown, and whether its value may not; the gateway has a few hundred."""
    return without_secrets(name), name.lower() in _SENSITIVE


def without_secrets(text: str) -> str:
    """The gateway's words without card numbers and secrets, and with no more than the end of a token."""
    left = redact(text)
    if "_" not in left:
        return left
    left = _SECRET.sub(REDACTED, left)
    return _TOKEN.sub(lambda match: f"{match[1]}_...{match[2][-_SHOWN:]}", left)
