"""The README's tables and pictures say what the code says."""

import re
from pathlib import Path
from textwrap import indent

import pytest

from payment_api.cli import markdown_table
from shared.payments import TRANSITIONS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@pytest.mark.parametrize("name", ["errors", "settings"])
def test_table_is_the_generated_one(name: str) -> None:
    """`payment-api table NAME` prints exactly what stands in the README."""
    stands = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end -->", README, re.DOTALL)
    assert stands is not None
    assert stands[1] == markdown_table(name)


def test_state_picture_has_exactly_the_edges_of_the_table() -> None:
    """Each edge of the picture is one of the code's, with the event that it announces, and the reverse."""
    drawn = set(re.findall(r"^    (\w+) --> (\w+)(?:: ([\w-]+))?$", README, re.MULTILINE))
    assert drawn == {(start, end, event or "") for (start, end), event in TRANSITIONS.items()}


def test_the_tests_that_are_named_are_there() -> None:
    """What the security page says is shown by a test can be looked up."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)`", README))
    assert len(named) > 10
    assert {each for each in named if not (ROOT / each).is_file()} == set()


def test_the_client_that_is_shown_is_the_one_that_runs() -> None:
    """The pieces of the example client stand in its file, line by line, which has 150 lines at most."""
    client = (ROOT / "deploy/local/ordering.py").read_text()
    section = README.split("### A client in Python")[1].split("\n### ")[0]
    pieces = [indent(piece, "    ") for piece in re.findall(r"```python\n(.*?)```", section, re.DOTALL)]
    assert len(pieces) == 3
    assert [piece for piece in pieces if piece not in client] == []
    assert len(client.splitlines()) <= 150
