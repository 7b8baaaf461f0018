"""Which correlation ids and traces of others may go on into logs, rows and events."""

import re

from shared.card_numbers import find_card_data

_CORRELATION_ID = re.compile(r"[\x21-\x7e]{1,128}")
# W3C Trace Context, version 00; ids of zeros alone are invalid.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


def usable_correlation_id(given: str | None) -> str | None:
    """The correlation id that somebody gave, if it may go into logs and events."""
    usable = given and _CORRELATION_ID.fullmatch(given) and not find_card_data({"id": given})
    return given if usable else None


def usable_traceparent(given: str | None) -> str | None:
    """The trace that somebody gave, if it is one."""
    return given if given and _TRACEPARENT.fullmatch(given) else None
