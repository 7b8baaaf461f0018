"""What amounts are taken, by currency."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shared.gateways.stripe_amounts import smallest_step_minor
from shared.money import DEFAULT_MAXIMUM_MINOR, DEFAULT_MINIMUMS_MINOR, Money
from shared.payments import InvalidCommand


@dataclass(frozen=True, slots=True)
class AmountLimits:
    """The smallest and largest amounts in minor units, where they differ from the defaults."""

    minimums_minor: Mapping[str, int] = field(default_factory=dict)
    maximums_minor: Mapping[str, int] = field(default_factory=dict)

    def check(self, money: Money) -> None:
        """Raise InvalidCommand, naming `amount`, unless this much can be charged."""
        currency = money.currency
        minimum = self.minimums_minor.get(currency, DEFAULT_MINIMUMS_MINOR.get(currency, 1))
        maximum = self.maximums_minor.get(currency, DEFAULT_MAXIMUM_MINOR)
        if money.amount_minor < minimum:
            raise InvalidCommand("amount", f"must be at least {Money(minimum, currency)}")
        if money.amount_minor > maximum:
            raise InvalidCommand("amount", f"must be at most {Money(maximum, currency)}")
        check_chargeable(money)


def check_chargeable(money: Money) -> None:
    """Raise InvalidCommand, naming `amount`, for a fraction that the gateway cannot take."""
    step = smallest_step_minor(money.currency)
    if money.amount_minor % step:
        raise InvalidCommand("amount", f"must be a multiple of {Money(step, money.currency)}")
