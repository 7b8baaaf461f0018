"""The shapes of the accounts routes: what they take, and for the documentation what they answer."""

import re
from typing import Any

from marshmallow import Schema, ValidationError, fields
from marshmallow.validate import Email, Length, OneOf, Regexp

from payment_api.contracts.fields import DecimalAmount, Text
from payment_api.errors import ErrorCode
from shared.passwords import LONGEST, SHORTEST
from shared.payments import PAYMENT_METHODS

EMAIL_LENGTH = 254  # RFC 5321, the longest path less its brackets
NAME_LENGTH = 256
STATUS_WORDS = ("Pending", "Completed", "Failed", "Refunded")
_PHONE = r"^\+?[0-9][0-9 ()./-]{4,38}"
_BETWEEN_WORDS = re.compile(r"[\s_-]+|(?<=[a-z])(?=[A-Z])")


def _described(description: str, **more: Any) -> dict[str, Any]:
    return {"description": description, **more}


def _email(*, required: bool, description: str) -> Text:
    more: dict[str, Any] = {} if required else {"load_default": None, "allow_none": True}
    return Text(
        required=required,
        validate=[Length(3, EMAIL_LENGTH), Email()],
        metadata=_described(description, format="email", example="ada@shop.example"),
        **more,
    )


class MethodOfPayment(Text):
    """A method of payment, however its words are joined: `credit_card`, `Credit Card`, `creditCard`."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        text = super()._deserialize(value, attr, data, **kwargs)
        method = "_".join(_BETWEEN_WORDS.split(text.strip())).lower()
        if method not in PAYMENT_METHODS:
            raise ValidationError(f"Must be one of: {', '.join(PAYMENT_METHODS)}.")
        return method


class NewAccountSchema(Schema):
    """Somebody who wants an account."""

    name = Text(required=True, validate=Length(1, NAME_LENGTH))
    email = _email(required=True, description="one account has it, in whatever case")
    password = Text(
        required=True,
        validate=Length(SHORTEST, LONGEST),
        metadata=_described("kept as a hash that it cannot be read from", format="password"),
    )
    phoneNumber = Text(
        required=True,
        validate=Regexp(rf"{_PHONE}\Z", error="Must be a telephone number."),
        metadata=_described("as people write it", pattern=f"{_PHONE}$", example="+1 555 010 9999"),
    )


class LoginSchema(Schema):
    """Somebody who says who they are."""

    email = _email(required=True, description="in whatever case")
    password = Text(required=True, validate=Length(1, LONGEST), metadata=_described("", format="password"))


class NewAccountPaymentSchema(Schema):
    """A payment of the token's account."""

    amount = DecimalAmount(
        required=True,
        metadata=_described(
            "in whole units of the currency", type="number", exclusiveMinimum=0, example=150.0
        ),
    )
    currency = Text(
        required=True,
        validate=Regexp(r"^[A-Za-z]{3}\Z", error="Must be an ISO 4217 code."),
        metadata=_described("ISO 4217, in whatever case", pattern="^[A-Za-z]{3}$", example="USD"),
    )
    paymentMethod = MethodOfPayment(
        required=True,
        metadata=_described(
            f"{', '.join(PAYMENT_METHODS)}, however the words are joined", example="credit_card"
        ),
    )
    email = _email(required=False, description="not used: the token says who pays")


class NamedPaymentSchema(Schema):
    """Nothing more than the path says is needed."""

    paymentId = Text(
        load_default=None, allow_none=True, metadata=_described("the path's, once more", format="uuid")
    )


class AccountsRefusalSchema(Schema):
    """A request that was refused."""

    success = fields.Boolean(required=True, validate=OneOf([False]))
    message = fields.String(required=True)
    result = fields.Raw(required=True, metadata={"type": "null"})
    errorCode = fields.String(required=True, validate=OneOf([each.name for each in ErrorCode]))


class RegisteredSchema(Schema):
    """A new account."""

    id = fields.UUID(required=True, metadata=_described("its payments have it as their customer"))


class RegisterAnswerSchema(Schema):
    """An account was made."""

    success = fields.Boolean(required=True, validate=OneOf([True]))
    message = fields.String(required=True)
    result = fields.Nested(RegisteredSchema, required=True)


class LoginAnswerSchema(Schema):
    """Who has logged in, and the token to send from now on."""

    success = fields.Boolean(required=True, validate=OneOf([True]))
    message = fields.String(required=True)
    userName = fields.String(required=True)
    token = fields.String(required=True, metadata=_described("for `Authorization: Bearer ...`"))


class LogoutAnswerSchema(Schema):
    """The token is good for nothing any more."""

    success = fields.Boolean(required=True, validate=OneOf([True]))
    message = fields.String(required=True)
    result = fields.Raw(required=True, metadata={"type": "null"})


class AccountPaymentSchema(Schema):
    """A payment in this contract's words."""

    id = fields.UUID(required=True)
    amount = fields.Float(required=True, metadata=_described("exact, with the currency's decimals"))
    currency = fields.String(required=True)
    paymentMethod = fields.String(required=True)
    status = fields.String(required=True, validate=OneOf(STATUS_WORDS))
    createdAt = fields.DateTime(required=True)
    updatedAt = fields.DateTime(required=True, metadata=_described("when it last changed"))


class AccountPaymentAnswerSchema(Schema):
    """How a payment stands."""

    success = fields.Boolean(required=True)
    message = fields.String(required=True)
    result = fields.Nested(AccountPaymentSchema, required=True)


class FailedAccountPaymentSchema(Schema):
    """A payment or a refund that the gateway refused, or a request that was."""

    success = fields.Boolean(required=True, validate=OneOf([False]))
    message = fields.String(required=True)
    result = fields.Nested(AccountPaymentSchema, required=True, allow_none=True)
    errorCode = fields.String(required=True, validate=OneOf([each.name for each in ErrorCode]))
