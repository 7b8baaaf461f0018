"""What each outcome of a gateway call means for the operation and its payment. Callers send the writes."""

import random
from datetime import datetime, timedelta

from payment_worker import refunding, settling
from payment_worker.followups import ask_to_cancel
from payment_worker.marking import named, note
from payment_worker.settling import ALONE, Beside
from shared import lifecycle
from shared.gateways import (
    Authorized,
    Cancelled,
    Failed,
    Misconfigured,
    Outcome,
    Refunded,
    Succeeded,
    Transient,
    Unknown,
    Waiting,
)
from shared.lifecycle import Cause
from shared.models import Operation, Payment
from shared.payments import PRIMARY, OperationState, Status
from shared.rows import Writes
from shared.telemetry import get_logger

log = get_logger(__name__)

FIRST_RETRY_S = 1.0
LAST_RETRY_S = 900.0  # the long tail: four times an hour until the key's lifetime ends
ABANDONED_AFTER = timedelta(days=1)
MISCONFIGURED_RETRY_S = 60.0  # an operator has to act first


def record(
    writes: Writes,
    payment: Payment,
    operation: Operation,
    outcome: Outcome,
    at: datetime,
    *,
    beside: Beside = ALONE,
    abandon_after: timedelta = ABANDONED_AFTER,
    actor: str = "worker",
) -> None:
    """Write an outcome to the operation, its payment and the history.

    `beside` is what else of the payment is open. A customer who does not act within `abandon_after` is given
    up.
    """
    ref = getattr(outcome, "gateway_ref", None)
    cause = Cause(event="", actor=actor, at=at, operation=operation, gateway_ref=ref)
    if operation.finished_at is not None:
        settling.settle_late(writes, payment, cause, outcome, beside)
        return
    operation.lease_until = None
    match outcome:
        case Refunded() if refunding.is_too_much(payment, operation):
            log.warning("refunded beyond what was captured, as far as is known: it is asked for again")
            waiting = Waiting(gateway_ref=outcome.gateway_ref, next_action=None)
            _wait(writes, payment, cause, waiting, abandon_after, beside)
        case Succeeded() | Authorized() | Cancelled() | Refunded() | Failed():
            settling.settle(writes, payment, cause, outcome, beside)
        case Waiting():
            _wait(writes, payment, cause, outcome, abandon_after, beside)
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
    note(writes, payment, cause, "outcome in doubt", reason)


def renew_key(writes: Writes, payment: Payment, cause: Cause) -> None:
    """After a verified absence: a new attempt under a new key, at once."""
    operation = cause.operation
    operation.key_number += 1
    operation.doubt_since = operation.absent_since = operation.first_sent_at = None
    operation.next_attempt_at = cause.at
    operation.lease_until = None
    operation.needs_review = False
    key = f"new idempotency key {operation.gateway_key}"
    note(writes, payment, cause, f"{operation.kind} verified absent", key)


def retry_delay_s(attempt: int) -> float:
    """Seconds until attempt + 1: doubling from one second, capped, spread by a quarter either way."""
    delay_s = min(LAST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(attempt - 1, 20))
    return delay_s * random.uniform(0.75, 1.25)  # noqa: S311 - spreads load, guards nothing


def _wait(
    writes: Writes,
    payment: Payment,
    cause: Cause,
    outcome: Waiting,
    abandon_after: timedelta,
    beside: Beside,
) -> None:
    """The gateway has it and waits: for a customer, for a bank, or for a refund to get through."""
    operation = cause.operation
    operation.state = OperationState.REQUIRES_ACTION
    operation.gateway_ref = outcome.gateway_ref
    operation.doubt_since = operation.absent_since = None
    operation.next_attempt_at = cause.at + timedelta(seconds=retry_delay_s(operation.attempt))
    if operation.needs_review:
        # The gateway takes our requests, and can say how it stands: what was shown to a person is over.
        operation.needs_review = False
        note(writes, payment, cause, "review no longer needed", "the gateway has it and waits")
    if operation.kind not in PRIMARY:
        return
    payment.gateway_ref = outcome.gateway_ref
    failed_again = outcome.failure is not None and outcome.failure.reason != payment.failure_reason
    if outcome.failure:
        _show_failed_try(payment, outcome.failure)
    payment.next_action = outcome.next_action
    if outcome.next_action and payment.status is Status.PROCESSING:
        payment.expires_at = cause.at + abandon_after
        lifecycle.advance(writes, payment, Status.REQUIRES_ACTION, named(cause, "customer must act"))
        if payment.cancel_requested_at and not beside.cancelling:
            ask_to_cancel(writes, payment, cause, "cancelled while it was being charged")
    elif outcome.next_action is None and payment.status is Status.REQUIRES_ACTION:
        lifecycle.advance(writes, payment, Status.PROCESSING, named(cause, "customer has acted"))
    elif failed_again and outcome.failure:
        note(writes, payment, cause, "a try of the customer has failed", outcome.failure.reason)


def _show_failed_try(payment: Payment, failure: Failed) -> None:
    payment.error_code = failure.error_code
    payment.error_message = failure.message
    payment.failure_reason = failure.reason


def _retry(writes: Writes, payment: Payment, cause: Cause, reason: str) -> None:
    operation = cause.operation
    operation.next_attempt_at = cause.at + timedelta(seconds=retry_delay_s(operation.attempt))
    note(writes, payment, cause, f"{operation.kind} to be tried again", reason)


def _misconfigured(writes: Writes, payment: Payment, cause: Cause, outcome: Misconfigured) -> None:
    operation = cause.operation
    operation.needs_review = True
    operation.next_attempt_at = cause.at + timedelta(seconds=MISCONFIGURED_RETRY_S)
    log.error("the gateway rejects our requests; check STRIPE_SECRET_KEY", reason=outcome.reason)
    note(writes, payment, cause, "gateway misconfigured", outcome.reason)
