"""Marshmallow fields that take exactly what a contract says, and nothing that only looks like it."""

import re
import uuid
from decimal import Decimal
from typing import Any

from marshmallow import ValidationError, fields

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def is_plain(text: str) -> bool:
    """Whether a text is free of control characters, which neither a database nor a log should see."""
    return _CONTROL.search(text) is None


class Text(fields.String):
    """A string without control characters."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        if not is_plain(text):
            raise ValidationError("Control characters are not allowed.")
        return text


def read_uuid(text: str) -> uuid.UUID:
    """The UUID of a text that is one, in any case.

    Raises ValueError also for what Python reads beside that, which are mistakes here: braces, prefixes, other
    scripts' digits and dashes anywhere.
    """
    if not _UUID.fullmatch(text):
        raise ValueError("no UUID")
    return uuid.UUID(text)


def canonical(identifier: str) -> str:
    """An id of others as every route keeps it: a UUID in small letters, anything else as it is."""
    return identifier.lower() if _UUID.fullmatch(identifier) else identifier


class Identifier(Text):
    """An id of others: any text, and a UUID in any case."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return canonical(super()._deserialize(value, attr, data, **kwargs))


class Uuid(fields.UUID):
    """A UUID, kept as its canonical text."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Any:
        try:
            return str(read_uuid(value if isinstance(value, str) else ""))
        except ValueError:
            raise self.make_error("invalid_uuid") from None


class Flag(fields.Boolean):
    """true or false; not 1, not "yes"."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> bool:
        if not isinstance(value, bool):
            raise self.make_error("invalid", input=None)
        return value


class DecimalAmount(fields.Field[Decimal]):
    """A JSON number greater than zero, exactly as it was written."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> Decimal:
        if isinstance(value, bool) or not isinstance(value, int | Decimal):
            raise ValidationError("Must be a number.")
        if isinstance(value, Decimal) and not value.is_finite():
            raise ValidationError("Must be a finite number.")
        if value <= 0:
            raise ValidationError("Must be greater than 0.")
        return Decimal(value)


class MinorAmount(fields.Integer):
    """A whole number of a currency's smallest units, greater than zero; 2500.0 and "2500" are none."""

    def _deserialize(self, value: Any, *_: Any, **__: Any) -> int:
        if type(value) is not int:
            raise ValidationError("Must be an integer, in the currency's smallest unit.")
        if value <= 0:
            raise ValidationError("Must be greater than 0.")
        return value
