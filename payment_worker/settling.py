"""What a definite outcome makes of an operation and of its payment. Callers send the writes."""

from datetime import datetime, timedelta
from typing import Any, NamedTuple

from payment_worker.followups import ask_to_cancel, follow_up, give_back
from payment_worker.marking import escalate, finish, flag, named, note, refusal
from payment_worker.refunding import settle_refund, settle_refund_late
from shared import lifecycle
from shared.gateways import TERMINAL, Authorized, Cancelled, Failed, Outcome, Succeeded
from shared.lifecycle import Cause
from shared.models import Operation, Payment
from shared.money import Money
from shared.payments import DEAD, PAID, PRIMARY, OperationKind, OperationState, Status
from shared.rows import Writes

# Stripe lets most holds lapse after seven days; a card's own time is said with the hold.
HOLD_LASTS = timedelta(days=7)
OPEN_TO_CANCEL = {Status.AUTHORIZED, Status.REQUIRES_ACTION}


class Beside(NamedTuple):
    """What else of a payment is open while an outcome of one of its operations is recorded."""

    primary: Operation | None = None  # its charge or hold, which ends with it
    cancelling: bool = False  # another operation cancels it already


ALONE = Beside()

Standing = Succeeded | Authorized | Cancelled  # how a charge can stand at the gateway for good


def settle(
    writes: Writes,
    payment: Payment,
    cause: Cause,
    outcome: Outcome,
    beside: Beside,
) -> None:
    """End an open operation by a definite outcome, and move the payment to where that leaves it."""
    operation = cause.operation
    if operation.kind is OperationKind.REFUND:
        settle_refund(writes, payment, cause, outcome)
    elif operation.target_ref:
        _settle_stray(writes, payment, cause, outcome)
    elif isinstance(outcome, Failed):
        _refused(writes, payment, cause, outcome)
    elif isinstance(outcome, Succeeded | Authorized | Cancelled):
        if operation.kind in PRIMARY and (wrong := _not_as_asked(payment, outcome)):
            escalate(writes, payment, cause, wrong)
            return
        finish(
            operation,
            OperationState.SUCCEEDED if _is_wanted(operation.kind, outcome) else OperationState.FAILED,
            outcome.gateway_ref if operation.kind in PRIMARY else None,
            cause.at,
        )
        operation.outcome = _told(outcome)
        if beside.primary is not None:
            _end_with(beside.primary, outcome, cause.at)
        before = payment.version
        adopt(writes, payment, cause, outcome, beside)
        if payment.version == before:
            note(writes, payment, cause, f"{operation.kind} ended", _standing_already(payment, outcome))
        if operation.kind is OperationKind.CAPTURE and isinstance(outcome, Succeeded):
            _check_captured(writes, payment, cause, outcome)


def settle_late(writes: Writes, payment: Payment, cause: Cause, outcome: Outcome, beside: Beside) -> None:
    """An outcome of an operation that is finished: mostly the same again, or the gateway's later truth."""
    operation = cause.operation
    if operation.kind is OperationKind.REFUND:
        settle_refund_late(writes, payment, cause, outcome)
    elif operation.target_ref or not isinstance(outcome, Succeeded | Authorized | Cancelled):
        return
    elif not _is_other(payment, operation, outcome):
        adopt(writes, payment, cause, outcome, beside)
    elif operation.kind in PRIMARY and isinstance(outcome, Succeeded | Authorized):
        _undo_second(writes, payment, cause, outcome)


def adopt(writes: Writes, payment: Payment, cause: Cause, standing: Standing, beside: Beside) -> None:
    """Bring the payment to how its charge stands at the gateway, unless it is there already."""
    match standing:
        case Succeeded():
            _paid(writes, payment, cause, standing)
        case Authorized():
            _held(writes, payment, cause, standing, beside)
        case Cancelled():
            _voided(writes, payment, cause, standing)


