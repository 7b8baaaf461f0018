"""The shapes of the delivery routes: what they take, and for the documentation what they answer."""

from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import URL, Email, Length, OneOf, Regexp

from payment_api.contracts.fields import Flag, Identifier, MinorAmount, Text
from payment_api.errors import ErrorCode
from shared.payments import CaptureMethod

EMAIL_LENGTH = 254  # RFC 5321, the longest path less its brackets
NAME_LENGTH = 256  # as Stripe limits it
REASON_LENGTH = 500
_TOKEN = r"^pm_[A-Za-z0-9_]{1,250}"  # noqa: S105 - a pattern
_CUSTOMER = "the gateway's id, or the client's own where it was given one"


def _described(description: str, **more: Any) -> dict[str, Any]:
    return {"description": description, **more}


def _customer_id() -> Text:
    return Identifier(
        required=True, validate=Length(1, 255), metadata=_described(_CUSTOMER, example="cus_QrT5vXyZ012345")
    )


def _payment_method_id() -> Text:
    return Text(
        required=True,
        validate=Regexp(rf"{_TOKEN}\Z", error="Must be a gateway token that starts with pm_."),
        metadata=_described("the gateway's token", pattern=f"{_TOKEN}$", example="pm_1QrT5vXyZ0123456789"),
    )


class NewCustomerSchema(Schema):
    """Somebody who will pay."""

    email = Text(
        required=True,
        validate=[Length(3, EMAIL_LENGTH), Email()],
        metadata=_described(
            "one customer has it, in whatever case", format="email", example="ada@shop.example"
        ),
    )
    name = Text(load_default=None, allow_none=True, validate=Length(1, NAME_LENGTH))
    customerId = Identifier(
        load_default=None,
        allow_none=True,
        validate=Length(1, 255),
        metadata=_described("the client's own id, which its payments may name"),
    )


class CardSchema(Schema):
    """A payment method of a customer."""

    customerId = _customer_id()
    paymentMethodId = _payment_method_id()


class DetailedCardSchema(CardSchema):
    """A payment method, and what the client knows of it; what is shown of the card comes from the gateway."""

    cardholderName = Text(
        load_default=None,
        allow_none=True,
        validate=Length(1, NAME_LENGTH),
        metadata=_described("kept where the gateway knows no name"),
    )
    last4 = Text(
        load_default=None,
        allow_none=True,
        validate=Regexp(r"^[0-9]{4}\Z", error="Must be four digits."),
        metadata=_described("not used: the gateway's is", pattern="^[0-9]{4}$"),
    )
    cardType = Text(
        load_default=None,
        allow_none=True,
        validate=Length(1, 40),
        metadata=_described("not used: the gateway's brand is"),
    )
    expiryDate = Text(
        load_default=None,
        allow_none=True,
        validate=Regexp(r"^(0[1-9]|1[0-2])/[0-9]{2}\Z", error="Must be MM/YY."),
        metadata=_described("not used: the gateway's is", pattern="^(0[1-9]|1[0-2])/[0-9]{2}$"),
    )
    isDefault = Flag(load_default=False, metadata=_described("the first one is the default in any case"))


class DeliveryRefusalSchema(Schema):
    """A request that was refused."""

    success = fields.Boolean(required=True, validate=OneOf([False]))
    message = fields.String(required=True)
    errorCode = fields.String(required=True, validate=OneOf([each.name for each in ErrorCode]))


def _success(name: str, data: fields.Field[Any]) -> type[Schema]:
    members: dict[str, Any] = {
        "success": fields.Boolean(required=True, validate=OneOf([True])),
        "data": data,
    }
    return Schema.from_dict(members, name=name)


class CustomerDataSchema(Schema):
    """A customer's id at the gateway."""

    customerId = fields.String(required=True)


class CardDataSchema(Schema):
    """What the gateway says of a saved card."""

    payment_method_id = fields.String(required=True)
    card_last4 = fields.String(required=True)
    card_brand = fields.String(required=True)


class DetailedCardDataSchema(CardDataSchema):
    """A saved card with everything that may be shown of it."""

    cardholder_name = fields.String(required=True, allow_none=True)
    expiry_date = fields.String(required=True, metadata=_described("MM/YY"))
    is_default = fields.Boolean(required=True)


