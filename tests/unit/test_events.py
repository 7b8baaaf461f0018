"""Events: their schemas, their CloudEvents headers, the way out and back, and what cannot be read."""

import re
import uuid
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared import events
from shared.documents import render_json
from shared.events import SCHEMAS, Event, InvalidEvent, Message, decode, encode, rfc3339
from shared.money import CURRENCIES, Money
from shared.payments import Announcement, Command, Notice

PAYMENT, EVENT = uuid.UUID(int=1), uuid.UUID(int=2)
NOON = datetime(2026, 3, 4, 12, 0, 0, 5000, UTC)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MONEY = {"amount": Decimal("150.00"), "amountMinor": 15000, "currency": "USD"}
IDS = {"paymentId": str(PAYMENT), "orderId": "an order", "customerId": None, "reservationId": None}
OPERATION = uuid.UUID(int=3)
FURTHER = {
    "paymentId": str(PAYMENT), "orderId": None, **MONEY, "reason": None,
    "requestedAt": "2026-03-04T12:00:00Z",
}  # fmt: skip
STANDING = {**IDS, "cartId": None, **MONEY, "occurredAt": "2026-03-04T12:00:00Z"}
REFUND = {
    "refundId": str(OPERATION), "paymentId": str(PAYMENT), "orderId": None, **MONEY,
    "processedAt": "2026-03-04T12:00:00Z",
}  # fmt: skip
VALUES: dict[Announcement, dict[str, Any]] = {
    Announcement.PAYMENT_REQUESTED: {
        "paymentId": str(PAYMENT), "orderId": "an order", "cartId": None, "customerId": None, **MONEY,
        "paymentMethod": "credit_card", "captureMethod": "automatic", "requestedAt": "2026-03-04T12:00:00Z",
    },
    Announcement.PAYMENT_SUCCEEDED: {
        **IDS, **MONEY, "authorizedAmountMinor": 15000, "paymentMethod": "credit_card",
        "transactionId": "ch_1", "processedAt": "2026-03-04T12:00:00.005Z", "status": "succeeded",
    },
    Announcement.PAYMENT_FAILED: {
        **IDS, **MONEY, "paymentMethod": "credit_card", "errorCode": "CARD_DECLINED", "errorMessage": None,
        "failureReason": "card_declined", "attemptedAt": "2026-03-04T12:00:00Z", "status": "failed",
    },
    Announcement.CAPTURE_REQUESTED: {**FURTHER, "operationId": str(OPERATION)},
    Announcement.CANCEL_REQUESTED: {**FURTHER, "operationId": str(OPERATION)},
    Announcement.REFUND_REQUESTED: {**FURTHER, "refundId": str(OPERATION)},
    Announcement.PAYMENT_AUTHORIZED: {**STANDING, "status": "authorized"},
    Announcement.PAYMENT_CANCELLED: {**STANDING, "status": "cancelled"},
    Announcement.PAYMENT_ACTION_REQUIRED: {**STANDING, "status": "requires_action"},
    Announcement.PAYMENT_DISPUTED: {
        **STANDING, "status": "succeeded", "disputeId": "dp_1", "disputeReason": "fraudulent",
        "disputeStatus": "needs_response",
    },
    Announcement.REFUND_SUCCEEDED: REFUND,
    Announcement.REFUND_FAILED: {**REFUND, "reason": "expired_or_canceled_card"},
    Announcement.PAYMENT_PROCESSED: {
        "transactionId": "ch_1", "paymentId": str(PAYMENT), "userId": "a user", "orderId": "an order",
        "subscriptionId": None, "amount": Decimal("150.00"), "currency": "USD",
        "paymentMethod": "credit_card", "status": "confirmed",
        "confirmationDetails": {"gatewayResponse": "Approved", "transactionId": "ch_1"},
        "timestamp": "2026-03-04T12:00:00Z",
    },
    Announcement.NOTIFICATION_ENDPOINT_DISABLED: {
        "endpointId": str(OPERATION), "owner": "a shop", "reason": "it has failed for days",
        "disabledAt": "2026-03-04T12:00:00Z",
    },
}  # fmt: skip
STOOD = "paymentId orderId customerId amount amountMinor currency status occurredAt"
# What a consumer may count on, by the contract; everything else may be missing.
PROMISED = {
    Announcement.PAYMENT_REQUESTED: "paymentId amount amountMinor currency requestedAt",
    Announcement.PAYMENT_SUCCEEDED: "paymentId orderId customerId amount amountMinor authorizedAmountMinor"
    " currency paymentMethod transactionId processedAt status",
    Announcement.PAYMENT_FAILED: "paymentId orderId customerId amount amountMinor currency paymentMethod"
    " errorCode failureReason attemptedAt status",
    Announcement.CAPTURE_REQUESTED: "operationId paymentId amount amountMinor currency requestedAt",
    Announcement.CANCEL_REQUESTED: "operationId paymentId amount amountMinor currency requestedAt",
    Announcement.REFUND_REQUESTED: "refundId paymentId amount amountMinor currency requestedAt",
    Announcement.PAYMENT_AUTHORIZED: STOOD,
    Announcement.PAYMENT_CANCELLED: STOOD,
    Announcement.PAYMENT_ACTION_REQUIRED: STOOD,
    Announcement.PAYMENT_DISPUTED: f"{STOOD} disputeId disputeReason disputeStatus",
    Announcement.REFUND_SUCCEEDED: "refundId paymentId orderId amount amountMinor currency processedAt",
    Announcement.REFUND_FAILED: "refundId paymentId orderId amount amountMinor currency processedAt reason",
    Announcement.PAYMENT_PROCESSED: "transactionId paymentId userId orderId amount currency paymentMethod"
    " status confirmationDetails timestamp",
    Announcement.NOTIFICATION_ENDPOINT_DISABLED: "endpointId owner reason disabledAt",
}
PROMISES = [(kind, field) for kind, fields in PROMISED.items() for field in fields.split()]
NEEDED_HEADERS = ["ce_id", "ce_type", "ce_subject", "ce_sequence", "ce_time"]
MISTYPED: list[tuple[str, Any]] = [
    ("paymentId", "not-a-uuid"), ("paymentId", 5), ("amount", "150.00"), ("amount", None),
    ("amountMinor", 1.5), ("amountMinor", -1), ("amountMinor", "15000"), ("amountMinor", True),
    ("currency", "usd"), ("currency", "DOLLAR"), ("transactionId", ""), ("transactionId", None),
    ("status", "failed"), ("processedAt", "yesterday"), ("processedAt", "2026-03-04"), ("paymentMethod", 5),
    ("orderId", {}), ("currency", "\ud800"), ("paymentId", "\ud800"), ("processedAt", "\udfff"),
]  # fmt: skip


