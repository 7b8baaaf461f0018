"""Commands and notices from Kafka, and what answers the refused ones: schemas, reading, writing; pure."""

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

import jsonschema_rs

from shared.card_numbers import find_card_data
from shared.catalog_messages import CATALOG_SCHEMAS
from shared.documents import render_json
from shared.events import (
    PAYMENT_REJECTED,
    SOURCE,
    VERSION,
    Message,
    SchemaBroken,
    UnknownVersion,
    UnreadableMessage,
    check_against,
    parse_value,
    rfc3339,
)
from shared.message_fields import ID_OR_NULL, PLAIN, TEXT_OR_NULL, UUID, UUID_OR_NULL, message
from shared.payments import Command, Notice
from shared.ticketing_messages import TICKETING_SCHEMAS
from shared.trace_ids import usable_correlation_id, usable_traceparent

REASON_LENGTH: Final = 500
_REASON = {"type": ["string", "null"], "minLength": 1, "maxLength": REASON_LENGTH, "pattern": PLAIN}
_AMOUNT = {"type": ["number", "null"]}

# One of them names the payment: an order or a cart stands for its newest live one.
_NAMES = {"paymentId": UUID_OR_NULL, "orderId": ID_OR_NULL, "cartId": ID_OR_NULL}

COMMAND_SCHEMAS: Final[Mapping[Command, dict[str, Any]]] = MappingProxyType(
    {
        Command.AUTHORIZE_PAYMENT: message(
            "Hold the total of a cart",
            {
                "cartId": UUID,
                "customerId": UUID_OR_NULL,
                "amount": {"type": "integer", "minimum": 0},
                "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
                "orderId": UUID_OR_NULL,
                "paymentMethodId": {"type": ["string", "null"], "pattern": "^pm_[A-Za-z0-9_]{1,250}$"},
            },
            required=("cartId", "amount", "currency"),
        ),
        Command.CAPTURE_PAYMENT: message(
            "Take what a payment holds; an order beside another name is bound to it",
            {**_NAMES, "amount": _AMOUNT, "reason": _REASON},
        ),
        Command.CANCEL_PAYMENT: message("Give a payment up", {**_NAMES, "reason": _REASON}),
        Command.REFUND_PAYMENT: message("Give money back", {**_NAMES, "amount": _AMOUNT, "reason": _REASON}),
    }
)
NOTICE_SCHEMAS: Final[Mapping[Notice, dict[str, Any]]] = MappingProxyType(
    {**TICKETING_SCHEMAS, **CATALOG_SCHEMAS}
)
REJECTED: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A command that could be read and was refused; nothing was stored of it but the refusal",
    "type": "object",
    "properties": {
        "command": {"enum": [*map(str, Command), *map(str, Notice)]},
        "commandId": {"type": "string", "minLength": 1},
        "paymentId": TEXT_OR_NULL,
        "cartId": TEXT_OR_NULL,
        "orderId": TEXT_OR_NULL,
        "errorCode": {"type": "string", "minLength": 1},
        "errorMessage": {"type": "string", "minLength": 1},
    },
    "required": ["command", "commandId", "cartId", "orderId", "errorCode", "errorMessage"],
}


_SCHEMAS: Final[dict[Command | Notice, dict[str, Any]]] = dict(COMMAND_SCHEMAS.items())
_SCHEMAS.update(NOTICE_SCHEMAS.items())
_VALIDATORS = {
    each: jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for each, schema in _SCHEMAS.items()
}
_REJECTED = jsonschema_rs.Draft202012Validator(REJECTED)
_VERSION = re.compile(r".*\.(v\d+)")
_WORD = re.compile(r"[\x21-\x7e]{1,255}")
# A repeat of a command is answered under the same event id.
_ANSWERS = uuid.UUID("5f0c1f2e-6f0e-4c8e-9d58-0d4f1f6f8c3b")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A command or notice that could be read: its sender's id for it, and of its value what we know.

    `card_data_in` names the field that holds card data; nothing of such a value is kept.
    """

    command: Command | Notice
    id: str
    data: dict[str, Any] = field(repr=False)
    correlation_id: str | None = None
    traceparent: str | None = None
    card_data_in: str | None = None


def read_command(
    command: Command | Notice, headers: Iterable[tuple[str, bytes | None]], value: bytes | None, place: str
) -> Asked:
    """Read a message of a command's or notice's topic; `place` names it where its sender has given it no id.

    Raises InvalidEvent, which repeats nothing of the value.
    """
    try:
        named = {name: (raw or b"").decode() for name, raw in headers}
        document = parse_value(value)
    except ValueError as error:
        raise UnreadableMessage(f"not readable: {type(error).__name__}") from None
    # Other services name their types as they like; only where one ends in a version it is ours to know.
    if (version := _VERSION.fullmatch(named.get("ce_type", ""))) and version[1] != VERSION:
        raise UnknownVersion(f"version {version[1][:20]!r} of {command} is not known here")
    card_data_in = find_card_data(document)
    if card_data_in is None:
        _check(command, document)
    given = document if isinstance(document, dict) and card_data_in is None else {}
    return Asked(
        command=command,
        id=_id_of(named, given, place),
        data=_known(given, _SCHEMAS[command]),
        # They go on into logs, events and answers: nothing that could be a card number, or without end.
        correlation_id=usable_correlation_id(named.get("ce_correlationid")),
        traceparent=usable_traceparent(named.get("traceparent")),
        card_data_in=card_data_in,
    )


def rejection(asked: Asked, code: str, message: str, at: datetime, prefix: str = "") -> Message:
    """The message that answers a refused command. Its key is what the command calls the payment."""
    names = {name: asked.data.get(name) for name in ("paymentId", "cartId", "orderId")}
    subject = next((str(name) for name in names.values() if name), asked.id)
    value = {
        "command": str(asked.command),
        "commandId": asked.id,
        **names,
        "errorCode": code,
        "errorMessage": message,
    }
    check_against(_REJECTED, PAYMENT_REJECTED, value)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(uuid.uuid5(_ANSWERS, f"{asked.command}/{asked.id}")),
        "ce_type": f"{PAYMENT_REJECTED}.{VERSION}",
        "ce_source": SOURCE,
        "ce_subject": subject,
        "ce_time": rfc3339(at),
        "ce_correlationid": asked.correlation_id,
        "ce_causationid": asked.id,
        "traceparent": asked.traceparent,
        "content-type": "application/json",
    }
    return Message(
        topic=prefix + PAYMENT_REJECTED,
        key=subject.encode(),
        value=render_json(value).encode(),
        headers=[(name, text.encode()) for name, text in headers.items() if text is not None],
    )


def _known(given: Mapping[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Every field of a schema, null where it was left out; what the schema does not know is dropped."""

    def value(name: str, described: Mapping[str, Any]) -> Any:
        each = given.get(name)
        return _known(each, described) if "properties" in described and isinstance(each, dict) else each

    return {name: value(name, described) for name, described in schema["properties"].items()}


def _check(command: Command | Notice, document: Any) -> None:
    check_against(_VALIDATORS[command], command, document)
    # To JSON Schema 150.0 is an integer, too; to us it may be a mistake about the unit.
    if command is Command.AUTHORIZE_PAYMENT and type(document["amount"]) is not int:
        raise SchemaBroken(f"{command}: amount breaks the rule type")


def _id_of(headers: Mapping[str, str], document: Mapping[str, Any], place: str) -> str:
    given = headers.get("ce_id") or document.get("eventId") or place
    if not _WORD.fullmatch(given):
        raise UnreadableMessage("the header ce_id is no text of visible characters")
    return str(given)