def _paid(writes: Writes, payment: Payment, cause: Cause, outcome: Succeeded) -> None:
    if payment.status in PAID or (payment.status in DEAD and payment.captured_minor):
        return
    payment.gateway_ref = outcome.gateway_ref
    payment.transaction_id = outcome.transaction_id
    payment.captured_minor = outcome.captured.amount_minor
    payment.simulated_response = outcome.simulated_response if payment.is_simulated else None
    payment.next_action = payment.expires_at = None
    if payment.status in DEAD:
        flag(writes, payment, cause, f"paid after it was {payment.status}; the money goes back")
        give_back(writes, payment, cause, f"paid after the payment was {payment.status}")
        return
    payment.error_code = payment.error_message = payment.failure_reason = None
    event = "captured" if payment.status is Status.AUTHORIZED else "charge succeeded"
    lifecycle.advance(writes, payment, Status.SUCCEEDED, named(cause, event))
    if payment.cancel_requested_at:
        give_back(writes, payment, cause, "cancelled while it was being paid")


def _held(writes: Writes, payment: Payment, cause: Cause, outcome: Authorized, beside: Beside) -> None:
    if payment.status in PAID or payment.status is Status.AUTHORIZED:
        return
    if payment.status in DEAD and not _first_time(cause.operation, outcome.gateway_ref):
        return
    payment.gateway_ref = outcome.gateway_ref
    payment.transaction_id = outcome.transaction_id
    payment.simulated_response = outcome.simulated_response if payment.is_simulated else None
    payment.next_action = None
    if payment.status in DEAD:
        flag(writes, payment, cause, f"held after it was {payment.status}; the hold is released")
        ask_to_cancel(writes, payment, cause, "held after its end", target_ref=outcome.gateway_ref)
        return
    payment.expires_at = outcome.capture_before or cause.at + HOLD_LASTS
    payment.error_code = payment.error_message = payment.failure_reason = None
    lifecycle.advance(writes, payment, Status.AUTHORIZED, named(cause, "money held"))
    if payment.cancel_requested_at and not beside.cancelling:
        ask_to_cancel(writes, payment, cause, "cancelled while it was being held")


def _voided(writes: Writes, payment: Payment, cause: Cause, outcome: Cancelled) -> None:
    if payment.status in PAID or payment.status in DEAD:
        return
    payment.next_action = payment.expires_at = None
    if payment.status in OPEN_TO_CANCEL:
        lifecycle.advance(
            writes, payment, Status.CANCELLED, named(cause, "cancelled at the gateway", reason=outcome.reason)
        )
        return
    payment.gateway_ref = outcome.gateway_ref
    payment.error_code, payment.failure_reason = "CANCELED", "canceled"
    payment.error_message = "The payment was cancelled"
    lifecycle.advance(writes, payment, Status.FAILED, named(cause, "charge cancelled at the gateway"))


def _refused(writes: Writes, payment: Payment, cause: Cause, outcome: Failed) -> None:
    """A definite no. It ends a charge; a refused capture or cancel leaves the payment as it is."""
    operation = cause.operation
    is_primary = operation.kind in PRIMARY
    finish(operation, OperationState.FAILED, outcome.gateway_ref if is_primary else None, cause.at)
    operation.outcome = refusal(outcome)
    if not is_primary:
        flag(writes, payment, cause, f"{operation.kind} refused: {outcome.reason}")
        return
    payment.gateway_ref = outcome.gateway_ref
    payment.error_code = outcome.error_code
    payment.error_message = outcome.message
    payment.failure_reason = outcome.reason
    payment.next_action = payment.expires_at = None
    lifecycle.advance(writes, payment, Status.FAILED, named(cause, "charge failed"))


