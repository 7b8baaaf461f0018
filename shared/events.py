"""The events on Kafka: their types, values and CloudEvents headers; the one place that knows headers."""

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Final

import jsonschema_rs

from shared.catalog_messages import PROCESSED
from shared.documents import parse_json, render_json
from shared.payments import Announcement, Command, Notice

DEAD_LETTERS: Final = "payments-dead-letter"
PAYMENT_REJECTED: Final = "payment-rejected"  # answers a command; of no payment's history
SOURCE: Final = "/payment-service"
VERSION: Final = "v1"  # a breaking change is a new version beside this one
# The partition count bounds how many consumers can share the work; topics made later must keep it.
PARTITIONS: Final = 6
# Far above any event and any command; what is larger is not even parsed.
MAX_VALUE_BYTES: Final = 256 * 1024

_UUID = {"type": "string", "format": "uuid"}
_ID_OR_NULL = {"type": ["string", "null"]}  # other services' ids are opaque to us
_TIME = {"type": "string", "format": "date-time"}
_MINOR = {"type": "integer", "minimum": 0}
_CURRENCY = {"type": "string", "pattern": "^[A-Z]{3}$"}
_TEXT = {"type": "string", "minLength": 1}
_TEXT_OR_NULL = {"type": ["string", "null"]}

_IDS = {
    "paymentId": _UUID,
    "orderId": _ID_OR_NULL,
    "customerId": _ID_OR_NULL,
    "reservationId": _ID_OR_NULL,
}
_MONEY = {"amount": {"type": "number"}, "amountMinor": _MINOR, "currency": _CURRENCY}


def _schema(title: str, properties: dict[str, Any], optional: Iterable[str]) -> dict[str, Any]:
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": properties,
        "required": sorted(set(properties) - set(optional)),
    }


def _further(title: str, id_name: str) -> dict[str, Any]:
    """A request for something to be done to a payment that exists."""
    properties = {
        id_name: _UUID,
        "paymentId": _UUID,
        "orderId": _ID_OR_NULL,
        **_MONEY,
        "reason": _TEXT_OR_NULL,
        "requestedAt": _TIME,
    }
    return _schema(title, properties, optional={"orderId", "reason"})


def _standing(title: str, status: str | None, **more: Any) -> dict[str, Any]:
    """What has become of a payment."""
    properties = {
        **_IDS,
        "cartId": _ID_OR_NULL,
        **_MONEY,
        "status": {"const": status} if status else _TEXT,
        "occurredAt": _TIME,
        **more,
    }
    return _schema(title, properties, optional={"reservationId", "cartId"})


_REFUND = {"refundId": _UUID, "paymentId": _UUID, "orderId": _ID_OR_NULL, **_MONEY, "processedAt": _TIME}

SCHEMAS: Final[Mapping[Announcement, dict[str, Any]]] = MappingProxyType(
    {
        Announcement.PAYMENT_REQUESTED: _schema(
            "A payment was recorded and waits to be charged, or held",
            {
                "paymentId": _UUID,
                "orderId": _ID_OR_NULL,
                "cartId": _ID_OR_NULL,
                "customerId": _ID_OR_NULL,
                **_MONEY,
                "paymentMethod": _TEXT,
                "captureMethod": {"enum": ["automatic", "manual"]},
                "requestedAt": _TIME,
            },
            optional={"orderId", "cartId", "customerId", "paymentMethod", "captureMethod"},
        ),
        Announcement.CAPTURE_REQUESTED: _further("What a payment holds is to be captured", "operationId"),
        Announcement.CANCEL_REQUESTED: _further("A payment is to be cancelled", "operationId"),
        Announcement.REFUND_REQUESTED: _further("Money is to be given back", "refundId"),
        Announcement.PAYMENT_SUCCEEDED: _schema(
            "The money was taken",
            {
                **_IDS,
                **_MONEY,
                "authorizedAmountMinor": _MINOR,
                "paymentMethod": _TEXT,
                "transactionId": _TEXT,
                "processedAt": _TIME,
                "status": {"const": "succeeded"},
            },
            optional={"reservationId"},
        ),
        Announcement.PAYMENT_FAILED: _schema(
            "The payment ended without money being taken",
            {
                **_IDS,
                **_MONEY,
                "paymentMethod": _TEXT,
                "errorCode": _TEXT,
                "errorMessage": _TEXT_OR_NULL,
                "failureReason": _TEXT,
                "attemptedAt": _TIME,
                "status": {"const": "failed"},
            },
            optional={"reservationId", "errorMessage"},
        ),
        Announcement.PAYMENT_AUTHORIZED: _standing("The money is held", "authorized"),
        Announcement.PAYMENT_CANCELLED: _standing("The payment was given up", "cancelled"),
        Announcement.PAYMENT_ACTION_REQUIRED: _standing("The customer must act", "requires_action"),
        Announcement.PAYMENT_DISPUTED: _standing(
            "The customer's bank disputes the payment, or the dispute has moved on",
            None,
            disputeId=_TEXT,
            disputeReason=_TEXT,
            disputeStatus=_TEXT,
        ),
        Announcement.REFUND_SUCCEEDED: _schema("Money was given back", _REFUND, optional=()),
        Announcement.REFUND_FAILED: _schema(
            "Money could not be given back, now or after it had seemed so",
            {**_REFUND, "reason": _TEXT},
            optional=(),
        ),
        Announcement.PAYMENT_PROCESSED: PROCESSED,
        Announcement.NOTIFICATION_ENDPOINT_DISABLED: _schema(
            "An endpoint that failed for days is told of nothing any more",
            {"endpointId": _UUID, "owner": _TEXT, "reason": _TEXT, "disabledAt": _TIME},
            optional=(),
        ),
    }
)
_VALIDATORS = {
    each: jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
    for each, schema in SCHEMAS.items()
}


