"""Card numbers and security codes are found wherever they stand, and ordinary identifiers never are."""

import time
import uuid
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.card_numbers import find_card_data, redact

# The published test numbers of the networks and of Stripe.
CARD_NUMBERS = [
    "4242424242424242",
    "4000056655665556",
    "4222222222222",
    "5555555555554444",
    "2223003122003222",
    "5200828282828210",
    "378282246310005",
    "341111111111111",
    "6011111111111117",
    "6011981111111113",
    "30569309025904",
    "3056930009020004",
    "36227206271667",
    "38520000023237",
    "3566002020360505",
    "6200000000000005",
    "6205500000000000004",
    "6555900000604105",
    "6759649826438453",
    "6304000000000000",
    "2200000000000004",
    "9792000000000003",
    "5066991111111118",
]


def spaced(number: str, separator: str) -> str:
    """Return the number in groups of four."""
    return separator.join(number[at : at + 4] for at in range(0, len(number), 4))


@pytest.mark.parametrize("number", CARD_NUMBERS)
@pytest.mark.parametrize("separator", ["", " ", "-", "\u00a0", "\u2013", " - "])
def test_numbers_of_every_network_are_found_and_masked(number: str, separator: str) -> None:
    """However it is spaced and whatever stands around it, a card number is found, and masked whole."""
    written = spaced(number, separator)
    assert find_card_data({"note": f"pay with {written}, please"}) == "note"
    assert find_card_data({"note": f"card{written}x"}) == "note"
    assert redact(f"pay with {written}, 12/29") == "pay with [redacted], 12/29"


@pytest.mark.parametrize("number", CARD_NUMBERS)
def test_numbers_as_json_numbers_are_found(number: str) -> None:
    """An integer, an exact decimal or a float of that value is no better than the string."""
    assert find_card_data({"amount": int(number)}) == "amount"
    assert find_card_data({"amount": Decimal(number)}) == "amount"
    assert find_card_data({"amount": Decimal(f"{number}.00")}) == "amount"


def test_a_whole_float_is_looked_at() -> None:
    """4242424242424242.0 holds all the digits of the card number."""
    assert find_card_data({"amount": 4242424242424242.0}) == "amount"


@pytest.mark.parametrize("number", CARD_NUMBERS)
def test_a_wrong_check_digit_is_no_card_number(number: str) -> None:
    """A number whose last digit is off fails Luhn and passes as an ordinary number."""
    wrong = number[:-1] + str((int(number[-1]) + 1) % 10)
    assert find_card_data({"note": wrong}) is None
    assert redact(wrong) == wrong


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({"a": 1, "metadata": {"b": {"c": ["x", "4242424242424242"]}}}, "metadata.b.c.1"),
        (["4242424242424242"], "0"),
        ("4242424242424242", "body"),
        ({"first": "4242424242424242", "second": "5555555555554444"}, "first"),
        ({"a": {"b": "4242424242424242"}, "cvc": "123"}, "cvc"),
        ({"metadata": {"4242 4242 4242 4242": "x"}}, "metadata.[redacted]"),
        ({"4242424242424242": {"cvc": 1}}, "[redacted]"),
        ({"note": "12 34 4242 4242 4242 4242 12 29 123"}, "note"),
        ({"note": "tok_4242424242424242"}, "note"),
        ({"note": "card_4242424242424242_visa"}, "note"),
        ({"note": "+4242424242424242"}, "note"),
        ({"note": "\u0664\u0662" * 8}, "note"),
    ],
)
def test_the_path_names_the_field(document: object, path: str) -> None:
    """The path leads to the field, through objects and lists, and never repeats a card number."""
    assert find_card_data(document) == path


@pytest.mark.parametrize(
    "name",
    [
        *(
            "cvc",
            "CVC",
            "cvv",
            "Cvv2",
            "cvc2",
            "cvn",
            "csc",
            "ccv",
            "cardCvc",
            "card_cvv",
            "card-cvc",
            "CARDCVC",
        ),
        *("cvcCode", "cvv_number", "securityCode", "security_code", "cardSecurityCode", "SECURITY CODE"),
        *(
            "card_verification_value",
            "cardVerificationNumber",
            "verificationValue",
            "paymentMethodCvc",
            "c.v.c",
        ),
    ],
)
def test_fields_named_like_a_security_code_are_found(name: str) -> None:
    """The name alone is enough, in any case and with any separators, at any depth."""
    assert find_card_data({"card": {name: None}}) == f"card.{name}"


