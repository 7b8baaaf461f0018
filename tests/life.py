"""Ask for the further steps of a payment's life, as the commands of the API and of Kafka do."""

import uuid
from typing import Any, Final

from shared.commands.cancel import cancel_payment
from shared.commands.capture import CapturePayment, capture_payment
from shared.commands.operations import Origin, Requested
from shared.commands.refund import RefundPayment, refund_payment
from shared.gateways import Authorized
from shared.models import Operation
from shared.payments import CaptureMethod, Status
from tests.worker import NOT_DUE_S, Bench

ORIGIN: Final = Origin(actor="test", correlation_id=None, traceparent=None)


def operation_of(requested: Requested) -> Operation:
    """Return the operation that a command has asked for."""
    assert requested.operation is not None
    return requested.operation


def hold(bench: Bench, amount_minor: int = 10_000, **facts: Any) -> uuid.UUID:
    """Hold money and return the operation that holds it."""
    operation_id = bench.order(amount_minor, capture_method=CaptureMethod.MANUAL, **facts)
    assert isinstance(bench.attempt(operation_id), Authorized)
    assert bench.payment(operation_id).status is Status.AUTHORIZED
    return operation_id


def capture(bench: Bench, held: uuid.UUID, amount_minor: int | None = None) -> Operation:
    """Ask for a capture."""
    command = CapturePayment(amount_minor=amount_minor)
    payment_id = bench.payment(held).id
    return operation_of(
        capture_payment(bench.sessions, payment_id, command, ORIGIN, recovery_after_s=NOT_DUE_S)
    )


def cancel(bench: Bench, operation_id: uuid.UUID) -> Requested:
    """Ask for a cancel."""
    payment_id = bench.payment(operation_id).id
    return cancel_payment(bench.sessions, payment_id, None, ORIGIN, recovery_after_s=NOT_DUE_S)


def refund(bench: Bench, operation_id: uuid.UUID, amount_minor: int | None = None) -> Operation:
    """Ask for a refund."""
    command = RefundPayment(amount_minor=amount_minor)
    payment_id = bench.payment(operation_id).id
    return operation_of(
        refund_payment(bench.sessions, payment_id, command, ORIGIN, recovery_after_s=NOT_DUE_S)
    )
