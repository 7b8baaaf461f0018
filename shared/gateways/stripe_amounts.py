"""Convert between ISO 4217 minor units and the units that Stripe's API counts in."""

from typing import Final

from shared.money import InvalidAmount, Money, exponent

# docs.stripe.com/currencies: Stripe's view differs from ISO 4217 in these only.
# Stripe counts whole units of these; of them only MGA has decimals in ISO 4217.
ZERO_DECIMAL: Final = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
# Kept by Stripe for old integrations: sent in hundredths, though a fraction can never be charged.
SENT_IN_HUNDREDTHS: Final = frozenset({"ISK", "UGX"})
# Sent in thousandths, of which the card networks take only whole hundredths.
LAST_DIGIT_ZERO: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})


def stripe_exponent(currency: str) -> int:
    """Return the number of decimals that Stripe gives `currency`. Raises UnknownCurrency."""
    if currency in ZERO_DECIMAL:
        return 0
    if currency in SENT_IN_HUNDREDTHS:
        return 2
    return exponent(currency)


def smallest_step_minor(currency: str) -> int:
    """Return the ISO minor units that an amount Stripe can charge must be a multiple of."""
    if currency in LAST_DIGIT_ZERO:
        return 10
    return int(10 ** max(0, exponent(currency) - stripe_exponent(currency)))


def to_gateway_minor(money: Money) -> int:
    """Return `money` in Stripe's units. Raises InvalidAmount for what Stripe cannot charge exactly."""
    step_minor = smallest_step_minor(money.currency)
    if money.amount_minor % step_minor:
        step = Money(step_minor, money.currency)
        raise InvalidAmount(f"amount in {money.currency} must be a multiple of {step.to_decimal():f}")
    return _rescale(money.amount_minor, exponent(money.currency), stripe_exponent(money.currency))


def from_gateway_minor(amount: int, currency: str) -> Money:
    """Return Stripe's `amount` of `currency` (either case) as money.

    Raises UnknownCurrency, and InvalidAmount for a fraction of a unit that has none.
    """
    code = currency.upper()
    return Money(_rescale(amount, stripe_exponent(code), exponent(code)), code)


def _rescale(amount: int, decimals_from: int, decimals_to: int) -> int:
    """Return `amount` counted in units of another number of decimals. Raises InvalidAmount if inexact."""
    if decimals_to >= decimals_from:
        return int(amount * 10 ** (decimals_to - decimals_from))
    whole, rest = divmod(amount, 10 ** (decimals_from - decimals_to))
    if rest:
        raise InvalidAmount("amount is a fraction of the currency's smallest unit")
    return int(whole)
