"""The AsyncAPI 3 document of all that is said over Kafka, made from the schemas that the code checks."""

import uuid
from datetime import UTC, datetime
from typing import Any, Final

from payment_worker.asyncapi_examples import OPERATION_ID, PAYMENT_ID, example_of
from payment_worker.letters import Place, Reason, compose
from shared.command_messages import COMMAND_SCHEMAS, NOTICE_SCHEMAS, REJECTED, Asked, rejection
from shared.documents import parse_json
from shared.events import (
    DEAD_LETTERS,
    PAYMENT_REJECTED,
    SCHEMAS,
    SOURCE,
    VERSION,
    Event,
    Message,
    UnreadableMessage,
    encode,
    topics,
)
from shared.payments import Announcement, Command, Notice

_JSON: Final = "application/json"
_ABOUT: Final = (
    "CloudEvents 1.0 in Kafka's binary mode. Delivery is at least once and in the order of each payment: drop"
    " by `ce_id` what came before. Fields may be added, and values to those that list some; a breaking change"
    " is a new type beside the old one."
)
_KAFKA: Final = {"bindingVersion": "0.5.0"}
_TEXT: Final = {"type": "string"}
_AT: Final = datetime(2026, 11, 20, 23, 4, 3, 926_000, tzinfo=UTC)
_PAYMENT: Final = uuid.UUID(PAYMENT_ID)
_EVENT: Final = uuid.UUID("01a1fb33-e3a1-7f10-8a5c-4f5d1c3b2a10")
_TRACE: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
_RECEIVED: Final = dict[Command | Notice, dict[str, Any]](COMMAND_SCHEMAS.items())
_RECEIVED.update(NOTICE_SCHEMAS.items())
_REQUESTS: Final = {each for each in Announcement if each.endswith("-requested")}


def document(prefix: str = "") -> dict[str, Any]:
    """The document; `prefix` stands before every topic's address."""
    messages = {
        **{str(each): _event(each) for each in SCHEMAS},
        **{str(each): _command(each) for each in _RECEIVED},
        PAYMENT_REJECTED: _rejection(),
        DEAD_LETTERS: _dead_letter(),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Payment events and commands",
            "version": VERSION,
            "description": _ABOUT,
        },
        "defaultContentType": _JSON,
        "channels": {name: _channel(name, count, prefix) for name, count in topics().items()},
        "operations": {
            operation: _operation(operation, action, name, messages[name]["title"])
            for name in topics()
            for operation, action in _actions(name)
        },
        "components": {"messages": messages},
    }


def _channel(name: str, partitions: int, prefix: str) -> dict[str, Any]:
    return {
        "address": prefix + name,
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"kafka": {"partitions": partitions, **_KAFKA}},
    }


def _actions(name: str) -> list[tuple[str, str]]:
    """What this service does on a topic; requests are its own worker's input, too, nobody else's output."""
    if name in set(map(str, _RECEIVED)):
        return [(f"receive-{name}", "receive")]
    receives = [(f"receive-{name}", "receive")] if name in _REQUESTS else []
    return [(f"send-{name}", "send"), *receives]


def _operation(operation: str, action: str, name: str, title: str) -> dict[str, Any]:
    channel = f"#/channels/{name}"
    return {
        "action": action,
        "title": operation,
        "summary": title,
        "channel": {"$ref": channel},
        "messages": [{"$ref": f"{channel}/messages/{name}"}],
    }


def _message(
    name: str, schema: dict[str, Any], headers: dict[str, Any], key: dict[str, Any], example: Message
) -> dict[str, Any]:
    return {
        "name": name,
        "title": schema["title"],
        "contentType": _JSON,
        "headers": headers,
        # The part of JSON Schema that is used means the same in AsyncAPI's own dialect.
        "payload": {word: value for word, value in schema.items() if word != "$schema"},
        "bindings": {"kafka": {"key": key, **_KAFKA}},
        "examples": [_shown(example)],
    }


def _shown(message: Message) -> dict[str, Any]:
    """A message as an example shows it."""
    return {
        "headers": {name: raw.decode() for name, raw in message.headers},
        "payload": parse_json(message.value),
    }