class DeletedDataSchema(Schema):
    """The payment method is gone."""

    success = fields.Boolean(required=True)
    message = fields.String(required=True)


CustomerAnswerSchema = _success("CustomerAnswer", fields.Nested(CustomerDataSchema, required=True))
CardAnswerSchema = _success("CardAnswer", fields.Nested(CardDataSchema, required=True))
DetailedCardAnswerSchema = _success(
    "DetailedCardAnswer", fields.Nested(DetailedCardDataSchema, required=True)
)
CardListAnswerSchema = _success(
    "CardListAnswer", fields.List(fields.Nested(DetailedCardDataSchema), required=True)
)
DeletedAnswerSchema = _success("DeletedAnswer", fields.Nested(DeletedDataSchema, required=True))


class NewIntentSchema(Schema):
    """An order to charge with a customer's payment method."""

    amount = MinorAmount(
        required=True, metadata=_described("in the currency's smallest unit", minimum=1, example=2500)
    )
    customerId = _customer_id()
    paymentMethodId = _payment_method_id()
    orderId = Identifier(
        required=True,
        validate=Length(1, 255),
        metadata=_described("it has at most one live payment", example="order_7301"),
    )
    currency = Text(
        load_default="usd",
        validate=Regexp(r"^[A-Za-z]{3}\Z", error="Must be an ISO 4217 code."),
        metadata=_described("ISO 4217, in either case", pattern="^[A-Za-z]{3}$"),
    )
    returnUrl = Text(
        load_default=None,
        allow_none=True,
        validate=[Length(1, 2000), URL(schemes={"http", "https"}, require_tld=False)],
        metadata=_described("where the customer comes back to after a redirect", format="uri"),
    )
    captureMethod = Text(
        load_default=str(CaptureMethod.AUTOMATIC),
        validate=OneOf([str(each) for each in CaptureMethod]),
        metadata=_described("manual only holds the money, until it is captured"),
    )


class NewRefundSchema(Schema):
    """Money to give back."""

    paymentIntentId = Text(
        required=True,
        validate=Length(1, 255),
        metadata=_described("as payment_intent_id was", example="pi_3QrT5vXyZ0123456789"),
    )
    amount = MinorAmount(
        load_default=None,
        allow_none=True,
        metadata=_described("in the currency's smallest unit; all that is left by default", minimum=1),
    )
    reason = Text(
        load_default=None,
        allow_none=True,
        validate=Length(1, REASON_LENGTH),
        metadata=_described("kept with the refund"),
    )


class IntentDataSchema(Schema):
    """How a payment stands, in the gateway's words."""

    payment_intent_id = fields.String(required=True)
    status = fields.String(
        required=True, validate=OneOf(["succeeded", "requires_capture", "requires_action"])
    )
    amount = fields.Integer(required=True)
    currency = fields.String(required=True)
    client_secret = fields.String(metadata=_described("for Stripe.js; only with requires_action"))


class RefundDataSchema(Schema):
    """Money that went back."""

    refund_id = fields.String(required=True)
    status = fields.String(required=True, validate=OneOf(["succeeded"]))
    amount = fields.Integer(required=True)
    currency = fields.String(required=True)
    payment_intent = fields.String(required=True)


class PendingDataSchema(Schema):
    """What is still under way."""

    status = fields.String(required=True, validate=OneOf(["processing"]))
    orderId = fields.String(metadata=_described("of a payment"))
    payment_intent = fields.String(metadata=_described("of a refund"))


class PendingAnswerSchema(Schema):
    """Recorded, and carried out whatever happens; the same request shows how it went."""

    success = fields.Boolean(required=True, validate=OneOf([True]))
    pending = fields.Boolean(required=True, validate=OneOf([True]))
    message = fields.String(required=True)
    data = fields.Nested(PendingDataSchema, required=True)


IntentAnswerSchema = _success("IntentAnswer", fields.Nested(IntentDataSchema, required=True))
RefundAnswerSchema = _success("RefundAnswer", fields.Nested(RefundDataSchema, required=True))
