"""The fields that messages of other services have in common, as JSON Schema; pure."""

from typing import Any, Final

# Without control characters, which neither a database nor a log should see.
PLAIN: Final = "^[^\\u0000-\\u001f\\u007f-\\u009f\\u2028\\u2029]*$"
ID_LENGTH: Final = 255

UUID: Final[dict[str, Any]] = {"type": "string", "format": "uuid"}
UUID_OR_NULL: Final[dict[str, Any]] = {"type": ["string", "null"], "format": "uuid"}
ID: Final[dict[str, Any]] = {"type": "string", "minLength": 1, "maxLength": ID_LENGTH, "pattern": PLAIN}
ID_OR_NULL: Final[dict[str, Any]] = {**ID, "type": ["string", "null"]}
EVENT_ID: Final[dict[str, Any]] = {
    "type": ["string", "null"],
    "minLength": 1,
    "maxLength": ID_LENGTH,
    "pattern": "^[\\u0021-\\u007e]*$",
}
WORDS_OR_NULL: Final[dict[str, Any]] = {"type": ["string", "null"], "maxLength": 500, "pattern": PLAIN}
TEXT_OR_NULL: Final[dict[str, Any]] = {"type": ["string", "null"]}


def message(title: str, properties: dict[str, Any], required: tuple[str, ...] = ()) -> dict[str, Any]:
    """The schema of a message; its sender's id for it may stand in the value as `eventId`."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": {**properties, "eventId": EVENT_ID},
        "required": list(required),
    }
