"""A body that is not what the contract asks for is refused, naming the field, and leaves nothing behind."""

import uuid
from decimal import Decimal
from typing import Any

import pytest

from tests.api import Api, assert_refused
from tests.factories import as_json, new_uuid, payment_body
from tests.integration.conftest import NewApi

LONG = "x" * 10_000
REQUIRED = ("orderId", "customerId", "amount")
IDS = ("orderId", "customerId", "reservationId")
TEXTS = ("currency", "paymentMethod", "captureMethod", "paymentMethodId", "returnUrl", *IDS)
A_UUID = uuid.UUID("550e8400-e29b-41d4-a716-446655440000")

NO_NUMBER = ["150.00", "", True, False, [], {}, [150], {"value": 150}, None]
NO_TEXT = [5, Decimal("1.5"), True, [], {}, ["USD"]]
NO_UUID = [
    "", "x", "1234", "not-a-uuid", LONG, A_UUID.hex, f"{{{A_UUID}}}", f"urn:uuid:{A_UUID}", f" {A_UUID}",
    f"{A_UUID}\n", f"{A_UUID}0", str(A_UUID)[:-1], str(A_UUID).replace("5", "g"),
    str(A_UUID).replace("5", "\uff15"), str(A_UUID).replace("-", "_"),
]  # fmt: skip
CONTROLS = ["\x00", "\x01", "\n", "\r\n", "\x1b[2J", "\x7f", "\x85", "\u2028", "\ud800", "\udfff"]
TOO_PRECISE = [
    ("USD", "1.001"), ("USD", "150.0000001"), ("EUR", "0.999"), ("JPY", "1.5"), ("JPY", "1000.01"),
    ("KRW", "1000.1"), ("KWD", "1.0001"), ("ISK", "500.5"), ("USD", "1e-400"), ("USD", "1e-999999999999"),
]  # fmt: skip
# Stripe cannot charge these exactly: thousandths of a dinar, and fractions of what has none in practice.
UNCHARGEABLE = [("KWD", "1.001"), ("BHD", "10.005"), ("TND", "1.999"), ("MGA", "100.50"), ("MGA", "1000.01")]
TOO_LARGE = [
    ("USD", "10000000000.00"), ("JPY", "1000000000000"), ("KWD", "1000000000.000"), ("USD", "1e21"),
    ("USD", "1e400"), ("USD", "1e999999999999"), ("USD", "9" * 4000),
]  # fmt: skip
TOO_SMALL = [("USD", "0.49"), ("GBP", "0.29"), ("JPY", "49"), ("HUF", "174.99"), ("CZK", "14.99")]


@pytest.fixture(scope="module")
def counts_before(shared_api: Api) -> dict[str, int]:
    """Return how many rows each table has before the first test of this module."""
    return shared_api.stored.counts()


@pytest.fixture(autouse=True)
def _nothing_is_stored(shared_api: Api, counts_before: dict[str, int]) -> Any:
    """Whatever is refused in this module leaves no row in any table."""
    yield
    assert shared_api.stored.counts() == counts_before


def with_amount(currency: str, written: str) -> str:
    """Return a valid body whose amount is written exactly so."""
    return as_json(payment_body(currency=currency, amount=1)).replace('"amount": 1', f'"amount": {written}')


