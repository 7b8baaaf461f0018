"""What a POST endpoint is made of."""

from collections.abc import Callable
from dataclasses import dataclass

from deploy.stripe_simulator.params import Params
from deploy.stripe_simulator.rendering import Rendered
from deploy.stripe_simulator.store import Store
from deploy.stripe_simulator.wire import Form


@dataclass(frozen=True, slots=True)
class Operation:
    """A POST endpoint.

    `check` sees only the request. `execute` sees the state too and runs in a transaction; it writes all
    or nothing before it raises StripeError. `confirms` tells whether the call asks a card network, which is
    what takes time.
    """

    check: Callable[[Form], Params]
    execute: Callable[[Store, str, Params], Rendered]
    confirms: Callable[[Params], bool]


def always(_checked: Params) -> bool:
    """Tell that the call always asks a card network."""
    return True


def never(_checked: Params) -> bool:
    """Tell that the call never asks a card network."""
    return False