def event(kind: Announcement = Announcement.PAYMENT_SUCCEEDED, **overrides: Any) -> Event:
    """Return a valid event; overrides of its value go by the fields' names."""
    return Event(
        id=EVENT, type=kind, subject=PAYMENT, sequence=3, time=NOON, data=VALUES[kind] | overrides,
        correlation_id="corr", causation_id="an operation", traceparent=TRACEPARENT,
    )  # fmt: skip


def headers(message: Message, **overrides: bytes | None) -> list[tuple[str, bytes | None]]:
    """Return a message's headers with others in place of some; ... for None leaves one out."""
    named: dict[str, bytes | None] = dict(message.headers)
    return [(name, value) for name, value in (named | overrides).items() if value is not None]


def test_every_announcement_has_a_schema_and_a_topic() -> None:
    """Nothing can be announced that has no schema; topics are named for their events."""
    assert set(SCHEMAS) == set(Announcement)
    assert set(events.topics()) == {
        *map(str, Announcement),
        *map(str, Command),
        *map(str, Notice),
        "payment-rejected",
        "payments-dead-letter",
    }
    assert all(count >= 1 for count in events.topics().values())
    assert events.topics()["payment-requested"] > 1, "so that consumers can share the work"


@pytest.mark.parametrize("kind", Announcement)
def test_a_schema_is_a_valid_schema(kind: Announcement) -> None:
    """JSON Schema 2020-12, open to fields that come later, requiring exactly what is promised."""
    schema = SCHEMAS[kind]
    jsonschema_rs.meta.validate(schema)
    assert schema["$schema"].endswith("2020-12/schema")
    assert "additionalProperties" not in schema
    assert set(schema["required"]) == set(PROMISED[kind].split())
    assert set(VALUES[kind]) == set(schema["properties"])


@pytest.mark.parametrize("kind", Announcement)
def test_an_event_survives_the_way_out_and_back(kind: Announcement) -> None:
    """What a consumer decodes is the event that was encoded."""
    message = encode(event(kind))
    assert decode(message.headers, message.value) == event(kind)


@settings(max_examples=20)  # in every currency
@given(st.integers(1, 10**15))
def test_amounts_are_exact_on_the_wire(amount_minor: int) -> None:
    """The value shows the currency's decimals, and every amount comes back as it was."""
    for currency in CURRENCIES:
        amount = Money(amount_minor, currency).to_decimal()
        sent = event(amount=amount, amountMinor=amount_minor, currency=currency)
        message = encode(sent)
        assert f'"amount":{amount:f},"amountMinor":{amount_minor},'.encode() in message.value
        assert decode(message.headers, message.value).data == sent.data


def test_the_headers_are_cloudevents_in_binary_mode() -> None:
    """Every header by its name and with its value; key and topic name the payment and the event."""
    message = encode(event(), prefix="staging.")
    assert dict(message.headers) == {
        "ce_specversion": b"1.0",
        "ce_id": str(EVENT).encode(),
        "ce_type": b"payment-succeeded.v1",
        "ce_source": b"/payment-service",
        "ce_subject": str(PAYMENT).encode(),
        "ce_time": b"2026-03-04T12:00:00.005Z",
        "ce_sequence": b"3",
        "ce_correlationid": b"corr",
        "ce_causationid": b"an operation",
        "traceparent": TRACEPARENT.encode(),
        "content-type": b"application/json",
    }
    assert len(message.headers) == 11, "none is there twice"
    assert (message.topic, message.key) == ("staging.payment-succeeded", str(PAYMENT).encode())


