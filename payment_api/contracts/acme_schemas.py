"""The shapes of the acme contract: the AuthorizePayment command and its answer."""

from marshmallow import Schema, fields
from marshmallow.validate import OneOf, Regexp

from payment_api.contracts.fields import MinorAmount, Text, Uuid
from payment_api.contracts.payments_schemas import PaymentEnvelopeSchema, PaymentSchema
from payment_api.errors import ErrorCode

TOKEN = r"^pm_[A-Za-z0-9_]{1,250}"  # noqa: S105 - a pattern


class AuthorizePaymentSchema(Schema):
    """A cart whose total is to be held."""

    cartId = Uuid(required=True, metadata={"description": "the cart; it has at most one live payment"})
    customerId = Uuid(load_default=None, allow_none=True)
    amount = MinorAmount(
        required=True,
        metadata={"description": "in the currency's smallest unit", "minimum": 1, "example": 15000},
    )
    currency = Text(
        required=True,
        validate=Regexp(r"^[A-Z]{3}\Z", error="Must be an upper-case ISO 4217 code."),
        metadata={"description": "ISO 4217", "pattern": "^[A-Z]{3}$"},
    )
    orderId = Uuid(
        load_default=None,
        allow_none=True,
        metadata={"description": "where it exists already; else the capture names it"},
    )
    paymentMethodId = Text(
        load_default=None,
        allow_none=True,
        validate=Regexp(rf"{TOKEN}\Z", error="Must be a gateway token that starts with pm_."),
        metadata={"description": "the gateway's token", "pattern": f"{TOKEN}$"},
    )


class CartPaymentSchema(PaymentSchema):
    """The payment of a cart."""

    cartId = fields.String(required=True, allow_none=True)
    amountMinor = fields.Integer(required=True)


class CartEnvelopeSchema(PaymentEnvelopeSchema):
    """The payment of a cart, and whether its money is held."""

    payment = fields.Nested(CartPaymentSchema, required=True, allow_none=True)


class RefusedCartEnvelopeSchema(CartEnvelopeSchema):
    """A hold that the gateway refused, or a request that we refuse."""

    errorCode = fields.String(required=True, validate=OneOf([each.name for each in ErrorCode]))
