"""The gateway port for customers and saved cards; unlike charges, these are asked for within a request."""

from dataclasses import dataclass
from typing import Protocol

from shared.gateways import GatewayUnavailable


class GatewayBusy(GatewayUnavailable):
    """The gateway did nothing yet: the key is being used at this moment, or we ask too often."""


class KeyPoisoned(GatewayUnavailable):
    """The key replays an error of the gateway's own: what it did must be looked for."""


class GatewayRefused(Exception):
    """The gateway says a definite no and did nothing; `declined`: it was the card's issuer who said it."""

    def __init__(self, message: str, *, declined: bool) -> None:
        """`message` is the gateway's; fit for a client only where the issuer declined."""
        super().__init__(message)
        self.declined = declined


@dataclass(frozen=True, slots=True, kw_only=True)
class NewCustomer:
    """What the gateway is told of a customer; the same at every attempt."""

    customer_id: str
    email: str
    name: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFacts:
    """What the gateway says of a card, and whose it is."""

    gateway_ref: str
    customer_ref: str | None
    brand: str
    last4: str
    exp_month: int
    exp_year: int
    cardholder_name: str | None


class CustomerGateway(Protocol):
    """A gateway's customers. Every method may raise GatewayRefused or GatewayUnavailable.

    After GatewayUnavailable nobody can tell what was done; asking again under the same key does it once.
    """

    def create_customer(self, customer: NewCustomer, key: str) -> str:
        """Make a customer under an idempotency key and return its reference. May raise KeyPoisoned."""

    def find_customer(self, customer: NewCustomer) -> str | None:
        """Look for the customer that an earlier `create_customer` has made."""

    def attach(self, token: str, customer_ref: str, key: str) -> CardFacts:
        """Save a card to a customer under an idempotency key. May raise KeyPoisoned."""

    def card(self, card_ref: str) -> CardFacts:
        """Ask what is known of a card."""

    def detach(self, card_ref: str) -> None:
        """Take a card from its customer for good; refused when it is nobody's already."""

    def set_default(self, customer_ref: str, card_ref: str) -> None:
        """Make a card the one that the gateway takes where none is named."""