@pytest.mark.parametrize(
    "raw",
    [
        "", " ", "{", "}", "nonsense", "{'orderId': 1}", '{"orderId": }', '{"a": 1,}', "{} {}", "undefined",
        '{"amount": 01}', '{"amount": .5}', '{"amount": 1.}', '{"amount": +1}', '{"amount": 0x10}',
        '{"a": "\x01"}', '"unfinished', b'{"a": "\xff\xfe"}', b"\x00", "[" * 30_000, '{"a":' * 5_000,
        "9" * 5_000, "orderId=1&amount=5", "<xml/>",
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused(shared_api: Api, raw: str | bytes) -> None:
    """Syntax errors, other formats, broken UTF-8 and absurd nesting are told apart from wrong fields."""
    assert_refused(shared_api.post_async(raw), 400, "MALFORMED_JSON", "not valid JSON")


@pytest.mark.parametrize("number", ["nan", "inf", "1e", "--1"])
def test_what_is_no_number_at_all_is_refused(shared_api: Api, number: str) -> None:
    """A word that no parser of JSON takes for a number is a fault of the body."""
    assert_refused(shared_api.post_async(with_amount("USD", number)), 400, "MALFORMED_JSON")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e99999999999999999999"])
def test_what_other_parsers_take_for_a_number_is_refused(shared_api: Api, number: str) -> None:
    """NaN and Infinity are not JSON (RFC 8259, section 6); the answer names the field that has them."""
    assert_refused(shared_api.post_async(with_amount("USD", number)), 400, "VALIDATION_FAILED", "amount: ")


@pytest.mark.parametrize("raw", ["null", "true", "5", '"text"', "[]", "[{}]"])
def test_a_body_that_is_no_object_is_refused(shared_api: Api, raw: str) -> None:
    """JSON other than an object is refused as the body's fault."""
    assert_refused(shared_api.post_async(raw), 400, "VALIDATION_FAILED", "body: ")


@pytest.mark.parametrize("field", REQUIRED)
def test_a_missing_field_is_named(shared_api: Api, field: str) -> None:
    """Each required field is asked for by its name."""
    assert_refused(
        shared_api.post_async(payment_body(**{field: None})), 400, "VALIDATION_FAILED", f"{field}: Missing"
    )


@pytest.mark.parametrize(
    "field", ["surprise", "id", "status", "amountMinor", "orderid", "OrderId", "", "__proto__"]
)
def test_an_unknown_field_is_refused(shared_api: Api, field: str) -> None:
    """A field that the contract does not have, also one in another case, is not silently ignored."""
    expected = f"{field or 'body'}: Unknown field"
    assert_refused(shared_api.post_async(payment_body(**{field: "x"})), 400, "VALIDATION_FAILED", expected)


@pytest.mark.parametrize("character", CONTROLS)
def test_an_unusable_field_name_is_refused_without_harm(shared_api: Api, character: str) -> None:
    """A name that no log or answer could show is refused all the same, and is not sent back."""
    for body in (payment_body(**{character: "x"}), payment_body(metadata={f"a{character}": "x"})):
        answer = shared_api.post_async(body)
        assert_refused(answer, 400, "VALIDATION_FAILED")
        assert character not in answer.body["errorMessage"]


@pytest.mark.parametrize("value", NO_NUMBER, ids=repr)
def test_an_amount_must_be_a_number(shared_api: Api, value: Any) -> None:
    """Numbers in strings, booleans (which Python counts as integers) and containers are no amounts."""
    assert_refused(
        shared_api.post_async(payment_body() | {"amount": value}), 400, "VALIDATION_FAILED", "amount: "
    )


@pytest.mark.parametrize("written", ["0", "0.00", "-0.0", "0e10", "-1", "-150.00", "-1e999", "-0.001"])
def test_an_amount_must_be_positive(shared_api: Api, written: str) -> None:
    """Nothing and less than nothing cannot be charged."""
    expected = "amount: Must be greater than 0"
    assert_refused(shared_api.post_async(with_amount("USD", written)), 400, "VALIDATION_FAILED", expected)


@pytest.mark.parametrize(("currency", "written"), TOO_PRECISE)
def test_an_amount_is_never_rounded(shared_api: Api, currency: str, written: str) -> None:
    """More decimals than the currency has are refused."""
    answer = shared_api.post_async(with_amount(currency, written))
    assert_refused(answer, 400, "VALIDATION_FAILED", f"amount in {currency} can have")


@pytest.mark.parametrize(("currency", "written"), UNCHARGEABLE)
def test_an_amount_must_be_one_that_stripe_can_charge(shared_api: Api, currency: str, written: str) -> None:
    """An amount that fits ISO 4217 and not Stripe's units is refused at once, not after it was recorded."""
    answer = shared_api.post_async(with_amount(currency, written))
    assert_refused(answer, 400, "VALIDATION_FAILED", "amount: must be a multiple of")


@pytest.mark.parametrize(("currency", "written"), TOO_LARGE)
def test_an_amount_has_a_maximum(shared_api: Api, currency: str, written: str) -> None:
    """Absurd exponents are refused as quickly as the first amount above the limit."""
    assert_refused(shared_api.post_async(with_amount(currency, written)), 400, "VALIDATION_FAILED", "amount")


@pytest.mark.parametrize(("currency", "written"), TOO_SMALL)
def test_an_amount_has_a_minimum(shared_api: Api, currency: str, written: str) -> None:
    """What Stripe documents as too small to charge is refused here."""
    expected = "amount: must be at least"
    assert_refused(shared_api.post_async(with_amount(currency, written)), 400, "VALIDATION_FAILED", expected)


@pytest.mark.parametrize(
    ("amount", "expected"), [("1.99", "at least 2.00 EUR"), ("5.01", "at most 5.00 EUR")]
)
def test_limits_by_currency_are_settings(
    new_api: NewApi, shared_api: Api, amount: str, expected: str
) -> None:
    """A limit that was set holds for its currency, and no other."""
    api = new_api(AMOUNT_MINIMUMS='{"EUR": 200}', AMOUNT_MAXIMUMS='{"EUR": 500}')
    assert_refused(api.post_async(with_amount("EUR", amount)), 400, "VALIDATION_FAILED", expected)
    assert api.stored.counts() == {}
    assert api.post_async(with_amount("USD", amount)).status == 202


@pytest.mark.parametrize("currency", ["XXX", "BTC", "ZZZ", "HRK"])
def test_an_unknown_currency_is_refused(shared_api: Api, currency: str) -> None:
    """Only currencies that can be charged are taken."""
    assert_refused(
        shared_api.post_async(payment_body(currency=currency)), 400, "VALIDATION_FAILED", "currency "
    )


@pytest.mark.parametrize(
    "currency", ["usd", "Usd", "US", "USDX", "", "U$D", "USD ", "USD\n", LONG, "\uff35SD"]
)
def test_a_currency_must_be_an_upper_case_code(shared_api: Api, currency: str) -> None:
    """ISO 4217 codes are three capitals; nothing is guessed or folded."""
    assert_refused(
        shared_api.post_async(payment_body(currency=currency)), 400, "VALIDATION_FAILED", "currency: "
    )


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize("value", NO_TEXT, ids=repr)
def test_a_text_must_be_a_string(shared_api: Api, field: str, value: Any) -> None:
    """No field that holds text takes a number, a boolean or a container."""
    assert_refused(
        shared_api.post_async(payment_body() | {field: value}), 400, "VALIDATION_FAILED", f"{field}: "
    )


@pytest.mark.parametrize(
    "field", ["orderId", "customerId", "currency", "paymentMethod", "captureMethod", "metadata"]
)
def test_null_is_no_value(shared_api: Api, field: str) -> None:
    """Null is refused where the contract does not allow it."""
    assert_refused(
        shared_api.post_async(payment_body() | {field: None}), 400, "VALIDATION_FAILED", f"{field}: "
    )


@pytest.mark.parametrize("field", IDS)
@pytest.mark.parametrize("value", NO_UUID, ids=lambda value: ascii(value)[:40])
def test_an_id_must_be_a_uuid(shared_api: Api, field: str, value: str) -> None:
    """Only the one usual way of writing a UUID counts: what is nearly one is most likely a mistake."""
    assert_refused(
        shared_api.post_async(payment_body(**{field: value})), 400, "VALIDATION_FAILED", f"{field}: "
    )


@pytest.mark.parametrize("field", TEXTS)
@pytest.mark.parametrize("character", CONTROLS, ids=ascii)
def test_control_characters_are_refused(shared_api: Api, field: str, character: str) -> None:
    """NUL breaks databases, line ends break logs, escape sequences terminals, lone surrogates encoders."""
    good = {"currency": "USD", "paymentMethod": "credit_card", "captureMethod": "automatic",
            "paymentMethodId": "pm_card_visa", "returnUrl": "https://shop.example/back"}  # fmt: skip
    for value in (good.get(field, new_uuid()) + character, character + good.get(field, new_uuid())):
        answer = shared_api.post_async(payment_body(**{field: value}))
        assert_refused(answer, 400, "VALIDATION_FAILED", f"{field}: ")
        assert character not in answer.body["errorMessage"]


@pytest.mark.parametrize("field", TEXTS)
def test_ten_thousand_characters_are_too_many(shared_api: Api, field: str) -> None:
    """Every text has a length that it may not exceed."""
    prefix = {"paymentMethodId": "pm_", "returnUrl": "https://shop.example/"}.get(field, "")
    answer = shared_api.post_async(payment_body(**{field: prefix + LONG}))
    assert_refused(answer, 400, "VALIDATION_FAILED", f"{field}: ")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("paymentMethod", "cash"), ("paymentMethod", "CREDIT_CARD"),
        ("captureMethod", "later"), ("paymentMethodId", "tok_visa"), ("paymentMethodId", "pm_"),
        ("paymentMethodId", "pm_card visa"), ("paymentMethodId", "pm_../../refunds"), ("offSession", "true"),
        ("offSession", 1), ("offSession", {}), ("returnUrl", "javascript:alert(1)"),
        ("returnUrl", "shop.example"), ("returnUrl", "ftp://shop.example/"), ("returnUrl", ""),
        ("metadata", []), ("metadata", "x"),
        ("metadata", {"a": 1}), ("metadata", {"a": None}), ("metadata", {"a": {}}), ("metadata", {"": "x"}),
        ("metadata", {"k" * 41: "x"}), ("metadata", {"a": "x" * 501}), ("metadata", {"a": LONG}),
        ("metadata", {LONG: "x"}), ("metadata", {f"k{n}": "x" for n in range(51)}),
        ("metadata", {"a": "\x00"}),
    ],
    ids=lambda value: ascii(value)[:40],
)  # fmt: skip
def test_other_fields_hold_their_own_rules(shared_api: Api, field: str, value: Any) -> None:
    """What the optional fields do not take is refused by their names too."""
    assert_refused(shared_api.post_async(payment_body(**{field: value})), 400, "VALIDATION_FAILED", field)


def test_a_method_that_stripe_has_not_enabled_is_refused(new_api: NewApi) -> None:
    """Against Stripe itself only the methods of the account are taken; the simulator takes all."""
    api = new_api(STRIPE_API_URL="", PAYMENT_METHODS="credit_card")
    answer = api.post_async(payment_body(paymentMethod="paypal"))
    assert_refused(answer, 400, "VALIDATION_FAILED", "paymentMethod: ")
    assert api.stored.counts() == {}
    assert api.post_async(payment_body(paymentMethod="credit_card")).status == 202
