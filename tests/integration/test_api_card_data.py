"""Card numbers and security codes are refused wherever they come in; they are stored and shown nowhere."""

import json
from typing import Any

import pytest
from structlog.contextvars import merge_contextvars
from structlog.testing import capture_logs

from tests.api import Answer, Api, assert_refused
from tests.factories import as_json, payment_body

# The networks' published test numbers; all pass Luhn.
VISA, MASTERCARD, AMEX = "4242424242424242", "5555555555554444", "378282246310005"
WRITTEN = [VISA, MASTERCARD, AMEX, "4242 4242 4242 4242", "4242-4242-4242-4242", f"card {VISA} please"]
NUMBERS = (VISA, MASTERCARD, AMEX, "4242 4242", "4242-4242")
EVERY_FIELD = [
    "orderId", "customerId", "reservationId", "amount", "currency", "paymentMethod", "paymentMethodId",
    "offSession", "captureMethod", "metadata", "returnUrl", "unknown",
]  # fmt: skip
SECURITY_CODES = ["cvc", "CVV", "cardCvc", "card_cvv2", "securityCode", "cvc_code", "Card Verification Value"]


@pytest.fixture(scope="module")
def counts_before(shared_api: Api) -> dict[str, int]:
    """Return how many rows each table has before the first test of this module."""
    return shared_api.stored.counts()


@pytest.fixture(autouse=True)
def _no_trace_is_left(shared_api: Api, counts_before: dict[str, int]) -> Any:
    """No request of this module stores a row, and no log line holds one of its numbers."""
    with capture_logs(processors=[merge_contextvars]) as lines:
        yield
    assert shared_api.stored.counts() == counts_before
    assert any(line["event"] == "request" for line in lines)
    assert not any(number in str(lines) for number in NUMBERS)


def assert_card_refused(answer: Answer, field: str) -> None:
    """Hold an answer against what is due to card data: the field is named, the number is not."""
    assert_refused(answer, 400, "CARD_DATA_REFUSED", field)
    everything = answer.text + str(answer.headers)
    assert not any(number in everything for number in NUMBERS)


@pytest.mark.parametrize("field", EVERY_FIELD)
def test_a_card_number_is_refused_in_every_field(shared_api: Api, field: str) -> None:
    """Known fields and unknown ones, whatever their type: nobody's mistake makes us hold a card number."""
    for written in WRITTEN:
        assert_card_refused(shared_api.post_async(payment_body(**{field: written})), f"{field}: ")


@pytest.mark.parametrize("field", EVERY_FIELD)
def test_a_card_number_is_refused_as_a_number(shared_api: Api, field: str) -> None:
    """A client that sends digits as a JSON number has sent a card number all the same."""
    for number in (int(VISA), int(AMEX)):
        assert_card_refused(shared_api.post_async(payment_body() | {field: number}), f"{field}: ")


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"note": VISA}, "metadata.note: "),
        ({VISA: "note"}, "metadata.[redacted]: "),
        ({f"card {VISA}": "note"}, "metadata.[redacted]: "),
        ({"a": {"b": [0, {"c": AMEX}]}}, "metadata.a.b.1.c: "),
        ({"cvc": "123"}, "metadata.cvc: "),
    ],
)
def test_a_card_number_is_refused_at_any_depth(shared_api: Api, value: Any, path: str) -> None:
    """Values, names and what is nested in what no schema would take: the path says where."""
    assert_card_refused(shared_api.post_async(payment_body(metadata=value)), path)


@pytest.mark.parametrize("name", SECURITY_CODES)
def test_a_field_named_like_a_security_code_is_refused(shared_api: Api, name: str) -> None:
    """Three digits cannot be told by their look, so the name decides."""
    assert_card_refused(shared_api.post_async(payment_body(**{name: "123"})), f"{name}: ")
    assert_card_refused(shared_api.post_async(payment_body(metadata={name: "123"})), f"metadata.{name}: ")


def test_a_card_number_as_the_whole_body_is_refused(shared_api: Api) -> None:
    """Also a body that is no object is looked at."""
    assert_card_refused(shared_api.post_async(json.dumps(VISA)), "body: ")
    assert_card_refused(shared_api.post_async(f"[{VISA}]"), "0: ")


def test_a_card_number_hidden_by_escapes_is_refused(shared_api: Api) -> None:
    """JSON's escapes are undone before anybody looks."""
    escaped = "".join(f"\\u{ord(each):04x}" for each in VISA)
    raw = as_json(payment_body(metadata={"note": "here"})).replace("here", escaped)
    assert_card_refused(shared_api.post_async(raw), "metadata.note: ")


def test_a_card_number_as_an_idempotency_key_is_refused(shared_api: Api) -> None:
    """Keys are stored, so they are looked at like fields."""
    assert_card_refused(shared_api.post_async(Idempotency_Key=VISA), "Idempotency-Key: ")


def test_a_card_number_in_a_query_is_refused(shared_api: Api) -> None:
    """Values and names of parameters alike."""
    assert_card_refused(shared_api.get(f"/payments?orderId={VISA}"), "orderId")
    assert_card_refused(shared_api.get(f"/payments?orderId=1&orderId={VISA}"), "orderId")
    assert_card_refused(shared_api.get("/payments?customerId=4242+4242+4242+4242"), "customerId")
    assert_card_refused(shared_api.get(f"/payments?{VISA}=1"), "[redacted]")


@pytest.mark.parametrize(
    "path", [f"/payments/{VISA}", f"/payments/{VISA}/timeline", f"/{VISA}", f"/payments/x?{VISA}"]
)
def test_a_card_number_in_a_path_is_not_repeated(shared_api: Api, path: str) -> None:
    """There is no such payment; neither the answer nor the log says the number again."""
    answer = shared_api.get(path)
    assert answer.status in {400, 404}
    assert VISA not in answer.text + str(answer.headers)
    assert answer.payment is None


@pytest.mark.parametrize("header", ["X-Correlation-Id", "traceparent", "Prefer", "User-Agent"])
def test_a_card_number_in_a_header_is_not_kept(shared_api: Api, header: str) -> None:
    """Headers that go into logs and events are replaced or ignored when they hold a card number."""
    answer = shared_api.get("/payments?limit=1", **{header: f"id-{VISA}"})
    assert answer.status == 200
    assert VISA not in answer.text + str(answer.headers)