def _headers(name: str, *, optional: tuple[str, ...], **more: dict[str, Any]) -> dict[str, Any]:
    """The schema of an event's headers."""
    known = {
        "ce_specversion": {"const": "1.0"},
        "ce_id": {"type": "string", "description": "the event's id: the same each time it comes"},
        "ce_type": {"const": f"{name}.{VERSION}"},
        "ce_source": {"const": SOURCE},
        "ce_subject": _TEXT,
        "ce_time": {"type": "string", "format": "date-time"},
        "ce_correlationid": {"type": "string", "description": "of the request that caused it"},
        "ce_causationid": {
            "type": "string",
            "description": "the operation, or the command, that it is about",
        },
        "traceparent": {"type": "string", "description": "W3C Trace Context"},
        "content-type": {"const": _JSON},
        **more,
    }
    return {"type": "object", "properties": known, "required": sorted(set(known) - set(optional))}


def _event(announcement: Announcement) -> dict[str, Any]:
    schema = SCHEMAS[announcement]
    example = encode(
        Event(
            id=_EVENT,
            type=announcement,
            subject=_PAYMENT,
            sequence=3,
            time=_AT,
            data=example_of(announcement, schema),
            correlation_id="checkout-7",
            causation_id=OPERATION_ID,
            traceparent=_TRACE,
        )
    )
    headers = _headers(
        announcement,
        optional=("ce_correlationid", "ce_causationid", "traceparent"),
        ce_sequence={"type": "string", "pattern": "^[0-9]+$", "description": "rises within a payment"},
    )
    key = {"type": "string", "format": "uuid", "description": "the payment's id"}
    return _message(announcement, schema, headers, key, example)


def _command(command: Command | Notice) -> dict[str, Any]:
    schema = _RECEIVED[command]
    headers = {
        "type": "object",
        "properties": {
            "ce_id": {
                "type": "string",
                "pattern": "^[\\x21-\\x7e]{1,255}$",
                "description": "the sender's id for it, under which it takes effect once; else `eventId`",
            },
            "ce_correlationid": _TEXT,
            "traceparent": _TEXT,
        },
    }
    value = example_of(command, schema)
    message = _message(command, schema, headers, {"type": "string"}, _NO_MESSAGE)
    return message | {"examples": [{"headers": {"ce_id": "order-service-4711"}, "payload": value}]}


_NO_MESSAGE: Final = Message(topic="", key=b"", value=b"{}", headers=[])


def _rejection() -> dict[str, Any]:
    asked = Asked(
        command=Command.CAPTURE_PAYMENT,
        id="order-service-4711",
        data={"paymentId": str(_PAYMENT)},
        correlation_id="checkout-7",
        traceparent=_TRACE,
    )
    example = rejection(asked, "PAYMENT_CONFLICT", "A payment that is failed cannot be captured", _AT)
    headers = _headers(PAYMENT_REJECTED, optional=("ce_correlationid", "traceparent"))
    key = {"type": "string", "description": "the id that the command named"}
    return _message(PAYMENT_REJECTED, REJECTED, headers, key, example)


def _dead_letter() -> dict[str, Any]:
    _, _, headers = compose(
        [],
        None,
        b"{",
        origin=Place(topic=str(Command.CAPTURE_PAYMENT), partition=2, offset=17),
        sent_at=_AT,
        error=UnreadableMessage("not readable: JSONDecodeError"),
    )
    shown = {name: raw.decode() for name, raw in headers}
    return {
        "name": DEAD_LETTERS,
        "title": "A message that cannot be read, as it came",
        "summary": f"Why, as operators see it: {', '.join(Reason)}",
        "contentType": "application/octet-stream",
        "headers": {
            "type": "object",
            "properties": {
                **dict.fromkeys(shown, _TEXT),
                "dlq_cut_bytes": {
                    "type": "string",
                    "description": "its size, where it was too large to keep",
                },
            },
            "required": sorted(set(shown) - {"dlq_time"}),
        },
        "payload": {},
        "bindings": {"kafka": dict(_KAFKA)},
        "examples": [{"headers": shown, "payload": "{"}],
    }
