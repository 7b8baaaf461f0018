"""The documentation's examples of the native routes; a test holds them against their schemas."""

from decimal import Decimal
from typing import Any, Final

from payment_api.errors import ErrorCode

Document = dict[str, Any]

PAYMENT_ID: Final = "01a1fb33-e256-72b0-aefd-9db4d41d316f"
OPERATION_ID: Final = "01a1fb40-27cb-7d01-8f0c-6a5c3d9be4b2"
ORDER_ID: Final = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
CUSTOMER_ID: Final = "a8098c1a-f86e-11da-bd1a-00112444be1e"
CART_ID: Final = "0b8f6f3c-6f0b-4b5c-9a53-64a7c6a1a7f2"
CREATED, PROCESSED, LATER = "2026-11-20T23:04:03.926Z", "2026-11-20T23:04:04.174Z", "2026-11-21T09:15:30.418Z"

NEW_PAYMENT: Final[Document] = {
    "orderId": ORDER_ID,
    "customerId": CUSTOMER_ID,
    "amount": Decimal("150.00"),
    "currency": "USD",
    "paymentMethod": "credit_card",
}
PAYMENT: Final[Document] = {
    "id": PAYMENT_ID,
    "orderId": ORDER_ID,
    "customerId": CUSTOMER_ID,
    "reservationId": None,
    "amount": Decimal("150.00"),
    "currency": "USD",
    "paymentMethod": "credit_card",
    "status": "succeeded",
    "errorCode": None,
    "errorMessage": None,
    "failureReason": None,
    "createdAt": CREATED,
    "processedAt": PROCESSED,
    "isSimulated": True,
    "simulatedResponse": "Success - TransactionId: txn_3zPlhjaEHr7hoEgKse6Fvs5j8",
    "capturedAmount": Decimal("150.00"),
    "refundedAmount": Decimal("0.00"),
    "transactionId": "ch_3rMG22Ucadif4kcnD7JDnnnHv",
    "nextAction": None,
    "dispute": None,
}
NOTHING_TAKEN: Final[Document] = {"capturedAmount": Decimal("0.00"), "simulatedResponse": None}
HELD: Final[Document] = PAYMENT | NOTHING_TAKEN | {"status": "authorized", "processedAt": None}
OPEN: Final[Document] = HELD | {"status": "processing", "transactionId": None}
CANCELLED: Final[Document] = HELD | {"status": "cancelled", "processedAt": LATER}
FAILED: Final[Document] = OPEN | {
    "status": "failed",
    "errorCode": "CARD_DECLINED",
    "errorMessage": "Your card was declined",
    "failureReason": "card_declined",
    "processedAt": PROCESSED,
}


def succeeded(payment: Document, **more: Any) -> Document:
    """The envelope of what has come about."""
    return {"success": True, "errorMessage": None, "payment": payment, **more}


def unfinished(message: str, payment: Document | None, **more: Any) -> Document:
    """The envelope of what has not come about, yet or at all."""
    return {"success": False, "errorMessage": message, "payment": payment, **more}


WAITING: Final = unfinished("Payment is still processing", OPEN)
DECLINED: Final = unfinished(
    "Payment failed: Your card was declined", FAILED, errorCode=ErrorCode.PAYMENT_FAILED.name
)
PAGE: Final[Document] = {"success": True, "errorMessage": None, "payments": [PAYMENT], "nextCursor": None}
TIMELINE: Final[Document] = {
    "success": True,
    "errorMessage": None,
    "timeline": [
        {
            "sequence": 1,
            "at": CREATED,
            "actor": "local",
            "event": "payment requested",
            "from": None,
            "to": "pending",
            "operationId": OPERATION_ID,
            "gatewayId": None,
            "correlationId": "checkout-7301",
            "announced": "payment-requested",
            "eventId": "01a1fb33-e257-7c1d-8a07-3f1f0f6f8f10",
            "detail": None,
        }
    ],
}


def operation(kind: str, amount: str, **changes: Any) -> Document:
    """An operation that has just been asked for."""
    return {
        "id": OPERATION_ID,
        "kind": kind,
        "state": "requested",
        "amount": Decimal(amount),
        "currency": "USD",
        "reason": None,
        "errorCode": None,
        "errorMessage": None,
        "createdAt": LATER,
        "finishedAt": None,
        **changes,
    }


def refund(**changes: Any) -> Document:
    """A refund that has just been asked for."""
    return {
        "id": OPERATION_ID,
        "paymentId": PAYMENT_ID,
        "orderId": ORDER_ID,
        "amount": Decimal("40.00"),
        "currency": "USD",
        "reason": "returned one of two",
        "status": "pending",
        "errorCode": None,
        "errorMessage": None,
        "createdAt": LATER,
        "processedAt": None,
        **changes,
    }


REFUNDED: Final = refund(status="succeeded", processedAt=LATER)
REFUND_SHOWN: Final = succeeded(
    PAYMENT | {"status": "partially_refunded", "refundedAmount": Decimal("40.00")}, refund=REFUNDED
)
