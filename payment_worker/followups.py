"""What an outcome makes necessary: money that must go back, a hold that must be let go."""

from datetime import timedelta

from shared.commands.operations import further, request_operation
from shared.commands.refund import left_minor
from shared.lifecycle import Cause
from shared.models import Payment
from shared.payments import OperationKind
from shared.rows import Writes

# A further operation's message takes milliseconds; should it be lost, recovery dispatches it after this.
DUE_AFTER = timedelta(seconds=5)


def give_back(writes: Writes, payment: Payment, cause: Cause, reason: str) -> None:
    """Ask for the refund of everything that was taken."""
    if left := left_minor(payment):
        follow_up(writes, payment, cause, OperationKind.REFUND, left, reason)


def ask_to_cancel(
    writes: Writes, payment: Payment, cause: Cause, reason: str, target_ref: str | None = None
) -> None:
    """Ask the gateway to let go of a hold, or of a charge that waits for the customer."""
    follow_up(writes, payment, cause, OperationKind.CANCEL, payment.amount_minor, reason, target_ref)


def follow_up(
    writes: Writes,
    payment: Payment,
    cause: Cause,
    kind: OperationKind,
    amount_minor: int,
    reason: str,
    target_ref: str | None = None,
) -> None:
    """Ask for a further operation, by reason of the one that `cause` names.

    `target_ref` names a charge at the gateway beside the payment's own.
    """
    values = further(
        payment, kind, amount_minor, cause.at + DUE_AFTER, reason=reason, target_ref=target_ref
    ) | {"correlation_id": cause.operation.correlation_id, "traceparent": cause.operation.traceparent}
    request_operation(writes, payment, values, cause.actor, cause.at)
