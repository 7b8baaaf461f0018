"""The shapes of routes on a payment that exists: capture, cancel, refunds."""

from marshmallow import Schema, fields
from marshmallow.validate import Length, OneOf

from payment_api.contracts.fields import DecimalAmount, Text, Uuid
from payment_api.contracts.payments_schemas import PaymentEnvelopeSchema
from payment_api.errors import ErrorCode
from shared.payments import OperationKind, OperationState

REASON_LENGTH = 500


def _amount(description: str) -> DecimalAmount:
    told = {"description": description, "type": "number", "exclusiveMinimum": 0, "example": 40.0}
    return DecimalAmount(load_default=None, allow_none=True, metadata=told)


def _reason() -> Text:
    return Text(
        load_default=None,
        allow_none=True,
        validate=Length(1, REASON_LENGTH),
        metadata={"description": "kept, and shown in the history and the events"},
    )


class CaptureSchema(Schema):
    """What to take of a hold."""

    amount = _amount("in whole units of the currency; everything by default, and the rest is released")
    orderId = Uuid(
        load_default=None,
        allow_none=True,
        metadata={"description": "binds the payment of a cart to the order that now exists"},
    )


class CancelSchema(Schema):
    """Why a payment is given up."""

    reason = _reason()


class RefundRequestSchema(Schema):
    """What to give back."""

    amount = _amount("in whole units of the currency; all that is left by default")
    reason = _reason()


class _AskedSchema(Schema):
    """What both an operation and a refund say of themselves."""

    id = fields.UUID(required=True)
    amount = fields.Float(required=True)
    currency = fields.String(required=True)
    reason = fields.String(required=True, allow_none=True)
    errorCode = fields.String(required=True, allow_none=True)
    errorMessage = fields.String(required=True, allow_none=True)
    createdAt = fields.DateTime(required=True)


class OperationSchema(_AskedSchema):
    """What the gateway was asked to do with a payment."""

    kind = fields.String(required=True, validate=OneOf([str(each) for each in OperationKind]))
    state = fields.String(required=True, validate=OneOf([str(each) for each in OperationState]))
    finishedAt = fields.DateTime(required=True, allow_none=True)


class RefundSchema(_AskedSchema):
    """Money that goes back."""

    paymentId = fields.UUID(required=True)
    orderId = fields.String(required=True, allow_none=True)
    status = fields.String(required=True, validate=OneOf(["pending", "succeeded", "failed"]))
    processedAt = fields.DateTime(required=True, allow_none=True)


class OperationEnvelopeSchema(PaymentEnvelopeSchema):
    """A payment and what was asked of it; null where the gateway need not be asked."""

    operation = fields.Nested(OperationSchema, required=True, allow_none=True)


class RefundEnvelopeSchema(PaymentEnvelopeSchema):
    """A payment and one of its refunds; `success` is the refund's."""

    refund = fields.Nested(RefundSchema, required=True)


class RefundListSchema(Schema):
    """All refunds of a payment, oldest first."""

    success = fields.Boolean(required=True)
    errorMessage = fields.String(required=True, allow_none=True)
    refunds = fields.List(fields.Nested(RefundSchema), required=True)


def _error_code() -> fields.String:
    return fields.String(required=True, validate=OneOf([each.name for each in ErrorCode]))


class RefusedOperationSchema(PaymentEnvelopeSchema):
    """An operation that the gateway refused, or a request that we refuse."""

    operation = fields.Nested(OperationSchema, allow_none=True)
    errorCode = _error_code()


class RefusedRefundSchema(PaymentEnvelopeSchema):
    """A refund that has failed, or a request that we refuse."""

    refund = fields.Nested(RefundSchema)
    errorCode = _error_code()
