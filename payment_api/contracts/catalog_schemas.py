"""The shapes of the catalog's routes, for the documentation."""

from marshmallow import Schema, fields
from marshmallow.validate import OneOf

STATUSES = ("pending", "completed", "failed", "refunded")


class PaymentStatusSchema(Schema):
    """How the payment of an order stands."""

    orderId = fields.String(required=True)
    paymentStatus = fields.String(required=True, validate=OneOf(STATUSES))
    amount = fields.Float(
        required=True, metadata={"description": "what was asked for, exact, with the currency's decimals"}
    )
    currency = fields.String(required=True)
    paymentMethod = fields.String(required=True)
    transactionId = fields.String(
        required=True, allow_none=True, metadata={"description": "null until it is paid"}
    )
    paymentDate = fields.DateTime(
        required=True, allow_none=True, metadata={"description": "null until it is paid"}
    )
