"""The domain of customers and their saved cards, pure: how they can be refused."""

from shared.payments import PaymentError


class CustomerNotFound(PaymentError):
    """There is no such customer that the caller may see."""


class CustomerConflict(PaymentError):
    """Another customer has this email address or this id, or the customer has too many cards."""


class CardNotFound(PaymentError):
    """The customer has no such card."""


class CardDeclined(PaymentError):
    """The card's issuer does not let the card be saved; the message is the issuer's, fit for a client."""
