"""What went over the wire to the gateway and back, for whoever wants to keep it as evidence, redacted."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from shared.card_numbers import REDACTED, redact

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
    if depth > _DEEPEST:
        return REDACTED
    if isinstance(value, str):
        return without_secrets(value)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, dict | Mapping):
        names = ((_name(str(name)), each) for name, each in value.items())
        return {
            shown: REDACTED if is_sensitive and each is not None else redacted(each, depth + 1)
            for (shown, is_sensitive), each in names
        }
    if isinstance(value, list | tuple):
        return [redacted(each, depth + 1) for each in value]
    return REDACTED if redact(str(value)) != str(value) else value


@lru_cache(maxsize=4096)
def _name(name: str) -> tuple[str, bool]:
    """A field's name as it may be shown, and whether its value may not; the gateway has a few hundred."""
    return without_secrets(name), name.lower() in _SENSITIVE


def without_secrets(text: str) -> str:
    """The gateway's words without card numbers and secrets, and with no more than the end of a token."""
    left = _SECRET.sub(REDACTED, redact(text))
    return _TOKEN.sub(lambda match: f"{match[1]}_...{match[2][-_SHOWN:]}", left)
