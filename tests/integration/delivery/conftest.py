"""Give each test of the delivery contract a client, and Stripe's side."""

import pytest

from tests.api import Api
from tests.delivery import KEY, Delivery, StripeSide
from tests.integration.conftest import NewApi
from tests.simulator import Simulator


@pytest.fixture
def api(new_api: NewApi, simulator: Simulator) -> Api:
    """Return an application that reaches the simulator."""
    return new_api(STRIPE_API_URL=simulator.url, STRIPE_SECRET_KEY=KEY)


@pytest.fixture
def shop(api: Api) -> Delivery:
    """Return a client that knows only the contract."""
    return Delivery(api)


@pytest.fixture
def stripe(simulator: Simulator) -> StripeSide:
    """Return Stripe's side."""
    return StripeSide(simulator.url)