def _not_as_asked(payment: Payment, outcome: Standing) -> str | None:
    """What is wrong with an amount that only our own charge or hold can have named; None when it is right."""
    if isinstance(outcome, Cancelled):
        return None
    asked = Money(payment.amount_minor, payment.currency)
    got = outcome.captured if isinstance(outcome, Succeeded) else outcome.held
    was_held = payment.capture_method == "manual" and isinstance(outcome, Succeeded)
    if got == asked or (
        was_held and got.currency == asked.currency and got.amount_minor < asked.amount_minor
    ):
        return None
    return f"the gateway took {got}, another amount than asked"


def _is_wanted(kind: OperationKind, outcome: Standing) -> bool:
    """Whether this is what the operation was for; a hold that is captured already was one."""
    if kind is OperationKind.CANCEL:
        return isinstance(outcome, Cancelled)
    return isinstance(outcome, Succeeded) or (
        kind is OperationKind.AUTHORIZE and isinstance(outcome, Authorized)
    )


def _end_with(primary: Operation, outcome: Standing, at: datetime) -> None:
    """End a charge or hold that was still open, for instance for a customer who did not come back."""
    if isinstance(outcome, Authorized):
        return
    paid = isinstance(outcome, Succeeded)
    finish(primary, OperationState.SUCCEEDED if paid else OperationState.FAILED, outcome.gateway_ref, at)
    primary.outcome = _told(outcome)


def _told(outcome: Standing) -> dict[str, Any]:
    if isinstance(outcome, Cancelled):
        return {"errorCode": "CANCELED", "reason": outcome.reason}
    return {"transactionId": outcome.transaction_id}


def _is_other(payment: Payment, operation: Operation, outcome: Standing) -> bool:
    """Whether it is another charge at the gateway than the one that we know."""
    known = payment.gateway_ref or operation.gateway_ref
    return known is not None and outcome.gateway_ref != known


def _standing_already(payment: Payment, outcome: Standing) -> str:
    """What a capture or a cancel has found, where others were quicker and the payment knows of it."""
    return f"the payment was {payment.status} already; at the gateway: {type(outcome).__name__.lower()}"


def _check_captured(writes: Writes, payment: Payment, cause: Cause, outcome: Succeeded) -> None:
    """What the gateway has taken is recorded, whatever it is; another amount than asked needs a person."""
    asked = Money(cause.operation.amount_minor, payment.currency)
    if outcome.captured != asked:
        flag(writes, payment, cause, f"{outcome.captured} was captured, where {asked} was asked for")


def _undo_second(writes: Writes, payment: Payment, cause: Cause, outcome: Succeeded | Authorized) -> None:
    """A second success for one payment: it is given back at once, and an operator sees it."""
    ref = outcome.gateway_ref
    if not _first_time(cause.operation, ref):
        return
    flag(writes, payment, cause, f"a second success: {outcome.transaction_id}")
    if isinstance(outcome, Succeeded):
        taken = outcome.captured.amount_minor
        follow_up(writes, payment, cause, OperationKind.REFUND, taken, "a second success", ref)
    else:
        ask_to_cancel(writes, payment, cause, "a second hold", ref)


def undone(operation: Operation) -> list[str]:
    """The charges at the gateway that are being undone, by reason of this operation."""
    known: list[str] = (operation.outcome or {}).get("undone", [])
    return known


def _first_time(operation: Operation, ref: str) -> bool:
    """Note that a charge is being undone; False when it is already."""
    known = undone(operation)
    if ref in known:
        return False
    operation.outcome = {**(operation.outcome or {}), "undone": [*known, ref]}
    return True


def _settle_stray(writes: Writes, payment: Payment, cause: Cause, outcome: Outcome) -> None:
    """The cancel of a hold beside the payment's own has ended."""
    operation = cause.operation
    done = isinstance(outcome, Cancelled)
    finish(operation, OperationState.SUCCEEDED if done else OperationState.FAILED, None, cause.at)
    if done or not isinstance(outcome, TERMINAL):
        note(writes, payment, cause, "second hold released", str(operation.target_ref))
    else:
        flag(writes, payment, cause, f"a second hold could not be released: {type(outcome).__name__}")
