"""The domain, pure: what states a payment and its operations have, and how they may change."""

from enum import StrEnum
from types import MappingProxyType


class Status(StrEnum):
    """Where a payment stands."""

    PENDING = "pending"  # recorded; nothing was sent to the gateway yet
    PROCESSING = "processing"  # an operation has been claimed; the outcome is not known
    REQUIRES_ACTION = "requires_action"  # waits for the customer (3-D Secure, or a payment method)
    AUTHORIZED = "authorized"  # the money is held, not taken
    SUCCEEDED = "succeeded"  # the money is taken
    PARTIALLY_REFUNDED = "partially_refunded"  # a part of the money went back
    REFUNDED = "refunded"  # all of the money went back
    FAILED = "failed"  # a definite no; nothing was taken
    CANCELLED = "cancelled"  # given up before money was taken


class Command(StrEnum):
    """What other services ask of us on Kafka (also the name of its topic)."""

    AUTHORIZE_PAYMENT = "authorize-payment"
    CAPTURE_PAYMENT = "capture-payment"
    CANCEL_PAYMENT = "cancel-payment"
    REFUND_PAYMENT = "refund-payment"


class Notice(StrEnum):
    """What other services tell us on Kafka of what has happened to them (also the name of its topic)."""

    PAYMENT_INITIATED = "payment-initiated"
    RESERVATION_CREATED = "reservation-created"
    RESERVATION_EXPIRED = "reservation-expired"
    USER_SUBSCRIPTION_STARTED = "user-subscription-started"
    INVENTORY_ADJUSTED = "inventory-adjusted"


class OperationKind(StrEnum):
    """What an operation asks the gateway to do."""

    CHARGE = "charge"  # take the money at once
    AUTHORIZE = "authorize"  # hold it
    CAPTURE = "capture"  # take what is held
    CANCEL = "cancel"  # let go of what is held or not confirmed
    REFUND = "refund"  # give back what was taken


class OperationState(StrEnum):
    """How far one operation has come."""

    REQUESTED = "requested"  # nobody has claimed it yet
    IN_FLIGHT = "in_flight"  # claimed; until an outcome is recorded, the outcome is unknown
    REQUIRES_ACTION = "requires_action"  # the gateway waits for the customer
    SUCCEEDED = "succeeded"  # the gateway did it
    FAILED = "failed"  # the gateway said a definite no


class CaptureMethod(StrEnum):
    """Whether a payment takes its money at once or holds it first."""

    AUTOMATIC = "automatic"
    MANUAL = "manual"


class Announcement(StrEnum):
    """The event that a change of state announces to other services (also the name of its topic)."""

    PAYMENT_REQUESTED = "payment-requested"
    CAPTURE_REQUESTED = "capture-requested"
    CANCEL_REQUESTED = "cancel-requested"
    REFUND_REQUESTED = "refund-requested"
    PAYMENT_SUCCEEDED = "payment-succeeded"
    PAYMENT_FAILED = "payment-failed"
    PAYMENT_AUTHORIZED = "payment-authorized"
    PAYMENT_CANCELLED = "payment-cancelled"
    PAYMENT_ACTION_REQUIRED = "payment-action-required"
    PAYMENT_DISPUTED = "payment-disputed"
    REFUND_SUCCEEDED = "refund-succeeded"
    REFUND_FAILED = "refund-failed"
    PAYMENT_PROCESSED = "payment-processed"  # beside the outcome's own event, for payments that ask for it
    # Of no payment's history: a subscriber's endpoint is told of nothing any more.
    NOTIFICATION_ENDPOINT_DISABLED = "notification-endpoint-disabled"


