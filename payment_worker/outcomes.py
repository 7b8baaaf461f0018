"""What each outcome of a gateway call means for the operation and its payment. Callers send the writes."""

import random
from datetime import datetime, timedelta

from shared import lifecycle
from shared.gateways import (
    Failed,
    Misconfigured,
    Outcome,
    Succeeded,
    Transient,
    Unknown,
    Waiting,
)
from shared.lifecycle import Cause
from shared.models import Operation, Payment
from shared.payments import OperationState, Status
from shared.rows import Writes
from shared.telemetry import get_logger

log = get_logger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 900.0  # the long tail: four times an hour until the key's lifetime ends
MISCONFIGURED_RETRY_S = 60.0  # an operator has to act first


def record(writes: Writes, payment: Payment, operation: Operation, outcome: Outcome, at: datetime) -> None:
    """Write an outcome to the operation, its payment and the history."""
    ref = getattr(outcome, "gateway_ref", None)
    cause = Cause(event="", actor="worker", at=at, operation=operation, gateway_ref=ref)
    if operation.finished_at is not None:
        _record_late(writes, payment, cause, outcome)
        return
    operation.lease_until = None
    match outcome:
        case Succeeded():
            _succeed(writes, payment, cause, outcome)
        case Failed():
            _fail(writes, payment, cause, outcome)
        case Waiting():
            _wait(writes, payment, cause, outcome)
        case Transient():
            _retry(writes, payment, cause, f"not carried out: {outcome.reason}")
        case Unknown(key_poisoned=True):
            doubt(writes, payment, cause, outcome.reason)
        case Unknown():
            _retry(writes, payment, cause, f"outcome unknown: {outcome.reason}")
        case Misconfigured():
            _misconfigured(writes, payment, cause, outcome)


def doubt(writes: Writes, payment: Payment, cause: Cause, reason: str) -> None:
    """Asking again cannot tell what happened: recovery looks for the charge at the gateway instead."""
    operation = cause.operation
    operation.doubt_since = cause.at
    operation.next_attempt_at = operation.lease_until = None
    log.warning("operation in doubt", operation_id=str(operation.id), reason=reason)
    _note(writes, payment, cause, "outcome in doubt", reason)


def flag(writes: Writes, payment: Payment, cause: Cause, reason: str) -> None:
    """Show the operation to an operator, while everything goes on as it does."""
    cause.operation.needs_review = True
    log.error("operation needs review", operation_id=str(cause.operation.id), reason=reason)
    _note(writes, payment, cause, "needs review", reason)


def renew_key(writes: Writes, payment: Payment, cause: Cause) -> None:
    """After a verified absence: a new attempt under a new key, at once."""
    operation = cause.operation
    operation.key_number += 1
    operation.doubt_since = operation.absent_since = operation.first_sent_at = None
    operation.next_attempt_at = cause.at
    operation.needs_review = False
    _note(writes, payment, cause, "charge verified absent", f"new idempotency key {operation.gateway_key}")


def escalate(writes: Writes, payment: Payment, cause: Cause, reason: str) -> None:
    """Give the operation to an operator; nothing more is tried by itself."""
    operation = cause.operation
    operation.next_attempt_at = operation.lease_until = None
    operation.doubt_since = operation.absent_since = None
    flag(writes, payment, cause, reason)


def retry_delay_s(attempt: int) -> float:
    """Seconds until attempt + 1: doubling from one second, capped, spread by a quarter either way."""
    delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempt - 1, 20))
    return delay_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing


def _finish(operation: Operation, state: OperationState, ref: str | None, at: datetime) -> None:
    operation.state = state
    operation.finished_at = at
    operation.next_attempt_at = operation.doubt_since = operation.absent_since = None
    operation.needs_review = False
    operation.gateway_ref = ref or operation.gateway_ref


