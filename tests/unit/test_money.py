"""Money is exact in every currency: in from decimals, out to decimals, and over to the gateway and back."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploy.stripe_simulator import currencies as simulated
from shared.gateways.stripe_amounts import (
    LAST_DIGIT_ZERO,
    SENT_IN_HUNDREDTHS,
    ZERO_DECIMAL,
    from_gateway_minor,
    smallest_step_minor,
    stripe_exponent,
    to_gateway_minor,
)
from shared.money import (
    CURRENCIES,
    DEFAULT_MAXIMUM_MINOR,
    DEFAULT_MINIMUMS_MINOR,
    InvalidAmount,
    Money,
    UnknownCurrency,
    exponent,
)

amounts_minor = st.integers(-(10**15), 10**15)

# A property is tried in every currency with each of its examples: a draw would leave some currencies out.


@given(amounts_minor)
def test_decimal_round_trip(amount_minor: int) -> None:
    """Every amount of every currency survives the way out to a decimal and back in."""
    for currency in CURRENCIES:
        money = Money(amount_minor, currency)
        assert Money.from_decimal(money.to_decimal(), currency) == money


@given(amounts_minor)
def test_decimal_shows_all_the_decimals_of_the_currency(amount_minor: int) -> None:
    """The decimal carries exactly as many decimals as ISO 4217 gives the currency, and the same value."""
    for currency, decimals in CURRENCIES.items():
        shown = Money(amount_minor, currency).to_decimal()
        assert -int(shown.as_tuple().exponent) == exponent(currency) == decimals
        assert shown * 10**decimals == amount_minor


@given(st.integers(-(10**15), 10**15).filter(lambda number: number % 10))
def test_one_decimal_too_many_is_refused(digits: int) -> None:
    """A non-zero digit behind the currency's last decimal is refused, never rounded away."""
    for currency in CURRENCIES:
        amount = Decimal(digits).scaleb(-exponent(currency) - 1)
        with pytest.raises(InvalidAmount, match=f"{currency} can have .*decimals"):
            Money.from_decimal(amount, currency)


@given(amounts_minor, st.integers(0, 50))
def test_trailing_zeros_are_no_decimals(amount_minor: int, zeros: int) -> None:
    """1.000 USD is 1.00 USD: zeros behind the last decimal say nothing more."""
    for currency in CURRENCIES:
        money = Money(amount_minor, currency)
        fraction = "" if exponent(currency) else "."
        written = Decimal(f"{money.to_decimal():f}{fraction}{'0' * zeros}")
        assert Money.from_decimal(written, currency) == money


def read(amount: Decimal | int, currency: str) -> Money | None:
    """Read an amount; None where it is refused."""
    try:
        return Money.from_decimal(amount, currency)
    except InvalidAmount:
        return None


@given(st.decimals())
def test_any_decimal_is_read_exactly_or_refused(amount: Decimal) -> None:
    """Whatever decimal comes in, the money has its exact value or InvalidAmount is raised."""
    for currency in CURRENCIES:
        money = read(amount, currency)
        assert money is None or money.to_decimal() == amount


@given(st.integers())
def test_whole_numbers_are_whole_units(amount: int) -> None:
    """The integer 5 is five dollars or five yen, not five minor units."""
    for currency, decimals in CURRENCIES.items():
        if money := read(amount, currency):
            assert money.amount_minor == amount * 10**decimals
        else:
            assert abs(amount) > DEFAULT_MAXIMUM_MINOR


@pytest.mark.parametrize("text", ["NaN", "sNaN", "-NaN", "Infinity", "-Infinity"])
def test_what_is_no_number_is_refused(text: str) -> None:
    """NaN and the infinities are refused with a message that a client can read."""
    with pytest.raises(InvalidAmount, match="amount must be a finite number"):
        Money.from_decimal(Decimal(text), "USD")


@pytest.mark.parametrize(
    "amount",
    [
        Decimal("1e400"),
        Decimal("-1e400"),
        Decimal("1e999999999"),
        Decimal("1e999999999999999999"),
        Decimal("1e-400"),
        Decimal("1e-999999999"),
        10**400,
        -(10**1_000_000),
    ],
    ids=["1e400", "-1e400", "1e999999999", "1e18 digits", "1e-400", "1e-999999999", "int", "huge int"],
)
def test_absurd_sizes_are_refused_at_once(amount: Decimal | int) -> None:
    """Absurd exponents are refused without writing the number out (that would take minutes or all memory)."""
    with pytest.raises(InvalidAmount):
        Money.from_decimal(amount, "USD")


def test_zero_is_zero_whatever_its_exponent() -> None:
    """0e999999999 is nought; whether nought may be charged is for the caller to say."""
    assert Money.from_decimal(Decimal("0e999999999"), "USD") == Money(0, "USD")


@pytest.mark.parametrize("code", ["", "usd", "US", "USDT", "XXX", "MRU", "ÜSD", "USD "])
def test_unknown_currencies_are_refused(code: str) -> None:
    """Only the exact upper-case code of a currency in the table is taken."""
    with pytest.raises(UnknownCurrency):
        Money.from_decimal(1, code)
    with pytest.raises(UnknownCurrency):
        Money(1, code)