@pytest.mark.parametrize(
    "name",
    [
        *("cvc_check", "cscope", "service", "discsize", "csv", "description", "zipcode", "code", "scsc_id"),
        *("cancelled", "paymentMethod", "paymentMethodId", "orderId", "receiving", "verificationCode"),
    ],
)
def test_ordinary_field_names_are_not_taken_for_one(name: str) -> None:
    """Names that merely contain the letters of a security code pass."""
    assert find_card_data({name: "123"}) is None


@pytest.mark.parametrize(
    "value",
    [
        1732142400000,
        1732142400123456,
        1732142400123456789,
        999_999_999_999,
        Decimal("999999.99"),
        10**400,
        Decimal("1e400"),
        Decimal("NaN"),
        float("nan"),
        float("inf"),
        1e300,
        True,
        None,
        "",
        "2025-11-20T22:43:10.123456Z",
        "2025-11-20 22-43-10",
        "2025-11-20 22:43:10,123 2025-11-20 22:43:11,456",
        "+49 1511 1234560",
        "+4915111234560",
        "+63 905 123 4567",
        "0049 30 12345678",
        "ORDER-2025-000123456",
        "1000000000000008",
        "pm_card_visa",
        "pm_4242424242424242abcDEF",
        "pi_3MtwBwLkdIwHu7ix28a3tqPa_secret_4242424242424242YrKJUKri",
        "cus_4242424242424242a",
        "ch_4242424242424242a",
        "tok_4242424242424242a",
        "42424242-4242-4242-4242-424242424242",
        "urn:uuid:42424242-4242-4242-4242-424242424242",
        "00-4242424242424242a242424242424242-00f067aa0ba902b7-01",
        "4242424242424242" * 2,
        "4242424242424242" + "a" * 24,
    ],
    ids=str,
)
def test_ordinary_values_are_not_taken_for_card_numbers(value: object) -> None:
    """Times, amounts, telephone and order numbers, uuids, digests and gateway tokens pass."""
    assert find_card_data({"value": value, "list": [value]}) is None


@given(st.uuids(), st.uuids())
def test_uuids_never_match(one: uuid.UUID, other: uuid.UUID) -> None:
    """No uuid is ever refused: alone, beside another, in capitals or without its dashes."""
    text = f"{one} {other},{one}-{other} {str(one).upper()} {other.hex} urn:uuid:{one} order_{other}"
    assert find_card_data({"orderId": str(one), str(other): [text]}) is None
    assert redact(text) == text


@given(st.integers(0, 10**20 - 1))
def test_uuids_of_digits_only_never_match(number: int) -> None:
    """Not even a uuid whose hexadecimal digits all happen to be decimal."""
    value = uuid.UUID(f"{number:032d}")
    assert find_card_data([str(value), value.hex]) is None


json_documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.decimals() | st.text(max_size=40),
    lambda children: st.lists(children) | st.dictionaries(st.text(max_size=20), children),
)


@given(json_documents, st.sampled_from(CARD_NUMBERS))
def test_a_card_number_is_found_beside_anything(document: object, number: str) -> None:
    """Whatever else the document holds, a card number in it is found, and the path does not give it away."""
    path = find_card_data({"other": document, "note": number})
    assert path is not None
    assert number not in path


@given(st.text())
def test_redacting_twice_changes_nothing_more(text: str) -> None:
    """What redact leaves holds no card number."""
    masked = redact(text)
    assert redact(masked) == masked
    assert find_card_data(masked) is None


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 30_000,
        "4 2 " * 15_000,
        "1" * 60_000,
        ("1" * 12 + "x") * 5_000,
        "4242424242424242 " * 3_500,
        "12345678-1234-" * 4_500,
        "pm_1" * 15_000,
    ],
    ids=["pairs", "fours", "one run", "short runs", "cards", "half uuids", "half tokens"],
)
def test_long_hostile_strings_are_searched_in_linear_time(text: str) -> None:
    """A full request body of near misses costs milliseconds; a search gone quadratic takes minutes."""
    started_s = time.process_time()
    find_card_data({"note": text})
    redact(text)
    assert time.process_time() - started_s < 2