def test_headers_without_a_value_are_left_out() -> None:
    """No correlation, cause or trace: no header, and none when read back."""
    bare = Event(id=EVENT, type=Announcement.PAYMENT_FAILED, subject=PAYMENT, sequence=1, time=NOON,
                 data=VALUES[Announcement.PAYMENT_FAILED])  # fmt: skip
    message = encode(bare)
    assert not {"ce_correlationid", "ce_causationid", "traceparent"} & set(dict(message.headers))
    assert decode(message.headers, message.value) == bare


@pytest.mark.parametrize(("kind", "field"), PROMISES)
def test_an_event_without_a_promised_field_is_neither_sent_nor_read(kind: Announcement, field: str) -> None:
    """Producing and consuming check the same schema, and the error names the event."""
    incomplete = event(kind)
    message = encode(incomplete)
    del incomplete.data[field]
    with pytest.raises(InvalidEvent, match=kind):
        encode(incomplete)
    with pytest.raises(InvalidEvent, match=kind):
        decode(message.headers, render_json(incomplete.data).encode())


@pytest.mark.parametrize(("field", "value"), MISTYPED, ids=ascii)
def test_a_mistyped_field_is_refused_without_repeating_it(field: str, value: Any) -> None:
    """The error says which field breaks a rule; the value could be anything, and goes into no log."""
    message = encode(event())
    text = render_json(VALUES[Announcement.PAYMENT_SUCCEEDED] | {field: value})
    escaped = text.encode("ascii", "backslashreplace")
    for attempt in (lambda: encode(event(**{field: value})), lambda: decode(message.headers, escaped)):
        with pytest.raises(InvalidEvent) as refused:
            attempt()
        said = rf"payment-succeeded: ({field} breaks the rule \w+|a text is not Unicode)"
        assert re.fullmatch(said, str(refused.value))


@pytest.mark.parametrize("extra", [{"later": 1}, {"nested": {"a": [None]}}])
def test_fields_that_came_later_are_ignored(extra: dict[str, Any]) -> None:
    """An older consumer reads the events of a newer producer."""
    message = encode(event(**extra))
    assert decode(message.headers, message.value).data == event(**extra).data


@pytest.mark.parametrize("missing", NEEDED_HEADERS)
def test_a_message_without_a_needed_header_is_refused(missing: str) -> None:
    """The error names the header."""
    message = encode(event())
    with pytest.raises(InvalidEvent, match=missing):
        decode(headers(message, **{missing: None}), message.value)


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("ce_id", b""), ("ce_id", b"5"), ("ce_subject", b"nobody"), ("ce_sequence", b""),
        ("ce_sequence", b"first"), ("ce_sequence", b"1.5"), ("ce_sequence", b"9" * 5000),
        ("ce_time", b"noon"), ("ce_time", b""), ("ce_type", b""), ("ce_type", b"payment-succeeded"),
        ("ce_type", b"payment-succeeded.v2"), ("ce_type", b"payment-exploded.v1"),
        ("ce_type", b"payments-dead-letter.v1"), ("ce_type", b"\xff.v1"), ("traceparent", b"\xff"),
    ],
)  # fmt: skip
def test_a_header_that_cannot_be_read_is_refused(header: str, value: bytes) -> None:
    """Other types, newer versions and nonsense are all the same to a consumer: not an event of ours."""
    message = encode(event())
    with pytest.raises(InvalidEvent):
        decode(headers(message, **{header: value}), message.value)


@pytest.mark.parametrize(
    "value",
    [None, b"", b"{", b"[]", b"null", b"5", b'"text"', b"{}", b"\xff", b'{"amount": NaN}', b"[" * 100_000],
    ids=lambda value: repr(value)[:20],
)
def test_a_value_that_cannot_be_read_is_refused(value: bytes | None) -> None:
    """A tombstone, broken JSON, another document."""
    with pytest.raises(InvalidEvent):
        decode(encode(event()).headers, value)


@pytest.mark.parametrize("none", [None, [], [("ce_id", None)]])
def test_a_message_without_headers_is_refused(none: Any) -> None:
    """Whoever produces to our topics without headers is not heard."""
    with pytest.raises(InvalidEvent):
        decode(none, encode(event()).value)


@pytest.mark.parametrize(
    ("moment", "written"),
    [
        (NOON, "2026-03-04T12:00:00.005Z"),
        (NOON.astimezone(timezone(timedelta(hours=14))), "2026-03-04T12:00:00.005Z"),
        (datetime(2026, 12, 31, 23, 59, 59, 999_999, UTC), "2026-12-31T23:59:59.999Z"),
    ],
)
def test_times_are_rfc3339_in_utc(moment: datetime, written: str) -> None:
    """To the millisecond, never rounded up into the next day, always with Z."""
    assert rfc3339(moment) == written
