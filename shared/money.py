"""Hold money as integer minor units of an ISO 4217 currency, exactly, with no rounding anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import Final, Self

_ZERO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX VND VUV XAF XOF XPF"
# MGA stands here because ISO 4217 gives the ariary two decimals, although its real subunit is a fifth and
# the gateway knows whole ariary only; the gateway's adapter refuses what is not whole.
# STD is the code that Stripe still uses for the dobra, which ISO 4217 has called STN since 2018.
# Codes that have gone over into the euro (HRK, BGN) or XCG (ANG) are left out, as is MRU, which Stripe does
# not charge in.
_TWO_DECIMALS = """
    AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BMD BND BOB BRL BSD BWP BYN BZD CAD CDF CHF CNY COP CRC
    CVE CZK DKK DOP DZD EGP ETB EUR FJD FKP GBP GEL GIP GMD GTQ GYD HKD HNL HTG HUF IDR ILS INR JMD KES KGS
    KHR KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD MMK MNT MOP MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK
    NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB SAR SBD SCR SEK SGD SHP SLE SOS SRD STD SZL THB TJS TOP
    TRY TTD TWD TZS UAH USD UYU UZS WST XCD XCG YER ZAR ZMW
"""
_THREE_DECIMALS = "BHD JOD KWD OMR TND"

CURRENCIES: Final[Mapping[str, int]] = MappingProxyType(
    {
        code: decimals
        for decimals, codes in ((0, _ZERO_DECIMALS), (2, _TWO_DECIMALS), (3, _THREE_DECIMALS))
        for code in codes.split()
    }
)
"""Every currency we charge in, with the number of its decimals (ISO 4217 exponent)."""

# Stripe's smallest charges (docs.stripe.com/currencies), here in ISO minor units. A currency that is not
# listed has no documented minimum of its own: the smallest amount is then one minor unit.
_HALF_UNIT = "ARS AUD BRL CAD CHF COP EUR IDR ILS INR NZD PHP RUB SGD USD ZAR"
DEFAULT_MINIMUMS_MINOR: Final[Mapping[str, int]] = MappingProxyType(
    dict.fromkeys(_HALF_UNIT.split(), 50)
    | {"GBP": 30, "JPY": 50, "KRW": 50, "AED": 200, "MYR": 200, "PLN": 200, "RON": 200, "DKK": 250}
    | {"NOK": 300, "SEK": 300, "HKD": 400, "MXN": 1000, "THB": 1000, "CZK": 1500, "HUF": 17500}
)

# Twelve digits: the longest amount that Stripe takes in any currency (IDR). Stripe's shorter limits for the
# others are left to Stripe, so that its own refusal (AMOUNT_TOO_LARGE from 999999.99 on) reaches the payer;
# a stricter rule is a setting. Far below 2**53, so every JSON reader holds it exactly.
DEFAULT_MAXIMUM_MINOR: Final = 999_999_999_999

# Above this no currency's amount can be meant. Looked at first, so that 1e999999999 is never written out.
_MAX_MAGNITUDE: Final = 20
_MAX_INT_BITS: Final = 96


class MoneyError(ValueError):
    """An amount or a currency that cannot be used; its text is fit for a client."""


class UnknownCurrency(MoneyError):
    """The code is not that of a currency we charge in."""


class InvalidAmount(MoneyError):
    """The amount is not a number, is absurdly large, or does not fit the currency's decimals."""


def exponent(currency: str) -> int:
    """Return the number of decimals of `currency` by ISO 4217. Raises UnknownCurrency."""
    try:
        return CURRENCIES[currency]
    except KeyError:
        raise UnknownCurrency(
            "currency must be the upper-case ISO 4217 code of a supported currency"
        ) from None


@dataclass(frozen=True, slots=True)
class Money:
    """An exact amount: `amount_minor` in the smallest ISO 4217 unit of `currency` (150.00 USD is 15000)."""

    amount_minor: int
    currency: str

    def __post_init__(self) -> None:
        """Refuse a currency that we do not know. Raises UnknownCurrency."""
        exponent(self.currency)

    @classmethod
    def from_decimal(cls, value: Decimal | int, currency: str) -> Self:
        """Read a decimal amount exactly; the sign and the size are for the caller to judge.

        Trailing zeros are no decimals: 1.000 USD is 1.00 USD. Raises UnknownCurrency, and InvalidAmount
        for NaN, an infinity, an absurd exponent, or more decimals than the currency has.
        """
        decimals = exponent(currency)
        if isinstance(value, int) and value.bit_length() > _MAX_INT_BITS:
            raise InvalidAmount(_TOO_LARGE)
        amount = Decimal(value)
        if not amount.is_finite():
            raise InvalidAmount("amount must be a finite number")
        if not amount:
            return cls(0, currency)
        if amount.adjusted() > _MAX_MAGNITUDE:
            raise InvalidAmount(_TOO_LARGE)
        return cls(_shift(amount, decimals, currency), currency)

    def to_decimal(self) -> Decimal:
        """Return the amount in whole units with all of the currency's decimals: Decimal('150.00')."""
        digits = tuple(map(int, str(abs(self.amount_minor))))
        # Built from its parts: arithmetic would round to the decimal context's precision.
        return Decimal((int(self.amount_minor < 0), digits, -exponent(self.currency)))

    def __str__(self) -> str:
        """Show the amount as people write it: 150.00 USD."""
        return f"{self.to_decimal():f} {self.currency}"


_TOO_LARGE: Final = "amount is too large"


def _shift(amount: Decimal, decimals: int, currency: str) -> int:
    """Return a finite, non-zero `amount` times ten to `decimals`, from its digits. Raises InvalidAmount."""
    sign, digits, scale = amount.as_tuple()
    assert isinstance(scale, int)  # noqa: S101 - the caller refused NaN and the infinities; this tells mypy
    surplus = -scale - decimals
    if surplus > 0:
        if any(digits[-surplus:]) or surplus >= len(digits):
            allowed = f"at most {decimals} decimals" if decimals else "no decimals"
            raise InvalidAmount(f"amount in {currency} can have {allowed}")
        digits = digits[:-surplus]
        scale += surplus
    minor = int("".join(map(str, digits)) + "0" * (scale + decimals))
    return -minor if sign else minor
