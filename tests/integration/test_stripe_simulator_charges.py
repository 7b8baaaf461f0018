"""The Stripe simulator lists charges as Stripe does, and can be filled and emptied at once."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import stripe

from tests.stripe_process import CALL_S, Running


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One simulator for the tests of this module."""
    started = Running(tmp_path_factory.mktemp("stripe") / "state.sqlite")
    yield started
    assert started.stop() == 0


def seed(simulated: Running, *charges: dict[str, Any]) -> requests.Response:
    """Make charges at once."""
    return requests.post(f"{simulated.url}/_control/seed", json={"charges": charges}, timeout=CALL_S)


def test_charges_are_listed_by_time_page_and_intent(simulated: Running) -> None:
    """Newest first, within a window, from a cursor on; declined ones are there; an unknown filter is not."""
    now_s = int(time.time())
    dated = [
        {"amount": 100 + n, "currency": "usd", "created": now_s - 1000 - n, "metadata": {"n": str(n)}}
        for n in range(5)
    ]
    made = seed(simulated, *dated).json()["made"]
    with pytest.raises(stripe.CardError):
        simulated.pay("declined", amount=1013)
    charges = simulated.v1.charges
    window = {"created": {"gte": now_s - 1003, "lt": now_s - 1000}}
    first = charges.list({**window, "limit": 2})
    assert ([each.amount for each in first], first.has_more) == ([101, 102], True)
    rest = charges.list({**window, "limit": 2, "starting_after": first.data[-1].id})
    assert ([each.metadata.to_dict() for each in rest], rest.has_more) == ([{"n": "3"}], False)
    assert charges.list({"limit": 1}).data[0].status == "failed"
    (of_intent,) = charges.list({"payment_intent": made[4]["payment_intent"]})
    assert (of_intent.id, of_intent.amount) == (made[4]["charge"], 104)
    with pytest.raises(stripe.InvalidRequestError, match="transfer_group"):
        charges.list({"transfer_group": "g"})


def test_what_is_seeded_is_like_what_was_asked_for(simulated: Running) -> None:
    """A seeded charge can be retrieved and refunded further; after forgetting there is nothing."""
    asked = {"amount": 900, "currency": "eur", "created": int(time.time()), "refund": 300}
    (made,) = seed(simulated, asked).json()["made"]
    assert simulated.v1.refunds.retrieve(made["refund"]).amount == 300
    simulated.v1.refunds.create({"payment_intent": made["payment_intent"], "amount": 600})
    charge = simulated.v1.charges.retrieve(made["charge"])
    assert (charge.amount_captured, charge.amount_refunded, charge.refunded) == (900, 900, True)
    assert simulated.intents.retrieve(made["payment_intent"]).status == "succeeded"
    for wrong in ({"amount": "1"}, {**asked, "colour": "red"}, {**asked, "amount": 1013}):
        assert seed(simulated, wrong).status_code == 400
    requests.delete(f"{simulated.url}/_control/objects", timeout=CALL_S).raise_for_status()
    assert [len(simulated.v1.charges.list()), len(simulated.intents.list())] == [0, 0]
