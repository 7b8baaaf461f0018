"""The Stripe simulator refuses what Stripe refuses, in Stripe's words, and charges nothing then."""

from collections.abc import Iterator
from typing import Any

import pytest
import stripe

from tests.stripe_process import FORM, INTENTS, Running


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One simulator for the tests of this module."""
    started = Running(tmp_path_factory.mktemp("stripe") / "state.sqlite")
    yield started
    assert started.stop() == 0


@pytest.fixture
def simulated(running: Running) -> Running:
    """The module's simulator, without faults and latency."""
    running.control.reset()
    return running


REFUSALS: list[tuple[dict[str, Any], str | None, str]] = [
    ({"ammount": 1}, "parameter_unknown", "ammount"),
    ({"amount": None}, "parameter_missing", "amount"),
    ({"amount": 0}, "parameter_invalid_integer", "amount"),
    ({"amount": -100}, "parameter_invalid_integer", "amount"),
    ({"amount": "10.5"}, "parameter_invalid_integer", "amount"),
    ({"amount": 49}, "amount_too_small", "amount"),
    ({"amount": 10**12}, "amount_too_large", "amount"),
    ({"amount": 1001, "currency": "kwd"}, "invalid_charge_amount", "amount"),
    ({"amount": 1050, "currency": "isk"}, "invalid_charge_amount", "amount"),
    ({"currency": "zzz"}, None, "currency"),
    ({"payment_method": "pm_unknown"}, "resource_missing", "payment_method"),
    ({"customer": "cus_unknown"}, "resource_missing", "customer"),
    ({"payment_method_types": ["paypal"]}, "payment_intent_invalid_parameter", "payment_method_types"),
    ({"payment_method_types": None}, None, "return_url"),
    ({"capture_method": "later"}, None, "capture_method"),
    ({"confirm": False, "off_session": True}, None, "off_session"),
    ({"expand": ["refunds"]}, None, "expand"),
    ({"transfer_data": {"destination": "acct_1"}}, None, "transfer_data"),
    ({"metadata": {f"k{n}": "v" for n in range(51)}}, None, "metadata"),
    ({"metadata": {"k" * 41: "v"}}, None, "metadata"),
    ({"metadata": {"k": "v" * 501}}, None, "metadata[k]"),
]


@pytest.mark.parametrize(("params", "code", "param"), REFUSALS, ids=lambda value: str(value)[:40])
def test_what_stripe_refuses_is_refused(
    simulated: Running, params: dict[str, Any], code: str | None, param: str
) -> None:
    """A wrong parameter is a 400 that names it, and makes no charge."""
    before = len(simulated.control.charges())
    with pytest.raises(stripe.InvalidRequestError) as refused:
        simulated.pay(**params)
    assert (refused.value.http_status, refused.value.code, refused.value.param) == (400, code, param)
    assert len(simulated.control.charges()) == before


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Authorization": ""}, 401),
        ({"Authorization": "Bearer sk_live_0123456789"}, 401),
        ({"Authorization": "Bearer pk_test_0123456789"}, 401),
        ({"Stripe_Version": "2020-08-27"}, 400),
        ({"Stripe_Account": "acct_1"}, 403),
        ({"Content_Type": "application/json"}, 400),
        ({"Content_Type": FORM, "Idempotency_Key": "k" * 256}, 400),
        ({"Content_Type": FORM}, 200),
        (
            {"Content_Type": FORM, "Authorization": "Basic c2tfdGVzdF94Og=="},
            200,
        ),
    ],
)
def test_who_may_call_and_how(simulated: Running, headers: dict[str, str], status: int) -> None:
    """Only a secret test key, the pinned API version and form encoding get through."""
    answer = simulated.post(INTENTS, "amount=100&currency=usd", **headers)
    assert answer.status_code == status
    assert answer.headers["Request-Id"].startswith("req_")
    if status != 200:
        assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", ["amount[=1", "amount=1&amount[x]=2", b"amount=\xff", "amount=%FF"])
def test_malformed_forms_are_refused(simulated: Running, body: str | bytes) -> None:
    """What is not a form is a 400, not a failure of the server."""
    answer = simulated.post(INTENTS, body, Content_Type=FORM)
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_what_does_not_exist_is_404(simulated: Running) -> None:
    """Unknown objects and unknown paths say so."""
    with pytest.raises(stripe.InvalidRequestError) as refused:
        simulated.intents.retrieve("pi_unknown")
    assert (refused.value.http_status, refused.value.code) == (404, "resource_missing")
    assert (
        "Unrecognized request URL (POST: /v1/nothing)"
        in simulated.post("/v1/nothing").json()["error"]["message"]
    )
