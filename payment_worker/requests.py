"""What each operation asks of the gateway."""

from shared.gateways import Cancel, Capture, Charge, Refund, Request
from shared.models import Operation, Payment
from shared.money import Money
from shared.payments import CaptureMethod, OperationKind


def request_of(payment: Payment, operation: Operation) -> Request:
    """What an operation asks of the gateway."""
    operation_id, money = str(operation.id), Money(operation.amount_minor, payment.currency)
    ref = operation.target_ref or payment.gateway_ref or ""
    match operation.kind:
        case OperationKind.CAPTURE:
            return Capture(operation_id=operation_id, gateway_ref=ref, money=money, order_id=payment.order_id)
        case OperationKind.CANCEL:
            return Cancel(operation_id=operation_id, gateway_ref=ref)
        case OperationKind.REFUND:
            return Refund(payment_id=str(payment.id), operation_id=operation_id, gateway_ref=ref, money=money)
    return Charge(
        payment_id=str(payment.id),
        operation_id=operation_id,
        money=money,
        order_id=payment.order_id,
        payment_method=payment.payment_method,
        payment_method_id=payment.payment_method_id,
        off_session=payment.off_session,
        return_url=payment.return_url,
        customer_ref=payment.gateway_customer,
        hold=payment.capture_method is CaptureMethod.MANUAL,
        cart_id=payment.cart_id,
        customer_id=payment.customer_id,
        reservation_id=payment.reservation_id,
    )
