"""The currencies Stripe charges in, and the limits on an amount in each.

Source: https://docs.stripe.com/currencies (presentment currencies, minimum amounts, special cases).
"""

from deploy.stripe_simulator.errors import StripeError, invalid

SUPPORTED = frozenset(
    """
    usd aed afn all amd ang aoa ars aud awg azn bam bbd bdt bgn bhd bif bmd bnd bob brl bsd bwp byn bzd
    cad cdf chf clp cny cop crc cve czk djf dkk dop dzd egp etb eur fjd fkp gbp gel gip gmd gnf gtq gyd
    hkd hnl htg huf idr ils inr isk jmd jod jpy kes kgs khr kmf krw kwd kyd kzt lak lbp lkr lrd lsl mad
    mdl mga mkd mmk mnt mop mur mvr mwk mxn myr mzn nad ngn nio nok npr nzd omr pab pen pgk php pkr pln
    pyg qar ron rsd rub rwf sar sbd scr sek sgd shp sle sos srd std szl thb tjs tnd top try ttd twd tzs
    uah ugx uyu uzs vnd vuv wst xaf xcd xcg xof xpf yer zar zmw
    """.split()
)
ZERO_DECIMAL = frozenset("bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split())
THREE_DECIMAL = frozenset("bhd jod kwd omr tnd".split())
WHOLE_UNITS = frozenset({"isk", "ugx"})  # written with two decimals, of which none may be used

MINIMUM = {
    "usd": 50, "aed": 200, "aud": 50, "bgn": 100, "brl": 50, "cad": 50, "chf": 50, "czk": 1500, "dkk": 250,
    "eur": 50, "gbp": 30, "hkd": 400, "huf": 17500, "inr": 50, "jpy": 50, "mxn": 1000, "myr": 200, "nok": 300,
    "nzd": 50, "pln": 200, "ron": 200, "sek": 300, "sgd": 50, "thb": 1000,
}  # fmt: skip
MAXIMUM = 999_999_999_999  # twelve digits: an amount must be able to reach the simulated "too large" outcome


def is_two_decimal(currency: str) -> bool:
    """Tell whether the last two digits of an amount are the currency's cents."""
    return currency not in ZERO_DECIMAL and currency not in THREE_DECIMAL and currency not in WHOLE_UNITS


def check_currency(currency: str) -> str:
    """Return `currency` in lower case. Raises StripeError for one Stripe does not charge in."""
    lowered = currency.lower()
    if lowered not in SUPPORTED:
        supported = ", ".join(sorted(SUPPORTED))
        message = f"Invalid currency: {lowered}. Stripe currently supports these currencies: {supported}"
        raise invalid(message, param="currency")
    return lowered


def check_amount(amount_minor: int, currency: str, param: str = "amount") -> None:
    """Raise StripeError when `amount_minor` cannot be charged in `currency`."""
    minimum = MINIMUM.get(currency, 1)
    if amount_minor < minimum:
        message = f"Amount must be at least {display(minimum, currency)}"
        raise invalid(message, param=param, code="amount_too_small")
    if amount_minor > MAXIMUM:
        message = f"Amount must be no more than {display(MAXIMUM, currency)}"
        raise invalid(message, param=param, code="amount_too_large")
    if currency in THREE_DECIMAL and amount_minor % 10:
        raise _misfit("the last digit of an amount must be 0", currency, param)
    if currency in WHOLE_UNITS and amount_minor % 100:
        raise _misfit("the last two digits of an amount must be 00", currency, param)


def display(amount_minor: int, currency: str) -> str:
    """Return the amount as people write it, e.g. `$0.50 usd` or `50 jpy`."""
    decimals = 0 if currency in ZERO_DECIMAL else 3 if currency in THREE_DECIMAL else 2
    whole, rest = divmod(amount_minor, 10**decimals)
    digits = f"{whole:,}.{rest:0{decimals}d}" if decimals else f"{whole:,}"
    return f"${digits} usd" if currency == "usd" else f"{digits} {currency}"


def _misfit(rule: str, currency: str, param: str) -> StripeError:
    return invalid(f"Invalid amount: in {currency} {rule}.", param=param, code="invalid_charge_amount")
