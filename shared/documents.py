"""JSON with exact decimals, read and written the same way everywhere; never through a float."""

from decimal import Decimal, InvalidOperation
from typing import Any

import simplejson

NOT_A_NUMBER = Decimal("NaN")


def parse_json(text: str | bytes, *, keep_unusable: bool = False) -> Any:
    """Parse JSON; fractions become Decimal. Raises ValueError, for NaN and Infinity too.

    With `keep_unusable`, NaN, the infinities and numbers beyond any meaning come back as NOT_A_NUMBER, so
    that a schema can refuse them by the name of their field.
    """

    def unusable(_: str) -> Decimal:
        if keep_unusable:
            return NOT_A_NUMBER
        raise ValueError("not a JSON number")

    def number(digits: str) -> Decimal:
        try:
            return Decimal(digits)
        except InvalidOperation:
            return unusable(digits)

    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        return simplejson.loads(text, parse_float=number, parse_constant=unusable, allow_nan=keep_unusable)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def render_json(document: Any, *, sort_keys: bool = False) -> str:
    """Write JSON; a Decimal becomes a number with exactly its digits."""
    return simplejson.dumps(
        document, use_decimal=True, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys
    )
