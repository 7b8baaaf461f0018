"""The shapes of the native payment routes: what they take, and for the documentation what they answer."""

from typing import Any

from marshmallow import Schema, ValidationError, fields
from marshmallow.validate import URL, Length, OneOf, Range, Regexp

from payment_api.contracts.fields import DecimalAmount, Flag, Identifier, Text, Uuid
from payment_api.errors import ErrorCode
from shared.payments import PAYMENT_METHODS, CaptureMethod, Status

# As Stripe limits its own metadata, so that what we take could be passed on.
METADATA_KEYS, METADATA_KEY_LENGTH, METADATA_VALUE_LENGTH = 50, 40, 500
_LABEL = Text(validate=Length(1, METADATA_KEY_LENGTH))
DEFAULT_PAGE, LARGEST_PAGE = 20, 100


def _described(description: str, **more: Any) -> dict[str, Any]:
    return {"description": description, **more}


def _few_labels(labels: dict[str, str]) -> None:
    if len(labels) > METADATA_KEYS:
        raise ValidationError(f"At most {METADATA_KEYS} keys.")


class NewPaymentSchema(Schema):
    """An order to charge."""

    orderId = Uuid(required=True, metadata=_described("the order; it has at most one live payment"))
    customerId = Uuid(required=True)
    reservationId = Uuid(load_default=None, allow_none=True)
    amount = DecimalAmount(
        required=True,
        metadata=_described(
            "in whole units of the currency", type="number", exclusiveMinimum=0, example=150.0
        ),
    )
    currency = Text(
        load_default="USD",
        validate=Regexp(r"^[A-Z]{3}\Z", error="Must be an upper-case ISO 4217 code."),
        metadata=_described("ISO 4217", pattern="^[A-Z]{3}$"),
    )
    paymentMethod = Text(load_default="credit_card", validate=OneOf(PAYMENT_METHODS))
    paymentMethodId = Text(
        load_default=None,
        allow_none=True,
        validate=Regexp(r"^pm_[A-Za-z0-9_]{1,250}\Z", error="Must be a gateway token that starts with pm_."),
        metadata=_described("the gateway's token", pattern="^pm_[A-Za-z0-9_]{1,250}$"),
    )
    offSession = Flag(load_default=False, metadata=_described("the customer is not there to authenticate"))
    captureMethod = Text(
        load_default=str(CaptureMethod.AUTOMATIC),
        validate=OneOf([str(each) for each in CaptureMethod]),
        metadata=_described("manual only holds the money, until it is captured"),
    )
    metadata = fields.Dict(
        keys=_LABEL,
        values=Text(validate=Length(0, METADATA_VALUE_LENGTH)),
        load_default=dict,
        validate=_few_labels,
        metadata=_described(
            "kept with the payment",
            maxProperties=METADATA_KEYS,
            propertyNames={"minLength": 1, "maxLength": METADATA_KEY_LENGTH},
        ),
    )
    returnUrl = Text(
        load_default=None,
        allow_none=True,
        validate=[Length(1, 2000), URL(schemes={"http", "https"}, require_tld=False)],
        metadata=_described("where the customer comes back to after a redirect", format="uri"),
    )


class PaymentQuerySchema(Schema):
    """Which payments to list, newest first."""

    orderId = Identifier(validate=Length(1, 255))
    customerId = Identifier(validate=Length(1, 255))
    status = Text(validate=OneOf([str(each) for each in Status]))
    createdAfter = fields.AwareDateTime(format="iso", metadata=_described("RFC 3339"))
    limit = fields.Integer(load_default=DEFAULT_PAGE, validate=Range(1, LARGEST_PAGE))
    cursor = Uuid(metadata=_described("nextCursor of the page before"))


class NextActionSchema(Schema):
    """What the customer must do."""

    type = fields.String(required=True, validate=OneOf(["redirect", "confirm"]))
    redirectUrl = fields.String()
    clientSecret = fields.String()


class DisputeSchema(Schema):
    """What the customer's bank disputes, in the gateway's words."""

    id = fields.String(required=True)
    reason = fields.String(required=True)
    status = fields.String(required=True)


class PaymentSchema(Schema):
    """A payment."""

    id = fields.UUID(required=True)
    orderId = fields.String(required=True, allow_none=True)
    customerId = fields.String(required=True, allow_none=True)
    reservationId = fields.String(required=True, allow_none=True)
    amount = fields.Float(required=True, metadata=_described("exact, with the currency's decimals"))
    currency = fields.String(required=True)
    paymentMethod = fields.String(required=True)
    status = fields.String(required=True, validate=OneOf([str(each) for each in Status]))
    errorCode = fields.String(required=True, allow_none=True)
    errorMessage = fields.String(required=True, allow_none=True)
    failureReason = fields.String(required=True, allow_none=True)
    createdAt = fields.DateTime(required=True)
    processedAt = fields.DateTime(required=True, allow_none=True)
    isSimulated = fields.Boolean(required=True)
    simulatedResponse = fields.String(required=True, allow_none=True)
    capturedAmount = fields.Float(required=True)
    refundedAmount = fields.Float(required=True)
    transactionId = fields.String(required=True, allow_none=True)
    nextAction = fields.Nested(NextActionSchema, required=True, allow_none=True)
    dispute = fields.Nested(DisputeSchema, required=True, allow_none=True)


class PaymentEnvelopeSchema(Schema):
    """A payment, and whether what was asked for has come about."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    payment = fields.Nested(PaymentSchema, required=True, allow_none=True)


class FailedPaymentEnvelopeSchema(PaymentEnvelopeSchema):
    """A payment that the gateway refused, or a refused use of an idempotency key."""

    errorCode = fields.String(required=True, validate=OneOf([each.name for each in ErrorCode]))


class ErrorEnvelopeSchema(Schema):
    """A request that was refused; nothing was stored."""

    success = fields.Boolean(required=True, validate=OneOf([False]))
    errorMessage = fields.String(required=True)
    errorCode = fields.String(required=True, validate=OneOf([each.name for each in ErrorCode]))
    payment = fields.Raw(required=True, metadata={"type": "null"})


class PaymentListSchema(Schema):
    """One page of payments."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    payments = fields.List(fields.Nested(PaymentSchema), required=True)
    nextCursor = fields.UUID(required=True, allow_none=True)


class TimelineEntrySchema(Schema):
    """One thing that happened to a payment."""

    sequence = fields.Integer(required=True)
    at = fields.DateTime(required=True)
    actor = fields.String(required=True)
    event = fields.String(required=True)
    from_ = fields.String(required=True, allow_none=True, data_key="from")
    to = fields.String(required=True, allow_none=True)
    operationId = fields.UUID(required=True, allow_none=True)
    gatewayId = fields.String(required=True, allow_none=True)
    correlationId = fields.String(required=True, allow_none=True)
    announced = fields.String(required=True, allow_none=True, metadata=_described("the event on Kafka"))
    eventId = fields.UUID(required=True, allow_none=True, metadata=_described("its ce_id"))
    detail = fields.Dict(required=True, allow_none=True)


class TimelineSchema(Schema):
    """The whole history of a payment, oldest first."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    timeline = fields.List(fields.Nested(TimelineEntrySchema), required=True)
