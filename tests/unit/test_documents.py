"""JSON keeps every digit, in both directions, and refuses what is no JSON."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.documents import parse_json, render_json

decimals = st.decimals(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(exclude_categories=["Cs"]))
documents = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**40), 10**40) | decimals | texts,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=20,
)


def shape(document: Any) -> Any:
    """Return a document with every decimal as its digits, so that 1.50 and 1.5 differ."""
    if isinstance(document, dict):
        return {name: shape(value) for name, value in document.items()}
    if isinstance(document, list):
        return [shape(value) for value in document]
    return document.as_tuple() if isinstance(document, Decimal) else document


@given(documents)
def test_a_document_survives_the_way_out_and_back(document: Any) -> None:
    """Whatever is written is read as it was; integers may come back for decimals without a fraction."""
    read = parse_json(render_json(document))
    assert read == document
    assert parse_json(render_json(document).encode()) == read


@given(st.integers(-(10**30), 10**30), st.integers(1, 25))
def test_trailing_zeros_are_kept(digits: int, decimals: int) -> None:
    """150.00 stays 150.00: the digits are part of what a contract shows."""
    amount = Decimal(digits).scaleb(-decimals) if digits else Decimal("0.00")
    exact = Decimal((amount < 0, tuple(map(int, str(abs(digits)))), -decimals)) if digits else amount
    assert shape(parse_json(f"[{exact:f}]")) == shape([exact])
    assert render_json(exact) in {f"{exact:f}", str(exact)}


@pytest.mark.parametrize("text", ["0.1", "150.00", "9007199254740993.01", "1e400", "-0.0", "1E-30", "0.30"])
def test_no_number_goes_through_a_float(text: str) -> None:
    """What a float could not hold, or would show otherwise, is read exactly."""
    number = parse_json(text)
    assert isinstance(number, Decimal)
    assert number.as_tuple() == Decimal(text).as_tuple()


def test_integers_stay_integers() -> None:
    """A number without fraction or exponent is an int, of any size."""
    assert parse_json("[5, -0, 123456789012345678901234567890]") == [5, 0, 123456789012345678901234567890]
    assert all(type(each) is int for each in parse_json("[5, -0]"))


@pytest.mark.parametrize(
    "text",
    ["", " ", "NaN", "-Infinity", "Infinity", '{"a": NaN}', "nan", "{", "[1,]", "{'a': 1}", "01", "1.", ".5",
     "+1", "tru", "[1 2]", '"\x01"', '"\\x"', "1e99999999999999999999", "9" * 5000,
     "[" * 100_000, '{"a":' * 100_000],
    ids=lambda text: ascii(text)[:20],
)  # fmt: skip
def test_what_is_no_json_is_refused(text: str) -> None:
    """One error for all of it, also for depth and exponents that no machine should follow."""
    with pytest.raises(ValueError, match=r".+"):
        parse_json(text)


@pytest.mark.parametrize("raw", [b"\xff", b'"\xc3"', b'"\xed\xa0\x80"', "{}".encode("utf-16")])
def test_what_is_no_utf8_is_refused(raw: bytes) -> None:
    """Bytes are UTF-8 or nothing."""
    with pytest.raises(ValueError, match=r".+"):
        parse_json(raw)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), Decimal("NaN"), Decimal("-Infinity")])
def test_what_is_no_number_is_not_written(number: Any) -> None:
    """No reader would take it."""
    with pytest.raises(ValueError, match=r".+"):
        render_json({"amount": number})


def test_documents_are_written_compactly() -> None:
    """No white space, letters as themselves, and on wish the names in order."""
    document = {"b": [1, Decimal("2.50")], "a": "Zo\u00eb"}
    assert render_json(document) == '{"b":[1,2.50],"a":"Zo\u00eb"}'
    assert render_json(document, sort_keys=True) == '{"a":"Zo\u00eb","b":[1,2.50]}'
