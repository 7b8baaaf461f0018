"""An example of every field that is said over Kafka, for the documentation."""

from decimal import Decimal
from typing import Any, Final

from shared.payments import Announcement, Command, Notice

PAYMENT_ID: Final = "01a1fb33-e256-72b0-aefd-9db4d41d316f"
OPERATION_ID: Final = "01a1fb33-e256-72b0-aefd-9dc0e54eee8d"
_USER: Final = "a8098c1a-f86e-11da-bd1a-00112444be1e"
_MOMENT: Final = "2026-11-20T23:04:03.926Z"
# An example of every field, by its name; what has only one value has that.
FIELDS: Final[dict[str, Any]] = {
    "paymentId": PAYMENT_ID,
    "operationId": OPERATION_ID,
    "refundId": OPERATION_ID,
    "orderId": "7c9e6679-7425-40de-944b-e07fc1f90ae7",
    "cartId": "0b8f6f3c-6f0b-4b5c-9a53-64a7c6a1a7f2",
    "customerId": _USER,
    "reservationId": None,
    "amount": Decimal("150.00"),
    "amountMinor": 15_000,
    "authorizedAmountMinor": 15_000,
    "currency": "USD",
    "paymentMethod": "credit_card",
    "paymentMethodId": "pm_card_visa",
    "captureMethod": "automatic",
    "status": "warning_needs_response",
    "transactionId": "ch_3rMG22Ucadif4kcnD7JDnnnHv",
    "errorCode": "CARD_DECLINED",
    "errorMessage": "Your card was declined",
    "failureReason": "card_declined",
    "reason": "damaged",
    "disputeId": "dp_1rMG22Ucadif4kcnD7JDnnnHv",
    "disputeReason": "fraudulent",
    "disputeStatus": "needs_response",
    "eventId": "order-service-4711",
    "requestedAt": _MOMENT,
    "attemptedAt": _MOMENT,
    "processedAt": _MOMENT,
    "occurredAt": _MOMENT,
    "endpointId": OPERATION_ID,
    "owner": "shop-7",
    "disabledAt": _MOMENT,
    "userId": _USER,
    "subscriptionId": None,
    "confirmationDetails": {"gatewayResponse": "Approved", "transactionId": "ch_3rMG22Ucadif4kcnD7JDnnnHv"},
    "timestamp": _MOMENT,
    "expiresAt": _MOMENT,
    "expiredAt": _MOMENT,
    "product": "concert-ticket",
    "productId": "concert-ticket",
    "sku": "TICKET-7",
    "adjustedQuantity": -2,
    "quantity": 40,
    "data": {
        "subscriptionId": "sub_4711",
        "userId": _USER,
        "plan": {"planId": "monthly", "price": Decimal("9.90"), "currency": "USD"},
        "paymentMethodId": "pm_card_visa",
        "trialPeriodDays": 0,
        "startDate": _MOMENT,
    },
}
# Where a field means something else than in most messages, or would only repeat another.
OWN: Final[dict[str, dict[str, Any]]] = {
    Announcement.PAYMENT_PROCESSED: {"status": "confirmed"},
    Command.AUTHORIZE_PAYMENT: {"amount": 15_000},  # minor units
    Notice.RESERVATION_CREATED: {"status": "active", "reservationId": OPERATION_ID},
    Notice.RESERVATION_EXPIRED: {"status": "expired", "reservationId": OPERATION_ID},
    Notice.PAYMENT_INITIATED: {"paymentMethod": "CreditCard"},
    Notice.INVENTORY_ADJUSTED: {"reason": "out of stock"},
}
LEFT_OUT: Final[dict[str, set[str]]] = {
    Command.CAPTURE_PAYMENT: {"cartId", "orderId"},
    Command.CANCEL_PAYMENT: {"cartId", "orderId"},
    Command.REFUND_PAYMENT: {"cartId", "orderId"},
    Notice.INVENTORY_ADJUSTED: {"data", "product", "quantity"},
}


def example_of(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    """A value that fits the schema of a message of this name."""
    return {
        field: rule["const"] if "const" in rule else OWN.get(name, {}).get(field, FIELDS[field])
        for field, rule in schema["properties"].items()
        if field not in LEFT_OUT.get(name, ())
    }
