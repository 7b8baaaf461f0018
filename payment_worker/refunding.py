"""What the outcome of a refund makes of the payment's sums and status."""

from payment_worker.marking import finish, flag, named, note, refusal
from shared import lifecycle
from shared.commands.refund import left_minor
from shared.gateways import Failed, Outcome, Refunded
from shared.lifecycle import Cause
from shared.models import Operation, Payment
from shared.payments import DEAD, Announcement, OperationState, Status
from shared.rows import Writes


def settle_refund(writes: Writes, payment: Payment, cause: Cause, outcome: Outcome) -> None:
    """End a refund by a definite outcome; what it had reserved is given back or gone."""
    operation = cause.operation
    if isinstance(outcome, Refunded):
        finish(operation, OperationState.SUCCEEDED, outcome.gateway_ref, cause.at)
        operation.outcome = {"transactionId": outcome.gateway_ref}
        if operation.target_ref:
            note(writes, payment, cause, "second charge refunded", str(outcome.refunded))
            return
        payment.refund_reserved_minor -= operation.amount_minor
        count_refund(writes, payment, cause, "refund succeeded", operation.amount_minor)
    elif isinstance(outcome, Failed):
        finish(operation, OperationState.FAILED, outcome.gateway_ref, cause.at)
        operation.outcome = refusal(outcome)
        if operation.target_ref:
            flag(writes, payment, cause, f"a second charge could not be refunded: {outcome.reason}")
            return
        payment.refund_reserved_minor -= operation.amount_minor
        told = named(cause, "refund failed", reason=outcome.reason)
        lifecycle.note(writes, payment, told, Announcement.REFUND_FAILED)
        _flag_what_must_go_back(writes, payment, cause, outcome)


def is_too_much(payment: Payment, operation: Operation) -> bool:
    """Whether this refund cannot have been made, as far as we know: one of the others must have failed since.

    Only what made room for it can be recorded first; the gateway tells of it by webhook.
    """
    if operation.target_ref:
        return False
    return payment.refunded_minor + operation.amount_minor > payment.captured_minor


def count_refund(writes: Writes, payment: Payment, cause: Cause, event: str, by_minor: int) -> None:
    """Count money that went back, or with a negative amount came back again, and announce it."""
    payment.refunded_minor += by_minor
    told = named(cause, event)
    announcement = Announcement.REFUND_SUCCEEDED if by_minor > 0 else Announcement.REFUND_FAILED
    to = _refund_status(payment)
    if to is payment.status or payment.status in DEAD:
        lifecycle.note(writes, payment, told, announcement)
    else:
        lifecycle.advance(writes, payment, to, told)


def _refund_status(payment: Payment) -> Status:
    if not payment.refunded_minor:
        return Status.SUCCEEDED
    return Status.REFUNDED if payment.refunded_minor >= payment.captured_minor else Status.PARTIALLY_REFUNDED


def settle_refund_late(writes: Writes, payment: Payment, cause: Cause, outcome: Outcome) -> None:
    """An outcome of a refund that is finished: the same again, a failure afterwards, or a second refund."""
    operation = cause.operation
    if not isinstance(outcome, Failed | Refunded):
        return
    if outcome.gateway_ref and operation.gateway_ref not in {None, outcome.gateway_ref}:
        if isinstance(outcome, Refunded):
            _count_second(writes, payment, cause, outcome)
    elif isinstance(outcome, Failed) and operation.state is OperationState.SUCCEEDED:
        _fail_later(writes, payment, cause, outcome)
    elif isinstance(outcome, Refunded) and operation.state is OperationState.FAILED:
        flag(writes, payment, cause, "a refund that had failed has succeeded")


def _count_second(writes: Writes, payment: Payment, cause: Cause, outcome: Refunded) -> None:
    """Money went back twice for one refund. It cannot be called back: it is counted, and a person sees it."""
    operation, ref = cause.operation, outcome.gateway_ref
    known = (operation.outcome or {}).get("seconds", [])
    if ref in known:
        return
    operation.outcome = {**(operation.outcome or {}), "seconds": [*known, ref]}
    flag(writes, payment, cause, f"a second refund was made: {ref}")
    if not operation.target_ref and outcome.refunded.amount_minor <= left_minor(payment):
        count_refund(writes, payment, cause, "second refund counted", outcome.refunded.amount_minor)


def _fail_later(writes: Writes, payment: Payment, cause: Cause, outcome: Failed) -> None:
    """A refund that had succeeded has come back: the payment is as if it had not been made."""
    operation = cause.operation
    operation.state = OperationState.FAILED
    operation.outcome = refusal(outcome)
    if operation.target_ref:
        flag(writes, payment, cause, f"the refund of a second charge has failed: {outcome.reason}")
        return
    count_refund(writes, payment, cause, "refund failed after it had succeeded", -operation.amount_minor)
    _flag_what_must_go_back(writes, payment, cause, outcome)


def _flag_what_must_go_back(writes: Writes, payment: Payment, cause: Cause, outcome: Failed) -> None:
    """Money of a payment that was given up stays with us now: an operator has to find another way."""
    if payment.status in DEAD or payment.cancel_requested_at:
        flag(writes, payment, cause, f"a cancelled payment's money could not be given back: {outcome.reason}")
