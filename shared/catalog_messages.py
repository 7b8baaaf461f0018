"""The catalog contract on Kafka: what it tells us, and how it is told of outcomes; pure."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from shared.message_fields import ID, ID_OR_NULL, TEXT_OR_NULL, WORDS_OR_NULL, message
from shared.payments import Notice

CONFIRMED, FAILED = "confirmed", "failed"
# Its words for how somebody pays, beside ours.
PAYMENT_METHODS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "CreditCard": "credit_card",
        "DebitCard": "debit_card",
        "PayPal": "paypal",
        "ApplePay": "apple_pay",
        "GooglePay": "google_pay",
    }
)
# Under what a payment's labels keep the sender's own words, to be told in them again.
METHOD_LABEL: Final = "catalogPaymentMethod"

_TOKEN = {"type": ["string", "null"], "pattern": "^pm_[A-Za-z0-9_]{1,250}$"}
_QUANTITY = {"type": ["number", "null"], "minimum": -1e15, "maximum": 1e15}

_ADJUSTMENT: Final[dict[str, Any]] = {
    "productId": ID_OR_NULL,
    "product": ID_OR_NULL,
    "sku": ID_OR_NULL,
    "adjustedQuantity": _QUANTITY,
    "quantity": _QUANTITY,
    "reason": WORDS_OR_NULL,
    "orderId": ID_OR_NULL,
}
_NAMES_A_PRODUCT: Final = [{"required": [name]} for name in ("productId", "product", "sku")]
_SUBSCRIPTION: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "subscriptionId": ID,
        "userId": ID,
        "plan": {
            "type": "object",
            "properties": {
                "planId": ID_OR_NULL,
                "price": {"type": "number"},
                "currency": WORDS_OR_NULL,
            },
            "required": ["price"],
        },
        "paymentMethodId": _TOKEN,
        "trialPeriodDays": {"type": ["integer", "null"]},
        "startDate": WORDS_OR_NULL,
    },
    "required": ["subscriptionId", "userId", "plan"],
}

CATALOG_SCHEMAS: Final[Mapping[Notice, dict[str, Any]]] = MappingProxyType(
    {
        Notice.PAYMENT_INITIATED: message(
            "A user pays for an order",
            {
                "userId": ID,
                "orderId": ID,
                "amount": {"type": "number"},
                "currency": WORDS_OR_NULL,
                "paymentMethod": WORDS_OR_NULL,
                "paymentMethodId": _TOKEN,
                "paymentId": ID_OR_NULL,
                "timestamp": WORDS_OR_NULL,
            },
            required=("userId", "orderId", "amount"),
        ),
        Notice.USER_SUBSCRIPTION_STARTED: message(
            "A user's subscription has begun, and its plan's price is due",
            {"data": _SUBSCRIPTION},
            required=("data",),
        ),
        Notice.INVENTORY_ADJUSTED: {
            **message(
                "There is more or less of a product than there was; plain, or within `data`",
                {
                    **_ADJUSTMENT,
                    "data": {"type": "object", "properties": _ADJUSTMENT, "anyOf": _NAMES_A_PRODUCT},
                },
            ),
            "anyOf": [*_NAMES_A_PRODUCT, {"required": ["data"]}],
        },
    }
)

PROCESSED: Final[dict[str, Any]] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "A payment that the catalog asked for has come to its end",
    "type": "object",
    "properties": {
        "transactionId": TEXT_OR_NULL,
        "paymentId": {"type": "string", "format": "uuid"},
        "userId": TEXT_OR_NULL,
        "orderId": TEXT_OR_NULL,
        "subscriptionId": TEXT_OR_NULL,
        "amount": {"type": "number"},
        "currency": {"type": "string", "pattern": "^[A-Z]{3}$"},
        "paymentMethod": {"type": "string", "minLength": 1},
        "status": {"enum": [CONFIRMED, FAILED]},
        "confirmationDetails": {
            "type": "object",
            "properties": {
                "gatewayResponse": {"type": "string", "minLength": 1},
                "transactionId": TEXT_OR_NULL,
            },
            "required": ["gatewayResponse", "transactionId"],
        },
        "timestamp": {"type": "string", "format": "date-time"},
    },
    "required": [
        "amount",
        "confirmationDetails",
        "currency",
        "orderId",
        "paymentId",
        "paymentMethod",
        "status",
        "timestamp",
        "transactionId",
        "userId",
    ],
}
