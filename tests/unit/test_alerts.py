"""The alerting rules: they parse, say what to do, and speak of figures that the code exports."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

ROOT: Final = Path(__file__).parents[2]
RULES: Final = ROOT / "deploy/alerts/payment-service.rules.yml"
PACKAGES: Final = ("shared", "payment_api", "payment_worker")
MAKERS: Final = {"Counter", "Gauge", "Histogram", "Summary", "GaugeMetricFamily", "CounterMetricFamily"}
DURATION: Final = re.compile(r"(\d+(ms|[smhdwy]))+")


def rules() -> list[dict[str, Any]]:
    """Return every rule of the file."""
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def exported() -> Iterator[tuple[str, set[str]]]:
    """Yield each figure that the code makes, as Prometheus sees its name, with its labels."""
    for path in (path for package in PACKAGES for path in (ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in MAKERS or not node.args:
                continue
            if not isinstance(first := node.args[0], ast.Constant):
                continue  # the Counter of collections
            name = str(first.value)
            lists = [*node.args[2:], *(word.value for word in node.keywords)]
            labels = {
                label for each in lists if isinstance(each, ast.List) for label in ast.literal_eval(each)
            }
            is_counter = "Counter" in ast.unparse(node.func) and not name.endswith("_total")
            yield name + ("_total" if is_counter else ""), labels


def named(expression: str) -> set[str]:
    """Return the figures that an expression speaks of."""
    return set(re.findall(r"\bpayment_\w+", expression))


def labels_of(expression: str) -> set[str]:
    """Return the labels that an expression asks for."""
    inside = " ".join(re.findall(r"\{([^}]*)\}", expression))
    grouped = " ".join(re.findall(r"\bby \(([^)]*)\)", expression))
    return set(re.findall(r"(\w+)\s*=~?", inside)) | set(re.findall(r"\w+", grouped))


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_a_rule_speaks_of_what_there_is(rule: dict[str, Any]) -> None:
    """Every figure and every label in its expression, and every label in its text, is one that we export."""
    known = dict(exported())
    names = named(rule["expr"])
    assert names
    assert names <= known.keys()
    labels = set().union(*(known.get(name, set()) for name in names))
    assert labels_of(rule["expr"]) <= labels
    text = " ".join(rule["annotations"].values())
    assert set(re.findall(r"\$labels\.(\w+)", text)) <= labels


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: str(rule["alert"]))
def test_a_rule_says_what_to_do(rule: dict[str, Any]) -> None:
    """Prometheus knows no other fields; the text says what is wrong and what to do; brackets are balanced."""
    assert set(rule) <= {"alert", "expr", "for", "labels", "annotations", "keep_firing_for"}
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert all(rule["annotations"].values())
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert DURATION.fullmatch(rule.get("for", "0s"))
    for opening, closing in ("()", "[]", "{}"):
        assert rule["expr"].count(opening) == rule["expr"].count(closing)


def test_names_are_unique_and_what_matters_most_is_watched() -> None:
    """Two rules of one name would hide each other."""
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names))
    assert {"payment_invariant_violations", "payment_needs_review"} <= {
        name for rule in rules() for name in named(rule["expr"])
    }
