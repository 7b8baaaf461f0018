"""What each event says about a payment: the values of the contract's topics."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from shared.events import rfc3339
from shared.models import Payment
from shared.money import Money
from shared.payments import Announcement


def describe(announcement: Announcement, payment: Payment, at: datetime) -> dict[str, Any]:
    """The value of the event that announces what has just become of `payment`."""
    return _VALUES[announcement](payment, at)


def _money(amount_minor: int, currency: str) -> dict[str, Any]:
    return {
        "amount": Money(amount_minor, currency).to_decimal(),
        "amountMinor": amount_minor,
        "currency": currency,
    }


def _ids(payment: Payment) -> dict[str, Any]:
    return {
        "paymentId": str(payment.id),
        "orderId": payment.order_id,
        "customerId": payment.customer_id,
        "reservationId": payment.reservation_id,
    }


def _requested(payment: Payment, at: datetime) -> dict[str, Any]:
    return {
        "paymentId": str(payment.id),
        "orderId": payment.order_id,
        "cartId": payment.cart_id,
        "customerId": payment.customer_id,
        **_money(payment.amount_minor, payment.currency),
        "paymentMethod": payment.payment_method,
        "captureMethod": str(payment.capture_method),
        "requestedAt": rfc3339(at),
    }


def _succeeded(payment: Payment, at: datetime) -> dict[str, Any]:
    return {
        **_ids(payment),
        **_money(payment.captured_minor, payment.currency),
        "authorizedAmountMinor": payment.amount_minor,
        "paymentMethod": payment.payment_method,
        "transactionId": payment.transaction_id,
        "processedAt": rfc3339(at),
        "status": "succeeded",
    }


def _failed(payment: Payment, at: datetime) -> dict[str, Any]:
    return {
        **_ids(payment),
        **_money(payment.amount_minor, payment.currency),
        "paymentMethod": payment.payment_method,
        "errorCode": payment.error_code,
        "errorMessage": payment.error_message,
        "failureReason": payment.failure_reason,
        "attemptedAt": rfc3339(at),
        "status": "failed",
    }


_VALUES: dict[Announcement, Callable[[Payment, datetime], dict[str, Any]]] = {
    Announcement.PAYMENT_REQUESTED: _requested,
    Announcement.PAYMENT_SUCCEEDED: _succeeded,
    Announcement.PAYMENT_FAILED: _failed,
}
