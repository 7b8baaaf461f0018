"""Which contract a path belongs to, and how that contract words a refusal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from payment_api.errors import ErrorCode


@dataclass(frozen=True, slots=True)
class Dialect:
    """A contract's paths, its refusals, and the name of their schema in the OpenAPI document.

    Every refusal carries our `errorCode` beside the contract's own fields.
    """

    prefix: str
    refusal: Callable[[ErrorCode, str], dict[str, Any]]
    refusal_schema: str


def _native_refusal(code: ErrorCode, message: str) -> dict[str, Any]:
    return {"success": False, "errorMessage": message, "errorCode": code.name, "payment": None}


NATIVE = Dialect("/", _native_refusal, "ErrorEnvelope")


def dialect_of(path: str, dialects: Sequence[Dialect]) -> Dialect:
    """Return the dialect of a path, also of one that no route has; the native one where no other fits."""
    return next((each for each in dialects if path.startswith(each.prefix)), NATIVE)
