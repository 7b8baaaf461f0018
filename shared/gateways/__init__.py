"""The gateway port: what we ask of a payment gateway and what it may answer; no gateway's words in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from shared.money import Money
from shared.payments import OperationKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Take this money from this customer's payment method, or with `hold` only reserve it."""

    payment_id: str
    operation_id: str
    money: Money
    order_id: str | None
    payment_method: str
    payment_method_id: str | None
    off_session: bool
    return_url: str | None
    customer_ref: str | None = None  # whose saved payment method it is, at the gateway
    hold: bool = False
    cart_id: str | None = None
    customer_id: str | None = None
    reservation_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capture:
    """Take this much of what is held, and release the rest."""

    operation_id: str
    gateway_ref: str
    money: Money
    order_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Let go of what is held, or of what the customer has not confirmed."""

    operation_id: str
    gateway_ref: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refund:
    """Give this much back of what was taken."""

    payment_id: str
    operation_id: str
    gateway_ref: str
    money: Money


Request = Charge | Capture | Cancel | Refund


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The money is taken."""

    gateway_ref: str
    transaction_id: str
    captured: Money
    simulated_response: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorized:
    """The money is held, until `capture_before` where the gateway says so."""

    gateway_ref: str
    transaction_id: str
    held: Money
    capture_before: datetime | None = None
    simulated_response: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """Nothing was taken and nothing is held; it cannot be paid any more."""

    gateway_ref: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refunded:
    """The money is on its way back."""

    gateway_ref: str
    refunded: Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A definite no: the bank declined it, or the gateway refuses such a request."""

    error_code: str
    message: str
    reason: str
    gateway_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The gateway knows of it and has no outcome yet; `next_action` says what the customer must do.

    `failure` tells of a try of the customer's that did not succeed and may be repeated.
    """

    gateway_ref: str
    next_action: dict[str, Any] | None
    failure: Failed | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transient:
    """The gateway certainly did nothing; the same call may be made again."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unknown:
    """Nobody can tell what the gateway did. With `key_poisoned` the same call would tell nothing new."""

    reason: str
    key_poisoned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Misconfigured:
    """The gateway rejects us, not the payment (a bad key, a reused idempotency key); an operator must act."""

    reason: str


Outcome = (
    Succeeded | Authorized | Cancelled | Refunded | Failed | Waiting | Transient | Unknown | Misconfigured
)
TERMINAL = (Succeeded, Authorized, Cancelled, Refunded, Failed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sought:
    """An operation whose outcome is looked for; `gateway_ref` is the charge that it was to act upon."""

    operation_id: str
    kind: OperationKind
    gateway_ref: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenRefund:
    """A refund as the gateway has it; `operation_id` is None for one that was made elsewhere."""

    gateway_ref: str
    operation_id: str | None
    money: Money
    reason: str | None
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispute:
    """A dispute as the gateway has it, in its own words; `charge_ref` is the charge it is about."""

    gateway_ref: str
    charge_ref: str | None
    reason: str
    status: str


class Gateway(Protocol):
    """A payment gateway. Its methods raise nothing for what the gateway answers: that is the outcome."""

    simulated: bool

    def freeze(self, request: Request) -> dict[str, Any]:
        """The request's parameters, to be stored and sent the same at every attempt."""

    def send(self, kind: OperationKind, parameters: Mapping[str, Any], key: str) -> Outcome:
        """Ask for an operation under an idempotency key."""

    def look_up(self, kind: OperationKind, gateway_ref: str) -> Outcome:
        """Ask how a charge, or for the kind `refund` a refund, stands that the gateway is known to have."""

    def find(self, sought: Sequence[Sought], since: datetime) -> Mapping[str, list[Outcome]]:
        """Look through everything the gateway made since then for these operations.

        An operation that is missing in the answer could not be looked for: nothing is known of it. Raises
        GatewayUnavailable when the look could not be completed: then nothing is known of any.
        """

    def refunds_of(self, gateway_ref: str) -> list[SeenRefund]:
        """Every refund of a charge, oldest first; what a partial capture released is none.

        Raises GatewayUnavailable.
        """

    def dispute(self, gateway_ref: str) -> Dispute:
        """Ask how a dispute stands. Raises GatewayUnavailable."""


class GatewayUnavailable(Exception):
    """The gateway could not be asked."""
