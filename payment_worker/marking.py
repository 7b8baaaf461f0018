"""The marks that outcomes leave: an operation that ends, a history row, something for an operator to see."""

from datetime import datetime
from typing import Any

from shared import lifecycle
from shared.gateways import Failed
from shared.lifecycle import Cause
from shared.models import Operation, Payment
from shared.payments import OperationState
from shared.rows import Writes
from shared.telemetry import get_logger

log = get_logger(__name__)


def finish(operation: Operation, state: OperationState, ref: str | None, at: datetime) -> None:
    """End an operation; nothing of it is due any more."""
    operation.state = state
    operation.finished_at = at
    operation.next_attempt_at = operation.doubt_since = operation.absent_since = None
    operation.lease_until = None
    operation.needs_review = False
    operation.gateway_ref = ref or operation.gateway_ref


def refusal(outcome: Failed) -> dict[str, Any]:
    """What an operation keeps of a definite no."""
    return {"errorCode": outcome.error_code, "reason": outcome.reason, "message": outcome.message}


def flag(writes: Writes, payment: Payment, cause: Cause, reason: str) -> None:
    """Show the operation to an operator, while everything goes on as it does."""
    cause.operation.needs_review = True
    log.error("operation needs review", operation_id=str(cause.operation.id), reason=reason)
    note(writes, payment, cause, "needs review", reason)


def escalate(writes: Writes, payment: Payment, cause: Cause, reason: str) -> None:
    """Give the operation to an operator; nothing more is tried by itself."""
    operation = cause.operation
    operation.next_attempt_at = operation.lease_until = None
    operation.doubt_since = operation.absent_since = None
    flag(writes, payment, cause, reason)


def note(writes: Writes, payment: Payment, cause: Cause, event: str, reason: str) -> None:
    """Write something worth knowing to the history."""
    lifecycle.note(writes, payment, named(cause, event, reason=reason))


def named(cause: Cause, event: str, **detail: str) -> Cause:
    """The same cause with its name and details."""
    return Cause(
        event=event,
        actor=cause.actor,
        at=cause.at,
        operation=cause.operation,
        gateway_ref=cause.gateway_ref,
        detail={"attempt": cause.operation.attempt, **detail},
    )
