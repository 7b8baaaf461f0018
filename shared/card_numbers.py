"""Recognise card numbers and security codes, which may never be stored, logged or sent on."""

import re
from collections.abc import Iterator
from decimal import Decimal
from functools import lru_cache
from itertools import accumulate
from typing import Any, Final

REDACTED: Final = "[redacted]"

# What people put between the groups of a card number: spaces and dashes of every kind, up to three of them.
_SEPARATOR = r"[\s\u002d\u00ad\u2010-\u2015\u2212]{1,3}"
MIN_DIGITS: Final = 13
_MAX_DIGITS: Final = 19
_PREFIX_DIGITS: Final = 4  # the longest prefix in the table below
_MAX_PHONE_DIGITS: Final = 15  # ITU-T E.164, country code included

# The quick look that nearly every string fails: thirteen digits in a row, separators aside.
_MAYBE = re.compile(rf"\d(?:(?:{_SEPARATOR})?\d){{{MIN_DIGITS - 1}}}")
_RUN = re.compile(rf"\d+(?:{_SEPARATOR}\d+)*")
_GROUP = re.compile(r"\d+")

# Identifiers whose digits mean nothing: uuids, digests and trace ids, and the gateway's own object ids.
# A gateway id must have a letter behind its prefix, so that tok_<card number> does not slip through.
_EXEMPT = re.compile(
    r"""
    (?<![0-9a-f]) [0-9a-f]{8} (?:-[0-9a-f]{4}){3} - [0-9a-f]{12} (?![0-9a-f])
  | (?<![0-9a-z]) (?=[0-9]*[a-f]) [0-9a-f]{24,128} (?![0-9a-z])
  | (?<![0-9a-z])
    (?: acct|btok|card|ch|cs|cus|dp|du|evt|in|ii|mandate|pi|pk|pm|po|price|prod|pst|py|pyr|re|req|rk|seti
      | sk|src|sub|tok|tr|txn|we|whsec )
    _ (?:(?:test|live)_)? (?=[0-9]*[a-z]) [0-9a-z]+ (?:_secret_[0-9a-z]+)?
    """,
    re.VERBOSE | re.IGNORECASE | re.ASCII,
)

