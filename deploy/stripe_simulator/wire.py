"""Stripe's wire format: nested form-encoded requests in, JSON out."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

Form = dict[str, Any]  # leaves are strings; lists are dicts whose keys are "0", "1", ...

FIELDS_MAX = 1000
DEPTH_MAX = 8

_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_SUBSCRIPT = re.compile(r"\[([^\[\]]*)\]")
_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class MalformedForm(ValueError):
    """The text is not a form that Stripe would read."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer before it is sent; this is also what an idempotency key remembers."""

    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


def to_json(value: object) -> bytes:
    """Return `value` as compact JSON in UTF-8."""
    return _encode(value).encode()


def parse_pairs(text: str) -> list[tuple[str, str]]:
    """Split a form or query string into decoded names and values. Raises MalformedForm."""
    try:
        return parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError as error:
        raise MalformedForm(str(error)) from error


def nest(pairs: Iterable[tuple[str, str]]) -> Form:
    """Build the nested form that names such as `metadata[k]` and `expand[]` describe.

    Raises MalformedForm for unbalanced brackets and for a name used both as value and as hash.
    """
    form: Form = {}
    for name, value in pairs:
        match = _NAME.fullmatch(name)
        if match is None:
            message = f"Invalid parameter name: {name}"
            raise MalformedForm(message)
        _place(form, [match[1], *_SUBSCRIPT.findall(match[2])], name, value)
    return form


def _place(form: Form, path: list[str], name: str, value: str) -> None:
    if len(path) > DEPTH_MAX:
        message = f"Too deeply nested: {name}"
        raise MalformedForm(message)
    node = form
    for step in path[:-1]:
        node = node.setdefault(step or str(len(node)), {})
        if not isinstance(node, dict):
            message = f"Invalid parameter: {name} is both a value and a hash"
            raise MalformedForm(message)
    last = path[-1] or str(len(node))
    if isinstance(node.get(last), dict):
        message = f"Invalid parameter: {name} is both a value and a hash"
        raise MalformedForm(message)
    node[last] = value