# Every edge a payment may travel, and the event it announces. An edge that is not here does not exist.
TRANSITIONS: MappingProxyType[tuple[Status, Status], Announcement | None] = MappingProxyType(
    {
        (Status.PENDING, Status.PROCESSING): None,
        (Status.PENDING, Status.CANCELLED): Announcement.PAYMENT_CANCELLED,
        (Status.PROCESSING, Status.SUCCEEDED): Announcement.PAYMENT_SUCCEEDED,
        (Status.PROCESSING, Status.FAILED): Announcement.PAYMENT_FAILED,
        (Status.PROCESSING, Status.AUTHORIZED): Announcement.PAYMENT_AUTHORIZED,
        (Status.PROCESSING, Status.REQUIRES_ACTION): Announcement.PAYMENT_ACTION_REQUIRED,
        (Status.REQUIRES_ACTION, Status.PROCESSING): None,
        (Status.REQUIRES_ACTION, Status.AUTHORIZED): Announcement.PAYMENT_AUTHORIZED,
        (Status.REQUIRES_ACTION, Status.SUCCEEDED): Announcement.PAYMENT_SUCCEEDED,
        (Status.REQUIRES_ACTION, Status.FAILED): Announcement.PAYMENT_FAILED,
        (Status.REQUIRES_ACTION, Status.CANCELLED): Announcement.PAYMENT_CANCELLED,
        (Status.AUTHORIZED, Status.SUCCEEDED): Announcement.PAYMENT_SUCCEEDED,
        (Status.AUTHORIZED, Status.CANCELLED): Announcement.PAYMENT_CANCELLED,
        (Status.AUTHORIZED, Status.FAILED): Announcement.PAYMENT_FAILED,
        (Status.SUCCEEDED, Status.PARTIALLY_REFUNDED): Announcement.REFUND_SUCCEEDED,
        (Status.SUCCEEDED, Status.REFUNDED): Announcement.REFUND_SUCCEEDED,
        (Status.PARTIALLY_REFUNDED, Status.REFUNDED): Announcement.REFUND_SUCCEEDED,
        # A refund that had succeeded may fail later: Stripe's documentation of refunds, "failed refunds".
        (Status.PARTIALLY_REFUNDED, Status.SUCCEEDED): Announcement.REFUND_FAILED,
        (Status.REFUNDED, Status.PARTIALLY_REFUNDED): Announcement.REFUND_FAILED,
        (Status.REFUNDED, Status.SUCCEEDED): Announcement.REFUND_FAILED,
    }
)
# What tells that a payment's fate is known for the first time.
OUTCOMES = frozenset(
    {Announcement.PAYMENT_SUCCEEDED, Announcement.PAYMENT_FAILED, Announcement.PAYMENT_CANCELLED}
)
# What asks the worker to carry out an operation; a hold is asked for as a charge is.
REQUESTED_BY: MappingProxyType[OperationKind, Announcement] = MappingProxyType(
    {
        OperationKind.CHARGE: Announcement.PAYMENT_REQUESTED,
        OperationKind.AUTHORIZE: Announcement.PAYMENT_REQUESTED,
        OperationKind.CAPTURE: Announcement.CAPTURE_REQUESTED,
        OperationKind.CANCEL: Announcement.CANCEL_REQUESTED,
        OperationKind.REFUND: Announcement.REFUND_REQUESTED,
    }
)
# The operation that a payment begins with; its other operations follow up on what this one did.
PRIMARY = frozenset({OperationKind.CHARGE, OperationKind.AUTHORIZE})

PAYMENT_METHODS = ("credit_card", "debit_card", "paypal", "apple_pay", "google_pay")

# A payment in one of these no longer stands in the way of a new one for the same order or cart.
DEAD = frozenset({Status.FAILED, Status.CANCELLED})
# The outcome is not known yet; a client's wait goes on while a payment is in one of these.
UNSETTLED = frozenset({Status.PENDING, Status.PROCESSING})
# The gateway's work is done; the row must say when.
PROCESSED = frozenset(
    {Status.SUCCEEDED, Status.PARTIALLY_REFUNDED, Status.REFUNDED, Status.FAILED, Status.CANCELLED}
)
# Money was taken, whatever became of it later.
PAID = frozenset({Status.SUCCEEDED, Status.PARTIALLY_REFUNDED, Status.REFUNDED})
OPEN_OPERATION = frozenset(
    {OperationState.REQUESTED, OperationState.IN_FLIGHT, OperationState.REQUIRES_ACTION}
)


class PaymentError(Exception):
    """A rule of the domain says no; the message is fit for a client.

    `code` is what clients see beside it, over HTTP and on Kafka.
    """

    code = "PAYMENT_CONFLICT"


class IllegalTransition(PaymentError):
    """The table has no edge from the one status to the other."""

    def __init__(self, current: Status, wanted: Status) -> None:
        """Name the edge that does not exist."""
        super().__init__(f"A payment that is {current} cannot become {wanted}")


class InvalidCommand(PaymentError):
    """A value of a command is not acceptable; `field` is its name in the client's words."""

    code = "VALIDATION_FAILED"

    def __init__(self, field: str, message: str) -> None:
        """Say which field is wrong and why."""
        super().__init__(f"{field}: {message}")
        self.field = field


class PaymentConflict(PaymentError):
    """Another payment of the same order, with other facts or already refunded, stands in the way."""


class AmountExceeded(PaymentError):
    """More than is left to capture or to refund."""

    code = "AMOUNT_EXCEEDED"


class IdempotencyKeyInUse(PaymentError):
    """A request with the same idempotency key is being carried out at this moment."""

    code = "IDEMPOTENCY_KEY_IN_USE"


class IdempotencyKeyReused(PaymentError):
    """The idempotency key was used before, for a different request."""

    code = "IDEMPOTENCY_KEY_REUSED"


class PaymentNotFound(PaymentError):
    """There is no such payment that the caller may see."""

    code = "PAYMENT_NOT_FOUND"


class RefundNotFound(PaymentError):
    """There is no such refund that the caller may see."""

    code = "REFUND_NOT_FOUND"


def check_transition(current: Status, wanted: Status) -> Announcement | None:
    """Return the event that this change announces; raise IllegalTransition where there is no such edge."""
    try:
        return TRANSITIONS[current, wanted]
    except KeyError:
        raise IllegalTransition(current, wanted) from None
