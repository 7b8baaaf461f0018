"""What each event says about a payment: the values of the contract's topics."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from shared.catalog_outcome import processed
from shared.events import rfc3339
from shared.models import Operation, Payment
from shared.money import Money
from shared.payments import Announcement

Value = Callable[[Payment, Operation, datetime], dict[str, Any]]


def describe(
    announcement: Announcement, payment: Payment, operation: Operation, at: datetime
) -> dict[str, Any]:
    """The value of the event that announces what `operation` has just made of `payment`."""
    return _VALUES[announcement](payment, operation, at)


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


def _requested(payment: Payment, _: Operation, at: datetime) -> dict[str, Any]:
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


def _further(id_name: str) -> Value:
    """A request for something to be done to a payment that exists."""

    def value(payment: Payment, operation: Operation, at: datetime) -> dict[str, Any]:
        return {
            id_name: str(operation.id),
            "paymentId": str(payment.id),
            "orderId": payment.order_id,
            **_money(operation.amount_minor, payment.currency),
            "reason": operation.reason,
            "requestedAt": rfc3339(at),
        }

    return value


def _succeeded(payment: Payment, _: Operation, at: datetime) -> dict[str, Any]:
    return {
        **_ids(payment),
        **_money(payment.captured_minor, payment.currency),
        "authorizedAmountMinor": payment.amount_minor,
        "paymentMethod": payment.payment_method,
        "transactionId": payment.transaction_id,
        "processedAt": rfc3339(at),
        "status": "succeeded",
    }


def _failed(payment: Payment, _: Operation, at: datetime) -> dict[str, Any]:
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


def _standing(payment: Payment, _: Operation, at: datetime) -> dict[str, Any]:
    return {
        **_ids(payment),
        "cartId": payment.cart_id,
        **_money(payment.amount_minor, payment.currency),
        "status": str(payment.status),
        "occurredAt": rfc3339(at),
    }


def _disputed(payment: Payment, operation: Operation, at: datetime) -> dict[str, Any]:
    dispute = payment.dispute or {}
    return {
        **_standing(payment, operation, at),
        "disputeId": dispute.get("id"),
        "disputeReason": dispute.get("reason"),
        "disputeStatus": dispute.get("status"),
    }


def _refund(payment: Payment, operation: Operation, at: datetime) -> dict[str, Any]:
    return {
        "refundId": str(operation.id),
        "paymentId": str(payment.id),
        "orderId": payment.order_id,
        **_money(operation.amount_minor, payment.currency),
        "processedAt": rfc3339(at),
    }


def _refund_failed(payment: Payment, operation: Operation, at: datetime) -> dict[str, Any]:
    return {
        **_refund(payment, operation, at),
        "reason": (operation.outcome or {}).get("reason") or "unknown",
    }


_VALUES: dict[Announcement, Value] = {
    Announcement.PAYMENT_REQUESTED: _requested,
    Announcement.CAPTURE_REQUESTED: _further("operationId"),
    Announcement.CANCEL_REQUESTED: _further("operationId"),
    Announcement.REFUND_REQUESTED: _further("refundId"),
    Announcement.PAYMENT_SUCCEEDED: _succeeded,
    Announcement.PAYMENT_FAILED: _failed,
    Announcement.PAYMENT_AUTHORIZED: _standing,
    Announcement.PAYMENT_CANCELLED: _standing,
    Announcement.PAYMENT_ACTION_REQUIRED: _standing,
    Announcement.PAYMENT_DISPUTED: _disputed,
    Announcement.REFUND_SUCCEEDED: _refund,
    Announcement.REFUND_FAILED: _refund_failed,
    Announcement.PAYMENT_PROCESSED: processed,
}
