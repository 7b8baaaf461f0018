"""Declare one setting, and read one from the environment."""

import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, field
from typing import Any, cast

from environs import EnvValidationError, FileAwareEnv
from marshmallow import ValidationError

from shared.settings_checks import Check

_PARSERS: dict[str, Callable[[str], Any]] = {"json": json.loads, "list": lambda text: text.split(",")}


def default_of(metadata: Mapping[str, Any]) -> Any:
    """The value of a setting that is not set."""
    default, read = metadata["default"], _PARSERS.get(metadata["kind"])
    return "" if default is MISSING else read(default) if read else default


def setting(
    help: str,  # noqa: A002 - the word that every command line uses for it
    default: Any = MISSING,
    kind: str = "str",
    check: Check | None = None,
    *,
    secret: bool = False,
) -> Any:
    """A field of a settings class: what it means, its default, how it is read and checked."""
    metadata = {"help": help, "kind": kind, "check": check, "secret": secret}
    metadata["default"] = default
    return field(default_factory=lambda: default_of(metadata), metadata=metadata, repr=not secret)


def read(environment: FileAwareEnv, name: str, each: Field[Any], *, required: bool) -> Any:
    """The value of one variable, as its check returns it.

    Raises ValueError or OSError, or EnvValidationError or ValidationError.
    """
    raw = environment.str(name, "")
    if not raw.strip():
        if required:
            raise ValueError("is not set")
        return default_of(each.metadata)
    parse = cast("Callable[..., Any]", getattr(environment, each.metadata["kind"]))
    check = each.metadata["check"]
    value = parse(name)
    # The file of a secret mostly ends with a line break, which is no part of it.
    value = value.strip() if isinstance(value, str) else value
    return check(value) if check else value


def explain(error: Exception) -> str:
    """What is wrong, without the value."""
    if isinstance(error, EnvValidationError):
        return "; ".join(str(message) for message in error.error_messages)
    if isinstance(error, ValidationError):
        return "; ".join(str(message) for message in error.messages)
    return error.strerror or "cannot be read" if isinstance(error, OSError) else str(error)