def test_examples_read_as_people_write_them() -> None:
    """A handful of amounts, by hand."""
    assert Money.from_decimal(Decimal("150.00"), "USD").amount_minor == 15000
    assert str(Money(15000, "USD")) == "150.00 USD"
    assert str(Money(-5, "KWD")) == "-0.005 KWD"
    assert str(Money(500, "JPY")) == "500 JPY"
    assert str(Money(0, "EUR")) == "0.00 EUR"


def test_exponents_follow_iso_4217() -> None:
    """The exponents that other tables get wrong are those of ISO 4217."""
    expected = {"MGA": 2, "XCG": 2, "ISK": 0, "UGX": 0, "KRW": 0, "JPY": 0, "HUF": 2, "TND": 3, "CLP": 0}
    assert {code: exponent(code) for code in expected} == expected


def test_the_simulator_charges_in_every_currency() -> None:
    """What is taken in here can be charged there, down to the smallest amount, and by the same exceptions."""
    for currency in CURRENCIES:
        minimum_minor = max(DEFAULT_MINIMUMS_MINOR.get(currency, 1), smallest_step_minor(currency))
        sent = to_gateway_minor(Money(minimum_minor, currency))
        simulated.check_amount(sent, simulated.check_currency(currency))
    kinds = {
        simulated.ZERO_DECIMAL: ZERO_DECIMAL,
        simulated.WHOLE_UNITS: SENT_IN_HUNDREDTHS,
        simulated.THREE_DECIMAL: LAST_DIGIT_ZERO,
    }
    assert all(theirs == {currency.lower() for currency in ours} for theirs, ours in kinds.items())


def test_default_limits_are_of_known_currencies_and_in_order() -> None:
    """Each minimum is positive, in a currency we know, chargeable, and below the maximum."""
    for currency, minimum_minor in DEFAULT_MINIMUMS_MINOR.items():
        assert 0 < minimum_minor < DEFAULT_MAXIMUM_MINOR
        assert to_gateway_minor(Money(minimum_minor, currency)) > 0
    assert Money.from_decimal(Decimal("999999.99"), "USD").amount_minor < DEFAULT_MAXIMUM_MINOR


@given(st.integers(0, 10**13))
def test_gateway_round_trip(steps: int) -> None:
    """Every chargeable amount of every currency comes back unchanged from the gateway's units."""
    for currency in CURRENCIES:
        money = Money(steps * smallest_step_minor(currency), currency)
        assert from_gateway_minor(to_gateway_minor(money), currency.lower()) == money


@given(amounts_minor)
def test_gateway_units_have_the_same_value_or_are_refused(amount_minor: int) -> None:
    """What is sent to the gateway is worth exactly the money; what cannot be is refused."""
    for currency, decimals in CURRENCIES.items():
        money = Money(amount_minor, currency)
        if amount_minor % smallest_step_minor(currency):
            with pytest.raises(InvalidAmount, match=currency):
                to_gateway_minor(money)
        else:
            assert to_gateway_minor(money) * 10**decimals == amount_minor * 10 ** stripe_exponent(currency)


@pytest.mark.parametrize(
    ("amount_minor", "currency", "sent"),
    [
        (15000, "USD", 15000),
        (500, "JPY", 500),
        (5, "ISK", 500),
        (5, "UGX", 500),
        (500, "MGA", 5),
        (5120, "KWD", 5120),
    ],
)
def test_gateway_units_by_hand(amount_minor: int, currency: str, sent: int) -> None:
    """One currency of each kind, with the numbers that Stripe's documentation gives."""
    assert to_gateway_minor(Money(amount_minor, currency)) == sent
    assert from_gateway_minor(sent, currency) == Money(amount_minor, currency)


@pytest.mark.parametrize(
    ("amount_minor", "currency", "step"), [(150, "MGA", "1.00"), (5124, "KWD", "0.010"), (1, "TND", "0.010")]
)
def test_what_the_gateway_cannot_charge_names_the_step(amount_minor: int, currency: str, step: str) -> None:
    """A fraction that Stripe would refuse or round is refused first, with the step that is possible."""
    with pytest.raises(InvalidAmount, match=f"amount in {currency} must be a multiple of {step}"):
        to_gateway_minor(Money(amount_minor, currency))


def test_a_fraction_of_a_krona_from_the_gateway_is_refused() -> None:
    """ISK comes in hundredths; a part of a króna would have to be rounded."""
    with pytest.raises(InvalidAmount):
        from_gateway_minor(550, "isk")


def test_the_gateway_tables_name_known_currencies_once() -> None:
    """Each exception is a currency we know and of one kind only."""
    kinds = [ZERO_DECIMAL, SENT_IN_HUNDREDTHS, LAST_DIGIT_ZERO]
    named = [code for kind in kinds for code in kind]
    assert len(named) == len(set(named))
    assert set(named) <= set(CURRENCIES)
