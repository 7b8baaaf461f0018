"""JSON with exact decimals, read and written the same way everywhere; never through a float."""

from decimal import Decimal, InvalidOperation
from typing import Any

import simplejson


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


def parse_json(text: str | bytes) -> Any:
    """Parse JSON; fractions become Decimal. Raises ValueError, for NaN and Infinity too."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        return simplejson.loads(text, parse_float=Decimal, parse_constant=_refuse_constant, allow_nan=False)
    except InvalidOperation:
        raise ValueError("a number beyond any meaning") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None


def render_json(document: Any, *, sort_keys: bool = False) -> str:
    """Write JSON; a Decimal becomes a number with exactly its digits."""
    return simplejson.dumps(
        document, use_decimal=True, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys
    )