class InvalidEvent(Exception):
    """The message is not an event that we can read, or the event does not fit its schema."""


class UnreadableMessage(InvalidEvent):
    """The value is no JSON, or something in it or in the headers is not what its place is for."""


class MessageTooLarge(InvalidEvent):
    """The message is larger than anything that means something here."""


class HeaderMissing(InvalidEvent):
    """A header that every event has is not there."""


class UnknownVersion(InvalidEvent):
    """The event's type is of a version that this release does not know; a later one may."""


class SchemaBroken(InvalidEvent):
    """The value does not fit the schema of its type."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One announcement: who it is about, in which place of that payment's history, and what it says."""

    id: uuid.UUID
    type: Announcement
    subject: uuid.UUID  # the payment
    sequence: int  # rises with each event of the payment; may skip numbers
    time: datetime
    data: dict[str, Any]
    correlation_id: str | None = None
    causation_id: str | None = None  # the operation that the event belongs to
    traceparent: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """An event as Kafka carries it."""

    topic: str
    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def topics() -> dict[str, int]:
    """Every topic that this service produces to or consumes from, with its number of partitions."""
    shared = [*map(str, SCHEMAS), *map(str, Command), *map(str, Notice), PAYMENT_REJECTED]
    return {**dict.fromkeys(shared, PARTITIONS), DEAD_LETTERS: 1}


def rfc3339(moment: datetime) -> str:
    """Write a moment as RFC 3339 in UTC with Z, to the millisecond."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def check(event_type: Announcement, data: object) -> None:
    """Raise InvalidEvent, naming the field, unless `data` fits the schema of its type."""
    check_against(_VALIDATORS[event_type], event_type, data)


def check_against(validator: jsonschema_rs.Draft202012Validator, name: str, data: object) -> None:
    """Raise InvalidEvent, naming the field and never its value, unless `data` fits the validator's schema."""
    try:
        validator.validate(data)
    except jsonschema_rs.ValidationError as error:
        # Only the path and the rule's kind: the message itself would repeat the value.
        path = ".".join(str(step) for step in error.instance_path) or "value"
        raise SchemaBroken(f"{name}: {path} breaks the rule {error.kind.name}") from None
    except UnicodeEncodeError:
        # JSON can spell half a surrogate pair, which is no character and fits no rule about text.
        raise UnreadableMessage(f"{name}: a text is not Unicode") from None


def parse_value(value: bytes | None) -> Any:
    """Parse the JSON of a message's value. Raises MessageTooLarge, and ValueError for what is no JSON."""
    if value and len(value) > MAX_VALUE_BYTES:
        raise MessageTooLarge(f"the value is larger than {MAX_VALUE_BYTES // 1024} KiB")
    return parse_json(value or b"")


def encode(event: Event, prefix: str = "") -> Message:
    """Turn an event into a Kafka message. Raises InvalidEvent if it does not fit its own schema."""
    check(event.type, event.data)
    headers = {
        "ce_specversion": "1.0",
        "ce_id": str(event.id),
        "ce_type": f"{event.type}.{VERSION}",
        "ce_source": SOURCE,
        "ce_subject": str(event.subject),
        "ce_time": rfc3339(event.time),
        "ce_sequence": str(event.sequence),
        "ce_correlationid": event.correlation_id,
        "ce_causationid": event.causation_id,
        "traceparent": event.traceparent,
        "content-type": "application/json",
    }
    return Message(
        topic=prefix + event.type,
        key=str(event.subject).encode(),
        value=render_json(event.data).encode(),
        headers=[(name, value.encode()) for name, value in headers.items() if value is not None],
    )


def decode(headers: Iterable[tuple[str, bytes | None]] | None, value: bytes | None) -> Event:
    """Read a Kafka message back into an event. Raises InvalidEvent for anything that is not one of ours."""
    try:
        named = {name: (raw or b"").decode() for name, raw in headers or ()}
        event_type, _, version = named["ce_type"].rpartition(".")
        if version != VERSION:
            raise UnknownVersion(f"version {version[:20]!r} of the event type is not known here")
        event = Event(
            id=uuid.UUID(named["ce_id"]),
            type=Announcement(event_type),
            subject=uuid.UUID(named["ce_subject"]),
            sequence=int(named["ce_sequence"]),
            time=datetime.fromisoformat(named["ce_time"]),
            data=parse_value(value),
            correlation_id=named.get("ce_correlationid"),
            causation_id=named.get("ce_causationid"),
            traceparent=named.get("traceparent"),
        )
    except KeyError as error:
        raise HeaderMissing(f"the header {error.args[0]} is missing") from None
    except ValueError as error:
        raise UnreadableMessage(f"not readable: {type(error).__name__}") from None
    check(event.type, event.data)
    return event
