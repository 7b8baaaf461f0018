"""Evidence holds no secret, no card number, no whole token and no person, whatever the gateway answers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.gateways.exchanges import Exchange, keep, keeping, redacted

TOKEN, KEY, SECRET = "pm_1QrT5vXyZ0123456789", "sk_test_4eC39HqLyjWDarjtT1zdp7dc", "pi_3Abc_secret_9xYz8w"
CARD = "4242424242424242"
SENSITIVE = (TOKEN, KEY, SECRET, CARD, "whsec_abcdef0123", "ada@shop.example", "Ada Lovelace", "+15550109999")
ANSWER = {
    "id": "pi_3Abc",
    "amount": 2500,
    "status": "succeeded",
    "client_secret": SECRET,
    "payment_method": TOKEN,
    "receipt_email": "ada@shop.example",
    "metadata": {"operation_id": "01a1fb33-e256-72b0-aefd-9db4d41d316f"},
    "latest_charge": {
        "id": "ch_3Abc",
        "billing_details": {"name": "Ada Lovelace", "phone": "+15550109999", "email": "ada@shop.example"},
        "payment_method_details": {"card": {"brand": "visa", "last4": "4242", "number": CARD}},
    },
    "error": {"message": f"No such PaymentMethod: '{TOKEN}', key {KEY}, card 4242 4242 4242 4242"},
}


def test_nothing_sensitive_is_kept() -> None:
    """In names, values, messages and lists; what tells how the payment went stays."""
    exchange = Exchange("post", f"/v1/x/{TOKEN}", {"payment_method": TOKEN, "n": int(CARD)}, 200, ANSWER)
    text = json.dumps(exchange.redacted())
    for each in (*SENSITIVE, "4242 4242 4242 4242"):
        assert each not in text
    kept = exchange.redacted()["answer"]
    assert (kept["id"], kept["amount"], kept["status"]) == ("pi_3Abc", 2500, "succeeded")
    assert kept["payment_method"] == "pm_...6789"
    assert kept["metadata"] == ANSWER["metadata"]
    assert kept["latest_charge"]["payment_method_details"]["card"]["last4"] == "4242"


_SHAPES = st.recursive(
    st.sampled_from(SENSITIVE),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner),
)


@given(_SHAPES, st.sampled_from(["client_secret", "email", "Phone", "name", "number"]))
def test_whatever_the_shape(shape: Any, name: str) -> None:
    """Under a name that is sensitive nothing is kept; elsewhere no token, secret or card number is."""
    assert redacted({name: shape})[name] == "[redacted]"
    text = json.dumps(redacted({"x": shape}))
    for each in (TOKEN, KEY, SECRET, CARD, "whsec_abcdef0123"):
        assert each not in text


@pytest.mark.parametrize("deep", [30, 500])
def test_no_answer_is_too_deep(deep: int) -> None:
    """It is cut off, not refused."""
    answer: Any = SECRET
    for _ in range(deep):
        answer = [answer]
    assert SECRET not in json.dumps(redacted(answer))


def test_exchanges_are_kept_only_while_somebody_keeps_them() -> None:
    """Each holder sees those of its own block, in their order."""
    one, two = (Exchange("get", path, {}, 200, {}) for path in "ab")
    keep(one)
    with keeping() as outer:
        keep(one)
        with keeping() as inner:
            keep(two)
        keep(two)
    assert (outer, inner) == ([one, two], [two])
