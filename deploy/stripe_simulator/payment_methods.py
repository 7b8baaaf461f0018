"""Stripe's test payment methods: which card each stands for and how the card behaves.

Source: https://docs.stripe.com/testing and https://docs.stripe.com/payments/3d-secure/authentication-flow.
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

Authentication = Literal[
    "never", "on_session", "until_set_up", "always"
]  # when the issuer wants the customer to authenticate


@dataclass(frozen=True, slots=True)
class Decline:
    """Why a card is refused, in the terms of Stripe's card errors."""

    code: str
    decline_code: str | None
    message: str


@dataclass(frozen=True, slots=True)
class TestCard:
    """A card in Stripe's test mode."""

    brand: str = "visa"
    last4: str = "4242"
    funding: str = "credit"
    country: str = "US"
    decline: Decline | None = None
    authentication: Authentication = "never"
    cvc_check: str | None = None


REFUSED = "Your card was declined."
GENERIC = Decline("card_declined", "generic_decline", REFUSED)
INSUFFICIENT_FUNDS = Decline("card_declined", "insufficient_funds", "Your card has insufficient funds.")
FRAUDULENT = Decline("card_declined", "fraudulent", REFUSED)
PROCESSING_ERROR = Decline(
    "processing_error", None, "An error occurred while processing your card. Try again in a little bit."
)
AUTHENTICATION_REQUIRED = Decline(
    "authentication_required",
    "authentication_required",
    f"{REFUSED} This transaction requires authentication.",
)
VELOCITY_EXCEEDED = Decline(
    "card_declined",
    "card_velocity_exceeded",
    "Your card was declined for making repeated attempts too frequently or exceeding its amount limit.",
)

_DECLINING = {
    "chargeDeclined": TestCard(last4="0002", decline=GENERIC),
    "chargeDeclinedInsufficientFunds": TestCard(last4="9995", decline=INSUFFICIENT_FUNDS),
    "chargeDeclinedLostCard": TestCard(last4="9987", decline=Decline("card_declined", "lost_card", REFUSED)),
    "chargeDeclinedStolenCard": TestCard(
        last4="9979", decline=Decline("card_declined", "stolen_card", REFUSED)
    ),
    "chargeDeclinedExpiredCard": TestCard(
        last4="0069", decline=Decline("expired_card", None, "Your card has expired.")
    ),
    "chargeDeclinedIncorrectCvc": TestCard(
        last4="0127",
        decline=Decline("incorrect_cvc", None, "Your card's security code is incorrect."),
        cvc_check="fail",
    ),
    "chargeDeclinedProcessingError": TestCard(last4="0119", decline=PROCESSING_ERROR),
    "chargeDeclinedFraudulent": TestCard(last4="0019", decline=FRAUDULENT),
    "chargeDeclinedVelocityLimitExceeded": TestCard(last4="6975", decline=VELOCITY_EXCEEDED),
}
_CHALLENGED = TestCard(last4="3220", country="IE", authentication="always")

CARDS: dict[str, TestCard] = {
    "pm_card_visa": TestCard(),
    "pm_card_visa_debit": TestCard(last4="5556", funding="debit"),
    "pm_card_mastercard": TestCard("mastercard", "4444"),
    "pm_card_mastercard_debit": TestCard("mastercard", "8210", "debit"),
    "pm_card_mastercard_prepaid": TestCard("mastercard", "5100", "prepaid"),
    "pm_card_amex": TestCard("amex", "8431"),
    "pm_card_amex_threeDSecureNotSupported": TestCard("amex", "0005"),
    "pm_card_discover": TestCard("discover", "1117"),
    "pm_card_diners": TestCard("diners", "0004"),
    "pm_card_jcb": TestCard("jcb", "0505", country="JP"),
    "pm_card_unionpay": TestCard("unionpay", "0005", country="CN"),
    "pm_card_us": TestCard(),
    "pm_card_gb": TestCard(last4="0008", country="GB"),
    "pm_card_de": TestCard(last4="0003", country="DE"),
    "pm_card_fr": TestCard(last4="0003", country="FR"),
    "pm_card_cvcCheckFail": TestCard(last4="0101", cvc_check="fail"),
    "pm_card_riskLevelElevated": TestCard(last4="9235"),
    "pm_card_riskLevelHighest": TestCard(last4="4954", decline=FRAUDULENT),
    "pm_card_radarBlock": TestCard(last4="0019", decline=FRAUDULENT),
    "pm_card_bypassPending": TestCard(last4="0077"),
    "pm_card_pendingRefund": TestCard(last4="7726"),
    "pm_card_refundFail": TestCard(last4="5126"),
    "pm_card_createDispute": TestCard(last4="0259"),
    "pm_card_chargeCustomerFail": TestCard(last4="0341", decline=GENERIC),
    "pm_card_authenticationRequired": replace(_CHALLENGED, last4="3184"),
    "pm_card_authenticationRequiredOnSetup": replace(
        _CHALLENGED, last4="3155", authentication="until_set_up"
    ),
    "pm_card_authenticationRequiredSetupForOffSession": replace(
        _CHALLENGED, last4="0446", authentication="on_session"
    ),
    "pm_card_authenticationRequiredChargeDeclinedInsufficientFunds": replace(
        _CHALLENGED, last4="3178", decline=INSUFFICIENT_FUNDS
    ),
    "pm_card_threeDSecure2Required": _CHALLENGED,
    "pm_card_threeDSecureRequired": replace(_CHALLENGED, last4="3063"),
    "pm_card_threeDSecureRequiredChargeDeclined": replace(_CHALLENGED, last4="1629", decline=GENERIC),
    "pm_card_threeDSecureRequiredProcessingError": replace(
        _CHALLENGED, last4="1280", decline=PROCESSING_ERROR
    ),
    "pm_card_threeDSecureOptional": TestCard(last4="3055"),
    **{f"pm_card_{name}": card for name, card in _DECLINING.items()},
    **{f"pm_card_visa_{name}": card for name, card in _DECLINING.items()},
}


def asks_customer(card: TestCard, *, off_session: bool, set_up: bool = False) -> bool:
    """Tell whether the issuer wants the customer to authenticate this payment.

    `set_up` says that the card was authenticated before for payments off session.
    """
    exempt = {
        "never": True,
        "always": False,
        "on_session": off_session,
        "until_set_up": off_session and set_up,
    }
    return not exempt[card.authentication]


def refuses_to_be_saved(card: TestCard) -> Decline | None:
    """Return why the card's issuer refuses the check that is made when a card is saved, or None."""
    return card.decline if card in _DECLINING.values() else None


def card_facts(card: TestCard) -> dict[str, Any]:
    """Return what a payment method and a charge both show of the card."""
    return {
        "brand": card.brand,
        "checks": {
            "address_line1_check": None,
            "address_postal_code_check": None,
            "cvc_check": card.cvc_check,
        },
        "country": card.country,
        "exp_month": 12,
        "exp_year": 2034,
        "fingerprint": f"sim{card.brand}{card.last4}",
        "funding": card.funding,
        "last4": card.last4,
        "wallet": None,
    }
