"""Payments, their operations and their refunds in the native contract's words."""

from decimal import Decimal
from typing import Any

from shared.events import rfc3339
from shared.models import Operation, Payment
from shared.money import Money
from shared.payments import PAID, OperationState, Status

OPEN_MESSAGES = {Status.REQUIRES_ACTION: "The customer must act before the payment can go on"}
STILL_OPEN = "Payment is still processing"
REFUND_STATUS = {OperationState.SUCCEEDED: "succeeded", OperationState.FAILED: "failed"}
REFUND_PENDING = "pending"


def envelope(payment: Payment) -> dict[str, Any]:
    """The contract's envelope; `success` only when what was asked for has come about."""
    success = payment.status in PAID or payment.status is Status.AUTHORIZED
    return {
        "success": success,
        "errorMessage": None if success else _why_not(payment),
        "payment": show(payment),
    }


def show(payment: Payment) -> dict[str, Any]:
    """A payment in the contract's words."""

    def amount(minor: int) -> Decimal:
        return Money(minor, payment.currency).to_decimal()

    return {
        "id": str(payment.id),
        "orderId": payment.order_id,
        "customerId": payment.customer_id,
        "reservationId": payment.reservation_id,
        "amount": amount(payment.amount_minor),
        "currency": payment.currency,
        "paymentMethod": payment.payment_method,
        "status": str(payment.status),
        "errorCode": payment.error_code,
        "errorMessage": payment.error_message,
        "failureReason": payment.failure_reason,
        "createdAt": rfc3339(payment.created_at),
        "processedAt": rfc3339(payment.processed_at) if payment.processed_at else None,
        "isSimulated": payment.is_simulated,
        "simulatedResponse": payment.simulated_response,
        "capturedAmount": amount(payment.captured_minor),
        "refundedAmount": amount(payment.refunded_minor),
        "transactionId": payment.transaction_id,
        "nextAction": payment.next_action,
        "dispute": payment.dispute,
    }


def show_operation(operation: Operation, payment: Payment) -> dict[str, Any]:
    """A capture, a cancel or a refund of a payment, as it stands."""
    return {
        "id": str(operation.id),
        "kind": str(operation.kind),
        "state": str(operation.state),
        **_facts(operation, payment),
        "finishedAt": _finished(operation),
    }


def show_refund(refund: Operation, payment: Payment) -> dict[str, Any]:
    """A refund as a resource of its own."""
    return {
        "id": str(refund.id),
        "paymentId": str(payment.id),
        "orderId": payment.order_id,
        "status": REFUND_STATUS.get(refund.state, REFUND_PENDING),
        **_facts(refund, payment),
        "processedAt": _finished(refund),
    }


def why_failed(operation: Operation, payment: Payment) -> str:
    """Why an operation has failed, in words fit for a client."""
    outcome = operation.outcome or {}
    why = outcome.get("message") or outcome.get("reason") or f"the payment is {payment.status}"
    return f"{operation.kind.capitalize()} failed: {why}"


def _facts(operation: Operation, payment: Payment) -> dict[str, Any]:
    failed = operation.state is OperationState.FAILED
    outcome = (operation.outcome or {}) if failed else {}
    return {
        "amount": Money(operation.amount_minor, payment.currency).to_decimal(),
        "currency": payment.currency,
        "reason": operation.reason,
        "errorCode": outcome.get("errorCode"),
        "errorMessage": outcome.get("message"),
        "createdAt": rfc3339(operation.created_at),
    }


def _finished(operation: Operation) -> str | None:
    return rfc3339(operation.finished_at) if operation.finished_at else None


def _why_not(payment: Payment) -> str:
    if payment.status is Status.FAILED:
        return f"Payment failed: {payment.error_message}"
    if payment.status is Status.CANCELLED:
        return "Payment was cancelled"
    return OPEN_MESSAGES.get(payment.status, STILL_OPEN)
