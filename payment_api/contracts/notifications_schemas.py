"""The shapes of the notification routes: what subscribers send, and what they are shown."""

from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf, Range

from payment_api.contracts.fields import Flag, Text, Uuid
from shared.models_notifications import DeliveryState, EndpointState
from shared.notifications import NOTIFIED
from shared.outbound import MAX_URL

DESCRIPTION_LENGTH = 200
PAGE_LIMIT = 100


def _described(description: str, **more: Any) -> dict[str, Any]:
    return {"description": description, **more}


def _url(*, required: bool) -> Text:
    return Text(
        required=required,
        validate=Length(1, MAX_URL),
        metadata=_described(
            "https, at a public address, without user name and password", example="https://shop.example/hooks"
        ),
    )


def _types() -> fields.List[str]:
    return fields.List(
        fields.String(validate=OneOf(NOTIFIED)),
        allow_none=True,
        validate=Length(1, len(NOTIFIED)),
        metadata=_described("what to hear of; null: everything", example=["payment-succeeded"]),
    )


def _description() -> Text:
    return Text(allow_none=True, validate=Length(1, DESCRIPTION_LENGTH))


class NewEndpointSchema(Schema):
    """Where a subscriber takes webhooks."""

    url = _url(required=True)
    eventTypes = _types()
    description = _description()


class EndpointChangeSchema(Schema):
    """What to change of an endpoint; what is left out stays."""

    url = _url(required=False)
    eventTypes = _types()
    description = _description()
    enabled = Flag(metadata=_described("false: nothing is sent, and what waits, waits; true: it goes on"))


class DeliveryQuerySchema(Schema):
    """Which deliveries to list."""

    state = fields.String(validate=OneOf([str(each) for each in DeliveryState]))
    paymentId = Uuid()
    limit = fields.Integer(strict=False, load_default=PAGE_LIMIT, validate=Range(1, PAGE_LIMIT))
    cursor = Uuid(metadata=_described("the last page's nextCursor"))


class ResendSchema(Schema):
    """Which events to deliver again."""

    since = fields.AwareDateTime(required=True, metadata=_described("from this time on"))
    until = fields.AwareDateTime(metadata=_described("before this time; now by default"))


class EndpointSchema(Schema):
    """An endpoint, and how it has done lately."""

    id = fields.UUID(required=True)
    url = fields.String(required=True)
    eventTypes = fields.List(fields.String(), required=True, allow_none=True)
    description = fields.String(required=True, allow_none=True)
    state = fields.String(required=True, validate=OneOf([EndpointState.ENABLED, EndpointState.DISABLED]))
    disabledReason = fields.String(required=True, allow_none=True)
    failingSince = fields.DateTime(required=True, allow_none=True)
    previousSecretUntil = fields.DateTime(
        required=True, allow_none=True, metadata=_described("until then the secret before signs, too")
    )
    createdAt = fields.DateTime(required=True)


class EndpointEnvelopeSchema(Schema):
    """An endpoint."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    endpoint = fields.Nested(EndpointSchema, required=True)


class EndpointSecretSchema(EndpointEnvelopeSchema):
    """An endpoint with its secret, which is shown this once."""

    secret = fields.String(required=True, metadata=_described("whsec_ and Base64"))


class EndpointListSchema(Schema):
    """The caller's endpoints, oldest first."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    endpoints = fields.List(fields.Nested(EndpointSchema), required=True)


class DeliverySchema(Schema):
    """One event on its way to an endpoint."""

    eventId = fields.UUID(required=True, metadata=_described("also its webhook-id, and its ce_id on Kafka"))
    type = fields.String(required=True)
    paymentId = fields.UUID(required=True)
    state = fields.String(required=True, validate=OneOf([str(each) for each in DeliveryState]))
    attempts = fields.Integer(required=True)
    lastStatus = fields.Integer(required=True, allow_none=True)
    lastError = fields.String(required=True, allow_none=True)
    nextAttemptAt = fields.DateTime(required=True, allow_none=True)
    createdAt = fields.DateTime(required=True)
    endedAt = fields.DateTime(required=True, allow_none=True)


class DeliveryEnvelopeSchema(Schema):
    """A delivery."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    delivery = fields.Nested(DeliverySchema, required=True)


class DeliveryListSchema(Schema):
    """One page of deliveries, newest event first."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    deliveries = fields.List(fields.Nested(DeliverySchema), required=True)
    nextCursor = fields.UUID(required=True, allow_none=True)


class ResentSchema(Schema):
    """How many events are delivered again."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    count = fields.Integer(required=True)