def _succeed(writes: Writes, payment: Payment, cause: Cause, outcome: Succeeded) -> None:
    captured_minor = outcome.captured.amount_minor
    if (captured_minor, outcome.captured.currency) != (payment.amount_minor, payment.currency):
        escalate(writes, payment, cause, f"the gateway took {outcome.captured}, another amount than asked")
        return
    _finish(cause.operation, OperationState.SUCCEEDED, outcome.gateway_ref, cause.at)
    cause.operation.outcome = {"transactionId": outcome.transaction_id}
    payment.gateway_ref = outcome.gateway_ref
    payment.transaction_id = outcome.transaction_id
    payment.captured_minor = captured_minor
    payment.simulated_response = outcome.simulated_response if payment.is_simulated else None
    payment.next_action = None
    lifecycle.advance(writes, payment, Status.SUCCEEDED, _named(cause, "charge succeeded"))


def _fail(writes: Writes, payment: Payment, cause: Cause, outcome: Failed) -> None:
    _finish(cause.operation, OperationState.FAILED, outcome.gateway_ref, cause.at)
    cause.operation.outcome = {"errorCode": outcome.error_code, "reason": outcome.reason}
    payment.gateway_ref = outcome.gateway_ref
    payment.error_code = outcome.error_code
    payment.error_message = outcome.message
    payment.failure_reason = outcome.reason
    payment.next_action = None
    lifecycle.advance(writes, payment, Status.FAILED, _named(cause, "charge failed"))


def _wait(writes: Writes, payment: Payment, cause: Cause, outcome: Waiting) -> None:
    operation = cause.operation
    operation.state = OperationState.REQUIRES_ACTION
    operation.gateway_ref = payment.gateway_ref = outcome.gateway_ref
    operation.doubt_since = operation.absent_since = None
    operation.next_attempt_at = cause.at + timedelta(seconds=retry_delay_s(operation.attempt))
    payment.next_action = outcome.next_action
    if outcome.next_action and payment.status is Status.PROCESSING:
        lifecycle.advance(writes, payment, Status.REQUIRES_ACTION, _named(cause, "customer must act"))


def _retry(writes: Writes, payment: Payment, cause: Cause, reason: str) -> None:
    operation = cause.operation
    operation.next_attempt_at = cause.at + timedelta(seconds=retry_delay_s(operation.attempt))
    _note(writes, payment, cause, "charge to be tried again", reason)


def _misconfigured(writes: Writes, payment: Payment, cause: Cause, outcome: Misconfigured) -> None:
    operation = cause.operation
    operation.needs_review = True
    operation.next_attempt_at = cause.at + timedelta(seconds=MISCONFIGURED_RETRY_S)
    log.error("the gateway rejects our requests; check STRIPE_SECRET_KEY", reason=outcome.reason)
    _note(writes, payment, cause, "gateway misconfigured", outcome.reason)


def _record_late(writes: Writes, payment: Payment, cause: Cause, outcome: Outcome) -> None:
    """An outcome of an operation that is finished: the same again is nothing, another is an operator's."""
    operation = cause.operation
    same = (
        isinstance(outcome, Succeeded)
        and operation.state is OperationState.SUCCEEDED
        and outcome.gateway_ref == operation.gateway_ref
    )
    if same or not isinstance(outcome, Succeeded):
        return
    operation.needs_review = True
    log.error(
        "a second success for a finished operation", operation_id=str(operation.id), ref=outcome.gateway_ref
    )
    _note(writes, payment, cause, "needs review", f"a second success: {outcome.transaction_id}")


def _note(writes: Writes, payment: Payment, cause: Cause, event: str, reason: str) -> None:
    lifecycle.note(writes, payment, _named(cause, event, reason=reason))


def _named(cause: Cause, event: str, **detail: str) -> Cause:
    return Cause(
        event=event,
        actor=cause.actor,
        at=cause.at,
        operation=cause.operation,
        gateway_ref=cause.gateway_ref,
        detail={"attempt": cause.operation.attempt, **detail},
    )