# Network: first and last prefix, then the lengths it issues. Prefixes are compared by their own length.
# Maestro's twelve digits and UATP (a leading 1) are left out: telephone and order numbers look like them.
_NETWORKS: Final = (
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),  # Mastercard
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),  # American Express
    ("300", "305", (14, 16, 17, 18, 19)),  # Diners Club
    ("309", "309", (14, 16, 17, 18, 19)),  # Diners Club
    ("36", "36", (14, 15, 16, 17, 18, 19)),  # Diners Club
    ("38", "39", (14, 16, 17, 18, 19)),  # Diners Club
    ("6011", "6011", (16, 17, 18, 19)),  # Discover
    ("644", "649", (16, 17, 18, 19)),  # Discover
    ("65", "65", (16, 17, 18, 19)),  # Discover, Elo, RuPay, Troy
    ("3528", "3589", (16, 17, 18, 19)),  # JCB
    ("62", "62", (16, 17, 18, 19)),  # UnionPay
    ("81", "82", (16, 17, 18, 19)),  # UnionPay, RuPay
    ("2200", "2205", (16, 17, 18, 19)),  # Mir
    ("9792", "9792", (16,)),  # Troy
    ("60", "60", (16,)),  # RuPay, Hipercard
    ("506", "509", (16, 18, 19)),  # Verve, Elo, RuPay
    ("6362", "6363", (16,)),  # Elo
    ("5018", "5020", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("5038", "5038", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("5600", "5899", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("6304", "6304", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("6390", "6390", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
    ("6759", "6763", (13, 14, 15, 16, 17, 18, 19)),  # Maestro
)

_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
# After the name has lost its case and its separators. cvc_check and the like tell a result, not the code.
_CVC_NAME = re.compile(
    r"(?:.*(?:card|payment|method|cc))?(?:cvc|cvv|cvn|csc|ccv|cav2|cid2)[0-9]?(?:code|number|num|no|value)?"
    r"|.*securitycode|.*cardverification.*|.*verificationvalue|cvc[0-9]?cvv[0-9]?"
)
_MAX_SHOWN_KEY = 64  # characters of a key in a path; the rest is cut off
_ROOT = "body"


def find_card_data(document: object) -> str | None:
    """Return the dotted path of the first field of a parsed JSON document that carries card data.

    Card data is a card number in a value or in a key, or a field named like a security code. List indices
    are parts of the path, a bare value is called "body", and a key that is itself a card number is shown
    as [redacted]. None when there is nothing of the kind.
    """
    pending: list[tuple[tuple[str, ...], object]] = [((), document)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, dict):
            for key in value:
                if _is_number_in(str(key)):
                    return ".".join((*path, REDACTED))
                if _is_cvc_name(str(key)):
                    return ".".join((*path, _shown(key)))
            pending += reversed([((*path, _shown(key)), below) for key, below in value.items()])
        elif isinstance(value, list | tuple):
            pending += reversed([((*path, str(index)), below) for index, below in enumerate(value)])
        elif _is_number_in(_text_of(value)):
            return ".".join(path) or _ROOT
    return None


def redact(text: str) -> str:
    """Return `text` with every card number in it replaced by [redacted]."""
    if len(text) < MIN_DIGITS:
        return text
    for start, end in reversed(list(_card_number_spans(text))):
        text = f"{text[:start]}{REDACTED}{text[end:]}"
    return text


def redact_document(document: Any) -> Any:
    """Return a parsed JSON document with every card number and security code in it replaced by [redacted]."""
    if isinstance(document, dict):
        return {
            redact(str(key)): REDACTED if _is_cvc_name(str(key)) else redact_document(value)
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [redact_document(each) for each in document]
    if isinstance(document, str):
        return redact(document)
    return REDACTED if _is_number_in(_text_of(document)) else document


def _shown(key: object) -> str:
    """Return a key as a part of a path."""
    return str(key)[:_MAX_SHOWN_KEY]


def _text_of(value: object) -> str:
    """Return the characters of a JSON scalar that could be a card number."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or value is None:
        return ""
    if isinstance(value, float) and value.is_integer() and abs(value) < 10**_MAX_DIGITS:
        return str(int(value))
    if isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) <= _MAX_DIGITS:
        return f"{value:f}"
    if isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS:
        return ""  # too long, and a huge one would be slow to write out or refused by Python
    return str(value)


def _is_number_in(text: str) -> bool:
    return next(_card_number_spans(text), None) is not None


def _is_cvc_name(name: str) -> bool:
    return _CVC_NAME.fullmatch(_NOT_ALPHANUMERIC.sub("", name[:_MAX_SHOWN_KEY]).casefold()) is not None


def _card_number_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where in `text` each card number begins and ends, without overlaps."""
    if len(text) < MIN_DIGITS or _MAYBE.search(text) is None:
        return
    searched = _EXEMPT.sub(lambda match: "x" * len(match[0]), text)
    for run in _RUN.finditer(searched):
        groups = list(_GROUP.finditer(searched, *run.span()))
        is_phone = searched[run.start() - 1 : run.start()] == "+"
        for first, last in _numbers_in([group[0] for group in groups], is_phone=is_phone):
            yield groups[first].start(), groups[last].end()


def _numbers_in(groups: list[str], *, is_phone: bool) -> Iterator[tuple[int, int]]:
    """Yield the first and last of the neighbouring digit groups that make up each card number.

    A number never splits a group. `is_phone` says that a plus sign stands before the first group.
    """
    number = "".join(groups)
    starts = [0, *accumulate(map(len, groups))]
    group_ending_at = {end: index for index, end in enumerate(starts[1:])}
    taken_to = -1
    for first, start in enumerate(starts[:-1]):
        for length in _lengths(number[start : start + _PREFIX_DIGITS]) if first > taken_to else ():
            last = group_ending_at.get(start + length)
            phone = is_phone and first == 0 and length <= _MAX_PHONE_DIGITS
            if last is not None and not phone and _passes_luhn(number[start : start + length]):
                yield first, last
                taken_to = last
                break


@lru_cache(maxsize=10_000)
def _lengths(prefix: str) -> tuple[int, ...]:
    """Return the lengths, longest first, that a number beginning with these four digits may have."""
    digits = "".join(str(int(character)) for character in prefix)  # other scripts' digits as ASCII
    issued = {
        length
        for first, last, lengths in _NETWORKS
        if first <= digits[: len(first)] <= last
        for length in lengths
    }
    return tuple(sorted(issued, reverse=True))


def _passes_luhn(number: str) -> bool:
    """Tell whether the last digit is the check digit of ISO/IEC 7812-1, annex B."""
    digits = [int(character) for character in number]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
