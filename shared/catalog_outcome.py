"""A payment's outcome in the catalog's words: its PaymentProcessed."""

from datetime import datetime
from typing import Any

from shared.catalog_messages import CONFIRMED, FAILED, METHOD_LABEL
from shared.events import rfc3339
from shared.models import Operation, Payment
from shared.money import Money
from shared.payments import PAID

APPROVED = "Approved"
GIVEN_UP = "Cancelled"


def processed(payment: Payment, _: Operation, at: datetime) -> dict[str, Any]:
    """The value of payment-processed; the amount is what was taken, or was asked for in vain."""
    paid = payment.status in PAID
    amount_minor = payment.captured_minor if paid else payment.amount_minor
    transaction_id = payment.transaction_id if paid else None
    return {
        "transactionId": transaction_id,
        "paymentId": str(payment.id),
        "userId": payment.customer_id,
        "orderId": payment.order_id,
        "subscriptionId": payment.subscription_id,
        "amount": Money(amount_minor, payment.currency).to_decimal(),
        "currency": payment.currency,
        "paymentMethod": method_of(payment),
        "status": CONFIRMED if paid else FAILED,
        "confirmationDetails": {
            "gatewayResponse": APPROVED if paid else payment.error_message or GIVEN_UP,
            "transactionId": transaction_id,
        },
        "timestamp": rfc3339(at),
    }


def method_of(payment: Payment) -> str:
    """How the user pays, in the words in which the catalog said so."""
    return str((payment.labels or {}).get(METHOD_LABEL) or payment.payment_method)
