"""Decide how a charge ends: by the test card first, then by the amount's last two digits."""

from deploy.stripe_simulator.currencies import is_two_decimal
from deploy.stripe_simulator.payment_methods import Decline, TestCard

TOO_LARGE_FROM_MINOR = 99_999_999  # 999,999.99

AMOUNT_TOO_LARGE = Decline("processor_error", "amount_too_large", "Amount exceeds maximum limit")
BY_CENTS = {
    13: Decline("card_declined", None, "Your card was declined"),
    66: Decline("card_declined", "insufficient_funds", "Insufficient funds on card"),
    99: Decline("timeout", "processor_timeout", "Payment processor timeout"),
}


def decline_of(card: TestCard, amount_minor: int, currency: str) -> Decline | None:
    """Return why `card` is refused for this amount, or None when it is charged."""
    return card.decline or decline_by_amount(amount_minor, currency)


def decline_by_amount(amount_minor: int, currency: str) -> Decline | None:
    """Return the refusal an amount stands for; only amounts in two-decimal currencies stand for one."""
    if not is_two_decimal(currency):
        return None
    if amount_minor >= TOO_LARGE_FROM_MINOR:
        return AMOUNT_TOO_LARGE
    return BY_CENTS.get(amount_minor % 100)
