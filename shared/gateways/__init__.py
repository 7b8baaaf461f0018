"""The gateway port: what we ask of a payment gateway and what it may answer; no gateway's words in it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from shared.money import Money


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """Take this money from this customer's payment method."""

    payment_id: str
    operation_id: str
    money: Money
    order_id: str | None
    payment_method: str
    payment_method_id: str | None
    off_session: bool
    return_url: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Succeeded:
    """The money is taken."""

    gateway_ref: str
    transaction_id: str
    captured: Money
    simulated_response: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A definite no: the bank declined it, or the gateway refuses such a request."""

    error_code: str
    message: str
    reason: str
    gateway_ref: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """The gateway knows of it and has no outcome yet; `next_action` says what the customer must do."""

    gateway_ref: str
    next_action: dict[str, Any] | None


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


Outcome = Succeeded | Failed | Waiting | Transient | Unknown | Misconfigured
TERMINAL = (Succeeded, Failed)


class Gateway(Protocol):
    """A payment gateway. Its methods raise nothing for what the gateway answers: that is the outcome."""

    simulated: bool

    def freeze(self, charge: Charge) -> dict[str, Any]:
        """The request's parameters, to be stored and sent the same at every attempt."""

    def charge(self, parameters: Mapping[str, Any], key: str) -> Outcome:
        """Ask for the charge under an idempotency key."""

    def look_up(self, gateway_ref: str) -> Outcome:
        """Ask how a charge stands that the gateway is known to have."""

    def find(self, operation_ids: Sequence[str], since: datetime) -> Mapping[str, list[Outcome]]:
        """Look through everything the gateway made since then for these operations.

        Raises GatewayUnavailable when the look could not be completed: then nothing is known.
        """


class GatewayUnavailable(Exception):
    """The gateway could not be asked."""
